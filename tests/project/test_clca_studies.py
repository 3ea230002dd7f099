"""The studies of CLCA as commands, on a tiny model: the published evaluation and the ablation."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from click.testing import CliRunner
from culteval.errors import RunError
from culteval.optimizers.clca.commands import planned

from benchmarks.studies import clca_ablation, clca_evaluation, clca_tables
from benchmarks.studies.clca_ablation import ARMS

from ..optimizers.clca.test_command import flags


def study(command, *arguments):
    """A study's command in this process."""
    done = CliRunner().invoke(command.main, [str(argument) for argument in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def lora(load, tmp_path_factory):
    """The folder of a LoRA adapter of the tiny model that moves its answers."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    tuned = get_peft_model(load().fresh(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    folder = tmp_path_factory.mktemp("lora")
    tuned.save_pretrained(str(folder))
    return folder


def test_evaluate_shows_before_and_after_and_keeps_both(lora, tiny, tmp_path):
    base = [*flags(tiny(), tmp_path / "out"), "--adapter", lora, "--personas", 6]
    done = study(clca_evaluation, *base, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = {row["metric"]: row for row in told["metrics"]}
    assert set(clca_tables.SHOWN) == set(found) and told["personas"] == 6
    assert (
        found["changed_answers"]["n"] == 6 * 44
        and 0 < found["modal_share"]["after"] <= 1
        and found["total_variation"]["after"] > 0
    )
    folder = Path(told["folder"])
    assert json.loads((folder / "evaluation.json").read_text()) == told["metrics"]
    assert (folder / "evaluation.md").read_text().startswith("| metric | better | before |")
    shown = study(clca_evaluation, *base)
    assert "before and after" in shown.stdout and "accuracy" in shown.stdout
    assert not list(folder.parent.glob("scenarios.jsonl"))
    fewer = json.loads(study(clca_evaluation, *base[:-1], 4, "--json").stdout)
    assert fewer["personas"] == 4 and fewer["folder"] != told["folder"]
    assert Path(fewer["folder"]).parent == folder.parent and (folder / "evaluation.json").exists()
    refused = study(clca_evaluation, *base[:-4], "--adapter", tmp_path / "nowhere")
    assert refused.returncode == 3 and len(refused.stderr.strip().splitlines()) == 1


def test_evaluate_without_an_adapter_does_the_stages_first(tiny, tmp_path):
    base = [*flags(tiny(), tmp_path / "out"), "--set", "scenarios=1", "--set", "turns=2", "--personas", 2]
    done = study(clca_evaluation, *base, "--json")
    assert done.returncode == 0, done.stderr
    folder = Path(json.loads(done.stdout)["folder"])
    assert (folder.parent / "lora" / "adapter_model.safetensors").exists()
    assert (folder.parent / "naive-2" / "answers.jsonl").exists() and (folder / "answers.jsonl").exists()


def test_ablate_says_what_it_found_and_with_which_settings(tiny, tmp_path):
    """Trained much harder than published: the folder is another study's, and the table says so."""
    out = tmp_path / "study"
    base = [*flags(tiny(), out), "--set", "scenarios=1", "--set", "turns=2", "--personas", 2]
    done = study(clca_ablation, *base, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    found = json.loads((out / "ablation.json").read_text())
    assert told["rows"] == found["rows"] and told["personas"] == found["personas"] == 2
    assert found["settings"] | {"alpha": 8.0, "rate": 0.01, "epochs": 2, "batch": 2} == found["settings"]
    assert [row["arm"] for row in found["rows"]] == ["naive", *(arm.name for arm in ARMS)]
    assert all(("adapter size" in row) == (row["arm"] != "naive") for row in found["rows"])
    text = (out / "ablation.md").read_text()
    assert text.startswith("|  | arm | kl |") and all(f"| {arm.name} |" in text for arm in ARMS)
    assert "- Settings: preset laptop" in text and "rate 0.01" in text and "- US: kl_probs: the whole " in text
    shown = study(clca_ablation, *base)
    assert shown.returncode == 0 and "What each part is worth: 2 personas" in shown.stdout
    assert "unrelated text" in shown.stdout and "rate 0.01" in shown.stdout
    assert all(len(line) <= 80 for line in shown.stdout.splitlines() if line.startswith(("US ", "   arm")))
    refused = study(clca_ablation, *base, "--set", "rate=0.0001")
    assert refused.returncode == 5 and "(setting rate differ)" in refused.stderr


def test_ablate_refuses_other_settings_in_its_folder(tiny, tmp_path):
    base = ["--country", "US", "--model", tiny(), "--out", tmp_path / "study"]
    (tmp_path / "study").mkdir()
    config = planned({"country": "US", "model": str(tiny())})
    clca_ablation._same_study(tmp_path / "study" / "config.json", {"personas": 6} | config.model_dump(mode="json"))
    refused = study(clca_ablation, *base, "--personas", 7, "--set", "turns=3")
    assert refused.returncode == 5 and "(personas, setting turns differ)" in refused.stderr
    assert study(clca_ablation).returncode == 2
    for command in (clca_ablation, clca_evaluation):
        refused = study(command, "--country", "SA", "--out", tmp_path / "new")
        assert refused.returncode == 2 and "not in wave 7" in refused.stderr and not (tmp_path / "new").exists()


def test_a_study_takes_other_prices_and_no_other_endpoint(tmp_path, monkeypatch):
    def dumped(**api):
        given = {"country": "US", "assignments": ("teacher=openai-chat:tiny",)}
        return planned(given | api).model_dump(mode="json")

    monkeypatch.setenv("OPENAI_API_KEY", "sk-abcdefghijklmnop")
    clca_ablation._same_study(tmp_path / "config.json", dumped())
    clca_ablation._same_study(tmp_path / "config.json", dumped(endpoint=("price_in=2.0", "concurrency=3")))
    with pytest.raises(RunError, match=r"\(base_url differ\)"):
        clca_ablation._same_study(tmp_path / "config.json", dumped(base_url="http://localhost:8000/v1"))


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        (["parts=[dialogue]"], "--set parts: then the arm 'dialogue only' is the whole"),
        (["unrelated=true"], "--set unrelated: then the arm 'unrelated text' is the whole"),
        (["checks=[]", "judge=false"], "--set checks: then the arm 'no filter' is the whole"),
    ],
)
def test_ablate_refuses_what_an_arm_sets_itself(tmp_path, sets, told):
    given = [part for one in sets for part in ("--set", one)]
    refused = study(clca_ablation, "--country", "US", *given, "--out", tmp_path / "new")
    assert refused.returncode == 2 and told in refused.stderr, refused.stderr
    assert len(refused.stderr.strip().splitlines()) == 1 and not (tmp_path / "new").exists()
