"""The aligner clca in a run and stage by stage, on a tiny model; on the embedded one in the slow tier."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from culteval.errors import UsageError

from ...harness.runs.test_run import culteval

SIZES = ["scenarios=3", "turns=4", "words=8", "length=900", "epochs=2", "batch=2", "rate=0.01", "alpha=8", "checks=[]"]
SETS = [part for size in SIZES for part in ("--set", size)]


def flags(model, out):
    return ["--model", model, "--dtype", "float32", "--threads", 1, "--country", "US", *SETS, "--out", out]


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """An undisturbed run and what it printed."""
    out = tmp_path_factory.mktemp("clca") / "runs"
    done = culteval("run", "--aligner", "clca", "--task", "vsm13", *flags(tiny(), out), "--no-compare", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_keeps_every_stage_and_says_what_it_made(whole):
    folder = Path(whole["run"])
    names = {path.name for path in (folder / "clca").iterdir()}
    assert {
        "scenarios.jsonl",
        "dialogues.jsonl",
        "decisions.jsonl",
        "intents.jsonl",
        "losses.json",
        "loss.svg",
    } <= names
    assert {path.name for path in (folder / "adapter" / "lora").iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    manifest = json.loads((folder / "submission" / "manifest.json").read_text())
    assert manifest["aligner"]["name"] == "clca" and manifest["aligner"]["adapter_sha256"]
    spent = json.loads((folder / "clca" / "spent.json").read_text())
    assert manifest["budget"]["tokens"] == sum(cost["tokens"] for cost in spent.values()) > 0
    assert manifest["budget"]["seconds"] == pytest.approx(sum(cost["seconds"] for cost in spent.values()), abs=0.01)
    assert manifest["budget"]["item_forwards"] == 0 and manifest["aligner"]["settings"]["rank"] == 4


def test_it_is_scored_like_any_other(whole):
    naive = {row["metric"] for row in whole["scores"] if row["aligner"] == "clca"}
    assert {"loss", "skill", "collapsed"} <= naive


def test_peft_and_lm_eval_load_the_adapter(whole, tiny):
    import torch
    from lm_eval.models.huggingface import HFLM
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = Path(whole["run"]) / "adapter" / "lora"
    tuned = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny()), folder).eval()
    stock = HFLM(pretrained=str(tiny()), peft=str(folder), device="cpu", dtype="float32")
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(stock.model(ids).logits, tuned(ids).logits)


def test_killed_it_ends_in_the_same_adapter_and_answers(whole, tiny, tmp_path):
    run = ["run", "--aligner", "clca", "--task", "vsm13", *flags(tiny(), tmp_path / "runs"), "--no-compare", "--json"]
    command = [sys.executable, "-m", "culteval", *map(str, run)]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.time() + 600
    while time.time() < deadline and not list((tmp_path / "runs").glob("*/clca/checkpoints/checkpoint-*")):
        assert process.poll() is None, "the run was through before it could be killed"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (folder,) = [path for path in (tmp_path / "runs").iterdir() if path.is_dir()]
    assert not (folder / "clca" / "losses.json").exists()
    done = culteval("resume", folder, "--json")
    assert done.returncode == 0, done.stderr
    for name in ("adapter/lora/adapter_model.safetensors", "submission/answers.jsonl.zst"):
        assert (folder / name).read_bytes() == (Path(whole["run"]) / name).read_bytes()


def test_stages_one_by_one(tiny, tmp_path):
    base = flags(tiny(), tmp_path / "stages")
    for stage in ("scenarios", "simulate", "filter", "intents", "train"):
        done = culteval("clca", stage, *base, "--json")
        assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["simulated"]["dialogues"] == 6 and report["filtered"]["kept"] == 6 and report["loss"]
    folder = Path(report["folder"])
    before = (folder / "dialogues.jsonl").stat().st_mtime_ns
    again = culteval("clca", "intents", *base, "--fresh", "--json")
    assert "loss" not in json.loads(again.stdout) and not (folder / "lora").exists()
    assert (folder / "dialogues.jsonl").stat().st_mtime_ns == before
    shown = culteval("clca", "filter", *base)
    assert shown.returncode == 0 and "kept" in shown.stdout


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--country", "Sweden"], "no scenes of Sweden"),
        (["--country", "Atlantis"], "Atlantis"),
        (["--set", "turns=1"], "turns"),
        (["--set", "modules=[]"], "modules"),
        (["--set", "colour=red"], "colour"),
        (["--set", "checks=[taste]"], "checks"),
    ],
)
def test_what_cannot_be_done_is_told_before_a_model_is_loaded(tmp_path, given, told):
    for command in (["clca", "simulate"], ["run", "--aligner", "clca", "--task", "vsm13"]):
        done = culteval(*command, "--model", "/nowhere", *given, "--out", tmp_path / "out")
        assert done.returncode == UsageError.exit_code and told in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()


# flags, locks, identity


def own_dialogues(path, count=3):
    from culteval.optimizers.clca.dialogues.dialogue import write_dialogues

    from ...optimizers.clca.test_scenes import BOTH, dialogue, turn

    made = dialogue(tuple(turn(name) for name in (*BOTH, *BOTH)))
    write_dialogues(path, [made.model_copy(update={"id": f"d{i}"}) for i in range(count)])
    return path


def test_preset_and_dialogues_are_settings(tiny, tmp_path):
    from culteval.harness.runs.plan import RunRequest, plan

    own = own_dialogues(tmp_path / "own: a.jsonl")
    given = {"aligner": "clca", "tasks": ("vsm13",), "country": "US"}
    config = plan(RunRequest.of(**given, settings={"preset": "paper", "dialogues": str(own)}))
    assert (config.settings["preset"], config.settings["turns"]) == ("paper", 10)
    assert config.settings["dialogues"] == str(own) and len(config.settings["dialogues_sha256"]) == 64
    assert plan(RunRequest.of(**given, settings={"preset": "paper", "turns": 3})).settings["turns"] == 3
    base = flags(tiny(), tmp_path / "out")
    done = culteval("clca", "filter", "--set", f'dialogues="{own}"', *base, "--set", "judge=false", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["simulated"] == {"source": str(own), "dialogues": 3, "turns": 12}
    refused = culteval("run", "--aligner", "de", "--task", "vsm13", "--set", "preset=laptop")
    assert refused.returncode == UsageError.exit_code and "de has no such setting" in refused.stderr
    refused = culteval("clca", "simulate", "--set", f"dialogues={tmp_path / 'none.jsonl'}", *base)
    assert refused.returncode == 3 and "no such file" in refused.stderr


def test_a_changed_file_of_dialogues_is_another_run(tmp_path):
    from culteval.harness.runs.config import aligner_settings
    from culteval.harness.runs.plan import RunRequest, plan

    own = own_dialogues(tmp_path / "own.jsonl")
    given = RunRequest.of(aligner="clca", tasks="vsm13", country="US", settings={"dialogues": str(own)})
    config = plan(given)
    assert plan(given).digest == config.digest
    own_dialogues(own, 4)
    assert plan(given).digest != config.digest
    with pytest.raises(UsageError, match="has changed since the start"):
        aligner_settings("clca", (), config.settings)


def test_one_process_a_folder_and_one_model(tiny, tmp_path):
    from filelock import FileLock

    base = flags(tiny(), tmp_path / "stages")
    first = json.loads(culteval("clca", "simulate", *base, "--json").stdout)
    folder = Path(first["folder"])
    with FileLock(folder / ".lock"):
        refused = culteval("clca", "train", *base)
    assert refused.returncode == 5 and "another process works on this run" in refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1
    identity = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(identity | {"revision": "other"}))
    refused = culteval("clca", "train", *base)
    assert refused.returncode == 5 and "another model (revision differ)" in refused.stderr
    assert not (folder / "lora").exists()


# an adapter that the model carries


def test_a_soft_prompt_is_fitted_on_a_model_with_an_adapter(whole, tiny, tmp_path):
    lora, out = Path(whole["run"]) / "adapter" / "lora", tmp_path / "runs"
    fit = ["run", "--aligner", "gd", "--task", "vsm13", "--country", "US", "--model", tiny(), "--dtype", "float32"]
    fit += ["--threads", 1, "--set", "tokens=3", "--budget", 12, "--no-compare", "--json", "--out", out]
    both, alone = culteval(*fit, "--adapter", lora), culteval(*fit)
    assert both.returncode == 0, both.stderr
    told = [json.loads(done.stdout) for done in (both, alone)]
    adapted, bare = [json.loads((Path(each["submission"]) / "manifest.json").read_text()) for each in told]
    assert len(adapted["model"]["adapter_sha256"]) == 64 and bare["model"]["adapter_sha256"] is None
    assert len(adapted["aligner"]["adapter_sha256"]) == 64 and told[0]["run"] != told[1]["run"]
    values = [[row["value"] for row in each["scores"] if row["aligner"] == "gd"] for each in told]
    assert values[0] != values[1]
    assert json.loads(culteval(*fit, "--adapter", lora).stdout)["reused"]
    more = ["run", "--aligner", "clca", "--task", "vsm13", *flags(tiny(), out), "--no-compare"]
    refused = culteval(*more, "--adapter", lora)
    assert refused.returncode == 2 and "without --adapter" in refused.stderr
    refused = culteval(*fit, "--adapter", tmp_path / "nowhere")
    assert refused.returncode == 3 and "no such folder" in refused.stderr


@pytest.mark.slow
def test_the_embedded_model_learns_from_its_own_talk(tmp_path):
    sets = ["--set", "scenarios=2", "--set", "turns=3", "--set", "words=16", "--set", "checks=[]"]
    done = culteval("run", "--aligner", "clca", "--task", "vsm13", "--country", "US", *sets,
                    "--model", "smollm2", "--out", tmp_path / "runs", "--no-compare", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = Path(json.loads(done.stdout)["run"])
    talk = [json.loads(line) for line in (folder / "clca" / "dialogues.jsonl").read_text().splitlines()]
    assert len(talk) == 4 and all("said:" in each["social_interactions"] for each in talk)
    losses = json.loads((folder / "clca" / "losses.json").read_text())
    assert all(0 < point["loss"] < 6 for point in losses)
