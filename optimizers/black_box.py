"""The loop that every black-box search of a soft prompt shares: ask, judge, tell, save."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..harness.aligned import AlignedModel
from ..harness.aligner import Journal
from ..harness.budget import Budget
from ..harness.goal import Goal
from .search.interface import Search
from .soft_prompt import evaluate, require_candidate
from .spaces import Space, SpaceSettings, lay_space

if TYPE_CHECKING:
    from ..harness.models import LanguageModel


class BlackBox:
    """Where a search is put to work; an aligner gives it ``begin`` and ``restore``.

    Candidates of a generation are judged on the same prompts and respondents (common random numbers), so that their
    losses differ by the candidates alone.
    """

    def __init__(
        self,
        settings: SpaceSettings,
        begin: Callable[[Space, np.random.Generator], Search],
        restore: Callable[[Mapping[str, np.ndarray]], Search],
    ) -> None:
        self.settings, self.begin, self.restore = settings, begin, restore

    def run(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Search until the budget pays for no further candidate; the best prompt of all, a checkpoint a generation."""
        require_candidate(goal, budget)
        if state := journal.load():
            space, search = Space.from_state(state), self.restore(state)
        else:
            space = lay_space(model, goal, self.settings, rng)
            search = self.begin(space, rng)
        while count := budget.affordable(goal.cost):
            trials = space.prompts(search.ask())[:count]
            search.tell(evaluate(model, goal, trials, budget))
            journal.save(space.state() | search.state(), search.best[1])
        return AlignedModel(model, space.prompts(search.best[0][None])[0])
