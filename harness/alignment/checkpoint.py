"""What a run keeps while an aligner works: its checkpoint, its log, the progress a person sees."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ...errors import InputError
from ..util.atomic_io import replacing
from ..util.event_log import RunLog

CHECKPOINT = "checkpoint.npz"


class Display(Protocol):
    """Where a run tells what it is doing."""

    def say(self, text: str) -> None:
        """One line to a person."""

    def advance(self, label: str, spent: float, allowed: float, best: float | None) -> None:
        """A search has spent so many of its survey evaluations; its best loss so far."""


class _State(dict[str, np.ndarray]):
    """A checkpoint's arrays; one that is missed is damage of the file at ``path``."""

    path: Path

    def __missing__(self, key: str) -> np.ndarray:
        raise InputError(f"{self.path}: damaged checkpoint (no {key!r}). Start over with --fresh.")


class RunJournal:
    """Checkpoint and log of a run; saves the budget with the aligner's state and restores both."""

    def __init__(
        self, folder: Path, budget: Any, display: Display, label: str, other: Callable[[str], Any] | None = None
    ) -> None:
        """``other`` loads another model by name, as the run's own was loaded."""
        self.folder, self.other = folder, other
        self.path, self.budget, self.log = folder / CHECKPOINT, budget, RunLog(folder).event
        self.display, self.label = display, label
        self.restoring = False  # between a state that was loaded and the first one saved after it

    def load(self) -> dict[str, np.ndarray] | None:
        """The last state, or None; InputError for a damaged file."""
        if not self.path.exists():
            return None
        try:
            _check_unpacked(self.path)
            with np.load(self.path, allow_pickle=False) as file:
                state = _State({name: file[name] for name in file.files})
                state.path = self.path
            self.budget.restore(json.loads(bytes(state.pop("_budget")).decode()))
        except Exception as error:  # numpy and zipfile raise many kinds on damaged bytes
            raise InputError(f"{self.path}: damaged checkpoint ({error}). Start over with --fresh.") from None
        self.log("resumed", **self.budget.state())
        self.restoring = True
        return state

    def save(self, state: dict[str, np.ndarray], best: float) -> None:
        """Write the checkpoint atomically, log a line, move the progress bar."""
        self.restoring = False
        spent = np.frombuffer(json.dumps(self.budget.state()).encode(), dtype=np.uint8)
        arrays: dict[str, Any] = {**state, "_budget": spent}
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **arrays)
        self.log("generation", best=best, **self.budget.state())
        allowed = self.budget.total / self.budget.per_survey
        self.display.advance(self.label, self.budget.evaluations, allowed, best)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Move the progress bar of a stage that is no search."""
        self.display.advance(f"{self.label} {stage}", done, total, None)


def _check_unpacked(path: Path) -> None:
    """Raise ValueError for an archive with compressed parts: ours has none, and a stranger's may unpack to anything."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed")
