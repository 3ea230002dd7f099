"""Objectives of a fit: the ``fit`` prompts of a task, a country and an answer scoring, without any held-out data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ...errors import UsageError
from ...tasks.answers import IN_TEXT, Layout
from ...tasks.countries import Country
from ...tasks.items import Survey
from ...tasks.measure import DistributionMeasure, LossFunction, Measure, MeasureOptions, measure_of
from ...tasks.prompts import Prompts, ProtocolOptions, render, split_items
from ...tasks.schema import FitObjective, Order, Scoring, Split, Splits
from ...tasks.spec import TaskSpec
from .worst_paraphrase import worst_paraphrase

if TYPE_CHECKING:
    from ...tasks.metrics.target_distributions import TargetDistributions


class Objective(Protocol):
    """Objective of a fit: the country to align to, the prompts to fit, and the loss to minimise.

    ``loss`` maps option probabilities (population, prompts, options) of ``prompts`` to losses (population,), lower is
    better, differentiable where ``scoring`` is ``expected``. ``null_loss`` is the loss of answers without information,
    ``demonstrations`` the reference codes (prompts,) of the country (``UNPARSED`` where there is none), ``cost`` the
    item forwards of one candidate. ``language`` is that of the prompts. ``most_tokens`` is the length of an answer in
    text, 0 where option probabilities are fitted. ``kind`` says whether the loss is the task's own, that of its worst
    fitted paraphrase, or the divergence from the people's answer distributions, which are ``distributions`` (UsageError
    for a task without them). An aligner receives nothing else about the task.
    """

    @property
    def task(self) -> str: ...

    @property
    def language(self) -> str: ...

    @property
    def country(self) -> Country: ...

    @property
    def scoring(self) -> Scoring: ...

    @property
    def kind(self) -> FitObjective: ...

    @property
    def null_loss(self) -> float: ...

    @property
    def prompts(self) -> Prompts: ...

    @property
    def demonstrations(self) -> np.ndarray: ...

    @property
    def distributions(self) -> TargetDistributions: ...

    @property
    def cost(self) -> int: ...

    @property
    def most_tokens(self) -> int: ...

    def loss(self, probs: Any, /) -> Any: ...

    def read_as(self, scoring: Scoring) -> Objective:
        """Return the objective of the same prompts with the loss of another answer scoring."""

    def take(self, rows: np.ndarray) -> Objective:
        """Return the objective over some of its prompts."""

    def paraphrased(self, rng: np.random.Generator, order: Order) -> Objective:
        """Return the objective with a random mixture of the paraphrases of ``fit``, in one option order."""

    def for_country(self, country: Country) -> Objective:
        """Return the objective of the same prompts for another country; UsageError where the reference lacks it."""


@dataclass(frozen=True, eq=False)
class TaskObjective:
    """The objective of fitting one task (see ``Objective``).

    ``spec`` and ``measure`` have the paraphrases and items of ``fit`` alone: no held-out data can be reached from an
    objective.
    """

    task: str
    language: str
    country: Country
    scoring: Scoring
    prompts: Prompts
    loss: LossFunction
    measure: Measure
    spec: TaskSpec
    protocol: ProtocolOptions
    options: MeasureOptions
    kind: FitObjective = "task"

    @cached_property
    def null_loss(self) -> float:
        """Return the loss of answers without information (all options equally probable), 1 if that is 0 or infinite."""
        inside = self.prompts.layout.inside
        loss = float(np.asarray(self.loss((inside / inside.sum(1, keepdims=True))[None]))[0])
        return loss if np.isfinite(loss) and loss > 0 else 1.0

    @property
    def demonstrations(self) -> np.ndarray:
        """Return the reference codes (prompts,) of the country, for examples; ``UNPARSED`` where there is none."""
        return self.measure.demonstrations(self.prompts.layout)

    @property
    def distributions(self) -> TargetDistributions:
        """Return how the country's people answered each prompt.

        Raises:
            UsageError: the task has no such data.
        """
        return _distributions(self.measure, self.task, self.prompts.layout)

    def _changed(self, **fields: Any) -> TaskObjective:
        """Return the objective with other values of some fields, and the loss of these."""
        other = replace(self, **fields)
        return replace(other, loss=_loss(other.kind, other.measure, other.task, other.prompts.layout, other.scoring))

    def for_country(self, country: Country) -> TaskObjective:
        """Return the objective of the same prompts for another country.

        Raises:
            UsageError: the reference lacks the country.
        """
        measure = measure_of(self.spec, country.code, self.options)
        return self._changed(country=country, measure=measure)

    def take(self, rows: np.ndarray) -> TaskObjective:
        """Return the objective over some of its prompts."""
        return self._changed(prompts=self.prompts.take(rows))

    def read_as(self, scoring: Scoring) -> TaskObjective:
        """Return the objective of the same prompts with the loss of another answer scoring."""
        return self._changed(scoring=scoring)

    @property
    def groups(self) -> np.ndarray:
        """Return group numbers (prompts,); prompts of one group ask the same question and belong in one fold."""
        layout = self.prompts.layout
        names = [self.spec.items.group(item) for item in layout.items]
        groups: np.ndarray = np.unique(names, return_inverse=True)[1][layout.item]
        return groups

    def paraphrased(self, rng: np.random.Generator, order: Order) -> TaskObjective:
        """Return the objective with a random mixture of a survey's paraphrases of ``fit``, in one option order.

        For questions, one of the question templates of ``fit`` is drawn. No held-out paraphrase or item is used.
        """
        spec, part = self.spec, self.spec.metadata.splits.fit
        if isinstance(spec.items, Survey):
            items = type(spec.items).model_validate(
                spec.items.model_dump(by_alias=True)
                | {"paraphrases": {"mixed": spec.items.mixed(part.paraphrases, rng)}}
            )
            spec, name = replace(spec, items=items), "mixed"
        else:
            name = part.paraphrases[rng.integers(len(part.paraphrases))]
        spec = _asking_only(spec, part.model_copy(update={"paraphrases": (name,), "orders": (order,)}))
        prompts = _closed(render(spec, "fit", self.protocol))
        kept = np.isin(prompts.layout.item, self.prompts.layout.item)  # items removed by ``take`` stay removed
        prompts = prompts if kept.all() else prompts.take(kept)
        return self._changed(prompts=prompts)

    @property
    def cost(self) -> int:
        """Return the item forwards of one candidate."""
        return len(self.prompts)

    @property
    def most_tokens(self) -> int:
        """Return the largest number of tokens of an answer in text; 0 where option probabilities are fitted."""
        return self.spec.most_tokens if self.scoring in IN_TEXT else 0


def fit_objective(
    spec: TaskSpec,
    country: Country,
    scoring: Scoring,
    options: MeasureOptions,
    personas: int,
    seed: int,
    kind: FitObjective = "task",
) -> TaskObjective:
    """Make the objective of fitting one task, without held-out paraphrases, option orders and personas.

    Raises:
        UsageError: the reference lacks the country, or the objective ``kind`` does not fit task or answer scoring.
    """
    spec, protocol = fit_only(spec), ProtocolOptions(personas, seed)
    prompts = _closed(render(spec, "fit", protocol))
    measure = measure_of(spec, country.code, options)
    loss = _loss(kind, measure, spec.name, prompts.layout, scoring)
    language = spec.metadata.languages[0]
    return TaskObjective(spec.name, language, country, scoring, prompts, loss, measure, spec, protocol, options, kind)


def _loss(kind: FitObjective, measure: Measure, task: str, layout: Layout, scoring: Scoring) -> LossFunction:
    """Return the loss of an objective of this kind.

    Raises:
        UsageError: an answer scoring, a task or a country without distributions.
    """
    if kind == "task":
        return measure.loss_function(layout, scoring)
    if kind == "worst_paraphrase":
        return worst_paraphrase(measure, layout, scoring)
    if scoring != "expected":
        raise UsageError(f"`objective` distribution: `scoring` {scoring} leaves one answer of each. Use expected.")
    target = _distributions(measure, task, layout)
    if not target.known.any():
        raise UsageError(f"`objective` distribution: none of these questions of {task} was asked in the country.")
    return target.loss(layout)


def _distributions(measure: Measure, task: str, layout: Layout) -> TargetDistributions:
    if not isinstance(measure, DistributionMeasure):
        raise UsageError(
            f"`objective` distribution: {task} does not hold how people's answers are distributed. "
            "Fit a task with answer shares, such as wvs, or use `objective` task."
        )
    return measure.distributions(layout)


def _closed(prompts: Prompts) -> Prompts:
    """Return the prompts with options, since open questions have no loss.

    Raises:
        UsageError: no prompt has options.
    """
    if not (closed := prompts.layout.widths > 0).any():
        raise UsageError(f"`fit` {prompts.task}: its fit split has open questions only; nothing to fit.")
    return prompts if closed.all() else prompts.take(closed)


def fit_only(spec: TaskSpec) -> TaskSpec:
    """Return a spec reduced to the paraphrases and items of its split ``fit``, without other splits."""
    part = spec.metadata.splits.fit
    items = spec.items.only(split_items(spec, "fit", ProtocolOptions()), part.paraphrases)
    return _asking_only(replace(spec, items=items), part)


def _asking_only(spec: TaskSpec, part: Split) -> TaskSpec:
    none: Any = None  # a Splits that was read always has a held-out part; this one must not have any
    splits = Splits.model_construct(fit=part, heldout=none, control=None)
    return replace(spec, metadata=spec.metadata.model_copy(update={"splits": splits}))
