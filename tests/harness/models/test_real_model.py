"""The embedded model: packing, an adapter in stock tools, memory. Slow; runs last."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from culteval.harness.runs.config import DEFAULT_MODEL
from filelock import FileLock

pytestmark = pytest.mark.slow

# Starts a command and writes its peak memory in KiB to a file. A process between pytest and the command, because Linux
# counts what a parent held when it forked as its child's peak, and pytest has held whole models by now.
WATCH = """
import pathlib, resource, subprocess, sys
done = subprocess.run(sys.argv[2:])
pathlib.Path(sys.argv[1]).write_text(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(done.returncode)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, worker_id):
    """A small DE run of the embedded model as a person would start it; what it printed and its peak memory in bytes.

    One for all of pytest's workers (the recipe of pytest-xdist's documentation).
    """
    own = tmp_path_factory.getbasetemp()
    folder = (own if worker_id == "master" else own.parent) / "real"
    with FileLock(f"{folder}.lock"):
        if not (folder / "printed").is_file():
            folder.mkdir(exist_ok=True)
            (folder / "printed").write_text(_run(folder), encoding="utf-8")
    result = json.loads((folder / "printed").read_text(encoding="utf-8"))
    peak = int((folder / "peak").read_text()) * 1024
    return result | {"run": folder / result["run"], "submission": folder / result["submission"], "peak": peak}


def _run(folder):
    command = [sys.executable, "-m", "culteval", "run", "--aligner", "de", "--task", "vsm13", "--budget", "16"]
    flags = ["--set", "population=4", "--dtype", "float32", "--json"]
    watched = [sys.executable, "-c", WATCH, str(folder / "peak"), *command, *flags]
    done = subprocess.run(watched, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_layers_run_fused(run):
    manifest = json.loads((Path(run["submission"]) / "manifest.json").read_text())
    assert manifest["model"]["forward"] == "fused"


def losses(result, split, scoring):
    wanted = {"metric": "loss", "split": split, "scoring": scoring}
    return {row["aligner"]: row["value"] for row in result["scores"] if wanted.items() <= row.items()}


def test_de_beats_naive_where_it_was_fitted(run):
    fitted = losses(run, "fit", "expected")
    assert set(fitted) == {"naive", "icl", "random", "de", "constant"}
    assert fitted["de"] < fitted["naive"]


def test_fits_a_laptop(run):
    assert 2e8 < run["peak"] < 3.2e9  # four aligners in one process: 3.1; a survey alone: 2.8


def test_packed_equals_plain(run):
    import torch
    from culteval.harness.engine.packed import PackedForward
    from culteval.harness.engine.padded import PlainForward
    from culteval.harness.engine.tokenize import encode
    from culteval.harness.models.aligned import AlignedModel
    from culteval.harness.models.load import load_model
    from culteval.harness.registry import spec_path
    from culteval.tasks.prompts import render
    from culteval.tasks.spec import load_spec

    model = load_model(DEFAULT_MODEL, dtype="float32", notify=print)
    spec = load_spec(spec_path("vsm13"))
    prompts = render(spec, "heldout").take(np.arange(0, 96, 6))
    soft = torch.from_numpy(AlignedModel.load(model, Path(run["run"]) / "adapter").soft)
    encoded = encode(model.chat, prompts)
    with torch.inference_mode():
        packed = PackedForward(model.engine, encoded).logprobs(soft)
        plain = PlainForward(model.model, encoded).logprobs(soft)
    assert float((packed - plain).abs().max()) < 1e-4


def test_stock_lm_eval_gives_the_adapter_s_indices(run):
    from culteval.harness.models.embedded import fetch

    from ...tasks.test_lm_eval_hooks import METRICS, lm_eval

    theirs = lm_eval(fetch(DEFAULT_MODEL), "vsm13", chat=True, peft=Path(run["run"]) / "adapter")
    wanted = {"aligner": "de", "split": "heldout", "scoring": "expected"}
    mine = {row["metric"]: row["value"] for row in run["scores"] if wanted.items() <= row.items()}
    for metric in METRICS:
        assert theirs[metric] == pytest.approx(mine[metric], abs=1e-2, rel=1e-4), metric
