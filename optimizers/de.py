"""Differential Evolution of a soft prompt with the model frozen (Masoud et al. 2025, arXiv 2503.16094, Algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field, model_validator

from ..harness.alignment.aligner import CANDIDATE_COST, Card
from .black_box import BlackBox, BlackBoxSettings
from .search.de import DifferentialEvolution
from .search.interface import Search
from .search.screened_de import Breeding, ScreenedEvolution
from .search.shade import SuccessHistoryEvolution
from .soft_prompt import CONFIGS
from .spaces import Space, SpaceName, Start, first_vectors

if TYPE_CHECKING:
    from ..harness.alignment.evaluator import Evaluator


class DESettings(BlackBoxSettings):
    """The settings of Differential Evolution, in addition to those of every search.

    By default ``screening`` trials are bred for each that is evaluated, in the directions in which the items' expected
    answers change most: a third by DE/best/1, a third near the best vector, a third anywhere. A Gaussian process of the
    model's answers chooses among them; racing then has no effect. It was chosen on argmax losses of the 0.5B, with one
    seed. ``--config de-paper`` is the paper's form, in the full space around random tokens; a model without
    gradients takes ``space`` ``random``.

    ``strategy``: DE/rand/1, DE/best/1, or ``shade``, which adapts F and CR itself and shrinks the population to four
    over the budget (L-SHADE). ``mutation`` is F, drawn in each generation between its two ends; ``recombination`` is
    CR. ``bound`` limits the coordinates of the space to this number of its units.
    """

    space: SpaceName = "active"
    dimensions: int = Field(10, ge=1, le=5000)
    start: Start = "mean"
    sigma: float = Field(4.0, gt=0, le=100)
    refine: float = Field(0.3, ge=0, lt=1)
    population: int = Field(10, ge=4, le=1000)
    strategy: Literal["rand1bin", "best1bin", "shade"] = "best1bin"
    mutation: tuple[float, float] = (0.5, 1.0)
    recombination: float = Field(0.9, ge=0, le=1)
    bound: float = Field(15.0, gt=0)
    screening: int = Field(400, ge=1, le=10_000)

    @model_validator(mode="after")
    def _fits_together(self) -> DESettings:
        if not 0 <= self.mutation[0] <= self.mutation[1] <= 2:
            raise ValueError("mutation: two numbers from 0 to 2, the smaller first")
        if self.screening > 1 and self.strategy != "best1bin":
            raise ValueError("screening: trials of best1bin only; add screening=1")
        if self.strategy == "shade":
            for name in ("mutation", "recombination"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name}: strategy=shade adapts it; leave it out, or take another strategy")
        return self


class DifferentialEvolutionPrompt(BlackBox):
    """Differential Evolution of soft prompts from losses alone: a trial mixed of members replaces a worse parent.

    ``de-paper`` is the form of the seed paper.
    """

    Settings: ClassVar = DESettings
    summary: ClassVar = "soft prompt by Differential Evolution, model frozen, loss without gradients"
    card: ClassVar = Card(
        source=(
            "Storn & Price 1997; `shade`: Tanabe & Fukunaga 2014; for soft prompts: Masoud et al. 2025, Algorithm 1 "
            "(arXiv 2503.16094)"
        ),
        needs=(
            "the country's figures on `fit` as a loss; forward passes, and for `space=active` one gradient of each "
            "item's expected answer, not of the loss"
        ),
        cost=(
            f"{CANDIDATE_COST}; racing spends less on `vsm13`. Gradients, at the start and for refining, cost as much "
            "as three candidates each time"
        ),
        gives="soft prompt (PEFT prompt tuning)",
        limits=(
            "24 answers and six targets are fitted easily: compare `heldout` with the random-prefix control. An argmax"
            " loss is a step function; where a model gives one answer 24 times, no search can use it."
        ),
    )
    configs: ClassVar = {"de-paper": CONFIGS / "de-paper.yaml"}
    settings: DESettings

    def begin(self, evaluator: Evaluator, space: Space, rng: np.random.Generator) -> Search:
        """Start a population around the space's first prompt, which is a member."""
        settings = self.settings
        start = first_vectors(evaluator.model, space, settings, rng, settings.population)
        start = np.clip(start, -settings.bound, settings.bound)
        if settings.screening > 1:
            fields = {name: getattr(settings, name) for name in Breeding.__dataclass_fields__}
            return ScreenedEvolution(start, evaluator.objective.loss, Breeding(**fields), rng=rng)
        if settings.strategy == "shade":
            start = np.clip(start.astype(np.float64), -settings.bound, settings.bound)  # float32 may round it up
            return SuccessHistoryEvolution(start, lambda: evaluator.budget.share, rng=rng, bound=settings.bound)
        return DifferentialEvolution(
            start,
            rng=rng,
            strategy=settings.strategy,
            mutation=settings.mutation,
            recombination=settings.recombination,
            bounds=(-settings.bound, settings.bound),
        )

    def restore(self, evaluator: Evaluator, space: Space, state: Mapping[str, np.ndarray]) -> Search:
        """Restore the search of a checkpoint."""
        if self.settings.screening > 1:
            return ScreenedEvolution.from_state(state, evaluator.objective.loss)
        if self.settings.strategy == "shade":
            return SuccessHistoryEvolution.from_state(state, lambda: evaluator.budget.share)
        return DifferentialEvolution.from_state(state)
