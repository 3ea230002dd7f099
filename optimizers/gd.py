"""Gradient descent on a soft prompt, the model frozen (prompt tuning, Lester et al. 2021; the seed paper's GD).

Works on every goal whose loss has a gradient in the option probabilities: the cross-entropy of labels or of preferred
options, and the expected read-out of a survey, whose indices are linear in its answers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ..harness.alignment.aligner import Journal
from ..harness.alignment.budget import Budget
from ..harness.alignment.objective import Goal
from ..harness.models.aligned import AlignedModel
from ..tasks.answers import Layout
from ..tasks.measure import Objective
from ..tasks.prompts import Prompts
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

    from ..harness.models.local import LanguageModel


class GradientSettings(DescentSettings):
    """Beside those of every descent (with labels, the prompt kept is the best by the objective):

    ``schedule`` keeps the rate or lets it fall to zero along a cosine over the steps that the budget pays for.
    ``presentations``: wordings x orders a step, in random order, each once before one comes again; 0 takes all.
    ``items``: of each of them, at most; 0 takes all. Only labels can be learned item by item. ``beta2``: what Adam
    keeps of its memory of squared gradients a step; 0.999 remembers the first, largest ones for longer than a descent
    of a few hundred steps lasts, so that all later steps are small. ``clip`` shortens longer gradients to this norm.
    ``patience`` ends a descent that has not got better for so many steps; it needs ``presentations=0``, as losses on
    different prompts do not compare.
    """

    schedule: Literal["constant", "cosine"] = "cosine"
    presentations: int = Field(0, ge=0, le=1000)
    items: int = Field(0, ge=0, le=100_000)
    beta2: float = Field(0.999, ge=0, lt=1)
    clip: float | None = Field(None, gt=0)
    patience: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _consistent(self) -> GradientSettings:
        if self.patience and self.presentations:
            raise ValueError("patience: needs presentations=0, as losses of different presentations do not compare")
        if self.items and (self.target != "labels" or not self.presentations):
            raise ValueError("items: needs target=labels and a number of presentations a step")
        return self


class GradientPrompt:
    """Descends the loss of a soft prompt through the frozen model."""

    Settings: ClassVar = GradientSettings
    summary: ClassVar = "soft prompt by gradient descent (Adam), model frozen"
    budgeted: ClassVar = True

    def __init__(self, settings: GradientSettings) -> None:
        self.settings = settings

    def check(self, goal: Goal, budget: Budget) -> None:
        """Raise UsageError for a read-out without a gradient, or a budget that does not pay for one step."""
        _, cost = _drawn(goal, self.settings)
        require_gradient(goal, budget, cost, self.settings.target)

    def align(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Descend until the budget pays for no further step; the prompt of the lowest loss seen.

        A step draws three item forwards a prompt. With some presentations a step, losses of different steps are not
        comparable and the last prompt is returned.

        Raises:
            UsageError: as ``check``. RunError: a loss that is not a number.
        """
        self.check(goal, budget)
        descent = _Descent(model, goal, self.settings, rng, budget)
        cost = descent.cost
        if state := journal.load():
            descent.restore(state)
        while budget.affordable(cost) and not descent.settled:
            started, tokens = time.perf_counter(), model.tokens
            descent.step(budget)
            budget.record(model.tokens - tokens, started)
            journal.save(descent.state(), descent.best_loss)
        return AlignedModel(model, descent.result()[None])


class _Descent:
    """Adam on what a step draws, and the best prompt so far."""

    def __init__(
        self, model: LanguageModel, goal: Goal, settings: GradientSettings, rng: np.random.Generator, budget: Budget
    ) -> None:
        self.model, self.goal, self.settings, self.rng = model, goal, settings, rng
        self.parts, self.cost = _drawn(goal, settings)
        self.places = label_places(goal) if settings.target == "labels" else None
        self.turns: list[np.ndarray] = []  # the rows of the steps to come
        start = start_prompt(model, goal, settings.start, settings.tokens, rng)
        steps = budget.total // self.cost if settings.schedule == "cosine" else None
        rate = settings.rate * embedding_scale(model)
        self.adam = SoftPromptAdam(model, start, rate, steps, settings.beta2, settings.clip)
        self.best, self.best_loss, self.since = start, float("inf"), 0
        self._batch = lru_cache(maxsize=16)(self._batch_of)

    @property
    def whole(self) -> bool:
        """Whether a step asks everything, so that losses of different steps compare."""
        return self.cost == PASSES * len(self.goal.prompts)

    @property
    def settled(self) -> bool:
        """Whether patience has run out."""
        return self.settings.patience is not None and self.since >= self.settings.patience

    def step(self, budget: Budget) -> None:
        """One step on prompts drawn anew, which are paid before they are asked."""
        self.turns = self.turns or _epoch(self.parts, self.settings, self.rng)
        prompts, objective, places = self._batch(tuple(self.turns.pop(0).tolist()))
        budget.spend(PASSES * len(prompts))
        before, judged = self.adam.prompt, []

        def loss_of(soft: Tensor) -> Tensor:
            logs = self.model.logprobs(prompts, soft)
            probs = logs.softmax(-1).double()
            found = objective(probs)[0] if places is None else cross_entropy(logs, places)
            # An objective wants every item: with labels it judges steps that see all of them.
            whole = places is not None and self.whole
            judged.append(objective(probs.detach().cpu().numpy())[0] if whole else found.detach())
            return found

        self.adam.step(loss_of)
        loss = float(judged[0])
        self.since += 1
        if loss < self.best_loss:
            self.best, self.best_loss, self.since = before, loss, 0

    def _batch_of(self, chosen: tuple[int, ...]) -> tuple[Prompts, Objective, np.ndarray | None]:
        """Prompts, objective and labelled options of some rows."""
        rows = np.array(chosen)
        if self.places is not None:
            return self.goal.prompts.take(rows), self.goal.objective, self.places[rows]
        part = self.goal if self.whole else self.goal.take(rows)
        return part.prompts, part.objective, None

    def result(self) -> np.ndarray:
        """The soft prompt (T, width) float32 to keep."""
        return self.best if self.whole else self.adam.prompt

    def state(self) -> dict[str, np.ndarray]:
        """Plain arrays for a checkpoint."""
        kept = {"gd_best": self.best, "gd_best_loss": np.array(self.best_loss), "gd_since": np.array(self.since)}
        turns = {
            "gd_turns": np.concatenate([*self.turns, np.zeros(0, dtype=np.int64)]),
            "gd_sizes": np.array([len(rows) for rows in self.turns], dtype=np.int64),
        }
        return self.adam.state() | kept | turns | {"gd_rng": pack_rng(self.rng)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a checkpoint."""
        self.adam.restore(state)
        self.best, self.best_loss = np.array(state["gd_best"]), float(state["gd_best_loss"])
        self.since, self.rng = int(state["gd_since"]), unpack_rng(state["gd_rng"])
        ends = np.cumsum(state["gd_sizes"])
        self.turns = np.split(np.array(state["gd_turns"]), ends[:-1]) if len(ends) else []


def _drawn(goal: Goal, settings: GradientSettings) -> tuple[list[np.ndarray], int]:
    """The parts that steps are drawn from, and the item forwards of one step at most."""
    parts = presentations(goal.prompts.layout) if settings.presentations else [np.arange(len(goal.prompts))]
    sizes = sorted(min(len(part), settings.items or len(part)) for part in parts)
    return parts, PASSES * sum(sizes[-(settings.presentations or 1) :])


def _epoch(parts: list[np.ndarray], settings: GradientSettings, rng: np.random.Generator) -> list[np.ndarray]:
    """The rows of each step until everything was asked once: presentations in random order, or by turns some items."""
    if not settings.items:
        turns = [parts[place] for place in rng.permutation(len(parts))]
    else:
        shuffled = [rng.permutation(part) for part in parts]
        split = [np.array_split(part, -(-len(part) // settings.items)) for part in shuffled]
        turns = [some for several in zip_longest(*split) for some in several if some is not None]
    size = settings.presentations or 1
    return [np.sort(np.concatenate(turns[at : at + size])) for at in range(0, len(turns), size)]


def presentations(layout: Layout) -> list[np.ndarray]:
    """The rows of each wording in each order that a layout asks."""
    cells = np.stack([layout.wording, layout.order], axis=1)
    return [np.flatnonzero((cells == cell).all(1)) for cell in np.unique(cells, axis=0)]
