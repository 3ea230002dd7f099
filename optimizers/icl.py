"""In-context learning: a persona sentence and, optionally, answered examples before the question."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from ..harness.alignment.aligner import Aligner, Settings
from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel
from .texts import persona, texts

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class InContextSettings(Settings):
    """Settings: ``demonstrations``, the number of answered examples, drawn from the prompts of ``fit``."""

    demonstrations: int = Field(0, ge=0, le=24)


class InContext(Aligner):
    """In-context alignment: the prompt names the country in words."""

    Settings: ClassVar = InContextSettings
    summary: ClassVar = "persona sentence, optionally answered examples, before the question"
    budgeted: ClassVar = False
    needs_weights: ClassVar = False
    settings: InContextSettings

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Return the model behind a preamble; spends nothing."""
        parts = [persona(objective)]
        layout = objective.prompts.layout
        given = (layout.codes == objective.demonstrations[:, None]) & layout.inside  # options are written in code order
        for row in rng.permutation(np.flatnonzero(given.any(1)))[: self.settings.demonstrations]:
            answer = objective.prompts.choices[row][int(given[row].argmax())]
            example = {"question": objective.prompts.texts[row], "answer": answer}
            parts.append(texts(objective.language)["demonstration"].format(**example))
        return AlignedModel(model, preamble="\n\n".join(parts) + "\n\n")
