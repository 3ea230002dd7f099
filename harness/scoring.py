"""Scores from a submission and the references alone: no model, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..tasks.answers import Answers
from ..tasks.calibration import calibrated, is_free
from ..tasks.countries import country as resolve
from ..tasks.measure import MeasureOptions, countries_of, measure_of
from ..tasks.prompts import of_split
from ..tasks.schema import Readout, SplitName
from ..tasks.score import Score
from ..tasks.spec import OWN_EDITION, TaskSpec
from . import submission
from .judge import judged_scores, read_verdicts
from .registry import spec_of

CALIBRATED = "_calibrated"


def score_answers(spec: TaskSpec, answers: Answers, country: str, options: MeasureOptions, aligner: str) -> list[Score]:
    """Every metric of every split in every read-out that the answers hold, for one country code.

    Where content-free items were answered, the read-outs of probabilities are scored calibrated too.
    """
    measure = measure_of(spec, country, options)
    rows: list[Score] = []
    for split, readout, asked in readings(spec, answers):
        found = measure.score(asked, split, plain(readout))
        rows += [row.model_copy(update={"aligner": aligner, "readout": readout}) for row in found]
    return rows


def readings(spec: TaskSpec, answers: Answers) -> Iterator[tuple[SplitName, Readout, Answers]]:
    """The answers of each split to its real items, once for each read-out that they hold.

    Where content-free items were answered, the read-outs of probabilities follow calibrated.
    """
    readouts = [name for name in spec.metadata.readouts if name != "text" or answers.texts is not None]
    for split in spec.metadata.splits.named:
        asked = answers.take(of_split(spec, answers.layout, split))
        if not len(asked.layout):
            continue
        free = is_free(asked)
        real = asked.take(~free) if free.any() else asked
        yield from ((split, readout, real) for readout in readouts)
        if free.any():
            without_prior = calibrated(spec, asked, split)
            yield from ((split, f"{name}{CALIBRATED}", without_prior) for name in readouts if name != "text")


def plain(readout: Readout) -> Readout:
    """The read-out that a calibrated one applies to calibrated answers; any other is itself."""
    return readout.removesuffix(CALIBRATED)


def score_constant(spec: TaskSpec, layout_of: Answers, country: str, options: MeasureOptions) -> list[Score]:
    """The row of somebody who gives the same answer to everything, asked the same prompts."""
    constant = measure_of(spec, country, options).constant(layout_of.layout)
    return score_answers(spec, constant, country, options, "constant")


def score_submission(
    path: Path, country: str | None = None, overrides: Mapping[str, str] | None = None
) -> tuple[submission.Manifest, list[Score]]:
    """Score a submission folder.

    Args:
        country: a name or code instead of the submission's own; ``all`` for every country of the reference.
        overrides: edition, constants or norm instead of the submission's own.

    Raises:
        InputError: a bad submission. UsageError: a country or option the reference does not have.
    """
    manifest, answers = submission.read(path)
    verdicts = read_verdicts(path if path.is_dir() else path.parent, manifest)
    rows: list[Score] = []
    for task in manifest.tasks:
        spec = spec_of(task.name)
        options = options_of(task).model_copy(update=dict(overrides or {}))
        for code in _countries(spec, country or task.country, task.country, options):
            rows += score_answers(spec, answers[task.name], code, options, manifest.aligner.name)
            judged = judged_scores(spec, task.name, answers[task.name], verdicts, code, options)
            rows += [row.model_copy(update={"aligner": manifest.aligner.name}) for row in judged]
    return manifest, rows


def options_of(task: submission.AskedTask) -> MeasureOptions:
    """The options a submission asks to be scored under."""
    edition = None if task.edition == OWN_EDITION else task.edition
    return MeasureOptions(edition=edition, constants=task.constants)


def _countries(spec: TaskSpec, country: str, own: str, options: MeasureOptions) -> Iterable[str]:
    known = countries_of(spec, options.edition)
    if country == "all":
        return known or [own]
    return [resolve(country, known).code]
