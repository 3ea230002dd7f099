"""Runs of imported data sets on a tiny model, and on embedded ones that are in the cache; also in stock lm-eval."""

from __future__ import annotations

import json

import pytest
from culteval.harness.models import converted
from culteval.harness.models.embedded import EMBEDDED, folder_of
from culteval.harness.registry import spec_of, spec_path

from .. import data_sets
from ..command import invoked
from .test_data_sets import TASKS

FAMILIES = [(name, task) for name, tasks in TASKS.items() for task in tasks]


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(tasks, model, *flags):
    """The results of a run with these tasks, one for each."""
    named = [word for task in tasks for word in ("--task", task)]
    words = ("run", *named, "--model", model, "--dtype", "float32", "--out", "runs", "--json", "--no-compare", *flags)
    done = invoked(*words)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def same_as_stock(tasks, scores, folder):
    """Compare with stock lm-eval, which knows the tasks by their files alone."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    folders = sorted({str(spec_path(task).parent) for task in tasks})
    results = lm_eval.simple_evaluate(
        model="hf",
        model_args=f"pretrained={folder},dtype=float32",
        tasks=list(tasks),
        task_manager=TaskManager(include_path=folders, include_defaults=False),
        apply_chat_template=True,
        batch_size=16,
        device="cpu",
        bootstrap_iters=0,
    )
    for task in tasks:
        spec = spec_of(task)
        theirs = {key.partition(",")[0]: value for key, value in results["results"][task].items()}
        wanted = {"task": task, "aligner": "naive", "split": "heldout", "scoring": spec.default_scoring}
        mine = {row["metric"]: row["value"] for row in scores if wanted.items() <= row.items()}
        assert spec.metadata.headline.metric in spec.metrics
        for metric in spec.metrics:
            assert theirs[metric] == pytest.approx(mine[metric], rel=1e-3, abs=1e-4), (task, metric)


@pytest.mark.parametrize(("name", "task"), FAMILIES)
def test_a_run_has_its_nulls_and_the_headline_of_stock_lm_eval(name, task, home, tiny):
    invoked("data", "import", name, data_sets.write(home, name))
    result = run([task], tiny(), "--aligner", "naive")
    headline = spec_of(task).metadata.headline.metric
    own = [row for row in result["scores"] if row["metric"] == headline]
    assert {row["aligner"] for row in own} == {"naive", "constant"}
    assert {row["split"] for row in own} == {"fit", "heldout", "control"}
    again = json.loads(invoked("score", result["submission"], "--json").stdout)["scores"]
    assert again == [row for row in result["scores"] if row["aligner"] == "naive"]
    same_as_stock([task], result["scores"], tiny())


@pytest.mark.parametrize("task", ["globalopinionqa", "simbench_pop", "opinionqa", "blend"])
def test_a_search_fits_them(task, home, tiny):
    name = task.removesuffix("_pop")
    invoked("data", "import", name, data_sets.write(home, name))
    result = run([task], tiny(), "--aligner", "random", "--budget", "3")
    assert {row["aligner"] for row in result["scores"]} == {"random", "constant"}


def test_a_submission_is_scored_against_a_group(home, tiny):
    invoked("data", "import", "opinionqa", data_sets.write(home, "opinionqa"), "--by", "POLPARTY")
    folder = run(["opinionqa"], tiny(), "--aligner", "naive")["submission"]
    found = {}
    for edition in ("overall", "POLPARTY_Democrat", "POLPARTY_Republican"):
        rows = json.loads(invoked("score", folder, "--edition", edition, "--json").stdout)["scores"]
        found[edition] = next(row["value"] for row in rows if row["metric"] == "representativeness")
        assert {row["edition"] for row in rows} == {edition}
    assert len(set(found.values())) == 3


@pytest.mark.slow
def test_the_embedded_model_answers_as_in_stock_lm_eval(home):
    folder = folder_of("smollm2")
    if not converted.complete(folder, EMBEDDED["smollm2"].parts.sha256):
        pytest.skip("smollm2 is not in the cache")
    tasks = ["globalopinionqa", "simbench_pop", "normad_rule"]  # one of each measure
    for task in tasks:
        name = task.partition("_")[0]
        invoked("data", "import", name, data_sets.write(home, name))
    result = run(tasks, "smollm2", "--aligner", "naive")
    same_as_stock(tasks, result["scores"], folder)
