"""Every task family end to end on a tiny model: runs, stock lm-eval, a cheating aligner, a judge, own tasks."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import CultevalError, InputError, UsageError
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.registry import spec_of, spec_path, table
from culteval.harness.runs.config import RunConfig
from culteval.harness.scoring.judge import JUDGE, VERDICTS, read_verdict
from culteval.harness.scoring.score import score_answers
from culteval.harness.scoring.submission import load_submission
from culteval.tasks.countries import country as resolve
from culteval.tasks.measure import MeasureOptions
from culteval.tasks.prompts import ProtocolOptions, of_split, render, render_protocol

from ..command import invoked
from ..imported_tasks import IMPORTED
from ..submission_files import rows_of

ROOT = Path(__file__).parents[2]
TASKS = [name for name in table("tasks") if name not in IMPORTED]
ONE_EACH = (
    "wvs",
    "wvs_text",
    "iw_map",
    "iw_map_text",
    "iw_map_zh",
    "culture_core",
    "general",
    "cdeval_core",
    "probes",
    "synthetic_survey",
    "vsm13_zh",
)


def call(*words):
    done = invoked(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("name", ONE_EACH)
def test_stock_lm_eval_gives_the_same_headline(name, tiny, load):
    import lm_eval
    from lm_eval.tasks import TaskManager

    spec, folder = spec_of(name), tiny("llama", True)
    manager = TaskManager(include_path=str(spec_path(name).parent), include_defaults=False)
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={folder},dtype=float32",
        tasks=[name],
        task_manager=manager,
        apply_chat_template=True,
        batch_size=16 if spec.output_type == "multiple_choice" else 1,
        device="cpu",
        bootstrap_iters=0,
    )
    theirs = {key.partition(",")[0]: value for key, value in results["results"][name].items()}
    prompts = render(spec, "heldout")
    text = spec.output_type == "generate_until"
    answers = AlignedModel(load("llama", True)).answer(prompts, most_tokens=spec.most_tokens if text else 0)
    rows = score_answers(spec, answers, spec.metadata.default_country, MeasureOptions(), "naive")
    mine = {r.metric: r.value for r in rows if (r.split, r.scoring) == ("heldout", spec.default_scoring)}
    assert spec.metadata.headline.metric in spec.metrics
    for metric in spec.metrics:
        if metric in mine:
            assert theirs[metric] == pytest.approx(mine[metric], rel=1e-3, abs=1e-5), metric
        else:  # nothing was answered in text
            assert np.isnan(theirs[metric])


@pytest.mark.parametrize("name", ["culture_core", "probes", "wvs_themes"])
def test_a_run_writes_and_scores_a_submission(name, tiny, tmp_path):
    out = call(
        "run", "--aligner", "naive", "--task", name, "--model", tiny(), "--out", tmp_path, "--json", "--no-compare"
    )
    result, spec = json.loads(out), spec_of(name)
    headline = [row for row in result["scores"] if row["metric"] == spec.metadata.headline.metric]
    assert {row["aligner"] for row in headline} == {"naive", "constant"}
    again = json.loads(call("score", result["submission"], "--json"))["scores"]
    assert again == [row for row in result["scores"] if row["aligner"] == "naive"]
    manifest = json.loads((Path(result["submission"]) / "manifest.json").read_text())
    assert manifest["answers"]["rows"] == len(render_protocol(spec, ProtocolOptions()))
    if name == "probes":
        lines = rows_of(Path(result["submission"]))
        opened = [line for line in lines if line["item"].startswith("s")]
        assert opened and all(line["probs"] == [] and isinstance(line["text"], str) for line in opened)


def test_a_limit_cuts_paraphrases_and_personas_never_items(tiny, tmp_path):
    flags = ["--model", tiny(), "--out", tmp_path, "--json", "--no-compare", "--limit", "1", "--personas", "3"]
    result = json.loads(call("run", "--aligner", "naive", "--task", "wvs", *flags))
    lines = rows_of(Path(result["submission"]))
    assert {line["paraphrase"] for line in lines} == {"A", "C"} and {line["persona"] for line in lines} == {0}
    assert len({line["item"] for line in lines}) == 44
    assert {tuple(row["paraphrases"]) for row in result["scores"]} == {("A",), ("C",)}


def test_calibrated_read_outs_are_named_and_off_by_default(tiny, tmp_path):
    flags = ["--model", tiny(), "--out", tmp_path, "--json", "--no-compare"]
    plain = json.loads(call("run", "--aligner", "naive", "--task", "general", *flags))["scores"]
    assert {row["scoring"] for row in plain} == {"argmax", "expected"}
    both = json.loads(call("run", "--aligner", "naive", "--task", "general", *flags, "--calibrate"))["scores"]
    found = {row["scoring"] for row in both if row["aligner"] == "naive"}
    assert found == {"argmax", "expected", "argmax_calibrated", "expected_calibrated"}
    key = ("metric", "scoring", "split")
    naive = {tuple(row[k] for k in key): row["value"] for row in plain if row["aligner"] == "naive"}
    with_free = {tuple(row[k] for k in key): row["value"] for row in both if row["aligner"] == "naive"}
    assert {name: with_free[name] for name in naive} == pytest.approx(naive, abs=1e-6)
    name = ("accuracy", "expected", "heldout")
    assert with_free[name] != with_free["accuracy", "expected_calibrated", "heldout"]


def test_a_language_is_a_task(tiny, tmp_path):
    flags = ["--model", tiny(), "--out", tmp_path, "--json", "--no-compare", "--aligner", "naive", "--personas", "1"]
    result = json.loads(call("run", "--task", "vsm13_zh", *flags))
    assert {row["task"] for row in result["scores"]} == {"vsm13_zh"}
    prompts = render_protocol(spec_of("vsm13_zh"), ProtocolOptions(1))
    assert all(re.search("[\u4e00-\u9fff]", text.splitlines()[0]) for text in prompts.texts)


def strings(thing, seen=None):
    """Every string reachable from a thing, through attributes and containers; paths are left closed."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, (Path, type)) or (callable(thing) and not hasattr(thing, "__dict__")):
        return
    seen.add(id(thing))
    if isinstance(thing, str):
        yield thing
    elif isinstance(thing, dict):
        for key, value in thing.items():
            yield from (*strings(key, seen), *strings(value, seen))
    elif isinstance(thing, (list, tuple, set, frozenset)):
        for value in thing:
            yield from strings(value, seen)
    elif hasattr(thing, "__dict__") and "culteval" in type(thing).__module__:
        yield from strings(vars(thing), seen)


@pytest.mark.parametrize("name", TASKS)
def test_an_aligner_that_looks_for_held_out_prompts_finds_none(name):
    """Everything reachable from a objective, except through the open door of the task files, is of the split fit."""
    spec = spec_of(name)
    country = resolve(spec.metadata.default_country)
    objective = fit_objective(spec, country, "expected", MeasureOptions(), 2, 0)
    heldout = set(render(spec, "heldout", ProtocolOptions(2)).texts) - set(
        render(spec, "fit", ProtocolOptions(2)).texts
    )
    assert heldout and not set(objective.prompts.texts) & heldout
    assert of_split(spec, objective.prompts.layout, "fit").all()
    asked = {objective.prompts.layout.items[i] for i in objective.prompts.layout.item}
    if spec.metadata.splits.fit.items == "fit":
        assert not any(spec.items.tag(item) == "heldout" for item in asked)
    known = set(strings(objective))
    fit_texts = "\n".join(render(spec, "fit").texts)
    hidden = {line for text in render(spec, "heldout").texts for line in text.split("\n") if line not in fit_texts}
    pieces = {piece for line in hidden for piece in (line, re.sub(r"^(\w{1,2}(\.| =)) ", "", line))}
    pieces = {piece for piece in pieces if len(piece) > 24}  # shorter ones may be topics or codes
    assert pieces and not known & pieces
    for order in ("natural", "reversed"):
        for seed in range(3):
            told = objective.paraphrased(np.random.default_rng(seed), order)
            assert not {line for text in told.prompts.texts for line in text.split("\n")} & pieces
            assert len(told.prompts) == len(objective.prompts) // len(spec.metadata.splits.fit.paraphrases) // len(
                spec.metadata.splits.fit.orders
            )


# ---------------------------------------------------------------- judge


@pytest.fixture
def probed(tiny, tmp_path):
    flags = ["--model", tiny(), "--out", tmp_path / "runs", "--json", "--no-compare", "--limit", "1"]
    return (
        tmp_path / "runs" / Path(json.loads(call("run", "--aligner", "naive", "--task", "probes", *flags))["run"]).name
    )


def test_a_judge_s_prompts_and_verdicts_are_kept_and_scored(probed, tiny):
    said = call("judge", probed, "--model", "hf", "--model-args", f"pretrained={tiny()},dtype=float32")
    assert "open answers judged by hf" in said
    folder = probed / "submission"
    verdicts = [json.loads(line) for line in (folder / VERDICTS).open()]
    assert verdicts and all(v["prompt"].endswith("Letter:") and "{" not in v["prompt"] for v in verdicts)
    said = (("A", "high"), ("B.", "low"), ("(C)", "neither"), ("hm", None))
    edited = [v | {"reply": said[i % 4][0], "verdict": said[i % 4][1]} for i, v in enumerate(verdicts)]
    text = "".join(json.dumps(v) + "\n" for v in edited)
    (folder / VERDICTS).write_text(text)
    with pytest.raises(InputError, match="does not match"):
        load_submission(folder).score()
    import hashlib

    record = json.loads((folder / JUDGE).read_text())
    (folder / JUDGE).write_text(json.dumps(record | {"verdicts_sha256": hashlib.sha256(text.encode()).hexdigest()}))
    rows = {r.metric: r for r in load_submission(folder).score() if r.metric.startswith("judged")}
    assert rows["judged_neither"].value == pytest.approx(sum(v["verdict"] == "neither" for v in edited) / len(edited))
    assert 0 < rows["judged_pole_accuracy"].value < 1
    assert rows["judged_pole_accuracy"].n == sum(v["verdict"] in ("high", "low") for v in edited)
    assert rows["judged_unread"].value == pytest.approx(sum(v["verdict"] is None for v in edited) / len(edited))
    (folder / JUDGE).write_text(json.dumps(record | {"answers_sha256": "0" * 64}))
    with pytest.raises(InputError, match="other answers"):
        load_submission(folder).score()


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("A", "high"),
        (" b.", "low"),
        ("C) neither", "neither"),
        ("Apples", None),
        ("", None),
        ("D", None),
        ("AB", None),
        ("A good answer", None),
        ("**B**", "low"),
        ("I would say B.", "low"),
        ("The letter is C", "neither"),
        ("A or B", None),
        ("not A", None),
    ],
)
def test_verdicts_are_read_as_answers_in_letters_are(reply, verdict):
    assert read_verdict(reply) == verdict


def test_nothing_to_judge_and_no_such_judge(probed, tiny, tmp_path):
    with pytest.raises(CultevalError, match="cannot be loaded"):
        call("judge", probed, "--model", "no-such-kind")
    flags = ["--model", tiny(), "--out", tmp_path / "other", "--json", "--no-compare"]
    run = json.loads(call("run", "--aligner", "naive", "--task", "general", *flags))["run"]
    with pytest.raises(UsageError, match="no open answers"):
        call("judge", run, "--model", "hf", "--model-args", f"pretrained={tiny()}")
    assert not (Path(run) / "submission" / JUDGE).exists()


# ---------------------------------------------------------------- tasks of one's own


def test_a_task_in_the_working_folder_is_found_by_name(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    call("task", "new", "mytask")
    flags = ["--aligner", "naive", "--model", tiny(), "--json", "--no-compare"]
    result = json.loads(call("run", "--task", "mytask", *flags))
    assert {row["task"] for row in result["scores"]} == {"mytask"}
    assert "mytask" in call("ls", "tasks", "--json")
    config = RunConfig.model_validate_json((Path(result["run"]) / "config.json").read_bytes())
    assert config.tasks == ("mytask",)
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(UsageError, match="'mytask': unknown"):
        spec_of("mytask")


@pytest.mark.slow
def test_the_guide_s_commands_run_as_they_stand(tmp_path):
    text = (ROOT / "docs" / "writing-a-task.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 4
    script = "set -euo pipefail\n" + "\n".join(blocks)
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(Path.home())}
    done = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "accuracy" in done.stdout
