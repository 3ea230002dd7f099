"""Scores from a submission and the references alone: no model, no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..tasks.answers import Answers
from ..tasks.countries import country as resolve
from ..tasks.measure import MeasureOptions, countries_of, measure_of
from ..tasks.score import Score
from ..tasks.spec import TaskSpec, load_spec
from . import submission
from .registry import spec_path


def score_answers(spec: TaskSpec, answers: Answers, country: str, options: MeasureOptions, aligner: str) -> list[Score]:
    """Every metric of both splits in every read-out that the answers hold, for one country code."""
    measure = measure_of(spec, country, options)
    readouts = [name for name in spec.metadata.readouts if name != "text" or answers.texts is not None]
    rows = [
        row for split in ("fit", "heldout") for readout in readouts for row in measure.score(answers, split, readout)
    ]
    return [row.model_copy(update={"aligner": aligner}) for row in rows]


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
    rows: list[Score] = []
    for task in manifest.tasks:
        spec = load_spec(spec_path(task.name))
        chosen = {"edition": task.edition, "constants": task.constants} | dict(overrides or {})
        options = MeasureOptions(**chosen)
        for code in _countries(spec, country or task.country, options):
            rows += score_answers(spec, answers[task.name], code, options, manifest.aligner.name)
    return manifest, rows


def _countries(spec: TaskSpec, country: str, options: MeasureOptions) -> Iterable[str]:
    known = countries_of(spec, options.edition)
    return known if country == "all" else [resolve(country, known).code]
