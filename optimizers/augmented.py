"""Gradient descent over random paraphrases of the survey, to learn a prompt that does not depend on one paraphrase.

Every step presents the items in a new paraphrase mixed from those of ``fit`` (instruction, labels and questions drawn
independently) and in one order of the options, alternately: two noisy steps move further than one precise step at the
same cost. Probability off the options is penalised, and the prompt returned is the mean over the last part of the
descent (Polyak & Juditsky 1992). Several countries can be fitted at once: they have the first tokens of the prompt in
common and the last ones for themselves (after Wang et al. 2023, multitask prompt tuning, arXiv 2303.02861).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ..errors import UsageError
from ..harness.alignment.aligner import Card
from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.evaluator import Evaluator
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel
from ..harness.models.base import PASSES
from ..harness.models.context import require_room
from ..tasks.countries import country, others
from ..tasks.schema import Order
from .descent import (
    DescentSettings,
    SoftPromptAdam,
    label_places,
    penalised,
    require_gradient,
    start_prompt,
)
from .embeddings import mean_and_scale
from .search.interface import pack_rng, unpack_rng
from .soft_prompt import SoftPromptAligner

if TYPE_CHECKING:
    from torch import Tensor

    from ..harness.models.local import LanguageModel


PARAPHRASES = 32  # checked beforehand: almost surely every item then has its longest sentence, labels and instruction


class AugmentedSettings(DescentSettings):
    """The settings of ``AugmentedPrompt``, in addition to those of every descent.

    ``orders``: ``both`` orders of the options alternately, or the natural one. ``off_options``: weight of the
    probability off the options, relative to a loss of 1 for answers without information. ``averaged``: the share of the
    steps, counted from the end, over which the prompt is averaged. ``countries``: fitted together with the run's own
    country, with the same budget; all have the prompt in common except its last ``own`` tokens. The default of forty
    ``tokens`` learns more reliably than ten.
    """

    tokens: int = Field(40, ge=1, le=1000)
    orders: Literal["both", "natural"] = "both"
    off_options: float = Field(0.1, ge=0, le=100)
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
    """Gradient descent on the loss of a soft prompt, with new paraphrases and one option order in each step.

    Probability off the options is penalised, and the second half of the steps is averaged.
    """

    Settings: ClassVar = AugmentedSettings
    summary: ClassVar = "soft prompt by gradient descent over random paraphrases of the survey in both orders"
    card: ClassVar = Card(
        source=(
            "Lester et al. 2021 (arXiv 2104.08691); averaging: Polyak & Juditsky 1992; balanced orders: Zheng et al. "
            "2024 (arXiv 2309.03882)"
        ),
        needs="the country's figures on `fit`; gradients",
        cost="three item forwards a step and item: three survey evaluations a step on `vsm13`",
        gives="soft prompt (PEFT prompt tuning)",
        limits=(
            "Measured on one model of 135 million parameters, two countries, five seeds each. Expected answers can be "
            "near while argmax answers stay one answer."
        ),
    )
    settings: AugmentedSettings

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError if the scoring has no gradient, a country has no figures, or the budget is too small."""
        if objective.kind == "worst_paraphrase":
            raise UsageError("`objective` worst_paraphrase: augmented asks one a step. Use `objective` task.")
        for other in others(self.settings.countries, objective.country):
            objective.for_country(other)
        require_gradient(objective, budget, self._cost(objective), self.settings.target)

    def _cost(self, objective: Objective) -> int:
        """Compute the item forwards of one step."""
        return (
            PASSES
            * (1 + len(others(self.settings.countries, objective.country)))
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
        """Descend until the budget is too small for a further step.

        Raises:
            UsageError: as ``check``. RunError: a loss that is not a number.
        """
        self.check(objective, budget)
        _require_room(model, objective, self.settings.tokens)
        further, cost = others(self.settings.countries, objective.country), self._cost(objective)
        orders: tuple[Order, ...] = ("natural", "reversed") if self.settings.orders == "both" else ("natural",)
        steps = budget.total // cost
        first = min(int(steps * (1 - self.settings.averaged)), steps - 1)  # the last step always counts
        evaluator, moments = Evaluator(model, objective, budget), mean_and_scale(model)
        start = start_prompt(model, objective, self.settings, rng, moments)
        start = np.concatenate([start, *[start[len(start) - self.settings.own :]] * len(further)])
        adam = SoftPromptAdam(model, start, self.settings.rate * moments[1])
        mean = np.zeros_like(start)
        if state := checkpoint.load():
            adam.restore(state)
            mean, rng = state["mean"], unpack_rng(state["rng"])
        while budget.affordable(cost):
            order = orders[adam.steps % len(orders)]
            paraphrase = objective.paraphrased(np.random.default_rng(rng.integers(1 << 62)), order)
            asked = [paraphrase, *map(paraphrase.for_country, further)]
            step = partial(adam.step, done=adam.steps / steps)
            loss = evaluator.descend(
                step, paraphrase.prompts, partial(self._loss, asked), partial(self._prompts, len(asked))
            )
            if adam.steps > first:
                mean += (adam.prompt - mean) / (adam.steps - first)
            checkpoint.save(adam.state() | {"mean": mean, "rng": pack_rng(rng)}, loss)
        return AlignedModel(model, mean[None, : self.settings.tokens])

    def _loss(self, asked: Sequence[Objective], logs: Tensor) -> Tensor:
        """Compute the mean over countries of the loss, in units of ``null_loss``, plus the probability off the options.

        Args:
            asked: one objective a country, on the same prompts.
            logs: log-probabilities (countries, prompts, options).
        """
        total = logs.new_zeros(())
        for row, objective in enumerate(asked):
            places = label_places(objective) if self.settings.target == "labels" else None
            total = total + penalised(objective, logs[row : row + 1], self.settings.off_options, places)
        return total / len(asked)

    def _prompts(self, count: int, soft: Tensor) -> Tensor:
        """Build the countries' prompts (count, tokens, width): the common tokens, then each country's own.

        Args:
            soft: (1, tokens plus the own parts of further countries, width).
        """
        import torch

        shared = self.settings.tokens - self.settings.own
        own = soft[0, shared:].reshape(count, self.settings.own, soft.shape[-1])
        return torch.cat([soft[:, :shared].expand(count, -1, -1), own], dim=1)


def _require_room(model: LanguageModel, objective: Objective, tokens: int) -> None:
    """Raise UsageError if a paraphrase, which may be longer than those of the task, exceeds the context length."""
    for seed in range(PARAPHRASES):
        prompts = objective.paraphrased(np.random.default_rng(seed), "natural").prompts
        longest = max(range(len(prompts)), key=lambda row: len(prompts.texts[row]))
        require_room(model, prompts.take(np.array([longest])), tokens)
