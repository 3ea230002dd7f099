"""Checkpoints: damage of the file is told as damage of the file, and a bug of an aligner as what it is."""

import json
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.errors import CheckpointError, InputError
from culteval.harness import registry
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.checkpoint import CHECKPOINT, RunCheckpoint
from culteval.harness.cli.main import cli

from ...optimizers.test_aligners import SMALL, align, objective_of

BUGGY = '''
import numpy as np
from culteval.harness.alignment.aligner import Aligner


class Buggy(Aligner):
    """Works until it is resumed."""

    summary = "a bug"

    def align(self, model, objective, budget, rng, checkpoint):
        if checkpoint.load() is None:
            budget.spend(objective.cost)
            checkpoint.save({"some": np.ones(3)}, 1.0)
            raise KeyboardInterrupt
        return len(3)
'''


class Silent:
    def say(self, text):
        pass

    def advance(self, *told):
        pass


class Killed(RunCheckpoint):
    """One whose process is killed after the second save."""

    saves = 0

    def save(self, state, best):
        super().save(state, best)
        self.saves += 1
        if self.saves == 2:
            raise KeyboardInterrupt


def checkpoint(folder, budget, kind=RunCheckpoint):
    return kind(folder, budget, Silent(), "aligner")


@pytest.fixture(scope="module", params=SMALL)
def stopped(request, load, tmp_path_factory):
    """An aligner, the files of its run that was killed, and ``resume(folder)``."""
    folder, name = tmp_path_factory.mktemp(request.param), request.param
    model, (objective, items) = load("llama", True), objective_of()

    def resume(place, kind=RunCheckpoint):
        budget = Budget(40 * items, items)
        return align(name, model, objective, budget, checkpoint(place, budget, kind))

    with pytest.raises(KeyboardInterrupt):
        resume(folder, Killed)
    return folder / CHECKPOINT, resume


def test_what_was_saved_is_resumed(stopped):
    path, resume = stopped
    aligned = resume(path.parent)
    assert aligned.preamble or np.isfinite(aligned.soft).all()


def test_a_truncated_checkpoint_is_damage(stopped, tmp_path):
    path, resume = stopped
    whole = path.read_bytes()
    for share in (0, 0.3, 0.9, 0.999):
        (tmp_path / CHECKPOINT).write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match=r"checkpoint\.npz: damaged checkpoint .*fresh"):
            resume(tmp_path)


def test_an_altered_checkpoint_is_damage_whatever_was_altered(stopped, tmp_path):
    path, resume = stopped
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    for name, array in arrays.items():
        bit = array.copy()
        bit.reshape(-1).view(np.uint8)[:1] ^= 1
        others = {"one bit": bit, "shape": array.reshape(1, *array.shape), "gone": None}
        for what, other in others.items():
            if (what == "one bit" and not array.size) or (what == "shape" and name == "_sha256"):
                continue  # which leaves the content as it was
            given = {key: value for key, value in (arrays | {name: other}).items() if value is not None}
            np.savez(tmp_path / CHECKPOINT, **given)
            with pytest.raises(CheckpointError, match="damaged checkpoint"):
                resume(tmp_path)


def test_an_array_that_an_aligner_misses_is_damage(stopped, tmp_path):
    """As another version of the aligner may have left it: whole, and without what this one keeps."""
    path, resume = stopped
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name not in ("_budget", "_sha256")}
        spent = json.loads(bytes(file["_budget"]))
    for name in arrays:
        budget = Budget(40 * 24, 24)
        budget.restore(spent)
        checkpoint(tmp_path, budget).save({key: value for key, value in arrays.items() if key != name}, 0.0)
        with pytest.raises(CheckpointError, match=f"damaged checkpoint .no '{name}'"):
            resume(tmp_path)


def test_more_spent_than_there_was_is_damage(tmp_path):
    budget = Budget(48, 24, spent=30)
    checkpoint(tmp_path, budget).save({"some": np.zeros(1)}, 0.0)
    state = checkpoint(tmp_path, again := Budget(48, 24)).load()
    assert state["some"] == 0 and again.spent == 30
    with pytest.raises(CheckpointError, match="more spent than there was"):
        checkpoint(tmp_path, Budget(24, 24)).load()


def test_damage_is_bad_input_and_nothing_is_left_out_of_the_sum(tmp_path):
    assert issubclass(CheckpointError, InputError) and CheckpointError.exit_code == 3
    checkpoint(tmp_path, Budget(24, 24)).save({"a": np.arange(3), "b": np.float32(2)}, 0.0)
    with zipfile.ZipFile(tmp_path / CHECKPOINT) as archive:
        assert sorted(archive.namelist()) == ["_budget.npy", "_sha256.npy", "a.npy", "b.npy"]
    assert checkpoint(tmp_path / "nothing here", Budget(24, 24)).load() is None


def test_a_bug_of_a_plug_in_after_a_resume_is_no_damage(tiny, tmp_path, monkeypatch):
    (tmp_path / "buggy_aligner.py").write_text(BUGGY)
    monkeypatch.syspath_prepend(tmp_path)
    known = registry.table("aligners") | {"buggy": "buggy_aligner:Buggy"}
    monkeypatch.setattr(registry, "table", lambda kind: known if kind == "aligners" else registry._OWN[kind])
    flags = ["run", "--aligner", "buggy", "--task", "vsm13", "--model", str(tiny()), "--budget", "4", "--no-compare"]
    flags += ["--out", str(tmp_path / "runs")]
    assert isinstance(CliRunner().invoke(cli, flags, standalone_mode=False).exception, KeyboardInterrupt | Exception)
    assert list((tmp_path / "runs").glob("*/checkpoint.npz"))
    found = CliRunner().invoke(cli, flags).exception
    assert isinstance(found, TypeError) and "has no len" in str(found)
