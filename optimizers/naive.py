"""The unaligned model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..harness.alignment.aligner import Aligner
from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class Naive(Aligner):
    """No text before the question: the reference for every alignment."""

    summary: ClassVar = "the model as it is"
    budgeted: ClassVar = False
    needs_weights: ClassVar = False

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Return the model unchanged; spends nothing."""
        return AlignedModel(model)
