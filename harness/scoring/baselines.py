"""Baselines: scores of answers without knowledge of the country, and the split-half distance between respondents.

All are computed from a spec, its reference and the prompts of a run; only the random-prefix control needs runs, those
of the aligner ``random_prefix``. ``docs/boards.md`` has the definitions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ...tasks.answers import Answers, Layout
from ...tasks.calibration import is_free
from ...tasks.measure import Measure, MeasureOptions, measure_of
from ...tasks.metrics.common import uniform_answers
from ...tasks.prompts import of_split
from ...tasks.score import COLLAPSED, Place, Score, find, place
from ...tasks.spec import TaskSpec

CONTROL = "random_prefix"  # the aligner of the random-prefix control
PREFIXES = 24  # runs of a complete control
BAND = 2.0  # standard deviations of the control within which a score is no improvement


@dataclass(frozen=True)
class Baseline:
    """The scores of one baseline.

    ``spread`` is the standard deviation by place (metric, answer scoring, split) where the scores are means over runs;
    ``note`` is a remark for the reader of a table.
    """

    name: str
    scores: Sequence[Score]
    spread: Mapping[Place, float] | None = None
    note: str | None = None


def baselines(spec: TaskSpec, layout: Layout, country: str, options: MeasureOptions) -> list[Baseline]:
    """Compute the baselines constant, uniform, world mean, majority and split-half that the task's measure defines.

    Baselines with the same scores everywhere are merged into one, with the names of the others in its note.

    Args:
        layout: the prompts of the run.

    Raises:
        InputError, UsageError: as ``measure_of``.
    """
    measure = measure_of(spec, country, options)
    real = layout.take(~is_free(layout))
    answers = {"constant": measure.constant(real), "uniform": uniform_answers(real)} | measure.baselines(real)
    rows = [Baseline(name, _scores(spec, measure, given, name)) for name, given in answers.items()]
    return _merged(rows) + _split_half(spec, rows[0].scores)


def constant_scores(spec: TaskSpec, layout: Layout, country: str, options: MeasureOptions) -> list[Score]:
    """Compute the scores of the baseline ``constant`` alone: the same answer to every item.

    Raises:
        InputError, UsageError: as ``measure_of``.
    """
    measure = measure_of(spec, country, options)
    return _scores(spec, measure, measure.constant(layout.take(~is_free(layout))), "constant")


def _scores(spec: TaskSpec, measure: Measure, answers: Answers, name: str) -> list[Score]:
    """Score the answers of a baseline by every answer scoring of the task.

    Without a model the answer scorings agree: each has the scores of ``expected`` for the metrics that it defines.
    """
    rows: list[Score] = []
    for split in spec.metadata.splits.named:
        of_this = answers.take(of_split(spec, answers.layout, split))
        if not len(of_this.layout):
            continue
        expected = measure.score(of_this, split, "expected")
        metrics = {row.metric for row in measure.score(of_this, split, "argmax")} - {"off_options"}
        for scoring in spec.metadata.scorings:
            kept = expected if scoring == "expected" else [row for row in expected if row.metric in metrics]
            rows += [row.model_copy(update={"scoring": scoring, "aligner": name}) for row in kept]
    return rows


def _merged(rows: Sequence[Baseline]) -> list[Baseline]:
    kept: list[tuple[Baseline, list[str]]] = []
    for row in rows:
        same = next((names for first, names in kept if _same(first.scores, row.scores)), None)
        if same is None:
            kept.append((row, []))
        else:
            same.append(row.name)
    return [
        Baseline(row.name, row.scores, note=f"also {' and '.join(names)}" if names else None) for row, names in kept
    ]


def _same(one: Sequence[Score], other: Sequence[Score]) -> bool:
    first, second = ({place(row): row.value for row in rows} for rows in (one, other))
    return first.keys() == second.keys() and np.allclose(list(first.values()), [second[key] for key in first])


def _split_half(spec: TaskSpec, scores: Sequence[Score]) -> list[Baseline]:
    """Return the expected distance between two halves of the country's sample, where the reference has counts."""
    headline = spec.metadata.headline.metric
    halves = [row for row in scores if row.metric == f"{headline}_split_half"]
    update = {"metric": headline, "aligner": "split-half", "low": None, "high": None, "note": None}
    rows = [row.model_copy(update=update) for row in halves]
    return [Baseline("split-half", rows, note="expected between two halves of the respondents")] if rows else []


def random_prefix(runs: Sequence[Sequence[Score]]) -> Baseline:
    """Compute mean and standard deviation over random prefixes, in every place where all of them have a score.

    Args:
        runs: the scores of each run of ``random_prefix``, for the same task, country, model and protocol.

    Raises:
        ValueError: fewer than two runs, which have no spread.
    """
    if len(runs) < 2:
        raise ValueError("the random-prefix control needs two runs or more")
    tables = [{place(row): row for row in scores} for scores in runs]
    shared = [key for key in tables[0] if all(key in table for table in tables)]
    values = {key: np.array([table[key].value for table in tables]) for key in shared}
    collapsed = {key: all(table[key].note == COLLAPSED for table in tables) for key in shared}
    name = f"random prefix ({len(runs)})"
    scores = []
    for key, by_run in values.items():
        note = COLLAPSED if collapsed[key] else None
        update = {"value": float(by_run.mean()), "aligner": name, "low": None, "high": None, "note": note}
        scores.append(tables[0][key].model_copy(update=update))
    note = None if len(runs) >= PREFIXES else f"{len(runs)} of the {PREFIXES} seeds of a control"
    return Baseline(name, scores, {key: float(by_run.std(ddof=1)) for key, by_run in values.items()}, note=note)


def is_improvement(score: Score, control: Baseline) -> bool | None:
    """Decide whether a score is better than the control's mean by more than two standard deviations of the control.

    Return None where the control lacks the score or the metric has no direction. A difference of exactly two standard
    deviations is no improvement.
    """
    mean = find(control.scores, place(score))
    if mean is None or control.spread is None or score.higher_is_better is None:
        return None
    better = score.value - mean.value if score.higher_is_better else mean.value - score.value
    return better > BAND * control.spread[place(score)]
