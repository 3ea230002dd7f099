"""Scores of answers by the references alone: no model, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from typing import cast

from ...tasks.answers import Answers
from ...tasks.calibration import calibrated, is_free
from ...tasks.measure import Measure, MeasureOptions, countries_of, measure_of
from ...tasks.prompts import of_split
from ...tasks.schema import Readout, SplitName
from ...tasks.score import Score
from ...tasks.spec import TaskSpec
from ..registry import spec_of

CALIBRATED = "_calibrated"

Reading = tuple[SplitName, Readout, Answers]
"""A split, a read-out, and the answers of the split to real items."""


class TaskCache:
    """Specs and measures as the functions of these names give them, each read from disk once.

    For who scores many submissions; make a new one where files may have changed.
    """

    def __init__(self) -> None:
        self.spec = cache(spec_of)
        self._countries: dict[tuple[str, str | None], tuple[str, ...]] = {}
        self._measures: dict[tuple[str, str, MeasureOptions], Measure] = {}

    def measure(self, spec: TaskSpec, country: str, options: MeasureOptions) -> Measure:
        """As ``measure_of``."""
        key = (spec.name, country, options)
        if key not in self._measures:
            self._measures[key] = measure_of(spec, country, options)
        return self._measures[key]

    def countries(self, spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
        """As ``countries_of``."""
        key = (spec.name, edition)
        if key not in self._countries:
            self._countries[key] = countries_of(spec, edition)
        return self._countries[key]


def score_answers(spec: TaskSpec, answers: Answers, country: str, options: MeasureOptions, aligner: str) -> list[Score]:
    """Compute every metric of every split in every read-out that the answers hold, for one country code.

    Where content-free items were answered, the read-outs of probabilities are scored calibrated too.

    Raises:
        InputError, UsageError: as ``measure_of``.
    """
    return score_readings(measure_of(spec, country, options), readings(spec, answers), aligner)


def score_readings(measure: Measure, given: Iterable[Reading], aligner: str) -> list[Score]:
    """Compute every metric of what ``readings`` gives, by one measure."""
    rows: list[Score] = []
    for split, readout, answers in given:
        found = measure.score(answers, split, plain(readout))
        rows += [row.model_copy(update={"aligner": aligner, "readout": readout}) for row in found]
    return rows


def readings(spec: TaskSpec, answers: Answers) -> Iterator[Reading]:
    """Yield the answers of each split to its real items, once for each read-out that they hold.

    Where content-free items were answered, the read-outs of probabilities follow calibrated.
    """
    there = {"text": answers.texts is not None, "expected": answers.weighed, "argmax": answers.weighed}
    readouts = [name for name in spec.metadata.readouts if there[name]]
    for split in spec.metadata.splits.named:
        asked = answers.take(of_split(spec, answers.layout, split))
        if not len(asked.layout):
            continue
        free = is_free(asked.layout)
        real = asked.take(~free) if free.any() else asked
        yield from ((split, readout, real) for readout in readouts)
        if free.any() and answers.weighed:
            without_prior = calibrated(spec, asked, split)
            for name in readouts:
                if name != "text":
                    yield split, cast(Readout, f"{name}{CALIBRATED}"), without_prior


def plain(readout: Readout) -> Readout:
    """Return the read-out that a calibrated one applies to calibrated answers; any other is itself."""
    return cast(Readout, readout.removesuffix(CALIBRATED))
