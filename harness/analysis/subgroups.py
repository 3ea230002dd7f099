"""Personas against the people of their subgroup: accuracy and error by group, and the gap between best and worst."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from ...errors import UsageError
from ...tasks.answers import Layout, chosen
from ...tasks.imported_people import CELLS, CellShares, cells_of, edition_of, persona_cells
from ...tasks.intervals import LEAST_UNITS
from ...tasks.measure import MeasureOptions, measure_of
from ...tasks.metrics.shares import Shares
from ...tasks.personas import draw_attributes
from ...tasks.sample import SHARE, Metric, Sample, average, standard_error, tally
from ...tasks.schema import Scoring
from ..report import plots
from ..report.results import Results
from ..scoring.submission import Submission, as_submission

LEAST_PEOPLE = 50  # answers of a subgroup to an item; the modal answer of fewer people is a matter of chance

SubgroupMetric = Literal["accuracy", "error"]
METRICS: tuple[SubgroupMetric, ...] = ("accuracy", "error")


@dataclass(frozen=True)
class Group:
    """The personas of one subgroup against its people; bounds are 95 % intervals over personas, None without one.

    ``accuracy`` is the probability of the subgroup's modal answer, ``error`` the mean distance from it divided by the
    range of the scale, both means over ``items``, which are the same for all groups of an attribute. ``majority`` is
    what the country's modal answers score: no persona is needed for that.
    """

    attribute: str
    group: str
    personas: int
    items: int
    accuracy: float
    accuracy_low: float | None
    accuracy_high: float | None
    error: float
    error_low: float | None
    error_high: float | None
    accuracy_majority: float
    error_majority: float


@dataclass(frozen=True)
class Gap:
    """The best minus the worst served group of an attribute, so that it is positive; bounds None without 20 personas.

    The interval is simultaneous over all pairs of groups (Bonferroni), because the two were chosen by their values.
    """

    attribute: str
    metric: SubgroupMetric
    best: str
    worst: str
    gap: float
    low: float | None
    high: float | None


class Subgroups(Results[Group]):
    """Groups of personas, and ``gaps`` between them; ``about`` says of which task, country and edition."""

    def __init__(self, rows: Iterable[Group], gaps: tuple[Gap, ...], about: dict[str, str]) -> None:
        super().__init__(rows)
        self.gaps, self.about = gaps, about

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary a group, with the fields of ``Group``."""
        return [asdict(row) for row in self.rows]

    def plot(self, metric: SubgroupMetric = "error") -> Any:
        """Draw a metric of every group with its 95 % interval and return the matplotlib axes."""
        axes = plots.new_axes(7, 1 + 0.24 * len(self.rows))
        self._draw(axes, metric)
        return axes

    def write(self, path: Path) -> None:
        """Write a figure of both metrics, SVG or PNG by the file's suffix."""
        with plots.drawing(path, 9, 1.2 + 0.24 * len(self.rows), panels=(1, 2)) as panels:
            for axes, metric in zip(panels, METRICS, strict=True):
                self._draw(axes, metric)
            panels[1].set_yticklabels([])

    def _draw(self, axes: Any, metric: SubgroupMetric) -> None:
        values = {
            f"{row['attribute']}: {row['group']}": (row[metric], row[f"{metric}_low"], row[f"{metric}_high"])
            for row in self.records()
        }
        title = f"personas against the people of their subgroup ({self.about['task']}, {self.about['country']})"
        plots.draw_estimates(axes, values, metric, title)
        nulls = [row[f"{metric}_majority"] for row in self.records()]
        axes.scatter(
            nulls, range(len(nulls)), marker="|", s=90, color="#d55e00", zorder=2, label="country's modal answers"
        )
        axes.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1, -0.05 - 1.2 / len(nulls)))


def subgroups(
    given: Any, task: str | None = None, scoring: Scoring | None = None, edition: str | None = None
) -> Subgroups:
    """Score the held-out answers of each subgroup's personas against the people of that subgroup.

    After Tan et al. 2026 (ACL, "Can Persona-Prompted LLMs Emulate Subgroup Values?"): accuracy in the modal preference,
    and mean absolute error normalised by the scale.

    Args:
        given: a submission or run, or the path of either, with personas.
        task: one of its tasks [default: the first that has answer shares].
        scoring: answer scoring [default: the task's first].
        edition: whose people [default: the submission's edition, else the only imported one].

    Raises:
        UsageError: no personas, no such task or edition, or no people of the country. InputError: damaged files.
    """
    submission = as_submission(given)
    asked = asked_task(submission, task)
    spec, size = submission.cache.spec(asked.name), asked.protocol(submission.manifest.seed).people()
    if not size:
        raise UsageError(f"{spec.name}: answered without personas. Run it with `personas` 100, for example.")
    edition = edition_of(spec, CELLS, edition, asked.edition)
    measure = measure_of(spec, asked.country, MeasureOptions(edition=edition))
    if not isinstance(measure, Shares):
        raise UsageError(f"{spec.name}: has no answer shares. Take a task like wvs.")
    scoring = scoring or spec.default_scoring
    people = cells_of(spec, edition, asked.country)
    drawn = persona_cells(spec, draw_attributes(spec, size, submission.manifest.seed, "heldout"))
    answers = heldout_answers(submission, asked.name, scoring)
    spread = _by_persona(answers.layout, chosen(answers, scoring), size)
    rows, gaps = [], []
    for attribute in drawn:
        samples, nulls = _samples(measure, people.get(attribute, {}), drawn[attribute], spread)
        rows += [_group(attribute, name, sample, nulls[name]) for name, sample in samples.items()]
        gaps += [_gap(attribute, metric, samples) for metric in METRICS if len(samples) > 1]
    if not rows:
        raise UsageError(f"{spec.name}: no subgroup of edition {edition!r} has {LEAST_PEOPLE} people and a persona.")
    about = {"task": spec.name, "country": asked.country, "edition": edition, "scoring": scoring, "split": "heldout"}
    return Subgroups(tuple(rows), tuple(gaps), about)


def asked_task(submission: Submission, task: str | None) -> Any:
    """Return a task of a submission by name, or its first task with answer shares.

    Raises:
        UsageError: it has no such task.
    """
    tasks = submission.manifest.tasks
    if task is not None:
        found = [one for one in tasks if one.name == task]
    else:
        found = [one for one in tasks if submission.cache.spec(one.name).metadata.measure == "shares"]
    if not found:
        names = ", ".join(one.name for one in tasks)
        raise UsageError(f"`task` {task or 'with answer shares'}: the submission has {names}. Give a run of wvs.")
    return found[0]


def heldout_answers(submission: Submission, task: str, scoring: Scoring) -> Any:
    """Return the held-out answers of a task that a scoring reads.

    Raises:
        UsageError: the answers do not allow the scoring.
    """
    readings = [one for one in submission.readings[task] if one[0] == "heldout"]
    for _, name, answers in readings:
        if name == scoring:
            return answers
    known = ", ".join(dict.fromkeys(name for _, name, _ in readings))
    raise UsageError(f"`scoring` {scoring!r}: the answers have {known}.")


def _by_persona(layout: Layout, spread: np.ndarray, size: int) -> np.ndarray:
    """Average answers over paraphrases and orders, (personas, items, options); NaN without a valid answer."""
    items, width = len(layout.items), spread.shape[1]
    found = np.full((size, items, width), np.nan)
    answered = spread.sum(-1) > 0
    for option in range(width):
        values = np.where(answered, spread[:, option], np.nan)
        ids, sums, counts = tally(layout.persona, layout.item, values, items)
        found[ids, :, option] = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
    return found


def _samples(
    measure: Shares, cells: dict[str, CellShares], drawn: list[str], spread: np.ndarray
) -> tuple[dict[str, dict[SubgroupMetric, Sample]], dict[str, tuple[float, float]]]:
    """Return each group's personas with their accuracy and error by item, over the items that all groups have.

    A group that has fewer than half of the items of the one with most is left out, as if it had no people.

    Returns:
        Also by group accuracy and error of the country's modal answers.
    """
    names = {number: measure.spec.items.ids[number] for number in measure.items}
    groups = [name for name in cells if name in drawn]
    many = {g: {i for i, name in names.items() if cells[g].counts.get(name, 0) >= LEAST_PEOPLE} for g in groups}
    most = max(map(len, many.values()), default=0)
    groups = [g for g in groups if most and len(many[g]) >= most / 2]
    items = sorted(set.intersection(*(many[g] for g in groups))) if groups else []
    if not items:
        return {}, {}
    found: dict[str, dict[SubgroupMetric, Sample]] = {}
    nulls: dict[str, tuple[float, float]] = {}
    for group in groups:
        rows = np.flatnonzero(np.array(drawn) == group)
        accuracy, error = np.empty((2, len(rows), len(items)))
        null = np.empty((2, len(items)))
        for place, item in enumerate(items):
            distance = _from_mode(measure, item, cells[group].shares[names[item]])
            own = spread[rows, item, : len(distance)]
            accuracy[:, place], error[:, place] = own @ (distance == 0), own @ distance
            usual = distance[int(np.flatnonzero(measure.codes[item] == _mode(measure, item))[0])]
            null[:, place] = usual == 0, usual
        found[group] = {"accuracy": _sample(rows, accuracy, True), "error": _sample(rows, error, False)}
        nulls[group] = (float(null[0].mean()), float(null[1].mean()))
    return found, nulls


def _mode(measure: Shares, item: int) -> int:
    """Return the country's modal answer, as the codes count."""
    return int(np.unique(measure.codes[item])[measure.target[item].argmax()])


def _from_mode(measure: Shares, item: int, shares: dict[int, float]) -> np.ndarray:
    """Compute each option's distance (options,) from the modal answer of ``shares``, by the scale's range.

    Without a scale it is 0 or 1. The lowest code is taken of equally frequent ones.
    """
    codes, merge = measure.codes[item], measure.merged.get(measure.spec.items.ids[item], {})
    counted: dict[int, float] = defaultdict(float)
    for code, share in shares.items():
        counted[merge.get(code, code)] += share
    mode = max(counted, key=lambda code: (counted[code], -code))
    return abs(codes - mode) / np.ptp(codes) if measure.ordered[item] else (codes != mode).astype(float)


def _sample(ids: np.ndarray, values: np.ndarray, higher: bool) -> Sample:
    metric = Metric(np.arange(values.shape[1]), average, higher, SHARE)
    valid = ~np.isnan(values)
    return Sample("personas", ids, np.where(valid, values, 0), valid.astype(float), {"": metric})


def _group(attribute: str, name: str, samples: dict[SubgroupMetric, Sample], null: tuple[float, float]) -> Group:
    accuracy, error = samples["accuracy"], samples["error"]
    bounds = [sample.interval("") or (None, None) for sample in (accuracy, error)]
    size, items = accuracy.counts.shape
    return Group(
        attribute=attribute,
        group=name,
        personas=size,
        items=items,
        accuracy=accuracy.value(""),
        accuracy_low=bounds[0][0],
        accuracy_high=bounds[0][1],
        error=error.value(""),
        error_low=bounds[1][0],
        error_high=bounds[1][1],
        accuracy_majority=null[0],
        error_majority=null[1],
    )


def _gap(attribute: str, metric: SubgroupMetric, groups: dict[str, dict[SubgroupMetric, Sample]]) -> Gap:
    """Compute the gap between the best and the worst served group, of those with 20 personas if two have so many."""
    enough = {name: samples[metric] for name, samples in groups.items() if len(samples[metric]) >= LEAST_UNITS}
    samples = enough if len(enough) > 1 else {name: samples[metric] for name, samples in groups.items()}
    order = sorted(samples, key=lambda name: samples[name].value(""), reverse=metric == "accuracy")
    best, worst = order[0], order[-1]
    gap = abs(samples[best].value("") - samples[worst].value(""))
    pairs = len(samples) * (len(samples) - 1) // 2
    half = _half_width(samples[best], samples[worst], pairs) if len(enough) > 1 else None
    low, high = (None, None) if half is None else (gap - half, gap + half)
    return Gap(attribute, metric, best, worst, gap, low, high)


def _half_width(one: Sample, other: Sample, pairs: int) -> float | None:
    """Compute half a simultaneous 95 % interval of a difference of independent means (Welch, Bonferroni)."""
    if one.interval("") is None or other.interval("") is None:  # nearly constant answers
        return None
    first, second = (standard_error(sample.without_one("")) ** 2 for sample in (one, other))
    degrees = (first + second) ** 2 / (first**2 / (len(one) - 1) + second**2 / (len(other) - 1))
    return float(stdtrit(degrees, 1 - 0.025 / pairs) * np.sqrt(first + second))
