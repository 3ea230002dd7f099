"""The published evaluation of CLCA as a command, on a tiny model."""

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from click.testing import CliRunner
from culteval.leaderboards.reproduction import clca_tables

from benchmarks import clca_evaluation

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


def test_a_country_outside_the_survey_is_refused(tmp_path):
    refused = study(clca_evaluation, "--country", "SA", "--out", tmp_path / "new")
    assert refused.returncode == 2 and "not in wave 7" in refused.stderr and not (tmp_path / "new").exists()
