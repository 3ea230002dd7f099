"""Random search: soft prompts made of real token embeddings, the best one kept. The baseline a search must beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from ..harness.aligned import AlignedModel
from ..harness.aligner import Journal
from ..harness.aligner import Settings as Base
from ..harness.budget import Budget
from ..harness.goal import Goal
from .soft_prompt import draw_prompts, evaluate, require_candidate

if TYPE_CHECKING:
    from ..harness.models import LanguageModel

BATCH = 10  # candidates between checkpoints


class RandomSettings(Base):
    """``tokens``: length of the soft prompt."""

    tokens: int = Field(10, ge=1, le=1000)


class RandomSearch:
    """Keeps the best of as many random prompts as the budget pays for.

    With a budget of one candidate it is an unselected random prompt: the random-prefix control.
    """

    Settings: ClassVar = RandomSettings
    summary: ClassVar = "best of as many random token prompts as the budget pays for"
    budgeted: ClassVar = True

    def __init__(self, settings: RandomSettings) -> None:
        self.settings = settings

    def align(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Draw, judge, keep the best; candidate k is the same whatever the budget."""
        require_candidate(goal, budget)
        best, loss, drawn = np.zeros((self.settings.tokens, model.dim), dtype=np.float32), np.inf, 0
        if state := journal.load():
            best, loss, drawn = state["best"], float(state["loss"]), int(state["drawn"])
        draw_prompts(model, rng, drawn, self.settings.tokens)  # passes over what was drawn before
        while count := min(BATCH, budget.affordable(goal.cost)):
            prompts = draw_prompts(model, rng, count, self.settings.tokens)
            losses = evaluate(model, goal, prompts, budget)
            drawn += count
            if losses.min() < loss:
                best, loss = prompts[losses.argmin()], float(losses.min())
            journal.save({"best": best, "loss": np.float64(loss), "drawn": np.int64(drawn)}, loss)
        return AlignedModel(model, best)
