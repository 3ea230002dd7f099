"""Gradient descent on a soft prompt with the model frozen (prompt tuning, Lester et al. 2021; the seed paper's GD).

Works on every objective whose loss has a gradient in the option probabilities: the cross-entropy of labels or of
preferred options, the expected-value answer scoring of a survey, whose indices are linear in its answers, and its
argmax answers where near options share them (``smooth_loss``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache, partial
from itertools import zip_longest
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ..harness.alignment.aligner import Card
from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.evaluator import Evaluator
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel
from ..harness.models.base import PASSES
from ..tasks.answers import Layout
from ..tasks.measure import LossFunction
from ..tasks.prompts import Prompts
from .descent import (
    DescentSettings,
    SoftPromptAdam,
    cross_entropy,
    label_places,
    require_gradient,
    smooth_loss,
    start_prompt,
)
from .embeddings import mean_and_scale
from .search.interface import pack_rng, unpack_rng
from .soft_prompt import CONFIGS, SoftPromptAligner

if TYPE_CHECKING:
    from torch import Tensor

    from ..harness.models.local import LanguageModel


class GradientSettings(DescentSettings):
    """The settings of gradient descent, in addition to those of every descent.

    With labels, the prompt with the best objective is kept. ``schedule`` keeps the rate constant or lets it fall to
    zero along a cosine over the steps that the budget allows. ``presentations``: pairs of paraphrase and order per
    step, in random order, each once before any is repeated; 0 takes all. ``items``: the largest number from each of
    them; 0 takes all. Only labels can be learned item by item. ``beta2``: the decay of Adam's mean of squared gradients
    per step; with 0.999 the first and largest gradients dominate it for longer than a descent of a few hundred steps,
    so that all later steps are small. ``clip`` scales longer gradients to this norm. ``patience`` ends a descent after
    this number of steps without improvement; it needs ``presentations=0``, because losses on different prompts are not
    comparable.
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


class GradientPrompt(SoftPromptAligner):
    """Gradient descent by Adam on the loss of a soft prompt, through the frozen model.

    With ``gd-labels`` it descends the cross-entropy of the answers nearest to the country's figures.
    """

    Settings: ClassVar = GradientSettings
    summary: ClassVar = "soft prompt by gradient descent (Adam), model frozen"
    card: ClassVar = Card(
        source="prompt tuning: Lester et al. 2021 (arXiv 2104.08691); pairs: Masoud et al. 2025 (arXiv 2503.16094)",
        needs="the country's figures on `fit`; gradients",
        cost="three item forwards a step and fitted prompt: six survey evaluations a step on `vsm13`",
        gives="soft prompt (PEFT prompt tuning)",
        limits=(
            "It learns the paraphrases it is given: the fitted loss falls by more than 99 %, and longer descents are "
            "worse held out. Argmax answers have a gradient where two options are near; `--config gd-labels` learns "
            "labels instead."
        ),
    )
    configs: ClassVar = {"gd-labels": CONFIGS / "gd-labels.yaml"}
    settings: GradientSettings

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError for an answer scoring without a gradient, or a budget too small for one step."""
        _, cost = _drawn(objective, self.settings)
        require_gradient(objective, budget, cost, self.settings.target)

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Descend until the budget is too small for a further step; return the prompt with the lowest loss.

        A step costs three item forwards per prompt. With some presentations per step, losses of different steps are not
        comparable and the last prompt is returned.

        Raises:
            UsageError: as ``check``. RunError: a loss that is not a number.
        """
        self.check(objective, budget)
        descent = _Descent(Evaluator(model, objective, budget), self.settings, rng)
        if state := checkpoint.load():
            descent.restore(state)
        while budget.affordable(descent.cost) and not descent.settled:
            descent.step()
            checkpoint.save(descent.state(), descent.best_loss)
        return AlignedModel(model, descent.result()[None])


class _Descent:
    """Adam on the drawn prompts of each step, and the best prompt so far."""

    def __init__(self, evaluator: Evaluator, settings: GradientSettings, rng: np.random.Generator) -> None:
        model, objective = evaluator.model, evaluator.objective
        self.evaluator, self.objective, self.settings, self.rng = evaluator, objective, settings, rng
        self.parts, self.cost = _drawn(objective, settings)
        self.places = label_places(objective) if settings.target == "labels" else None
        self.turns: list[np.ndarray] = []  # the rows of the following steps
        moments = mean_and_scale(model)
        start = start_prompt(model, objective, settings, rng, moments)
        self.adam = SoftPromptAdam(model, start, settings.rate * moments[1], settings.beta2, settings.clip)
        self.best, self.best_loss, self.since = start, float("inf"), 0
        self._batch = lru_cache(maxsize=16)(self._batch_of)

    @property
    def whole(self) -> bool:
        """Return whether a step uses all prompts, so that losses of different steps are comparable."""
        return self.cost == PASSES * len(self.objective.prompts)

    @property
    def settled(self) -> bool:
        """Return whether the patience is used up."""
        return self.settings.patience is not None and self.since >= self.settings.patience

    @property
    def is_judged(self) -> bool:
        """Return whether the loss of the objective is another one than what is descended."""
        return self.places is not None or self.objective.scoring == "argmax"

    def step(self) -> None:
        """Take one step on newly drawn prompts."""
        self.turns = self.turns or _epoch(self.parts, self.settings, self.rng)
        prompts, loss_function, places = self._batch(tuple(self.turns.pop(0).tolist()))
        before, judged = self.adam.prompt, []

        def loss_of(logs: Tensor) -> Tensor:
            probs = logs.softmax(-1).double()
            if self.whole and self.is_judged:  # it needs every item, so it is computed for steps with all of them
                judged.append(float(self.objective.loss(probs.detach().cpu().numpy())[0]))
            return loss_function(probs)[0] if places is None else cross_entropy(logs, places)

        done = self.evaluator.budget.share if self.settings.schedule == "cosine" else 0.0
        descended = self.evaluator.descend(partial(self.adam.step, done=done), prompts, loss_of)
        loss = judged[0] if judged else descended
        self.since += 1
        if loss < self.best_loss:
            self.best, self.best_loss, self.since = before, loss, 0

    def _batch_of(self, chosen: tuple[int, ...]) -> tuple[Prompts, LossFunction, np.ndarray | None]:
        """Return prompts of some rows, and their loss or labelled options."""
        rows = np.array(chosen)
        if self.places is not None:
            return self.objective.prompts.take(rows), self.objective.loss, self.places[rows]
        part = self.objective if self.whole else self.objective.take(rows)
        return part.prompts, smooth_loss(part), None

    def result(self) -> np.ndarray:
        """Return the soft prompt (T, width) float32 to keep."""
        return self.best if self.whole else self.adam.prompt

    def state(self) -> dict[str, np.ndarray]:
        """Return plain arrays for a checkpoint."""
        kept = {"gd_best": self.best, "gd_best_loss": np.array(self.best_loss), "gd_since": np.array(self.since)}
        turns = {
            "gd_turns": np.concatenate([*self.turns, np.zeros(0, dtype=np.int64)]),
            "gd_sizes": np.array([len(rows) for rows in self.turns], dtype=np.int64),
        }
        return self.adam.state() | kept | turns | {"gd_rng": pack_rng(self.rng)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a checkpoint."""
        self.adam.restore(state)
        self.best, self.best_loss = np.array(state["gd_best"]), float(state["gd_best_loss"])
        self.since, self.rng = int(state["gd_since"]), unpack_rng(state["gd_rng"])
        ends, rows = np.cumsum(state["gd_sizes"]), np.array(state["gd_turns"])
        self.turns = np.split(rows, ends[:-1]) if len(ends) else []


def _drawn(objective: Objective, settings: GradientSettings) -> tuple[list[np.ndarray], int]:
    """Return the parts that steps are drawn from, and the largest number of item forwards of one step."""
    parts = presentations(objective.prompts.layout) if settings.presentations else [np.arange(len(objective.prompts))]
    sizes = sorted(-(-len(part) // _turns(part, settings)) for part in parts)
    return parts, PASSES * sum(sizes[-(settings.presentations or 1) :])


def _turns(part: np.ndarray, settings: GradientSettings) -> int:
    """Return how many equal pieces a part is asked in, each of at most the settings' ``items``."""
    return -(-len(part) // settings.items) if settings.items else 1


def _epoch(parts: list[np.ndarray], settings: GradientSettings, rng: np.random.Generator) -> list[np.ndarray]:
    """Draw the rows of each step of one epoch: presentations in random order, or some items of each in turn.

    No step has two pieces of one presentation.
    """
    if settings.items:
        pieces = [np.array_split(rng.permutation(part), _turns(part, settings)) for part in parts]
    else:
        pieces = [[parts[place]] for place in rng.permutation(len(parts))]
    size, steps = settings.presentations or 1, []
    for turn in zip_longest(*pieces):
        asked = [some for some in turn if some is not None]
        steps += [np.sort(np.concatenate(asked[at : at + size])) for at in range(0, len(asked), size)]
    return steps


def presentations(layout: Layout) -> list[np.ndarray]:
    """Return the rows of each paraphrase in each order of a layout."""
    cells = np.stack([layout.paraphrase, layout.order], axis=1)
    return [np.flatnonzero((cells == cell).all(1)) for cell in np.unique(cells, axis=0)]
