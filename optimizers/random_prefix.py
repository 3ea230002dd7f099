"""Random prefix: an unselected soft prompt of random tokens, a control that the seed paper lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel
from .soft_prompt import SoftPromptAligner, SoftPromptSettings, draw_prompts

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class RandomPrefix(SoftPromptAligner):
    """One random prompt without any evaluation; runs with many seeds give the control's mean and spread."""

    Settings: ClassVar = SoftPromptSettings
    summary: ClassVar = "one random token prompt, unselected: the control for whatever a prefix does"
    budgeted: ClassVar = False

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Return the model behind the prompt; spends nothing."""
        return AlignedModel(model, draw_prompts(model, rng, 1, self.settings.tokens))
