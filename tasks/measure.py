"""The interface between task families and the harness; families register under a name that specs use."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from ..errors import InputError, did_you_mean
from .answers import Answers, Layout
from .metrics.map_projection import AXES
from .metrics.reference import DIMENSIONS
from .sample import Sample
from .schema import Scoring, SplitName, Strict
from .score import Score
from .spec import TaskSpec

if TYPE_CHECKING:
    from .metrics.target_distributions import TargetDistributions

MEASURES = {
    "hofstede": "culteval.tasks.metrics.survey:HofstedeSurvey",
    "shares": "culteval.tasks.metrics.shares:Shares",
    "simbench": "culteval.tasks.metrics.simbench:SimBench",
    "accuracy": "culteval.tasks.metrics.accuracy:Accuracy",
    "poles": "culteval.tasks.metrics.poles:Poles",
    "labelled": "culteval.tasks.metrics.labelled:LabelledSurvey",
    "probes": "culteval.tasks.metrics.probes:Probes",
    "cultural_map": "culteval.tasks.metrics.cultural_map:CulturalMap",
}
INDICES = {"hofstede": DIMENSIONS, "cultural_map": AXES}  # measures with indices that countries can be centred on

LossFunction = Callable[[Any], Any]
"""Map option probabilities (population, prompts, options) to losses (population,); lower is better."""


@runtime_checkable
class SeparableLoss(Protocol):
    """A loss function that is a sum of non-negative terms, each of which depends on some of the prompts.

    A search may drop a candidate once the terms known so far exceed the loss it must improve on.
    """

    def __call__(self, probs: Any) -> Any:
        """Compute the loss as ``total(terms(probs))``."""

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        """Return the prompts (indices) that each term depends on; no prompt is in two terms."""

    def terms(self, probs: Any) -> Any:
        """Compute the terms (population, parts), none below zero; a term is valid once its prompts are answered."""

    def total(self, terms: Any) -> Any:
        """Compute the loss (population,) from terms; with some of them zero, a lower bound of the loss."""


@runtime_checkable
class DrawnLoss(Protocol):
    """A loss function of probability-weighted answers that also knows the loss to expect of drawn ones."""

    def of_drawn(self) -> LossFunction:
        """Return the loss to expect where every answer is drawn from its option probabilities, by itself.

        It is exact for squared distances, and the root of the mean square for other ones.
        """


class MeasureOptions(Strict):
    """The options that identify a metric: edition of the reference, constants, and norm of the objective."""

    edition: str | None = None
    constants: str = "world"
    norm: str = "sse"


class Measure(Protocol):
    """A task's scoring for one country, built by ``measure_of``.

    ``caution`` is a sentence to be shown with the country's scores, or None.
    """

    caution: str | None

    def loss_function(self, layout: Layout, scoring: Scoring) -> LossFunction:
        """Return the loss of answers to prompts of this layout.

        Torch in, torch out, and differentiable for ``expected``.
        """

    def score(self, answers: Answers, split: SplitName, scoring: Scoring) -> list[Score]:
        """Compute every metric of one split and answer scoring.

        ``answers`` are those of the split without content-free items.
        """

    def sample(self, answers: Answers, scoring: Scoring) -> Sample:
        """Return the units (personas or questions) of one split's main metrics, for intervals and tests."""

    def demonstrations(self, layout: Layout) -> np.ndarray:
        """Return the reference option's code (prompts,) for the country; ``UNPARSED`` where there is none."""

    def constant(self, layout: Layout) -> Answers:
        """Return the answers of the baseline that gives the same answer to every question."""

    def baselines(self, layout: Layout) -> dict[str, Answers]:
        """Return the answers of the baselines that use other countries, or the key, and not this country.

        ``world mean`` is the mean of the countries and ``majority`` the modal answer; a baseline without a meaning for
        the task is left out.
        """


@runtime_checkable
class DistributionMeasure(Protocol):
    """A measure that knows how the people of its country answered each question, beyond figures made from that."""

    def distributions(self, layout: Layout) -> TargetDistributions:
        """Return the distribution of the people's answers for each prompt, none where a question was not asked."""


def measure_of(spec: TaskSpec, country: str, options: MeasureOptions) -> Measure:
    """Build the measure that a spec names, for one two-letter country code.

    Raises:
        InputError: the spec names a measure that does not exist.
        UsageError: the reference has no figures for the country, or an option is unknown.
    """
    measure: Measure = _measure_class(spec)(spec, country, options)
    return measure


def countries_of(spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
    """Return the codes of the countries that a reference can score completely; none if the task takes any country.

    Raises:
        InputError, UsageError: as ``measure_of``.
    """
    countries: tuple[str, ...] = _measure_class(spec).countries(spec, edition)
    return countries


def indices_of(spec: TaskSpec) -> tuple[str, ...]:
    """Return the names of the indices that a task's measure computes for countries; none for other measures."""
    return INDICES.get(spec.metadata.measure, ())


def _measure_class(spec: TaskSpec) -> Any:
    name = spec.metadata.measure
    if name not in MEASURES:
        raise InputError(f"{spec.path}: metadata.measure: unknown measure {name!r}.{did_you_mean(name, MEASURES)}")
    module, _, attribute = MEASURES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
