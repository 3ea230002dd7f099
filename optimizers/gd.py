"""Gradient descent on a soft prompt, the model frozen (prompt tuning, Lester et al. 2021; the seed paper's GD).

Works on every goal whose loss has a gradient in the option probabilities: the cross-entropy of labels or of preferred
options, and the expected read-out of a survey, whose indices are linear in its answers.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from ..errors import RunError, UsageError
from ..harness.aligned import AlignedModel
from ..harness.aligner import Journal
from ..harness.aligner import Settings as Base
from ..harness.budget import Budget
from ..harness.goal import Goal
from ..tasks.answers import Layout
from ..tasks.measure import Objective
from ..tasks.prompts import Prompts
from .search.interface import pack_rng, unpack_rng
from .soft_prompt import draw_prompts, text_prompt
from .texts import persona

if TYPE_CHECKING:
    from ..harness.models import LanguageModel

PASSES = 3  # item forwards that a forward and a backward count as


class GradientSettings(Base):
    """Settings of the descent.

    ``start``: random ``tokens``, the embedded ``persona`` sentence, or ``noise`` at the embeddings' scale.
    ``rate``: Adam's step in standard deviations of the embeddings; ``schedule`` keeps it or lets it fall to zero along
    a cosine over the steps that the budget pays for. ``presentations``: wordings x orders a step, drawn anew each time;
    0 takes all. ``patience`` ends a descent that has not got better for so many steps.
    """

    tokens: int = Field(10, ge=1, le=1000)
    start: Literal["tokens", "persona", "noise"] = "tokens"
    rate: float = Field(0.1, gt=0, le=10)
    schedule: Literal["constant", "cosine"] = "cosine"
    presentations: int = Field(0, ge=0, le=1000)
    patience: int | None = Field(None, ge=1)


class GradientPrompt:
    """Descends the loss of a soft prompt through the frozen model."""

    Settings: ClassVar = GradientSettings
    summary: ClassVar = "soft prompt by gradient descent (Adam), model frozen"
    budgeted: ClassVar = True

    def __init__(self, settings: GradientSettings) -> None:
        self.settings = settings

    def align(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Descend until the budget pays for no further step; the prompt of the lowest loss seen.

        A step draws three item forwards a prompt. With some presentations a step, losses of different steps are not
        comparable and the last prompt is returned.

        Raises:
            UsageError: the goal's read-out has no gradient. RunError: too little budget, or a loss that is no number.
        """
        if goal.readout != "expected":
            raise UsageError(f"--readout {goal.readout}: it has no gradient. Use --readout expected, or a search.")
        descent = _Descent(model, goal, self.settings, rng)
        cost = PASSES * descent.cost
        if not budget.affordable(cost) and not budget.spent:
            least = -(-cost // budget.per_survey)
            raise RunError(f"--budget: one step costs {least} survey evaluations here. Give at least {least}.")
        steps = budget.total // cost
        if state := journal.load():
            descent.restore(state)
        while budget.affordable(cost) and not descent.settled:
            budget.spend(cost)
            started, tokens = time.perf_counter(), model.tokens
            descent.step(steps)
            budget.record(model.tokens - tokens, started)
            journal.save(descent.state(), descent.best_loss)
        return AlignedModel(model, descent.result())


class _Descent:
    """A soft prompt, Adam's memory of it, and the best prompt so far."""

    def __init__(self, model: LanguageModel, goal: Goal, settings: GradientSettings, rng: np.random.Generator) -> None:
        import torch

        self.model, self.goal, self.settings, self.rng = model, goal, settings, rng
        self.scale = float(model.token_vectors(model.ordinary_tokens()).std())
        self.parts = presentations(goal.prompts.layout) if settings.presentations else [np.arange(len(goal.prompts))]
        self.drawn = min(settings.presentations or 1, len(self.parts))
        self.soft = torch.nn.Parameter(torch.from_numpy(self._start())[None].to(model.model.device))
        self.adam = torch.optim.Adam([self.soft], lr=settings.rate * self.scale)
        self.best, self.best_loss = self.soft.detach().clone(), float("inf")
        self.steps = self.since = 0
        self._batches: dict[tuple[int, ...], tuple[Prompts, Objective]] = {}

    def _start(self) -> np.ndarray:
        tokens = self.settings.tokens
        if self.settings.start == "persona":
            return text_prompt(self.model, persona(self.goal), tokens)
        if self.settings.start == "noise":
            return (self.rng.standard_normal((tokens, self.model.dim)) * self.scale).astype(np.float32)
        return draw_prompts(self.model, self.rng, 1, tokens)[0]

    @property
    def cost(self) -> int:
        """Prompts of one step, at most."""
        return sum(sorted(map(len, self.parts))[-self.drawn :])

    @property
    def settled(self) -> bool:
        """Whether patience has run out."""
        return self.settings.patience is not None and self.since >= self.settings.patience

    def step(self, steps: int) -> None:
        """One step of Adam; ``steps`` are all that the budget pays for."""
        import torch

        chosen = tuple(sorted(self.rng.choice(len(self.parts), self.drawn, replace=False).tolist()))
        prompts, objective = self._batch(chosen)
        if self.settings.schedule == "cosine":
            for group in self.adam.param_groups:
                group["lr"] = self.settings.rate * self.scale * (1 + np.cos(np.pi * self.steps / max(1, steps))) / 2
        logs = self.model.logprobs(prompts, self.soft)
        loss = objective(logs.softmax(-1).double())[0]
        value = float(loss.detach())
        if not np.isfinite(value):
            raise RunError("the loss is not a number. Try --dtype float32, or a lower rate.")
        self.model.tokens += PASSES * self.model.cost(prompts, self.settings.tokens)
        self.since += 1
        if value < self.best_loss:
            self.best, self.best_loss, self.since = self.soft.detach().clone(), value, 0
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_([self.soft], 1e6)  # a guard against infinity, not a setting
        self.adam.step()
        self.steps += 1

    def _batch(self, chosen: tuple[int, ...]) -> tuple[Prompts, Objective]:
        """Prompts and objective of some presentations, made once."""
        if chosen not in self._batches:
            if len(chosen) == len(self.parts):
                found = self.goal.prompts, self.goal.objective
            else:
                prompts = self.goal.prompts.take(np.sort(np.concatenate([self.parts[i] for i in chosen])))
                found = prompts, self.goal.measure.objective(prompts.layout, self.goal.readout)
            self._batches[chosen] = found
        return self._batches[chosen]

    def result(self) -> np.ndarray:
        """The soft prompt (T, width) float32 to keep."""
        whole = self.drawn == len(self.parts)
        return (self.best if whole else self.soft.detach())[0].float().cpu().numpy()

    def state(self) -> dict[str, np.ndarray]:
        """Plain arrays for a checkpoint."""
        memory = self.adam.state[self.soft]
        arrays = {
            "soft": self.soft.detach(),
            "best": self.best,
            "mean": memory["exp_avg"],
            "square": memory["exp_avg_sq"],
        }
        numbers = {"steps": self.steps, "since": self.since, "best_loss": self.best_loss}
        found = {f"gd_{name}": value.float().cpu().numpy() for name, value in arrays.items()}
        return (
            found
            | {f"gd_{name}": np.float64(value) for name, value in numbers.items()}
            | {"gd_rng": pack_rng(self.rng)}
        )

    def restore(self, state: dict[str, np.ndarray]) -> None:
        """Go on from a checkpoint."""
        import torch

        device = self.soft.device
        self.soft.data = torch.from_numpy(state["gd_soft"]).to(device)
        self.best = torch.from_numpy(state["gd_best"]).to(device)
        self.steps, self.since = int(state["gd_steps"]), int(state["gd_since"])
        self.best_loss = float(state["gd_best_loss"])
        self.rng = unpack_rng(state["gd_rng"])
        self.adam.state[self.soft] = {
            "step": torch.tensor(float(self.steps)),
            "exp_avg": torch.from_numpy(state["gd_mean"]).to(device),
            "exp_avg_sq": torch.from_numpy(state["gd_square"]).to(device),
        }


def presentations(layout: Layout) -> list[np.ndarray]:
    """The rows of each wording in each order that a layout asks."""
    cells = np.stack([layout.wording, layout.order], axis=1)
    return [np.flatnonzero((cells == cell).all(1)) for cell in np.unique(cells, axis=0)]
