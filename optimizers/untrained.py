"""An unselected soft prompt of random tokens: what any prefix does. The control that the seed paper lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from ..harness.alignment.aligner import Journal
from ..harness.alignment.aligner import Settings as Base
from ..harness.alignment.budget import Budget
from ..harness.alignment.objective import Goal
from ..harness.models.aligned import AlignedModel
from .soft_prompt import draw_prompts

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class UntrainedSettings(Base):
    """``tokens``: length of the soft prompt."""

    tokens: int = Field(10, ge=1, le=1000)


class Untrained:
    """Draws one random prompt and looks at nothing; runs with many seeds give a control's mean and spread."""

    Settings: ClassVar = UntrainedSettings
    summary: ClassVar = "one random token prompt, unselected: the control for whatever a prefix does"
    budgeted: ClassVar = False

    def __init__(self, settings: UntrainedSettings) -> None:
        self.settings = settings

    def align(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Return the model behind the prompt; spends nothing."""
        return AlignedModel(model, draw_prompts(model, rng, 1, self.settings.tokens))
