"""The model as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..harness.alignment.aligner import AnySettings, Journal
from ..harness.alignment.budget import Budget
from ..harness.alignment.objective import Goal
from ..harness.models.aligned import AlignedModel

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class Naive:
    """Nothing before the question: what every alignment is compared with."""

    Settings: ClassVar = AnySettings
    summary: ClassVar = "the model as it is"
    budgeted: ClassVar = False
    needs_weights: ClassVar = False

    def __init__(self, settings: AnySettings) -> None:
        self.settings = settings

    def align(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Return the model unchanged; spends nothing."""
        return AlignedModel(model)
