"""Score answers against the references, without a model and without torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import cast

from ...tasks.answers import Answers
from ...tasks.calibration import calibrated, is_free
from ...tasks.measure import Measure, MeasureOptions, countries_of, measure_of
from ...tasks.prompts import of_split
from ...tasks.schema import Scoring, SplitName
from ...tasks.score import Score
from ...tasks.spec import TaskSpec
from ..registry import spec_of

CALIBRATED = "_calibrated"

Reading = tuple[SplitName, Scoring, Answers]
"""A split, an answer scoring, and the answers of the split to real items."""


class TaskCache:
    """A cache of specs, measures and countries, each read from disk once, for scoring many submissions.

    It does not notice changes of files: create a new one after a change.
    """

    def __init__(self) -> None:
        self.spec = cache(spec_of)
        self._countries: dict[tuple[str, str | None], tuple[str, ...]] = {}
        self._measures: dict[tuple[str, str, MeasureOptions], Measure] = {}

    def measure(self, spec: TaskSpec, country: str, options: MeasureOptions) -> Measure:
        """Return ``measure_of(spec, country, options)`` from the cache."""
        key = (spec.name, country, options)
        if key not in self._measures:
            self._measures[key] = measure_of(spec, country, options)
        return self._measures[key]

    def countries(self, spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
        """Return ``countries_of(spec, edition)`` from the cache."""
        key = (spec.name, edition)
        if key not in self._countries:
            self._countries[key] = countries_of(spec, edition)
        return self._countries[key]


def score_answers(spec: TaskSpec, answers: Answers, country: str, options: MeasureOptions, aligner: str) -> list[Score]:
    """Compute every metric of every split by every answer scoring that the answers allow, for one country code.

    Where content-free items were answered, the scorings of probabilities are computed with calibration too.

    Raises:
        InputError, UsageError: as ``measure_of``.
    """
    return score_readings(measure_of(spec, country, options), readings(spec, answers), aligner)


def score_readings(measure: Measure, given: Iterable[Reading], aligner: str) -> list[Score]:
    """Compute every metric of the answers that ``readings`` yields, by one measure."""
    rows: list[Score] = []
    for split, scoring, answers in given:
        scores = measure.score(answers, split, plain(scoring))
        rows += [row.model_copy(update={"aligner": aligner, "scoring": scoring}) for row in scores]
    return rows


def readings(spec: TaskSpec, answers: Answers) -> Iterator[Reading]:
    """Yield the answers of each split to its real items, once for each answer scoring that they allow.

    Where content-free items were answered, the calibrated answers follow, once for each scoring of probabilities.
    """
    available = {"text": answers.texts is not None, "expected": answers.weighed, "argmax": answers.weighed}
    scorings = [name for name in spec.metadata.scorings if available[name]]
    for split in spec.metadata.splits.named:
        of_this = answers.take(of_split(spec, answers.layout, split))
        if not len(of_this.layout):
            continue
        free = is_free(of_this.layout)
        real = of_this.take(~free) if free.any() else of_this
        yield from ((split, scoring, real) for scoring in scorings)
        if free.any() and answers.weighed:
            without_prior = calibrated(spec, of_this, split)
            for name in scorings:
                if name != "text":
                    yield split, cast(Scoring, f"{name}{CALIBRATED}"), without_prior


def plain(scoring: Scoring) -> Scoring:
    """Return the name of an answer scoring without its suffix for calibration."""
    return cast(Scoring, scoring.removesuffix(CALIBRATED))
