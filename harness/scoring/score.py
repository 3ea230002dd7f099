"""Scores from a submission and the references alone: no model, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import cast

from ...errors import InputError, UsageError
from ...tasks.answers import Answers
from ...tasks.calibration import calibrated, is_free
from ...tasks.countries import country as resolve
from ...tasks.measure import Measure, MeasureOptions, countries_of, measure_of
from ...tasks.prompts import of_split
from ...tasks.schema import Readout, SplitName
from ...tasks.score import Score
from ...tasks.spec import OWN_EDITION, TaskSpec
from ..registry import spec_of
from ..submissions.manifest import MANIFEST, AskedTask, Manifest
from ..submissions.reader import read_submission
from .judge import judged_scores, read_verdicts

CALIBRATED = "_calibrated"


class Shelf:
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
    """Every metric of every split in every read-out that the answers hold, for one country code.

    Where content-free items were answered, the read-outs of probabilities are scored calibrated too.
    """
    return score_by(measure_of(spec, country, options), spec, answers, aligner)


def score_by(measure: Measure, spec: TaskSpec, answers: Answers, aligner: str) -> list[Score]:
    """As ``score_answers``, by a measure that is there already."""
    rows: list[Score] = []
    for split, readout, asked in readings(spec, answers):
        found = measure.score(asked, split, plain(readout))
        rows += [row.model_copy(update={"aligner": aligner, "readout": readout}) for row in found]
    return rows


def readings(spec: TaskSpec, answers: Answers) -> Iterator[tuple[SplitName, Readout, Answers]]:
    """The answers of each split to its real items, once for each read-out that they hold.

    Where content-free items were answered, the read-outs of probabilities follow calibrated.
    """
    there = {"text": answers.texts is not None, "expected": answers.weighed, "argmax": answers.weighed}
    readouts = [name for name in spec.metadata.readouts if there[name]]
    for split in spec.metadata.splits.named:
        asked = answers.take(of_split(spec, answers.layout, split))
        if not len(asked.layout):
            continue
        free = is_free(asked)
        real = asked.take(~free) if free.any() else asked
        yield from ((split, readout, real) for readout in readouts)
        if free.any() and answers.weighed:
            without_prior = calibrated(spec, asked, split)
            for name in readouts:
                if name != "text":
                    yield split, cast(Readout, f"{name}{CALIBRATED}"), without_prior


def plain(readout: Readout) -> Readout:
    """The read-out that a calibrated one applies to calibrated answers; any other is itself."""
    return cast(Readout, readout.removesuffix(CALIBRATED))


def score_constant(spec: TaskSpec, layout_of: Answers, country: str, options: MeasureOptions) -> list[Score]:
    """The row of somebody who gives the same answer to everything, asked the same prompts."""
    constant = measure_of(spec, country, options).constant(layout_of.layout)
    return score_answers(spec, constant, country, options, "constant")


def score_submission(
    path: Path,
    country: str | None = None,
    overrides: Mapping[str, str] | None = None,
    shelf: Shelf | None = None,
) -> tuple[Manifest, list[Score]]:
    """Score a submission folder.

    Args:
        country: a name or code instead of the submission's own; ``all`` for every country of the reference.
        overrides: edition, constants or norm instead of the submission's own.
        shelf: specs and measures kept from one submission to the next.

    Raises:
        InputError: a bad submission. UsageError: a country or option the reference does not have.
    """
    shelf = shelf or Shelf()
    manifest, answers = read_submission(path, shelf.spec)
    folder = path if path.is_dir() else path.parent
    return manifest, score_read(folder, manifest, answers, shelf, country, overrides)


def score_read(
    folder: Path,
    manifest: Manifest,
    answers: Mapping[str, Answers],
    shelf: Shelf,
    country: str | None = None,
    overrides: Mapping[str, str] | None = None,
) -> list[Score]:
    """As ``score_submission``, of a submission that was read from a folder."""
    verdicts = read_verdicts(folder, manifest)
    rows: list[Score] = []
    for number, task in enumerate(manifest.tasks):
        spec = shelf.spec(task.name)
        options = options_of(task).model_copy(update=dict(overrides or {}))
        try:
            known = shelf.countries(spec, options.edition)
            for code in _countries(known, task.country if country is None else country, task.country):
                measure = shelf.measure(spec, code, options)
                rows += score_by(measure, spec, answers[task.name], manifest.aligner.name)
                judged = judged_scores(spec, task.name, answers[task.name], verdicts, code, options)
                rows += [row.model_copy(update={"aligner": manifest.aligner.name}) for row in judged]
        except UsageError:
            _check_own(spec, task, f"{folder / MANIFEST}: tasks.{number}")
            raise
    return rows


def _check_own(spec: TaskSpec, task: AskedTask, place: str) -> None:
    """Raise InputError where a submission itself asks for a country, edition or constants that there are not."""
    try:
        for code in _countries(countries_of(spec, task.edition), task.country, task.country):
            measure_of(spec, code, options_of(task))
    except UsageError as error:
        raise InputError(f"{place}: {error} Or say another by a flag of `culteval score`.") from None


def options_of(task: AskedTask) -> MeasureOptions:
    """The options a submission asks to be scored under."""
    edition = None if task.edition == OWN_EDITION else task.edition
    return MeasureOptions(edition=edition, constants=task.constants)


def _countries(known: tuple[str, ...], country: str, own: str) -> Iterable[str]:
    if country == "all":
        return known or [own]
    return [resolve(country, known).code]
