"""The loop that every black-box search of a soft prompt shares: ask, judge, tell, save; begin anew where it stalls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from pydantic import Field

from ..harness.alignment.aligner import Journal
from ..harness.alignment.budget import Budget
from ..harness.alignment.objective import Goal
from ..harness.models.aligned import AlignedModel
from .racing import Race, can_race
from .search.interface import Search, pack_rng, unpack_rng
from .soft_prompt import evaluate, require_candidate
from .spaces import Space, SpaceSettings, lay_space

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class BlackBoxSettings(SpaceSettings):
    """Beside those of the space:

    ``racing`` drops a trial as soon as the part of its loss that is known exceeds what it has to beat, where the search
    and the loss allow it; the budget then pays for more trials. ``restart`` begins anew, elsewhere, after so many
    generations without a better prompt. ``generations`` stops a run whose budget would allow more.
    """

    racing: bool = True
    restart: int | None = Field(None, ge=1)
    generations: int | None = Field(None, ge=1)


class Searching(Protocol):
    """What a black-box aligner adds to ``BlackBox``: how its search begins and is restored."""

    settings: BlackBoxSettings

    def check(self, goal: Goal, budget: Budget) -> None:
        """As ``BlackBox`` has it."""

    def begin(self, model: LanguageModel, space: Space, rng: np.random.Generator) -> Search:
        """A search in a space just laid; ``rng`` is its own to keep."""

    def restore(self, model: LanguageModel, space: Space, state: Mapping[str, np.ndarray]) -> Search:
        """The search that gave this state."""


class BlackBox:
    """An aligner that is a search; subclasses say how it begins (see ``Searching``).

    Candidates of a generation are judged on the same prompts and respondents (common random numbers), so that their
    losses differ by the candidates alone.
    """

    budgeted: ClassVar = True

    def __init__(self, settings: BlackBoxSettings) -> None:
        self.settings = settings

    def check(self, goal: Goal, budget: Budget) -> None:
        """Raise UsageError unless the budget pays for a candidate."""
        require_candidate(goal, budget)

    def align(
        self: Searching, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Search until the budget pays for no further candidate; the best prompt of all, a checkpoint a generation."""
        self.check(goal, budget)
        course = _Course(self, model, goal, budget, rng)
        if state := journal.load():
            course.restore(state)
        while course.goes_on:
            course.step()
            journal.save(course.state(), course.loss)
        return AlignedModel(model, course.best[None])


class _Course:
    """A search under way and the best prompt of all its beginnings."""

    def __init__(
        self, aligner: Searching, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator
    ) -> None:
        self.aligner, self.settings = aligner, aligner.settings
        self.model, self.goal, self.budget, self.rng = model, goal, budget, rng
        self.race = Race(model, goal, budget) if self.settings.racing and can_race(goal) else None
        self.best, self.loss = np.zeros((self.settings.tokens, model.dim), dtype=np.float32), np.inf
        self.since = self.generation = 0
        self.search: Search | None = None

    @property
    def goes_on(self) -> bool:
        """Whether the budget pays for a candidate and generations are left."""
        most = self.settings.generations
        return self.budget.affordable(self.goal.cost) > 0 and (most is None or self.generation < most)

    def step(self) -> None:
        """One generation."""
        if self.search is None or self.since == self.settings.restart:
            self.space = lay_space(self.model, self.goal, self.settings, self.rng)
            own = np.random.default_rng(self.rng.integers(1 << 63))
            self.search, self.since = self.aligner.begin(self.model, self.space, own), 0
        trials, limits = self.space.prompts(self.search.ask()), self.search.limits
        if self.race and limits is not None:
            losses = self.race.run(trials, limits)
        else:
            losses = evaluate(self.model, self.goal, trials[: self.budget.affordable(self.goal.cost)], self.budget)
        self.search.tell(losses)
        vector, loss = self.search.best
        self.since, self.generation = self.since + 1, self.generation + 1
        if loss < self.loss:
            self.best, self.loss, self.since = self.space.prompts(vector[None])[0], loss, 0

    def state(self) -> dict[str, np.ndarray]:
        """Plain arrays for a checkpoint."""
        assert self.search is not None, "there is a state once there was a step"
        own = {"best": self.best, "loss": np.array(self.loss), "rng": pack_rng(self.rng)}
        own |= {"since": np.array(self.since), "generation": np.array(self.generation)}
        parts = {f"search_{key}": value for key, value in self.search.state().items()}
        return own | self.space.state() | parts | (self.race.state() if self.race else {})

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a checkpoint."""
        self.best, self.loss, self.rng = np.array(state["best"]), float(state["loss"]), unpack_rng(state["rng"])
        self.since, self.generation = int(state["since"]), int(state["generation"])
        self.space = Space.from_state(state)
        own = {key.removeprefix("search_"): value for key, value in state.items() if key.startswith("search_")}
        self.search = self.aligner.restore(self.model, self.space, own)
        if self.race:
            self.race.restore(state)
