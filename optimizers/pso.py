"""Particle swarm optimisation of a soft prompt, model frozen (future work of the seed paper, arXiv 2503.16094)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from ..harness.alignment.aligner import CANDIDATE_COST, Card
from .black_box import BlackBox, BlackBoxSettings
from .search.pso import ParticleSwarm
from .spaces import Space, first_vectors

if TYPE_CHECKING:
    from ..harness.alignment.evaluator import Evaluator


class PSOSettings(BlackBoxSettings):
    """The settings of particle swarm optimisation, in addition to those of every search; ``population``: particles."""

    population: int = Field(20, ge=2, le=1000)


class ParticleSwarmPrompt(BlackBox):
    """Particle swarm optimisation of soft prompts from losses alone.

    Each particle moves towards the best place that it and the swarm have found.
    """

    Settings: ClassVar = PSOSettings
    summary: ClassVar = "soft prompt by particle swarm optimisation, model frozen, no gradients"
    card: ClassVar = Card(
        source=(
            "Kennedy & Eberhart 1995; Clerc & Kennedy 2002; for soft prompts future work in Masoud et al. 2025 (arXiv "
            "2503.16094)"
        ),
        needs="the country's figures on `fit` as a loss; forward passes, no gradients",
        cost=CANDIDATE_COST,
        gives="soft prompt (PEFT prompt tuning)",
        limits=(
            "24 answers and six targets are fitted easily: compare `heldout` with the random-prefix control. An argmax"
            " loss is a step function."
        ),
    )
    settings: PSOSettings

    def begin(self, evaluator: Evaluator, space: Space, rng: np.random.Generator) -> ParticleSwarm:
        """Start particles around the space's first prompt, which is one of them."""
        return ParticleSwarm(
            first_vectors(evaluator.model, space, self.settings, rng, self.settings.population), rng=rng
        )

    def restore(self, evaluator: Evaluator, space: Space, state: Mapping[str, np.ndarray]) -> ParticleSwarm:
        """Restore the swarm of a checkpoint."""
        return ParticleSwarm.from_state(state)
