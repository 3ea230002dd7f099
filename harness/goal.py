"""What is fitted: one task's ``fit`` prompts, one country, one read-out. All an aligner is ever handed."""

from __future__ import annotations

from dataclasses import dataclass

from ..tasks.countries import Country
from ..tasks.measure import Measure, MeasureOptions, Objective, measure_of
from ..tasks.prompts import Asking, Prompts, render
from ..tasks.schema import Readout
from ..tasks.spec import TaskSpec


@dataclass(frozen=True, eq=False)
class Goal:
    """The country to answer like and the loss to bring down.

    ``prompts`` are those of the split ``fit``; ``objective`` maps their option probabilities
    (population, prompts, options) to losses (population,), lower is better, differentiable for ``expected``.
    """

    task: str
    language: str
    country: Country
    readout: Readout
    prompts: Prompts
    objective: Objective
    measure: Measure

    @property
    def cost(self) -> int:
        """Item forwards of one candidate."""
        return len(self.prompts)


def fit_goal(
    spec: TaskSpec, country: Country, readout: Readout, options: MeasureOptions, respondents: int, seed: int
) -> Goal:
    """The goal of fitting one task; held-out wordings, orders and respondents are not in it."""
    prompts = render(spec, "fit", Asking(respondents, seed))
    measure = measure_of(spec, country.code, options)
    return Goal(
        spec.name,
        spec.metadata.languages[0],
        country,
        readout,
        prompts,
        measure.objective(prompts.layout, readout),
        measure,
    )
