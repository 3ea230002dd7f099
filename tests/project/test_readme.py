"""The README's two commands, as they stand there: a copy of the tree, an empty environment, an empty cache."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = [
    line.strip()
    for block in re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    for line in block.splitlines()
    if "-m venv" in line
]


def test_there_are_two_and_ci_runs_the_second():
    assert len(COMMANDS) == 2
    assert COMMANDS[0].endswith('culteval" run --aligner de --task vsm13')
    assert COMMANDS[1].endswith('-m pytest "$C"')
    assert "grep -m1 -- '-m pytest' README.md" in (ROOT / ".ci" / "run").read_text()


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """What a clone would hold, in a folder with a space in its name."""
    target = tmp_path_factory.mktemp("a folder") / "culteval"
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


def shell(command: str, cwd: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("VIRTUAL_ENV", "PYTEST_", "PYTHON"))}
    environment = {k: v for k, v in environment.items() if k != "HF_HUB_OFFLINE"} | {"PIP_COMPILE": "0"} | extra
    options = {"cwd": cwd, "env": environment, "capture_output": True, "text": True, "timeout": 1200}
    return subprocess.run(["bash", "-c", command], **options)


@pytest.mark.slow
def test_first_command_from_nothing_and_again_from_another_folder(clone, tiny_cache, tmp_path):
    """The embedded model with a small budget, and the command's own budget on a tiny model in its place."""
    command, small = COMMANDS[0], " --budget 16"
    cache = str(tmp_path / "cache")
    first = shell(command + small, clone, CULTEVAL_CACHE=cache)
    again = shell(command.replace("C=.", f'C="{clone}"') + small, clone, CULTEVAL_CACHE=cache)
    whole = shell(f'C="{clone}" && {command.rpartition(" && ")[2]}', tmp_path, CULTEVAL_CACHE=str(tiny_cache))
    for done in (first, again, whole):
        assert done.returncode == 0, done.stderr[-3000:]
        for word in ("constant", "naive", "icl", "random", "de", "submission", "culteval score"):
            assert word in done.stdout
    assert [("finished before" in done.stderr) for done in (first, again, whole)] == [False, True, False]
    folder = next((clone / "culteval-runs").glob("vsm13-SA-de-*"))
    score = shell(f'"{clone}/.venv/bin/culteval" score "{folder}" --country US', tmp_path)
    assert score.returncode == 0 and "United States" in score.stdout
    tests = shell(COMMANDS[1].replace("C=.", f'C="{clone}"'), tmp_path, PYTEST_ADDOPTS="--collect-only -q")
    assert tests.returncode == 0, tests.stdout[-2000:] + tests.stderr[-2000:]
    assert re.search(r"\d+ tests collected", tests.stdout)
