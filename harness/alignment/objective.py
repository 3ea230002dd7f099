"""What is fitted: ``fit`` prompts of one task or several, one country, one read-out. All an aligner is ever handed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ...errors import UsageError
from ...tasks.countries import Country
from ...tasks.items import Survey
from ...tasks.measure import LossFunction, Measure, MeasureOptions, measure_of
from ...tasks.prompts import Asking, Prompts, render, split_items
from ...tasks.schema import Order, Readout, Split, Splits
from ...tasks.spec import TaskSpec


class Objective(Protocol):
    """All an aligner is handed: whom to answer like, the prompts to fit, and the loss to bring down.

    ``loss`` maps option probabilities (population, prompts, options) of ``prompts`` to losses (population,), lower
    is better, differentiable where ``readout`` is ``expected``. ``null_loss`` is the loss of answers without
    information, ``demonstrations`` the reference code (prompts,) of the country, ``cost`` the item forwards of one
    candidate. ``language`` is that of the prompts.
    """

    @property
    def task(self) -> str: ...

    @property
    def language(self) -> str: ...

    @property
    def country(self) -> Country: ...

    @property
    def readout(self) -> Readout: ...

    @property
    def null_loss(self) -> float: ...

    @property
    def prompts(self) -> Prompts: ...

    @property
    def demonstrations(self) -> np.ndarray: ...

    @property
    def cost(self) -> int: ...

    def loss(self, probs: Any, /) -> Any: ...

    def take(self, rows: np.ndarray) -> Objective:
        """The same objective over some of its prompts."""

    def paraphrased(self, rng: np.random.Generator, order: Order) -> Objective:
        """The same objective in a paraphrase: wordings of ``fit`` mixed at random, asked in one order."""

    def for_country(self, country: Country) -> Objective:
        """The same prompts with another country to answer like; UsageError where there are no figures for it."""


@dataclass(frozen=True, eq=False)
class TaskObjective:
    """The objective of fitting one task (see ``Objective``).

    ``spec`` has the wordings and items of ``fit`` alone, and so has the measure: nothing held out can be reached from
    here.
    """

    task: str
    language: str
    country: Country
    readout: Readout
    prompts: Prompts
    loss: LossFunction
    measure: Measure
    spec: TaskSpec
    asking: Asking
    options: MeasureOptions

    @cached_property
    def null_loss(self) -> float:
        """The loss of answers without information, every option as probable: what a loss is compared with; 1 if 0."""
        inside = self.prompts.layout.inside
        loss = float(np.asarray(self.loss((inside / inside.sum(1, keepdims=True))[None]))[0])
        return loss if np.isfinite(loss) and loss > 0 else 1.0

    @property
    def demonstrations(self) -> np.ndarray:
        """The reference code (prompts,) of the country, for few-shot examples."""
        return self.measure.demonstrations(self.prompts.layout)

    def for_country(self, country: Country) -> TaskObjective:
        """The same prompts with another country to answer like.

        Raises:
            UsageError: the task has no figures for it.
        """
        measure = measure_of(self.spec, country.code, self.options)
        loss = measure.loss_function(self.prompts.layout, self.readout)
        return replace(self, country=country, measure=measure, loss=loss)

    def take(self, rows: np.ndarray) -> TaskObjective:
        """The same objective over some of its prompts."""
        prompts = self.prompts.take(rows)
        return replace(self, prompts=prompts, loss=self.measure.loss_function(prompts.layout, self.readout))

    def read_as(self, readout: Readout) -> TaskObjective:
        """The same prompts with the loss of another read-out."""
        return replace(self, readout=readout, loss=self.measure.loss_function(self.prompts.layout, readout))

    @property
    def groups(self) -> np.ndarray:
        """Numbers (prompts,): prompts of one number ask the same thing and belong in one fold."""
        layout = self.prompts.layout
        names = [self.spec.items.group(item) for item in layout.items]
        groups: np.ndarray = np.unique(names, return_inverse=True)[1][layout.item]
        return groups

    def paraphrased(self, rng: np.random.Generator, order: Order) -> TaskObjective:
        """The same objective in a paraphrase: a survey's wordings of ``fit`` mixed at random, asked in one order.

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
        mine = np.isin(prompts.layout.item, self.prompts.layout.item)  # what was taken out stays out
        prompts = prompts if mine.all() else prompts.take(mine)
        return replace(self, prompts=prompts, loss=self.measure.loss_function(prompts.layout, self.readout))

    @property
    def cost(self) -> int:
        """Item forwards of one candidate."""
        return len(self.prompts)


def fit_objective(
    spec: TaskSpec, country: Country, readout: Readout, options: MeasureOptions, respondents: int, seed: int
) -> TaskObjective:
    """The objective of fitting one task; held-out wordings, orders and respondents are not in it."""
    spec, asking = fit_only(spec), Asking(respondents, seed)
    prompts = _closed(render(spec, "fit", asking))
    measure = measure_of(spec, country.code, options)
    loss = measure.loss_function(prompts.layout, readout)
    language = spec.metadata.languages[0]
    return TaskObjective(spec.name, language, country, readout, prompts, loss, measure, spec, asking, options)


def _closed(prompts: Prompts) -> Prompts:
    """The prompts that have options: an open question is no part of a loss over them.

    Raises:
        UsageError: none has.
    """
    if not (closed := prompts.layout.widths > 0).any():
        raise UsageError(f"`fit` {prompts.task}: its fit split has open questions only; nothing to fit.")
    return prompts if closed.all() else prompts.take(closed)


def fit_only(spec: TaskSpec) -> TaskSpec:
    """A spec reduced to what its split ``fit`` asks: no other wording, no other item, no other split."""
    part = spec.metadata.splits.fit
    items = spec.items.only(split_items(spec, "fit", Asking()), part.wordings)
    return _asking_only(replace(spec, items=items), part)


def _asking_only(spec: TaskSpec, part: Split) -> TaskSpec:
    none: Any = None  # a Splits that was read has a heldout part; this one is not to have any
    splits = Splits.model_construct(fit=part, heldout=none, control=None)
    return replace(spec, metadata=spec.metadata.model_copy(update={"splits": splits}))
