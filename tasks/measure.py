"""What a task family must be able to do with answers; families register under a name that specs use."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..errors import InputError, did_you_mean
from .answers import Answers, Layout
from .sample import Sample
from .schema import Readout, SplitName, Strict
from .score import Score
from .spec import TaskSpec

MEASURES = {
    "hofstede": "culteval.tasks.metrics.survey:HofstedeSurvey",
    "shares": "culteval.tasks.metrics.shares:Shares",
    "accuracy": "culteval.tasks.metrics.accuracy:Accuracy",
    "poles": "culteval.tasks.metrics.poles:Poles",
    "labelled": "culteval.tasks.metrics.labelled:LabelledSurvey",
    "probes": "culteval.tasks.metrics.probes:Probes",
}

LossFunction = Callable[[Any], Any]
"""Option probabilities (population, prompts, options) to losses (population,), lower is better."""


@runtime_checkable
class SeparableLoss(Protocol):
    """A loss function that is made of terms that rest on some prompts each and can only add to it.

    A search may drop a candidate once the terms known so far exceed what it has to beat.
    """

    def __call__(self, probs: Any) -> Any:
        """As any loss function: ``total(terms(probs))``."""

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        """The prompts (indices) that each term rests on; no prompt is in two."""

    def terms(self, probs: Any) -> Any:
        """The terms (population, parts), none below zero; one is right once its prompts are answered."""

    def total(self, terms: Any) -> Any:
        """The loss (population,) of terms; with some of them zero, the least it can become."""


class MeasureOptions(Strict):
    """Part of a metric's identity: which figures, which constants, which norm an objective takes."""

    edition: str | None = None
    constants: str = "world"
    norm: str = "sse"


class Measure(Protocol):
    """A task seen from its references: built by ``measure_of`` for one country.

    ``caution`` is a sentence that belongs beside the country's scores, or None.
    """

    caution: str | None

    def loss_function(self, layout: Layout, readout: Readout) -> LossFunction:
        """The loss of answers to prompts of this layout; torch in, torch out, and differentiable for ``expected``."""

    def score(self, answers: Answers, split: SplitName, readout: Readout) -> list[Score]:
        """Every metric of one split in one read-out; ``answers`` are those of the split, content-free items aside."""

    def sample(self, answers: Answers, readout: Readout) -> Sample:
        """What the main metrics of one split rest on, by respondent or question; for intervals and tests."""

    def demonstrations(self, layout: Layout) -> np.ndarray:
        """The code (prompts,) that a person of the country would give, for in-context examples."""

    def constant(self, layout: Layout) -> Answers:
        """Return the answers of the baseline that says the same to everything."""

    def baselines(self, layout: Layout) -> dict[str, Answers]:
        """Return the answers of the baselines that rest on other countries, or on the key, and not on this country.

        ``world mean`` is the mean of the countries and ``majority`` the modal answer; one that has no meaning for the
        task is left out.
        """


def measure_of(spec: TaskSpec, country: str, options: MeasureOptions) -> Measure:
    """The measure a spec names, for one two-letter country code.

    Raises:
        InputError: the spec names a measure that does not exist.
        UsageError: the reference has no figures for the country, or an option is unknown.
    """
    measure: Measure = _measure_class(spec)(spec, country, options)
    return measure


def countries_of(spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
    """Codes of the countries a spec's reference can score completely; none for a task that any country may answer.

    Raises:
        InputError, UsageError: as ``measure_of``.
    """
    countries: tuple[str, ...] = _measure_class(spec).countries(spec, edition)
    return countries


def _measure_class(spec: TaskSpec) -> Any:
    name = spec.metadata.measure
    if name not in MEASURES:
        raise InputError(f"{spec.path}: metadata.measure: unknown measure {name!r}.{did_you_mean(name, MEASURES)}")
    module, _, attribute = MEASURES[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
