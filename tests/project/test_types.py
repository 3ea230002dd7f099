"""Static types: mypy over the package as `[mypy]` of setup.cfg says, and that it sees what it is there to see."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ("tasks", "harness", "optimizers", "leaderboards")
WRONG = """
from culteval.harness.alignment.budget import Budget
from culteval.tasks.answers import Answers, Layout


def spend(budget: Budget, answers: Answers) -> Layout:
    budget.spend("24")
    return answers.values("expected")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder in which the checkout is called culteval whatever its own name; what mypy has read is kept there."""
    folder = tmp_path_factory.mktemp("types")
    (folder / "culteval").symlink_to(ROOT, target_is_directory=True)
    return folder


def mypy(folder, *what):
    """Exit code and output of a run in ``folder``."""
    settings = ("--config-file", str(ROOT / "setup.cfg"), "--cache-dir", str(folder / "cache"))
    command = (sys.executable, "-P", "-m", "mypy", *settings, *what)
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_the_package_has_no_type_errors(folder):
    rooms = (part for room in ROOMS for part in ("-p", f"culteval.{room}"))
    code, told = mypy(folder, "-m", "culteval", "-m", "culteval.__main__", *rooms)
    assert code == 0, told
    sources = sum(1 for room in ROOMS for _ in (ROOT / room).rglob("*.py"))
    assert int(re.search(r"no issues found in (\d+) source files", told)[1]) > sources


@pytest.mark.slow
def test_a_wrong_call_of_the_public_face_is_refused(folder):
    (folder / "wrong.py").write_text(WRONG, encoding="utf-8")
    code, told = mypy(folder, "wrong.py")
    assert code == 1
    assert 'wrong.py:7: error: Argument 1 to "spend" of "Budget" has incompatible type "str"' in told
    assert "wrong.py:8: error: Incompatible return value type" in told and "Found 2 errors" in told
