"""Exact racing: a trial is dropped once the part of its loss that is known exceeds what it has to beat.

Terms of a loss can only add to it, so a dropped trial would have lost anyway and the search decides as it would have
decided without. Prompts are asked term by term, those first whose terms have been largest, in as few steps as pay: a
step reads all weights of the model again, and where nearly every trial lasts to its last term one pass is cheapest.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RunError
from ..harness.alignment.budget import Budget
from ..harness.alignment.objective import Goal
from ..tasks.measure import SeparableObjective

if TYPE_CHECKING:
    from ..harness.engine.incremental import Steps
    from ..harness.models.local import LanguageModel


HEAT = 4  # candidates asked together in steps: fewer read the weights too often, more need memory for what they read
STEP = 0.04  # what another step costs, in whole passes: measured on a processor, see benchmarks/README.md
REREAD = 0.2  # the same where prompts of a step must read what they share with earlier ones again

_LEARNED = ("sums", "counts", "lasting", "begun")


def can_race(goal: Goal) -> bool:
    """Whether the goal's loss is made of terms that can be had one by one."""
    return isinstance(goal.objective, SeparableObjective)


class Race:
    """Judges trials against limits; ``state`` is what it has learned about the size of terms and when trials drop out.

    ``lasting[k]`` is the share of trials that still ran after ``k`` terms, recent generations counting more; ``begun``
    counts trials.
    """

    def __init__(self, model: LanguageModel, goal: Goal, budget: Budget) -> None:
        self.model, self.goal, self.budget = model, goal, budget
        objective = goal.objective
        assert isinstance(objective, SeparableObjective), "see can_race"
        self.objective, self.parts = objective, objective.parts
        self.sums, self.counts = np.zeros(len(self.parts)), np.zeros(len(self.parts))
        self.lasting, self.begun = np.ones(len(self.parts)), np.zeros((), dtype=np.int64)

    def state(self) -> dict[str, np.ndarray]:
        """Plain arrays for a checkpoint."""
        return {f"race_{name}": getattr(self, name).copy() for name in _LEARNED}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a checkpoint."""
        self.sums, self.counts, self.lasting, self.begun = (state[f"race_{name}"].copy() for name in _LEARNED)

    def run(self, soft: np.ndarray, limits: np.ndarray) -> np.ndarray:
        """Losses (m,) float64 of the first m trials (n, T, dim) that the budget pays for; +inf for a dropped one.

        Args:
            limits: (n,) losses that the trials must not exceed.

        Raises:
            RunError: a loss is not a number.
        """
        groups = self._groups()
        most = min(len(soft), self.budget.affordable(self.goal.cost)) if len(groups) == 1 else self._most(soft.shape[1])
        losses, ended, start = [np.zeros(0)], [], 0
        while start < len(soft) and (count := min(most, len(soft) - start, self.budget.affordable(self.goal.cost))):
            chunk = slice(start, start + count)
            found, after = self._heat(soft[chunk], limits[chunk], groups)
            losses.append(found)
            ended.append(after)
            start += count
        self.begun += start
        if ended:
            lasted = np.concatenate(ended)[:, None] > np.arange(len(self.parts))
            self.lasting = (self.lasting + lasted.mean(0)) / 2
        return np.concatenate(losses)

    def _heat(self, soft: np.ndarray, limits: np.ndarray, groups: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Losses of some trials, and after how many terms each was lost (more than there are: never)."""
        started, tokens, steps = time.perf_counter(), self.model.tokens, self._steps(groups)
        asked = self.model.stepwise(self.goal.prompts, steps, soft)
        losses, ended = np.zeros(len(soft)), np.full(len(soft), len(self.parts) + 1)
        alive, known = np.arange(len(soft)), np.zeros(len(self.parts), dtype=bool)
        for new, step in zip(groups, steps, strict=True):
            self.budget.spend(len(alive) * len(step))
            terms = self.objective.terms(asked.advance())
            fair = ended[alive] > len(self.parts)
            self.sums[new] += terms[fair][:, new].sum(0)
            self.counts[new] += fair.sum()
            for part in new:
                known[part] = True
                losses[alive] = self.objective.total(np.where(known, terms, 0))
                ended = np.where(losses > limits, np.minimum(ended, known.sum()), ended)
            going = self._going(ended[alive] <= len(self.parts))
            if not len(going):
                break
            if len(going) < len(alive):
                alive = alive[going]
                asked.keep(going)
        self.budget.record(self.model.tokens - tokens, started)
        if np.isnan(losses).any():
            raise RunError("a candidate's loss is not a number. Try --dtype float32.")
        return np.where(ended <= len(self.parts), np.inf, losses), ended

    def _most(self, virtual: int) -> int:
        """Candidates asked in steps together."""
        return max(HEAT, self.model.batch(self.goal.prompts, virtual))

    def _going(self, lost: np.ndarray) -> np.ndarray:
        """Which of the candidates being asked go on (indices)."""
        return np.flatnonzero(~lost)

    def _groups(self) -> list[np.ndarray]:
        """The terms of each step, largest first, cut where it pays at most: nowhere, once or twice."""
        order = np.argsort(-self.sums / np.maximum(self.counts, 1), kind="stable")
        count, step = len(order), STEP if self.model.remembers else REREAD
        cuts = [(), *itertools.combinations(range(1, count), 1), *itertools.combinations(range(1, count), 2)]

        def cost(at: tuple[int, ...]) -> float:
            ends = (0, *at, count)
            read = sum(self.lasting[start] * (stop - start) for start, stop in itertools.pairwise(ends))
            return read / count + step * len(at)

        return np.split(order, min(cuts, key=cost))

    def _steps(self, groups: list[np.ndarray]) -> Steps:
        """The prompts of each step; those on which no term rests come last."""
        steps = [tuple(sorted(int(prompt) for part in new for prompt in self.parts[part])) for new in groups]
        free = set(range(len(self.goal.prompts))).difference(*steps)
        return (*steps[:-1], (*steps[-1], *sorted(free)))
