"""CMA-ES of a soft prompt, the model frozen: black-box tuning (Sun et al. 2022, BBT), and its separable form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field, model_validator

from ..harness.aligned import AlignedModel
from ..harness.aligner import Journal
from ..harness.budget import Budget
from ..harness.goal import Goal
from .black_box import BlackBox
from .search.cma import CovarianceAdaptation
from .spaces import Space, SpaceSettings

if TYPE_CHECKING:
    from ..harness.models import LanguageModel

MOST_FULL = 1000  # dimensions beyond which a full covariance costs more than the model


class CMASettings(SpaceSettings):
    """``population``: trials a generation; ``separable``: variances only, which the full space needs."""

    population: int | None = Field(20, ge=2, le=1000)
    separable: bool = False

    @model_validator(mode="after")
    def _small(self) -> CMASettings:
        if self.dimensions < 2:
            raise ValueError("dimensions: the library needs two or more")
        if not self.separable and (self.space == "full" or self.dimensions > MOST_FULL):
            raise ValueError(f"separable: a full covariance takes {MOST_FULL} dimensions at most; set separable=true")
        return self


class CovarianceAdaptationPrompt:
    """Adapts a Gaussian over soft prompts on a loss that needs no gradient."""

    Settings: ClassVar = CMASettings
    summary: ClassVar = "soft prompt by CMA-ES in a subspace (or separable CMA-ES), model frozen, no gradients"
    budgeted: ClassVar = True

    def __init__(self, settings: CMASettings) -> None:
        self.settings = settings

    def align(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Search within the budget."""
        return BlackBox(self.settings, self._begin, self._restore).run(model, goal, budget, rng, journal)

    def _begin(self, space: Space, rng: np.random.Generator) -> CovarianceAdaptation:
        settings = self.settings
        return CovarianceAdaptation(
            np.zeros(space.dim),
            sigma=settings.sigma,
            seed=int(rng.integers(1 << 31)),
            population=settings.population,
            separable=settings.separable,
        )

    @staticmethod
    def _restore(state: Mapping[str, np.ndarray]) -> CovarianceAdaptation:
        return CovarianceAdaptation.from_state(state)
