"""What is fitted: one task's ``fit`` prompts, one country, one read-out. All an aligner is ever handed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import UsageError
from ..tasks.countries import Country
from ..tasks.items import Survey
from ..tasks.measure import Measure, MeasureOptions, Objective, measure_of
from ..tasks.prompts import Asking, Prompts, render, split_items
from ..tasks.schema import Order, Readout, Split, Splits
from ..tasks.spec import TaskSpec


@dataclass(frozen=True, eq=False)
class Goal:
    """The country to answer like and the loss to bring down.

    ``prompts`` are those of the split ``fit``; ``objective`` maps their option probabilities
    (population, prompts, options) to losses (population,), lower is better, differentiable for ``expected``. ``spec``
    has the wordings and items of ``fit`` alone, and so has the measure: nothing held out can be reached from here.
    """

    task: str
    language: str
    country: Country
    readout: Readout
    prompts: Prompts
    objective: Objective
    measure: Measure
    spec: TaskSpec
    asking: Asking

    def take(self, rows: np.ndarray) -> Goal:
        """The same goal over some of its prompts."""
        prompts = self.prompts.take(rows)
        return replace(self, prompts=prompts, objective=self.measure.objective(prompts.layout, self.readout))

    def retold(self, rng: np.random.Generator, order: Order) -> Goal:
        """The same goal in words of its own: a survey's wordings of ``fit`` mixed at random, asked in one order.

        Questions keep their frames. Nothing of a held-out wording or item is in it.
        """
        spec, part = self.spec, self.spec.metadata.splits.fit
        if isinstance(spec.items, Survey):
            items = Survey.model_validate(
                spec.items.model_dump(by_alias=True) | {"wordings": {"mixed": spec.items.mixed(part.wordings, rng)}}
            )
            spec, name = replace(spec, items=items), "mixed"
        else:
            name = part.wordings[rng.integers(len(part.wordings))]
        spec = _asking_only(spec, part.model_copy(update={"wordings": (name,), "orders": (order,)}))
        prompts = _closed(render(spec, "fit", self.asking))
        return replace(self, prompts=prompts, objective=self.measure.objective(prompts.layout, self.readout))

    @property
    def cost(self) -> int:
        """Item forwards of one candidate."""
        return len(self.prompts)


def fit_goal(
    spec: TaskSpec, country: Country, readout: Readout, options: MeasureOptions, respondents: int, seed: int
) -> Goal:
    """The goal of fitting one task; held-out wordings, orders and respondents are not in it."""
    spec, asking = fit_only(spec), Asking(respondents, seed)
    prompts = _closed(render(spec, "fit", asking))
    measure = measure_of(spec, country.code, options)
    objective = measure.objective(prompts.layout, readout)
    return Goal(spec.name, spec.metadata.languages[0], country, readout, prompts, objective, measure, spec, asking)


def _closed(prompts: Prompts) -> Prompts:
    """The prompts that have options: an open question is no part of a loss over them.

    Raises:
        UsageError: none has.
    """
    if not (closed := prompts.layout.widths > 0).any():
        raise UsageError(f"--fit {prompts.task}: its fit split has open questions only; nothing to fit.")
    return prompts if closed.all() else prompts.take(closed)


def fit_only(spec: TaskSpec) -> TaskSpec:
    """A spec reduced to what its split ``fit`` asks: no other wording, no other item, no other split."""
    part = spec.metadata.splits.fit
    items = spec.items.only(split_items(spec, "fit", Asking()), part.wordings)
    return _asking_only(replace(spec, items=items), part)


def _asking_only(spec: TaskSpec, part: Split) -> TaskSpec:
    splits = Splits.model_construct(fit=part, heldout=None, control=None)
    return replace(spec, metadata=spec.metadata.model_copy(update={"splits": splits}))
