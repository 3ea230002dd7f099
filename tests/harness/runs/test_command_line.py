"""The command that a run's manifest and log record: culteval's own, without secrets, and of no other program."""

import sys
from pathlib import Path

import culteval
import pytest
from culteval.harness.runs.execute import command_line

ROOT = Path(culteval.__file__).parent
TYPED = ["run", "--aligner", "de", "--set", "tokens=3", "--endpoint", "key_env=MY_KEY", "--seed=2"]


@pytest.mark.parametrize("program", ["/usr/bin/culteval", r"culteval.exe", str(ROOT / "__main__.py")])
def test_culteval_s_own_command_is_recorded(monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program, *TYPED])
    assert command_line() == " ".join(["culteval", *TYPED])


@pytest.mark.parametrize(
    ("typed", "recorded"),
    [
        (["--hf-token", "sesame"], "--hf-token [key]"),
        (["--API-KEY=sesame"], "--API-KEY=[key]"),
        (["--password", "sesame", "--seed", "1"], "--password [key] --seed 1"),
        (["--model", "lm-eval:x,a=1,secret=sesame"], "--model lm-eval:x,a=1,secret=[key]"),
        (["--base-url", "http://me:sesame@host/v1"], "--base-url http://[key]@host/v1"),
        (["--set", "text=a sesame-and-more-of-it"], "--set text=a [key]"),
    ],
)
def test_secrets_in_it_are_not(monkeypatch, typed, recorded):
    monkeypatch.setenv("ANY_TOKEN", "sesame-and-more-of-it")
    monkeypatch.setattr(sys, "argv", ["culteval", "run", *typed])
    assert command_line() == f"culteval run {recorded}"


@pytest.mark.parametrize("program", ["/home/me/my_script.py", "-c", "", "/opt/other/__main__.py"])
def test_of_another_program_only_the_name_is_recorded(monkeypatch, program):
    monkeypatch.setattr(sys, "argv", [program, "--hf-token", "hf_ABC", "private"])
    assert command_line() == Path(program).name


def test_the_arguments_of_a_host_program_are_in_no_file(monkeypatch, tiny, tmp_path):
    monkeypatch.setattr(sys, "argv", ["my_script.py", "--hf-token", "hf_ABC"])
    asked = {"aligner": "naive", "tasks": "general", "country": "US", "limit": 1, "progress": False}
    run = culteval.run(model=str(tiny()), dtype="float32", out=tmp_path, **asked)
    assert run.manifest.command == "my_script.py"
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 5 and not any(b"hf_ABC" in path.read_bytes() for path in files)
