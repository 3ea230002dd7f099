"""The common loop of all black-box searches of a soft prompt: ask, evaluate, tell, save, and restart on stagnation."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Self

import numpy as np
from pydantic import Field

from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint, Part
from ..harness.alignment.evaluator import Evaluator, require_budget
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel
from .search.interface import AnswerSearch, Search, pack_rng, unpack_rng
from .soft_prompt import SoftPromptAligner
from .spaces import Space, SpaceSettings, lay_space, space_cost

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class BlackBoxSettings(SpaceSettings):
    """The settings of every black-box search, in addition to those of the space.

    ``racing`` drops a trial as soon as the known part of its loss exceeds the loss it must improve on, if the search
    and the loss support it; the budget then allows more trials. ``restart`` starts again from another point after this
    number of generations without a better prompt. ``generations`` ends a run before its budget is used up. The last
    share ``refine`` of the budget is spent near the best prompt: a space is laid around it, in which the search begins
    with steps of ``refine_sigma`` (at a prompt that was found, answers change at much shorter steps than at the start).
    """

    racing: bool = True
    restart: int | None = Field(None, ge=1)
    generations: int | None = Field(None, ge=1)
    refine: float = Field(0.0, ge=0, lt=1)
    refine_sigma: float = Field(0.02, gt=0, le=100)

    @property
    def near(self) -> Self:
        """Return the settings of the search near the best prompt."""
        # In the full space around random tokens, candidates would be other tokens, and not near.
        return self.model_copy(update={"sigma": self.refine_sigma, "start": "mean"})


class BlackBox(SoftPromptAligner):
    """An aligner that is a search; subclasses implement its beginning and its restoration.

    Candidates of a generation are evaluated on the same prompts and personas (common random numbers), so that
    differences between their losses are due to the candidates.
    """

    settings: BlackBoxSettings

    @abstractmethod
    def begin(self, evaluator: Evaluator, space: Space, rng: np.random.Generator) -> Search:
        """Return a search in a space just laid; ``rng`` is its own to keep."""

    @abstractmethod
    def restore(self, evaluator: Evaluator, space: Space, state: Mapping[str, np.ndarray]) -> Search:
        """Return the search that gave this state."""

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError unless the budget pays for a candidate, and for the space's gradients before it."""
        first = space_cost(objective, self.settings)
        require_budget(first + objective.cost, "candidate with the gradients" if first else "candidate", budget)

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Search until the budget is too small for a further candidate.

        Return the best prompt, saving after every generation.
        """
        self.check(objective, budget)
        loop = _Loop(self, Evaluator(model, objective, budget, racing=self.settings.racing), rng)
        if state := checkpoint.load():
            loop.restore(state)
        while loop.goes_on:
            loop.step()
            checkpoint.save(loop.state(), loop.loss)
        return AlignedModel(model, loop.best[None])


class _Loop:
    """A running search and the best prompt of all its restarts."""

    def __init__(self, aligner: BlackBox, evaluator: Evaluator, rng: np.random.Generator) -> None:
        self.aligner, self.settings, self.evaluator, self.rng = aligner, aligner.settings, evaluator, rng
        self.model = evaluator.model
        self.best, self.loss = np.zeros((self.settings.tokens, self.model.dim), dtype=np.float32), np.inf
        self.since = self.generation = 0
        self.search: Search | None = None
        self.near = type(aligner)(aligner.settings.near)
        self.refining = False

    @property
    def goes_on(self) -> bool:
        """Return whether the budget allows a candidate and generations are left."""
        most = self.settings.generations
        return self.evaluator.affordable > 0 and (most is None or self.generation < most)

    @property
    def _due(self) -> bool:
        """Return whether the search begins anew: at first, near the best prompt, or on stagnation.

        The last two need a budget that pays for the space and a candidate.
        """
        objective, budget, restart = self.evaluator.objective, self.evaluator.budget, self.settings.restart
        if self.search is None:
            return True
        turn = self._turns or (restart is not None and self.since >= restart)
        return turn and budget.affordable(space_cost(objective, self.settings) + objective.cost) > 0

    @property
    def _turns(self) -> bool:
        """Return whether the share of the budget begins that is spent near the best prompt."""
        budget = self.evaluator.budget
        begins = budget.spent >= (1 - self.settings.refine) * budget.total
        return self.settings.refine > 0 and not self.refining and begins

    @property
    def _searching(self) -> BlackBox:
        """Return the aligner whose search runs: with the settings near the best prompt, or its own."""
        return self.near if self.refining else self.aligner

    def _begin(self) -> None:
        self.refining = self.refining or self._turns
        centre = self.best if self.refining else None
        self.space = lay_space(self.evaluator, self._searching.settings, self.rng, centre)
        own = np.random.default_rng(self.rng.integers(1 << 63))
        self.search, self.since = self._searching.begin(self.evaluator, self.space, own), 0

    def step(self) -> None:
        """Run one generation."""
        if self._due:
            self._begin()
        assert self.search is not None, "just begun"
        trials = self.space.prompts(self.search.ask())
        if isinstance(self.search, AnswerSearch):
            self.search.tell_answers(*self.evaluator.answers(trials))
        else:
            self.search.tell(self.evaluator.losses(trials, self.search.limits))
        vector, loss = self.search.best
        self.since, self.generation = self.since + 1, self.generation + 1
        if loss < self.loss:
            self.best, self.loss, self.since = self.space.prompts(vector[None])[0], loss, 0

    def state(self) -> dict[str, np.ndarray]:
        """Return plain arrays for a checkpoint."""
        assert self.search is not None, "a state exists after the first step"
        own = {"best": self.best, "loss": np.array(self.loss), "rng": pack_rng(self.rng)}
        own |= {name: np.array(getattr(self, name)) for name in ("since", "generation", "refining")}
        parts = {f"search_{key}": value for key, value in self.search.state().items()}
        return own | self.space.state() | parts | self.evaluator.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a checkpoint."""
        self.best, self.loss, self.rng = np.array(state["best"]), float(state["loss"]), unpack_rng(state["rng"])
        self.since, self.generation = int(state["since"]), int(state["generation"])
        self.refining = bool(state["refining"])
        self.space = Space.from_state(state)
        self.search = self._searching.restore(self.evaluator, self.space, Part(state, "search_"))
        self.evaluator.restore(state)
