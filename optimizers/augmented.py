"""Gradient descent over random retellings of the survey, so that what is learned is not one wording.

Every step asks the items in a wording mixed anew from those of ``fit`` (instruction, labels and questions drawn apart)
and in both orders of the options. Mass outside the options is penalised, and the prompt returned is the mean over the
last part of the descent (Polyak & Juditsky 1992).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from ..harness.aligned import AlignedModel
from ..harness.aligner import Journal
from ..harness.budget import Budget
from ..harness.goal import Goal
from .descent import (
    PASSES,
    DescentSettings,
    SoftPromptAdam,
    cross_entropy,
    embedding_scale,
    label_places,
    require_gradient,
    start_prompt,
)
from .search.interface import pack_rng, unpack_rng

if TYPE_CHECKING:
    from torch import Tensor

    from ..harness.models import LanguageModel


class AugmentedSettings(DescentSettings):
    """Beside those of every descent:

    ``orders``: ``both`` orders of the options each step, or the natural one. ``outside``: weight of the mass outside
    the options, beside a loss of 1 for the constant answer. ``averaged``: the share of the steps, counted from the end,
    over which the prompt is averaged.
    """

    orders: Literal["both", "natural"] = "both"
    outside: float = Field(0.1, ge=0, le=100)
    averaged: float = Field(0.5, gt=0, le=1)


class AugmentedPrompt:
    """Descends the loss of a soft prompt over ever new retellings of the survey."""

    Settings: ClassVar = AugmentedSettings
    summary: ClassVar = "soft prompt by gradient descent over random retellings of the survey in both orders"
    budgeted: ClassVar = True

    def __init__(self, settings: AugmentedSettings) -> None:
        self.settings = settings

    def align(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Descend until the budget pays for no further step.

        Raises:
            UsageError: the goal's read-out has no gradient. RunError: too little budget, or a loss that is no number.
        """
        orders = ("natural", "reversed") if self.settings.orders == "both" else ("natural",)
        cost = PASSES * len(orders) * goal.retold(np.random.default_rng(0), "natural").cost
        require_gradient(goal, budget, cost, self.settings.target)
        steps = budget.total // cost
        first = int(steps * (1 - self.settings.averaged))
        start = start_prompt(model, goal, self.settings.start, self.settings.tokens, rng)
        adam = SoftPromptAdam(model, start, self.settings.rate * embedding_scale(model), steps)
        mean = np.zeros_like(start)
        if state := journal.load():
            adam.restore(state)
            mean, rng = state["mean"], unpack_rng(state["rng"])
        while budget.affordable(cost):
            budget.spend(cost)
            started, tokens = time.perf_counter(), model.tokens
            told = int(rng.integers(1 << 62))
            asked = [goal.retold(np.random.default_rng(told), order) for order in orders]
            loss = adam.step(lambda soft, asked=asked: self._loss(model, asked, soft))
            if adam.steps > first:
                mean += (adam.prompt - mean) / (adam.steps - first)
            budget.record(model.tokens - tokens, started)
            journal.save(adam.state() | {"mean": mean, "rng": pack_rng(rng)}, loss)
        return AlignedModel(model, mean)

    def _loss(self, model: LanguageModel, asked: Sequence[Goal], soft: Tensor) -> Tensor:
        """Mean over the orders: the loss beside that of the constant answer, and the mass outside the options."""
        total = soft.new_zeros(())
        for goal in asked:
            logs = model.logprobs(goal.prompts, soft)
            model.tokens += PASSES * model.cost(goal.prompts, soft.shape[1])
            outside = (1 - logs.exp().sum(-1)).mean()
            if self.settings.target == "labels":
                loss = cross_entropy(logs, label_places(goal))
            else:
                loss = goal.objective(logs.softmax(-1).double())[0] / self._null(goal)
            total = total + loss + self.settings.outside * outside
        return total / len(asked)

    @staticmethod
    def _null(goal: Goal) -> float:
        """The loss of the constant answer, which becomes 1; 1 where it has none."""
        constant = goal.measure.constant(goal.prompts.layout)
        loss = float(np.asarray(goal.objective(constant.probs))[0])
        return loss if np.isfinite(loss) and loss > 0 else 1.0
