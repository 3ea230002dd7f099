"""Runs end to end on a tiny model: determinism, budget, resume after SIGKILL, reuse, adapters that others load."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.errors import CultevalError
from culteval.harness.cli.main import cli

SMALL = ["--set", "tokens=3", "--set", "population=4"]


def culteval(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in this process, which has torch loaded already; errors as ``main`` turns them into codes."""
    done = CliRunner().invoke(cli, [str(argument) for argument in arguments])
    code, errors = done.exit_code, done.stderr
    if isinstance(done.exception, CultevalError):
        code, errors = done.exception.exit_code, f"Error: {done.exception}\n"
    return subprocess.CompletedProcess(arguments, code, done.stdout, errors)


def de(model: Path, out: Path, budget: int = 24, seed: int = 0) -> list[object]:
    flags = ["--aligner", "de", "--task", "vsm13", "--model", model, "--dtype", "float32", "--threads", 1]
    return ["run", *flags, *SMALL, "--budget", budget, "--seed", seed, "--out", out, "--no-compare", "--json"]


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """An undisturbed run and what it printed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = culteval(*de(tiny(), folder / "runs"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # one object and nothing else


def test_json_says_what_was_asked_for(finished):
    assert {"run", "submission", "seconds", "budget", "scores"} <= set(finished)
    keys = {"task", "country", "aligner", "metric", "scoring", "split", "value", "low", "high", "n", "higher_is_better"}
    assert all(keys <= set(row) for row in finished["scores"])
    headline = [
        row
        for row in finished["scores"]
        if row["metric"] == "loss" and row["aligner"] == "de" and row["split"] == "heldout"
    ]
    assert sorted(row["scoring"] for row in headline) == ["argmax", "expected"]
    assert {row["aligner"] for row in finished["scores"]} == {"de", "constant"}


def test_budget_is_spent_until_no_whole_candidate_is_left(finished):
    # 24 surveys of 24 items; a candidate answers paraphrases A and B (48); a trial that is dropped costs less.
    spent = finished["budget"]["item_forwards"]
    assert finished["budget"]["item_forwards_allowed"] == 24 * 24
    assert 24 * 24 - 48 < spent <= 24 * 24
    assert finished["budget"]["survey_evaluations"] == spent / 24


def test_a_row_is_shown_as_soon_as_there_is_one(tiny, tmp_path):
    done = culteval("run", "--aligner", "icl", "--task", "vsm13", "--model", tiny(), "--out", tmp_path / "runs")
    lines = [line for line in done.stderr.splitlines() if line.startswith(("naive: ", "icl: "))]
    assert [line.split(" ")[1] for line in lines] == ["answering", "fit", "answering", "fit"], done.stderr
    shown = [line.partition(": ")[2] for line in lines if ": fit" in line]
    rows = [
        re.split(r"\s{2,}", row.strip())[1:5] for row in done.stdout.splitlines() if re.match(r" (naive|icl) ", row)
    ]
    assert [re.findall(r"(?:expected|argmax) (\S+?)(?:, |$)", line) for line in shown] == rows


def test_odd_budget_is_not_overdrawn(tiny, tmp_path):
    done = culteval(*de(tiny(), tmp_path / "runs", budget=13))
    spent = json.loads(done.stdout)["budget"]
    assert spent["item_forwards_allowed"] == 312
    assert 312 - 48 < spent["item_forwards"] <= 312


def test_same_configuration_gives_the_same_bytes_and_is_reused(tiny, finished, tmp_path):
    answers = (Path(finished["submission"]) / "answers.jsonl.zst").read_bytes()
    again = json.loads(culteval(*de(tiny(), tmp_path / "runs")).stdout)
    assert (Path(again["submission"]) / "answers.jsonl.zst").read_bytes() == answers
    assert not again["reused"]
    reused = json.loads(culteval(*de(tiny(), tmp_path / "runs")).stdout)
    assert reused["reused"] and reused["run"] == again["run"] and reused["scores"] == again["scores"]
    other = json.loads(culteval(*de(tiny(), tmp_path / "runs", seed=1)).stdout)
    assert (Path(other["submission"]) / "answers.jsonl.zst").read_bytes() != answers


def test_fresh_starts_over(tiny, finished, tmp_path):
    first = json.loads(culteval(*de(tiny(), tmp_path / "runs", budget=8)).stdout)
    marker = Path(first["run"]) / "scores.json"
    before = marker.stat().st_mtime_ns
    second = json.loads(culteval(*de(tiny(), tmp_path / "runs", budget=8), "--fresh").stdout)
    assert not second["reused"] and marker.stat().st_mtime_ns > before


@pytest.fixture(scope="module")
def long(tiny, tmp_path_factory):
    """An undisturbed run of some seconds, to be killed in."""
    done = culteval(*de(tiny(), tmp_path_factory.mktemp("long") / "runs", budget=160))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_killed_anywhere_it_resumes_to_the_same_answers(tiny, long, tmp_path):
    """SIGKILL at two random moments of the work, then ``culteval resume``; test_faults.py kills at every one."""
    expected = (Path(long["submission"]) / "answers.jsonl.zst").read_bytes()
    moments, runs = random.Random(0), tmp_path / "runs"
    command = [sys.executable, "-m", "culteval", *map(str, de(tiny(), runs, budget=160))]
    for kills in range(2):
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for_line(runs, kills, process)
        time.sleep(moments.uniform(0, 0.4) * long["budget"]["seconds"])
        assert process.poll() is None, "the run was through before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()
    (folder,) = [path for path in runs.iterdir() if path.is_dir()]
    assert not (folder / "scores.json").exists()
    done = culteval("resume", folder, "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (Path(result["submission"]) / "answers.jsonl.zst").read_bytes() == expected
    assert result["budget"]["item_forwards"] == long["budget"]["item_forwards"]
    assert 160 * 24 - 48 < long["budget"]["item_forwards"] <= 160 * 24  # no whole candidate is left
    assert all(
        path.name.startswith(".") for path in folder.rglob("*.tmp")
    )  # what a kill leaves is never taken for data


def wait_for_line(runs: Path, seen: int, process: subprocess.Popen[bytes]) -> None:
    """Until the log of the run says that a search began or went on (``seen`` times before)."""
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None:
        logs = list(runs.glob("*/log.jsonl"))
        if logs and logs[0].read_text().count('"stage": "align"') > seen:
            return
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize("aligner", ["random", "pso", "cma", "gd", "augmented"])
def test_every_search_killed_resumes_to_the_same_adapter_and_answers(tiny, tmp_path, aligner):
    flags = ["--aligner", aligner, "--task", "vsm13", "--model", tiny(), "--dtype", "float32", "--threads", 1]
    flags += ["--set", "tokens=3", "--budget", 60, "--no-compare", "--json"]
    whole = culteval("run", *flags, "--out", tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    command = [sys.executable, "-m", "culteval", "run", *map(str, flags), "--out", str(tmp_path / "killed")]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 120
    while time.time() < deadline and not list((tmp_path / "killed").glob("*/checkpoint.npz")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = [path for path in (tmp_path / "killed").iterdir() if path.is_dir()]
    done = culteval("resume", folder, "--json")
    assert done.returncode == 0, done.stderr
    assert '"resumed"' in (folder / "log.jsonl").read_text()
    other = Path(json.loads(whole.stdout)["run"])
    for name in ("submission/answers.jsonl.zst", "adapter/adapter_model.safetensors"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()


def test_a_checkpoint_without_an_array_is_named(tmp_path):
    from culteval.errors import InputError
    from culteval.harness.alignment.budget import Budget
    from culteval.harness.alignment.checkpoint import RunCheckpoint

    class Silent:
        def advance(self, *told):
            pass

    RunCheckpoint(tmp_path, Budget(24, 24), Silent(), "de").save({"some": np.zeros(1)}, 0.0)
    state = RunCheckpoint(tmp_path, Budget(24, 24), Silent(), "de").load()
    assert state["some"] == 0
    with pytest.raises(InputError, match=r"checkpoint\.npz: damaged checkpoint \(no 'other'\).*fresh"):
        state["other"]


def test_a_damaged_checkpoint_is_named(tiny, tmp_path):
    from culteval.errors import InputError
    from culteval.harness.alignment.budget import Budget
    from culteval.harness.alignment.checkpoint import RunCheckpoint

    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 not a checkpoint")
    with pytest.raises(InputError, match=r"checkpoint\.npz: damaged checkpoint.*fresh"):
        RunCheckpoint(tmp_path, Budget(24, 24), None, "de").load()


@pytest.mark.parametrize("aligner", ["naive", "icl", "random"])
def test_other_aligners_run_and_say_what_they_cost(tiny, tmp_path, aligner):
    flags = ["--aligner", aligner, "--task", "vsm13", "--model", tiny(), "--out", tmp_path / "runs", "--budget", 4]
    done = culteval("run", *flags, "--no-compare", "--json")
    assert done.returncode == 0, done.stderr
    spent = json.loads(done.stdout)["budget"]["item_forwards"]
    assert spent == (96 if aligner == "random" else 0)


def test_the_paper_s_form_of_de(tiny, tmp_path):
    """The shipped configuration: rand/1/bin, sixty tokens, on the argmax objective."""
    flags = ["--aligner", "de", "--task", "vsm13", "--scoring", "argmax", "--config", "de-paper", "--model", tiny()]
    done = culteval("run", *flags, "--budget", 42, "--out", tmp_path / "runs", "--no-compare", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["budget"]["item_forwards"] == 42 * 24  # twenty in the first generation, one trial of the second
    manifest = json.loads((Path(result["submission"]) / "manifest.json").read_text())
    assert manifest["aligner"]["settings"]["strategy"] == "rand1bin" and manifest["fitted"]["scoring"] == "argmax"
    values = {row["value"] for row in result["scores"] if row["metric"] == "distinct" and row["scoring"] == "argmax"}
    assert values <= {1.0, 2.0, 3.0, 4.0, 5.0}


def test_companions_text_task_and_other_fit_country(tiny, tmp_path):
    flags = ["--aligner", "de", "--fit", "vsm13:US", "--country", "SA", "--task", "vsm13", "--task", "vsm13_text"]
    flags += ["--model", tiny()]
    done = culteval("run", *flags, *SMALL, "--budget", 8, "--out", tmp_path / "runs", "--json")
    assert done.returncode == 0, done.stderr
    scores = json.loads(done.stdout)["scores"]
    assert {row["aligner"] for row in scores} == {"naive", "icl", "random", "de", "constant"}
    assert {row["scoring"] for row in scores if row["task"] == "vsm13_text"} == {"expected", "argmax", "text"}
    manifest = json.loads((Path(json.loads(done.stdout)["submission"]) / "manifest.json").read_text())
    assert manifest["fitted"]["country"] == "US" and manifest["country"] == "SA"


def test_personas_give_intervals(tiny, tmp_path):
    flags = ["--aligner", "naive", "--task", "vsm13", "--model", tiny(), "--personas", 20]
    done = culteval("run", *flags, "--out", tmp_path / "runs", "--json")
    assert done.returncode == 0, done.stderr
    rows = {
        (r["metric"], r["split"], r["scoring"]): r for r in json.loads(done.stdout)["scores"] if r["aligner"] == "naive"
    }
    pdi = rows["pdi", "heldout", "expected"]
    assert pdi["n"] == 20 and pdi["low"] < pdi["value"] < pdi["high"]
    assert rows["loss", "heldout", "expected"]["low"] is None


def test_adapter_gives_peft_the_same_log_likelihoods(tiny, load, finished):
    import torch
    from culteval.harness.engine.tokenize import encode
    from culteval.harness.models.aligned import AlignedModel
    from culteval.harness.registry import spec_path
    from culteval.tasks.prompts import render
    from culteval.tasks.spec import load_spec
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = Path(finished["run"]) / "adapter"
    spec = load_spec(spec_path("vsm13"))
    prompts = render(spec, "heldout").take(np.arange(0, 96, 12))
    model = load()
    ours = AlignedModel.load(model, folder)
    logs = model.logprobs(prompts, torch.from_numpy(ours.soft))[0]
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny()), folder).eval()
    encoded = encode(model.chat, prompts)
    for row, context in enumerate(encoded.contexts):
        with torch.inference_mode():
            expected = theirs(input_ids=torch.tensor([context])).logits[0, -1].log_softmax(-1)
        for option, (token,) in enumerate(encoded.options[row]):
            assert float(logs[row, option]) == pytest.approx(float(expected[token]), abs=1e-4)


def test_two_at_once_on_one_run_is_refused(tiny, tmp_path):
    from filelock import FileLock

    done = json.loads(culteval(*de(tiny(), tmp_path / "runs", budget=8)).stdout)
    with FileLock(Path(done["run"]) / ".lock"):
        refused = culteval(*de(tiny(), tmp_path / "runs", budget=8), "--fresh")
    assert refused.returncode == 5 and "another process" in refused.stderr
    assert refused.stderr.count("\n") <= 3 and "Traceback" not in refused.stderr


def test_interrupt_says_how_to_go_on(tiny, tmp_path):
    command = [sys.executable, "-m", "culteval", *map(str, de(tiny(), tmp_path / "runs", budget=2000))]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A background job of a shell ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    wait_for_line(tmp_path / "runs", 0, process)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "culteval resume" in errors and "Traceback" not in errors
