"""Gradient descent over random paraphrases of the survey, so that what is learned is not one wording.

Every step asks the items in a wording mixed anew from those of ``fit`` (instruction, labels and questions drawn apart)
and in one order of the options, turn by turn: two noisy steps move further than one good one at the same cost. Mass
outside the options is penalised, and the prompt returned is the mean over the last part of the descent (Polyak &
Juditsky 1992). Several countries can be fitted at once: they share the first tokens of the prompt and have the last
ones for themselves (after Wang et al. 2023, multitask prompt tuning, arXiv 2303.02861).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.evaluator import Evaluator
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel
from ..harness.models.base import PASSES
from ..harness.models.context import require_room
from ..tasks.countries import Country, country
from ..tasks.schema import Order
from .descent import (
    DescentSettings,
    SoftPromptAdam,
    cross_entropy,
    embedding_scale,
    label_places,
    require_gradient,
    start_prompt,
)
from .search.interface import pack_rng, unpack_rng
from .soft_prompt import SoftPromptAligner

if TYPE_CHECKING:
    from torch import Tensor

    from ..harness.models.local import LanguageModel


PARAPHRASES = 32  # looked at beforehand: every item then has its longest sentence, labels and instruction nearly surely


class AugmentedSettings(DescentSettings):
    """Beside those of every descent:

    ``orders``: ``both`` orders of the options in turn, or the natural one. ``outside``: weight of the mass outside
    the options, beside a loss of 1 for answers without information. ``averaged``: the share of the steps, counted from
    the end, over which the prompt is averaged. ``countries``: fitted beside the run's own, by the same budget; all
    share the prompt but for its last ``own`` tokens. Ten ``tokens`` learn less surely than the forty it has.
    """

    tokens: int = Field(40, ge=1, le=1000)
    orders: Literal["both", "natural"] = "both"
    outside: float = Field(0.1, ge=0, le=100)
    averaged: float = Field(0.5, gt=0, le=1)
    countries: tuple[str, ...] = Field((), max_length=100)
    own: int = Field(0, ge=0, le=1000)

    @model_validator(mode="after")
    def _parts(self) -> AugmentedSettings:
        for name in self.countries:
            country(name)
        if self.own > self.tokens or bool(self.own) != bool(self.countries):
            raise ValueError("own: 1 to `tokens` where there are other countries, 0 where there are none")
        return self


class AugmentedPrompt(SoftPromptAligner):
    """Descends the loss of a soft prompt over ever new paraphrases of the survey."""

    Settings: ClassVar = AugmentedSettings
    summary: ClassVar = "soft prompt by gradient descent over random paraphrases of the survey in both orders"
    settings: AugmentedSettings

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError for a read-out without a gradient, a country without figures, or too little budget."""
        for other in self._others(objective):
            objective.for_country(other)
        require_gradient(objective, budget, self._cost(objective), self.settings.target)

    def _others(self, objective: Objective) -> list[Country]:
        named = {each.code: each for each in map(country, self.settings.countries)}
        return [each for code, each in named.items() if code != objective.country.code]

    def _cost(self, objective: Objective) -> int:
        """Item forwards of one step."""
        return (
            PASSES
            * (1 + len(self._others(objective)))
            * objective.paraphrased(np.random.default_rng(0), "natural").cost
        )

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Descend until the budget pays for no further step.

        Raises:
            UsageError: as ``check``. RunError: a loss that is not a number.
        """
        self.check(objective, budget)
        _require_room(model, objective, self.settings.tokens)
        others, cost = self._others(objective), self._cost(objective)
        orders: tuple[Order, ...] = ("natural", "reversed") if self.settings.orders == "both" else ("natural",)
        steps = budget.total // cost
        first = min(int(steps * (1 - self.settings.averaged)), steps - 1)  # however small the share, the last counts
        evaluator, start = Evaluator(model, objective, budget), start_prompt(model, objective, self.settings, rng)
        start = np.concatenate([start, *[start[len(start) - self.settings.own :]] * len(others)])
        adam = SoftPromptAdam(model, start, self.settings.rate * embedding_scale(model), steps)
        mean = np.zeros_like(start)
        if state := checkpoint.load():
            adam.restore(state)
            mean, rng = state["mean"], unpack_rng(state["rng"])
        while budget.affordable(cost):
            order = orders[adam.steps % len(orders)]
            paraphrase = objective.paraphrased(np.random.default_rng(rng.integers(1 << 62)), order)
            asked = [paraphrase, *map(paraphrase.for_country, others)]
            loss = evaluator.descend(
                adam.step, paraphrase.prompts, partial(self._loss, asked), partial(self._prompts, len(asked))
            )
            if adam.steps > first:
                mean += (adam.prompt - mean) / (adam.steps - first)
            checkpoint.save(adam.state() | {"mean": mean, "rng": pack_rng(rng)}, loss)
        return AlignedModel(model, mean[None, : self.settings.tokens])

    def _loss(self, asked: Sequence[Objective], logs: Tensor) -> Tensor:
        """Mean over the countries of the loss in units of its ``null_loss``, and of the mass outside the options.

        Args:
            asked: one objective a country, on the same prompts.
            logs: log-probabilities (countries, prompts, options).
        """
        total = logs.new_zeros(())
        for row, objective in enumerate(asked):
            own = logs[row : row + 1]
            outside = (1 - own.exp().sum(-1)).mean()
            total = total + self._told(objective, own) + self.settings.outside * outside
        return total / len(asked)

    def _told(self, objective: Objective, logs: Tensor) -> Tensor:
        """The loss of one country."""
        if self.settings.target == "labels":
            return cross_entropy(logs, label_places(objective))
        return objective.loss(logs.softmax(-1).double())[0] / objective.null_loss

    def _prompts(self, count: int, soft: Tensor) -> Tensor:
        """The countries' prompts (count, tokens, width): the shared tokens, then each country's own.

        Args:
            soft: (1, tokens and the own parts of further countries, width).
        """
        import torch

        shared = self.settings.tokens - self.settings.own
        own = soft[0, shared:].reshape(count, self.settings.own, soft.shape[-1])
        return torch.cat([soft[:, :shared].expand(count, -1, -1), own], dim=1)


def _require_room(model: LanguageModel, objective: Objective, tokens: int) -> None:
    """Raise UsageError unless paraphrases, which may be longer than any wording, fit the context behind soft tokens."""
    for seed in range(PARAPHRASES):
        prompts = objective.paraphrased(np.random.default_rng(seed), "natural").prompts
        longest = max(range(len(prompts)), key=lambda row: len(prompts.texts[row]))
        require_room(model, prompts.take(np.array([longest])), tokens)
