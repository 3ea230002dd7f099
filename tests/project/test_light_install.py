"""An installation without torch and what else runs models: it scores, compares, checks and builds boards."""

import json
import subprocess
import sys

import pytest

from ..board_files import write

HIDDEN = ("torch", "transformers", "peft", "datasets", "accelerate", "lm_eval", "cmaes", "gguf", "py3langid", "ray")
PROGRAM = f"""
import importlib.abc, importlib.util, sys
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {HIDDEN}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Hidden())
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.partition(".")[0] in {HIDDEN} else found(name, *rest)
"""


def light(program, *words, cwd):
    command = [sys.executable, "-c", PROGRAM + program, *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


def culteval(*words, cwd):
    return light("from culteval.harness.cli.main import main; main()", *words, cwd=cwd)


@pytest.fixture
def runs(tmp_path):
    write(tmp_path / "runs", "a")
    write(tmp_path / "runs", "b", aligner="icl")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        ["score", "runs/a", "--json"],
        ["compare", "runs/a", "runs/b", "--json"],
        ["identify", "runs/a", "--json"],
        ["leaderboard", "show", "runs", "--format", "json"],
        ["leaderboard", "build", "runs", "--out", "site", "--json"],
        ["leaderboard", "export", "runs", "--format", "csv"],
        ["ls", "aligners", "--json"],
        ["ls", "models", "--json"],
        ["doctor", "--json"],
    ],
    ids=" ".join,
)
def test_commands_without_torch(runs, words):
    done = culteval(*words, cwd=runs)
    assert done.returncode == 0, done.stderr
    assert "csv" in words or json.loads(done.stdout)


def test_a_model_here_asks_for_what_runs_it(runs):
    done = culteval("run", "--aligner", "naive", "--task", "vsm13", cwd=runs)
    assert (
        done.returncode == 4
        and "pip install 'culteval[local]'" in done.stderr
        and not (runs / "culteval-runs").exists()
    )


def test_the_python_api_without_torch(runs):
    program = """
import culteval
scores = culteval.score("runs/a")
board = culteval.leaderboard("runs")
rows = [len(scores.to_frame()), len(culteval.compare("runs/a", "runs/b").to_frame()), len(board.to_frame())]
assert min(rows) > 10 and len(culteval.get_task("vsm13").prompts("fit")) == 48 and culteval.list_tasks()
print(rows, scores._repr_html_()[:6])
"""
    done = light(program, cwd=runs)
    assert done.returncode == 0 and done.stdout, done.stderr


def test_importing_the_package_is_light(runs):
    program = """
import sys
import culteval
assert not {"numpy", "pandas", "pydantic", "click", "rich", "yaml"} & {name.partition(".")[0] for name in sys.modules}
"""
    done = light(program, cwd=runs)
    assert done.returncode == 0, done.stderr
