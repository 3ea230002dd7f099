"""Particle swarm optimisation of a soft prompt, the model frozen (future work of the seed paper, arXiv 2503.16094)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from ..harness.aligned import AlignedModel
from ..harness.aligner import Journal
from ..harness.budget import Budget
from ..harness.goal import Goal
from .black_box import BlackBox
from .search.pso import ParticleSwarm
from .spaces import Space, SpaceSettings

if TYPE_CHECKING:
    from ..harness.models import LanguageModel


class PSOSettings(SpaceSettings):
    """``population``: particles."""

    population: int = Field(20, ge=2, le=1000)


class ParticleSwarmPrompt:
    """Moves a swarm of soft prompts on a loss that needs no gradient."""

    Settings: ClassVar = PSOSettings
    summary: ClassVar = "soft prompt by particle swarm optimisation, model frozen, no gradients"
    budgeted: ClassVar = True

    def __init__(self, settings: PSOSettings) -> None:
        self.settings = settings

    def align(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Search within the budget."""
        return BlackBox(self.settings, self._begin, self._restore).run(model, goal, budget, rng, journal)

    def _begin(self, space: Space, rng: np.random.Generator) -> ParticleSwarm:
        places = self.settings.sigma * rng.standard_normal((self.settings.population, space.dim))
        places[0] = 0  # the first prompt itself is a member
        return ParticleSwarm(places, rng=rng)

    @staticmethod
    def _restore(state: Mapping[str, np.ndarray]) -> ParticleSwarm:
        return ParticleSwarm.from_state(state)
