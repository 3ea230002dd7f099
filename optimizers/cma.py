"""CMA-ES of a soft prompt with the model frozen: black-box tuning (Sun et al. 2022, BBT), and its separable form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field, model_validator

from ..errors import CheckpointError
from ..harness.alignment.aligner import CANDIDATE_COST, Card
from .black_box import BlackBox, BlackBoxSettings
from .search.cma import CovarianceAdaptation
from .spaces import Space

if TYPE_CHECKING:
    from ..harness.alignment.evaluator import Evaluator

MOST_FULL = 1000  # dimensions beyond which a full covariance costs more than the model


class CMASettings(BlackBoxSettings):
    """The settings of CMA-ES, in addition to those of every search.

    ``population``: trials per generation; ``separable``: adapt variances only, which the full space requires.
    """

    population: int | None = Field(20, ge=2, le=1000)
    separable: bool = False

    @model_validator(mode="after")
    def _small(self) -> CMASettings:
        if self.dimensions < 2:
            raise ValueError("dimensions: the library needs two or more")
        if not self.separable and (self.space == "full" or self.dimensions > MOST_FULL):
            raise ValueError(f"separable: a full covariance takes {MOST_FULL} dimensions at most; set separable=true")
        return self


class CovarianceAdaptationPrompt(BlackBox):
    """CMA-ES adapts a Gaussian over soft prompts in a subspace, from losses alone.

    In the full space only variances are adapted (``separable``).
    """

    Settings: ClassVar = CMASettings
    summary: ClassVar = "soft prompt by CMA-ES in a subspace (or separable CMA-ES), model frozen, no gradients"
    card: ClassVar = Card(
        source="Hansen & Ostermeier 2001; Ros & Hansen 2008; black-box tuning: Sun et al. 2022 (arXiv 2201.03514)",
        needs="the country's figures on `fit` as a loss; forward passes, no gradients",
        cost=CANDIDATE_COST,
        gives="soft prompt (PEFT prompt tuning)",
        limits=(
            "24 answers and six targets are fitted easily: compare `heldout` with the random-prefix control. An argmax "
            "loss is a step function."
        ),
    )
    settings: CMASettings

    def begin(self, evaluator: Evaluator, space: Space, rng: np.random.Generator) -> CovarianceAdaptation:
        """Start a Gaussian around the space's first prompt."""
        settings = self.settings
        return CovarianceAdaptation(
            np.zeros(space.dim),
            sigma=settings.sigma,
            seed=int(rng.integers(1 << 31)),
            population=settings.population,
            separable=settings.separable,
        )

    def restore(self, evaluator: Evaluator, space: Space, state: Mapping[str, np.ndarray]) -> CovarianceAdaptation:
        """Restore the search of a checkpoint; CheckpointError for one with another population or space."""
        population = -1 if self.settings.population is None else self.settings.population
        if int(state["cma_population"]) != population or state["cma_start"].shape != (space.dim,):
            raise CheckpointError("the checkpoint has another population or space. Start over with `fresh`.")
        return CovarianceAdaptation.from_state(state)
