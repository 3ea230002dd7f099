"""Cross-validation: whole groups left out, what is done kept, the command's table, pictures and refusals."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from culteval.errors import InputError, RunError, UsageError
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.cli import cross_validate as crossval
from culteval.harness.cli.main import cli
from culteval.harness.registry import spec_of
from culteval.harness.runs import cross_validation as folds
from culteval.harness.util.atomic_io import locked
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions
from hypothesis import given
from hypothesis import strategies as st

ARGUMENTS = ["cross-validate", "--fit", "synthetic_survey:US", "--tokens", "2,3", "--folds", "3", "--budget", "9"]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=80), st.integers(2, 8), st.integers(0, 5))
def test_folds_part_the_groups(groups, count, seed):
    groups = np.array(groups)
    if len(set(groups.tolist())) < count:
        with pytest.raises(UsageError, match="groups of items"):
            folds.divide(groups, count, np.random.default_rng(seed))
        return
    parts = folds.divide(groups, count, np.random.default_rng(seed))
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    members = [set(groups[rows].tolist()) for rows in parts]
    assert all(members) and sum(map(len, members)) == len(set(groups.tolist()))
    sizes = [len(each) for each in members]
    assert max(sizes) - min(sizes) <= 1


def test_paraphrases_of_an_item_and_orders_of_a_pair_are_one_group():
    survey = fit_objective(spec_of("synthetic_survey"), country("US"), "expected", MeasureOptions(), 0, 0)
    layout = survey.prompts.layout
    stems = np.array([item.partition("_")[0] for item in layout.items])[layout.item]
    assert len({*zip(stems, survey.groups.tolist(), strict=True)}) == len({*stems}) == len({*survey.groups.tolist()})
    pairs = fit_objective(spec_of("cdeval_core"), country("US"), "expected", MeasureOptions(), 0, 0)
    assert len(np.unique(pairs.groups)) == len(np.unique(pairs.prompts.layout.item)) < len(pairs.prompts)


@pytest.fixture
def command(monkeypatch, load, tmp_path):
    model, calls = load("llama", True), []

    def loaded(config, display):
        calls.append(config)
        return model

    monkeypatch.setattr(crossval, "load", loaded)

    def call(*arguments):
        return CliRunner().invoke(cli, [*arguments, "--out", str(tmp_path / "folds")], catch_exceptions=False)

    call.loads = calls
    return call


def test_the_command_tables_draws_and_keeps(command, tmp_path):
    first = command(*ARGUMENTS, "--json")
    found = json.loads(first.stdout)
    assert [(row["tokens"], row["fold"]) for row in found["folds"]] == [(t, f) for t in (0, 2, 3) for f in range(3)]
    bare = [row["validation_loss"] for row in found["folds"] if row["tokens"] == 0]
    fitted = [row for row in found["folds"] if row["tokens"]]
    start = [row["train_loss"] for row in found["folds"] if row["tokens"] == 0]
    assert len(set(bare)) == 3
    assert all(row["train_loss"] < start[row["fold"]] for row in fitted)
    assert all(0 <= row["validation_argmax"] <= 1 for row in fitted)
    [folder] = (tmp_path / "folds").iterdir()
    assert {path.name for path in folder.iterdir()} == {".lock", "folds.json", "model.json", "loss.svg", "argmax.svg"}
    again = command(*ARGUMENTS, "--json")
    assert json.loads(again.stdout) == found and len(command.loads) == 1


def test_lengths_are_added_to_what_is_there(command, tmp_path):
    command(*ARGUMENTS)
    [path] = (tmp_path / "folds").glob("*/folds.json")
    rows = json.loads(path.read_text())
    path.write_text(json.dumps(rows[:-1]))  # as if stopped before the last fit
    shown = command(*ARGUMENTS)
    assert "validation" in shown.stdout and "±" in shown.stdout
    again = json.loads(path.read_text())
    for row, before in zip(again, rows, strict=True):
        assert {**row, "seconds": 0} == {**before, "seconds": 0}
    more = json.loads(command(*ARGUMENTS[:4], "2,3,4", *ARGUMENTS[5:], "--json").stdout)
    assert {row["tokens"] for row in more["folds"]} == {0, 2, 3, 4} and len(more["folds"]) == 12


def test_lengths_of_another_model_are_not_compared(command, load, monkeypatch, tmp_path):
    command(*ARGUMENTS)
    other = load("qwen2", True)
    monkeypatch.setattr(crossval, "load", lambda config, display: other)
    with pytest.raises(RunError, match=r"another model \(name, revision.* differ\)\. Use another `?(--)?out"):
        command(*ARGUMENTS[:4], "2,3,4", *ARGUMENTS[5:])


def test_folds_of_narrow_scales_are_answered_as_wide_as_all(load):
    survey = fit_objective(spec_of("wvs"), country("US"), "expected", MeasureOptions(), 0, 0)
    widths, model = survey.prompts.layout.widths, load()
    part = survey.take(np.flatnonzero(widths == widths.min())[:3])
    assert widths.min() < widths.max() == part.prompts.layout.codes.shape[1]
    soft = np.zeros((2, 2, model.dim), dtype=np.float32)
    steps = model.stepwise(part.prompts, ((0,), (1, 2)), soft)
    steps.advance()
    for probs in (model.answer(part.prompts, soft).probs, steps.advance()):
        assert np.isfinite(part.loss(probs)).all() and not probs[..., widths.min() :].any()
    learned = torch.zeros(1, 2, model.dim, requires_grad=True)
    part.loss(model.logprobs(part.prompts, learned).softmax(-1).double()).sum().backward()
    assert learned.grad.isfinite().all() and learned.grad.any()


def test_two_processes_do_not_write_one_file(command, tmp_path):
    command(*ARGUMENTS)
    [path] = (tmp_path / "folds").glob("*/folds.json")
    with locked(path.parent), pytest.raises(RunError, match="another process"):
        command(*ARGUMENTS)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--tokens", "10,x"], "--tokens"),
        (["--tokens", "0"], "--tokens"),
        (["--tokens", "5000"], "--tokens"),
        (["--aligner", "icl"], "no setting `tokens`"),
        (["--fit", "vsm13"], "needs all its items"),
        (["--folds", "90"], "groups of items"),
        (["--aligner", "d"], "aligner"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(command, tmp_path, flags, told):
    with pytest.raises(UsageError, match=told):
        command(*ARGUMENTS, *flags)
    assert not command.loads and not (tmp_path / "folds").exists()


def test_a_damaged_file_is_named(command, tmp_path):
    command(*ARGUMENTS)
    [path] = (tmp_path / "folds").glob("*/folds.json")
    path.write_text('[{"tokens": 1}]')
    with pytest.raises(InputError, match=r"folds\.json.*Delete"):
        command(*ARGUMENTS)
