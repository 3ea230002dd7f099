"""Random prefix: an unselected soft prompt of random tokens, a control that the seed paper lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..harness.alignment.aligner import Card
from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel
from .soft_prompt import SoftPromptAligner, SoftPromptSettings, draw_prompts

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class RandomPrefix(SoftPromptAligner):
    """One soft prompt of random tokens, without any evaluation.

    Runs with many seeds give the mean and spread of the control for whatever a prefix does.
    """

    Settings: ClassVar = SoftPromptSettings
    summary: ClassVar = "one random token prompt, unselected: the control for whatever a prefix does"
    card: ClassVar = Card(
        source="ours; a control that Masoud et al. 2025 (arXiv 2503.16094) lack",
        needs="no figures, no losses",
        cost="no budget; 24 seeds make a control",
        gives="soft prompt (PEFT prompt tuning)",
        limits=(
            "A control, not an alignment: a result within two standard deviations of it has the effect of any prefix."
        ),
    )
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
