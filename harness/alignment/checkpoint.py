"""The state of an aligner, kept so that a run that was killed goes on exactly where it was."""

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
    """Where an aligner keeps its state; this one keeps nothing, for fits too short to be resumed.

    ``folder`` may hold files of the aligner.
    """

    folder: Path

    def other_model(self, name: str) -> Any:
        """Load another model by name, such as a teacher, as the run's own was loaded."""
        raise NotImplementedError

    def load(self) -> Mapping[str, np.ndarray] | None:
        """Return the last saved state, the budget being restored with it; None at a fresh start.

        Raises:
            CheckpointError: what was saved is damaged, here or once an array is asked for that is not there.
        """
        return None

    def save(self, state: Mapping[str, np.ndarray], best: float) -> None:
        """Keep a state of plain arrays (atomic) and show the best loss so far."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is that is no search."""


class State(dict[str, np.ndarray]):
    """The arrays of the checkpoint at ``path``; one that is not there is damage of that file."""

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
    """Return the error for a checkpoint that cannot be restored."""
    return CheckpointError(f"{path}: damaged checkpoint ({reason}). Start over with `fresh`.")


class RunCheckpoint(Checkpoint):
    """Checkpoint and log of a run; saves the budget with the aligner's state and restores both."""

    def __init__(
        self, folder: Path, budget: Budget, display: Display, label: str, other: Callable[[str], Any] | None = None
    ) -> None:
        """``other`` loads another model by name, as the run's own was loaded."""
        self.folder, self._other = folder, other
        self.path, self.budget, self.log = folder / CHECKPOINT, budget, RunLog(folder).event
        self.display, self.label = display, label

    def other_model(self, name: str) -> Any:
        """As ``Checkpoint`` has it."""
        return super().other_model(name) if self._other is None else self._other(name)

    def load(self) -> State | None:
        """As ``Checkpoint`` has it."""
        if not self.path.exists():
            return None
        try:
            _check_unpacked(self.path)
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            if bytes(arrays.pop(_DIGEST)) != _digest(arrays):
                raise ValueError("its content is not what was saved")
            self.budget.restore(json.loads(bytes(arrays.pop(_BUDGET)).decode()))
        except Exception as error:  # numpy and zipfile raise many kinds on damaged bytes
            raise damaged(self.path, error) from None
        self.log("resumed", **self.budget.state())
        return State(arrays, self.path)

    def save(self, state: Mapping[str, np.ndarray], best: float) -> None:
        """Write the checkpoint atomically, log a line, move the progress bar."""
        spent = np.frombuffer(json.dumps(self.budget.state()).encode(), dtype=np.uint8)
        arrays = {name: np.asarray(value) for name, value in state.items()} | {_BUDGET: spent}
        given: dict[str, Any] = arrays | {_DIGEST: np.frombuffer(_digest(arrays), dtype=np.uint8)}
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **given)
        self.log("generation", best=best, **self.budget.state())
        allowed = self.budget.total / self.budget.per_survey
        self.display.advance(self.label, self.budget.evaluations, allowed, best)

    def progress(self, stage: str, done: int, total: int) -> None:
        """Move the progress bar of a stage that is no search."""
        self.display.advance(f"{self.label} {stage}", done, total, None)


def _digest(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The sha256 of arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode() + array.tobytes())
    return digest.digest()


def _check_unpacked(path: Path) -> None:
    """Raise ValueError for an archive with compressed parts: ours has none, and another may unpack to anything."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed")
