"""Checkpoints of an aligner's state, from which an interrupted run resumes exactly."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import CheckpointError
from ..util.atomic_io import replacing
from ..util.display import Display
from ..util.event_log import RunLog
from .budget import Budget

CHECKPOINT = "checkpoint.npz"
_BUDGET, _DIGEST = "_budget", "_sha256"


class Checkpoint:
    """Store of an aligner's state; this base class stores nothing, for fits too short to be resumed.

    The aligner may write files of its own in ``folder``.
    """

    folder: Path

    def other_model(self, name: str, dtype: str | None = None) -> Any:
        """Load another model by name, such as a teacher, under the options of the run's own but for a given dtype."""
        raise NotImplementedError

    def load(self) -> Mapping[str, np.ndarray] | None:
        """Restore the budget and return the last saved state; None at the start of a run.

        Raises:
            CheckpointError: a damaged file; also on access to an array that the returned state lacks.
        """
        return None

    def save(self, state: Mapping[str, np.ndarray], best: float) -> None:
        """Save a state of plain arrays atomically, and show a loss.

        ``best`` is the lowest so far; where steps have different prompts, whose losses do not compare, the last one.
        """

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show the progress of a stage without a search."""


class State(dict[str, np.ndarray]):
    """The arrays of the checkpoint at ``path``; access to a missing one raises CheckpointError."""

    def __init__(self, arrays: Mapping[str, np.ndarray], path: Path) -> None:
        super().__init__(arrays)
        self.path = path

    def __missing__(self, key: str) -> np.ndarray:
        raise damaged(self.path, f"no {key!r}")


class Part(Mapping[str, np.ndarray]):
    """The arrays of a state whose names begin with ``prefix``, by the rest of their names."""

    def __init__(self, state: Mapping[str, np.ndarray], prefix: str) -> None:
        self._state, self._prefix = state, prefix

    def __getitem__(self, name: str) -> np.ndarray:
        return self._state[self._prefix + name]

    def __iter__(self) -> Iterator[str]:
        return (name.removeprefix(self._prefix) for name in self._state if name.startswith(self._prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def damaged(path: Path, reason: object) -> CheckpointError:
    """Make the error for a checkpoint that cannot be restored."""
    return CheckpointError(f"{path}: damaged checkpoint ({reason}). Start over with `fresh`.")


class RunCheckpoint(Checkpoint):
    """Checkpoint and log of a run, with the aligner's state and the budget."""

    def __init__(
        self,
        folder: Path,
        budget: Budget,
        display: Display,
        label: str,
        other: Callable[[str, str | None], Any] | None = None,
    ) -> None:
        """Set up the checkpoint of a run in ``folder``; ``other`` loads another model by name and dtype."""
        self.folder, self._other = folder, other
        self.path, self.budget, self.log = folder / CHECKPOINT, budget, RunLog(folder).event
        self.display, self.label = display, label

    def other_model(self, name: str, dtype: str | None = None) -> Any:
        """Load another model by name; see ``Checkpoint``."""
        return super().other_model(name, dtype) if self._other is None else self._other(name, dtype)

    def load(self) -> State | None:
        """Restore the budget and return the last saved state; see ``Checkpoint``."""
        if not self.path.exists():
            return None
        try:
            _check_unpacked(self.path)
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if bytes(arrays.pop(_DIGEST)) != _digest(arrays):
                raise ValueError("its content does not match its hash")
            self.budget.restore(json.loads(bytes(arrays.pop(_BUDGET)).decode()))
        except Exception as error:  # numpy and zipfile raise many kinds on damaged bytes
            raise damaged(self.path, error) from None
        self.log("resumed", **self.budget.state())
        return State(arrays, self.path)

    def save(self, state: Mapping[str, np.ndarray], best: float) -> None:
        """Write the checkpoint atomically, log a line and move the progress bar."""
        spent = np.frombuffer(json.dumps(self.budget.state()).encode(), dtype=np.uint8)
        arrays = {name: np.asarray(value) for name, value in state.items()} | {_BUDGET: spent}
        given: dict[str, Any] = arrays | {_DIGEST: np.frombuffer(_digest(arrays), dtype=np.uint8)}
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **given)
        self.log("generation", best=best, **self.budget.state())
        allowed = self.budget.total / self.budget.per_survey
        self.display.advance(self.label, self.budget.evaluations, allowed, best)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move the progress bar of a stage without a search."""
        self.display.advance(f"{self.label} {stage}", done, total, None)


def _digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Compute the sha256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode() + array.tobytes())
    return digest.digest()


def _check_unpacked(path: Path) -> None:
    """Raise ValueError for compressed parts, whose unpacked size is not bounded; checkpoints are written without."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed")
