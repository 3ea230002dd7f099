"""Differential Evolution of a soft prompt, the model frozen (Masoud et al. 2025, arXiv 2503.16094, Algorithm 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ..harness.aligned import AlignedModel
from ..harness.aligner import Journal
from ..harness.aligner import Settings as Base
from ..harness.budget import Budget
from ..harness.goal import Goal
from .racing import Race, can_race
from .search.de import DifferentialEvolution
from .soft_prompt import draw_prompts, evaluate, require_candidate, text_prompt
from .texts import persona

if TYPE_CHECKING:
    from ..harness.models import LanguageModel


class DESettings(Base):
    """Settings of the search.

    ``start``: ``tokens`` (random token embeddings) or ``persona`` (around the embedded persona sentence, by
    ``spread`` standard deviations of the embeddings). ``mutation`` is F, drawn anew each generation between its two
    ends; ``recombination`` is CR. ``bound`` limits coordinates to so many standard deviations of the embeddings.
    ``generations`` stops a run whose budget would allow more. ``racing`` drops a trial as soon as the part of its loss
    that is known exceeds its parent's; the budget then pays for more trials.
    """

    tokens: int = Field(10, ge=1, le=1000)
    population: int = Field(20, ge=4, le=1000)
    strategy: Literal["rand1bin", "best1bin"] = "best1bin"
    mutation: tuple[float, float] = (0.5, 1.0)
    recombination: float = Field(0.9, ge=0, le=1)
    start: Literal["tokens", "persona"] = "tokens"
    spread: float = Field(0.5, gt=0)
    bound: float = Field(15.0, gt=0)
    generations: int | None = Field(None, ge=1)
    racing: bool = True

    @model_validator(mode="after")
    def _ordered(self) -> DESettings:
        if not 0 <= self.mutation[0] <= self.mutation[1] <= 2:
            raise ValueError("mutation: two numbers from 0 to 2, the smaller first")
        return self


class DifferentialEvolutionPrompt:
    """Evolves a population of soft prompts on a loss that needs no gradient."""

    Settings: ClassVar = DESettings
    summary: ClassVar = "soft prompt by Differential Evolution, model frozen, no gradients"
    budgeted: ClassVar = True

    def __init__(self, settings: DESettings) -> None:
        self.settings = settings

    def align(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Evolve until the budget or the generations end; a checkpoint after every generation."""
        require_candidate(goal, budget)
        shape = (self.settings.tokens, model.dim)
        state = journal.load()
        search = DifferentialEvolution.from_state(state) if state else self._begin(model, goal, rng)
        race = Race(model, goal, budget) if self.settings.racing and can_race(goal) else None
        if race and state:
            race.restore(state)
        while self._goes_on(search) and (count := budget.affordable(goal.cost)):
            trials = search.ask().reshape(-1, *shape)
            search.tell(race.run(trials, search.losses) if race else evaluate(model, goal, trials[:count], budget))
            journal.save(search.state() | (race.state() if race else {}), search.best[1])
        return AlignedModel(model, search.best[0].reshape(shape))

    def _goes_on(self, search: DifferentialEvolution) -> bool:
        return self.settings.generations is None or search.generation < self.settings.generations

    def _begin(self, model: LanguageModel, goal: Goal, rng: np.random.Generator) -> DifferentialEvolution:
        settings = self.settings
        scale = float(model.token_vectors(model.ordinary_tokens()).std())
        if settings.start == "tokens":
            start = draw_prompts(model, rng, settings.population, settings.tokens)
        else:
            centre = text_prompt(model, persona(goal), settings.tokens)
            noise = rng.standard_normal((settings.population, *centre.shape), dtype=np.float32)
            noise[0] = 0  # the text itself is a member
            start = centre + settings.spread * scale * noise
        limit = settings.bound * scale
        return DifferentialEvolution(
            np.clip(start, -limit, limit).reshape(len(start), -1),
            rng=rng,
            strategy=settings.strategy,
            mutation=settings.mutation,
            recombination=settings.recombination,
            bounds=(-limit, limit),
        )
