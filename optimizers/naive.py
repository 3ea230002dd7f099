"""The unaligned model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..harness.alignment.aligner import Aligner, Card
from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class Naive(Aligner):
    """The model as it is, with nothing before the question. Every alignment is compared with it."""

    summary: ClassVar = "the model as it is"
    card: ClassVar = Card(
        source="none",
        needs="nothing",
        cost="no budget",
        gives="nothing: the answers of the unaligned model",
        limits=(
            "Small models answer by position or label, so that these answers are no measure of a culture. It runs "
            "beside every other aligner by default."
        ),
    )
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
