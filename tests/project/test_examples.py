"""The examples as a stranger gets them: packages installed beside culteval, found by their entry points, run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # pip, and processes that load torch
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def culteval(tiny_cache, tmp_path_factory):
    """``culteval(*words)``: the command beside all examples, the embedded model a tiny one; what it printed as JSON."""
    home = tmp_path_factory.mktemp("stranger")
    sources = [shutil.copytree(path, home / path.name) for path in sorted(EXAMPLES.iterdir()) if path.is_dir()]
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    pip += ["--no-index", "--no-compile", "--disable-pip-version-check"]
    command = [*pip, "--target", str(home / "site"), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    paths = os.pathsep.join(filter(None, (str(home / "site"), os.environ.get("PYTHONPATH"))))
    own = {"PYTHONPATH": paths, "CULTEVAL_CACHE": str(tiny_cache), "HOME": str(home)}

    def call(*words):
        words = [*words, "--json"]
        command = [sys.executable, "-P", "-m", "culteval", *words]
        done = subprocess.run(command, cwd=home, env=os.environ | own, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        assert "skipped" not in done.stderr
        return json.loads(done.stdout)

    return call


def test_aligner_task_and_model_of_strangers_run_together(culteval, tmp_path):
    flags = ["--aligner", "es", "--set", "population=4", "--set", "tokens=2", "--set", "space=random"]
    flags += ["--set", "dimensions=8", "--budget", "16", "--no-compare"]
    flags += ["--model", "untaught", "--fit", "vsm13:SA", "--out", str(tmp_path)]
    assert {row["aligner"] for row in culteval("ls", "aligners")} > {"es", "copro", "naive"}
    found = culteval("run", *flags, "--task", "vsm13", "--task", "breakfast")
    manifest = json.loads((Path(found["submission"]) / "manifest.json").read_text())
    assert manifest["aligner"]["name"] == "es" and manifest["aligner"]["settings"]["dimensions"] == 8
    assert manifest["model"]["name"] == "untaught"
    assert 0 < manifest["budget"]["item_forwards"] <= 16 * 24
    assert {row["task"] for row in found["scores"]} == {"vsm13", "breakfast"}
