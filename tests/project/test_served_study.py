"""The study of a served model: losses of shipped and of found texts, with a local server."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from culteval.errors import InputError
from culteval.harness.sweeps.grid import cells, read_grid

from benchmarks import served as study

from ..api_client import quick, server  # noqa: F401  fixtures
from ..command import invoked
from ..optimizers.test_evo_prompt_text import only_text

SWEEP = Path(__file__).parents[2] / "benchmarks" / "served.yaml"


@pytest.fixture
def folder(server, tmp_path):  # noqa: F811
    grid = yaml.safe_load(SWEEP.read_text()) | {"countries": ["SA"], "budget": 40, "models": ["openai-chat:tiny"]}
    grid["options"]["endpoint"] = {"base_url": only_text(server).url}
    (tmp_path / "few.yaml").write_text(yaml.safe_dump(grid))
    invoked("sweep", tmp_path / "few.yaml", "--out", tmp_path / "few", "--workers", "1", "--quiet")
    return tmp_path / "few"


def test_rows_are_of_the_texts_on_file(folder):
    (run,) = folder.glob("*-evo_prompt-*")
    losses = [json.loads(line)["loss"] for line in (run / "evo_prompt" / "texts.jsonl").read_text().splitlines()]
    assert len(losses) == 20
    ((country, texts, shipped, found, ratio, at, heldout, bare),) = study.rows(*study.read(folder))
    assert (country, texts, at) == ("Saudi Arabia", "20", str(losses.index(min(losses)) + 1))
    assert (shipped, found) == (f"{min(losses[:8]):,.0f}", f"{min(losses):,.0f}")
    assert ratio == f"{min(losses) / min(losses[:8]):.2f}" and heldout != bare


def test_a_study_without_its_baseline_or_texts_is_refused(folder, tmp_path):
    shutil.rmtree(next(folder.glob("*-naive-*")))
    with pytest.raises(InputError, match="no run of naive for SA"):
        study.read(folder)
    shutil.rmtree(next(folder.glob("*-evo_prompt-*")) / "evo_prompt")
    with pytest.raises(InputError, match=r"texts\.jsonl: not found"):
        study.read(folder)


def test_the_sweep_has_a_run_for_each_country():
    assert len(cells(read_grid(SWEEP), SWEEP)) == 8
