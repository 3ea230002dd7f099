"""What an aligner is: a class with settings and one method, and the defaults of everything else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from ...errors import UsageError
from ..models.aligned import AlignedModel
from ..registry import find
from .budget import Budget
from .checkpoint import Checkpoint
from .objective import Objective

if TYPE_CHECKING:
    from ..models.local import LanguageModel


class Settings(BaseModel):
    """Base of every aligner's settings: typed, validated, set by ``--set key=value``."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


AnySettings = Settings  # within an aligner ``Settings`` is its own


class Aligner(ABC):
    """Turns a model into one that answers like a culture, within a budget.

    ``summary`` is one line for ``culteval ls aligners``. ``budgeted`` says whether it searches, so that a budget
    applies. ``needs_weights`` is False for an aligner that works with text alone: only such aligners are handed a model
    behind an API. ``configs`` are YAML files with settings by the name that ``--config`` takes. Randomness comes from
    the ``rng`` of ``align`` alone.
    """

    Settings: ClassVar[type[AnySettings]] = AnySettings
    summary: ClassVar[str] = ""
    budgeted: ClassVar[bool] = True
    needs_weights: ClassVar[bool] = True
    configs: ClassVar[Mapping[str, Path]] = {}

    def __init__(self, settings: AnySettings) -> None:
        self.settings = settings

    @property
    def soft_tokens(self) -> int:
        """Soft tokens put before every prompt; compared with the model's context before anything is spent."""
        return 0

    def check(self, objective: Objective, budget: Budget) -> None:  # noqa: B027  # nothing to check is the usual case
        """Raise UsageError or InputError for what can be known to be wrong before a model is loaded."""

    def longest_preamble(self, objective: Objective) -> str:
        """Return the longest text that may be put before a question; compared with the model's context."""
        return ""

    @abstractmethod
    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Fit ``objective`` and return the aligned model.

        Raises:
            RunError: the budget does not pay for one candidate, or losses are NaN.
        """


def find_aligner(name: str) -> type[Aligner]:
    """Return the aligner of a name, ours or a plug-in's.

    Raises:
        UsageError: no such name, or what it names is no ``Aligner``.
    """
    found = find("aligners", name)
    if not (isinstance(found, type) and issubclass(found, Aligner)):
        raise UsageError(f"aligner {name!r}: not a subclass of culteval.harness.alignment.aligner.Aligner.")
    return found
