"""What an aligner is: a class with a configuration and one method."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict

from ..models.aligned import AlignedModel
from .budget import Budget
from .objective import Goal

if TYPE_CHECKING:
    from ..models.local import LanguageModel


class Settings(BaseModel):
    """Base of every aligner's settings: typed, validated, set by ``--set key=value``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


AnySettings = Settings  # within an aligner ``Settings`` is its own


class Journal(Protocol):
    """Where an aligner keeps its state, so that a killed run goes on exactly; ``folder`` may hold files of it."""

    folder: Path

    def other(self, name: str) -> Any:
        """Another model by name, such as a teacher, loaded as the run's own was: a ``LanguageModel``, or one behind an
        API."""

    def load(self) -> dict[str, np.ndarray] | None:
        """The last saved state, the budget being restored with it; None at a fresh start."""

    def save(self, state: dict[str, np.ndarray], best: float) -> None:
        """Keep a state of plain arrays (atomic) and show the best loss so far."""

    def tell(self, stage: str, done: int, total: int) -> None:
        """Show how far a stage is that is no search."""


class Aligner(Protocol):
    """Turns a model into one that answers like a culture, within a budget.

    ``summary`` is one line for ``culteval ls aligners``; ``budgeted`` says whether it searches, so that a budget
    applies. Randomness comes from ``rng`` alone. An aligner may have ``check(goal, budget)`` too, which raises what can
    be known to be wrong before a model is loaded, ``needs_weights = False`` if it works in words alone (only such
    aligners are handed a model behind an API), and ``longest_preamble(goal)``, the longest text it may put before a
    question. A setting ``tokens`` is the length of a soft prompt. Both are compared with the model's context first.
    """

    Settings: ClassVar[type[AnySettings]]
    summary: ClassVar[str]
    budgeted: ClassVar[bool]

    def __init__(self, settings: AnySettings) -> None: ...

    def align(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Fit ``goal`` and return the aligned model.

        Raises:
            RunError: the budget does not pay for one candidate, or losses are NaN.
        """
