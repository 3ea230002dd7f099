"""Significance of differences: intervals, paired permutation tests, rank correlations, detectable differences.

The units of resampling are the personas of a questionnaire or the questions of a knowledge set (``tasks/sample.py``);
the items, paraphrases and option orders of a questionnaire are fixed. ``docs/statistics.md`` explains the choices. All
functions use numpy and scipy, and take the random generator as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import stats

from ...errors import UsageError
from ...tasks.answers import Answers, Layout, chosen
from ...tasks.intervals import LEAST_DIFFERING, LEAST_UNITS, student
from ...tasks.measure import MeasureOptions, measure_of
from ...tasks.metrics.accuracy import Accuracy
from ...tasks.prompts import ProtocolOptions, render
from ...tasks.sample import Metric, Sample, differing, quotient, standard_error
from ...tasks.schema import Scoring, SplitName
from ...tasks.spec import TaskSpec
from ..scoring.score import plain, readings

DRAWS = 9_999
LEAST_PAIRS = 6  # with fewer, no p can be below .05: 2 / 2^5 is above
LEAST_COUNTRIES = 10
_CHUNK = 1_000


@dataclass(frozen=True)
class Difference:
    """The difference A minus B in one metric of one split by one answer scoring.

    ``low`` and ``high`` bound the 95 % interval of the difference, ``p`` is that of the paired permutation test and
    ``adjusted`` the same after Holm's correction over all tests of the call; each is None where no valid one exists,
    and ``note`` gives the reason. ``n`` is the number of units that are resampled, ``unit`` their kind. ``detectable``
    is the smallest difference that such a comparison detects with 80 % power at the 5 % level, given the variation of
    the units.
    """

    task: str
    country: str
    metric: str
    scoring: str
    split: str
    a: float
    b: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    adjusted: float | None
    n: int
    unit: str | None
    note: str | None
    higher_is_better: bool | None = None
    detectable: float | None = None


def differences(
    spec: TaskSpec,
    a: Answers,
    b: Answers,
    country: str,
    options: MeasureOptions,
    rng: np.random.Generator,
    *,
    splits: Sequence[SplitName] = ("heldout",),
    scorings: Sequence[Scoring] | None = None,
    paired: bool = True,
) -> list[Difference]:
    """Compare every metric that a spec lists and that is a mean over units, on the prompts answered by both sides.

    A prompt without a valid answer on one side is left out on both, except where no answer is a wrong one: else a side
    would gain by not answering what it would be far off in. The notes say so.

    Args:
        scorings: the answer scorings to compare [default: the spec's, where both sides have them].
        paired: whether persona k is the same on both sides; without pairing, personas allow no test.

    Raises:
        UsageError: a country that the reference lacks, or an unknown option.
    """
    measure = measure_of(spec, country, options)
    a, b = shared(a, b, paired=paired)
    wanted = spec.metadata.scorings if scorings is None else scorings
    rows = []
    readings_b = {(split, scoring): answers for split, scoring, answers in readings(spec, b)}
    for split, scoring, answers_a in readings(spec, a):
        if split in splits and scoring in wanted and (answers_b := readings_b.get((split, scoring))) is not None:
            left = 0
            if not isinstance(measure, Accuracy):  # for which no answer is a wrong one
                answers_a, answers_b, left = answered_by_both(answers_a, answers_b, plain(scoring), paired=paired)
            if not len(answers_a.layout):
                continue
            one, two = (_listed(spec, measure.sample(each, plain(scoring))) for each in (answers_a, answers_b))
            fields = compared(one, two, rng, paired=paired or one.unit == "questions")
            where: dict[str, Any] = {"task": spec.name, "country": country, "scoring": scoring, "split": split}
            rows += [Difference(**where, adjusted=None, **_noted(row, left)) for row in fields]
    adjusted = holm([row.p for row in rows])
    return [replace(row, adjusted=p) for row, p in zip(rows, adjusted, strict=True)]


def answered_by_both(a: Answers, b: Answers, scoring: Scoring, *, paired: bool) -> tuple[Answers, Answers, int]:
    """Return the answers to prompts that both sides answered, and the number of items with prompts left out.

    Without ``paired``, prompts of other personas do not correspond, and whole items are kept or left out.
    """
    sides, names, valid = (a, b), [], []
    for one in sides:
        names.append(np.array(one.layout.items, dtype=object)[one.layout.item])
        valid.append(chosen(one, scoring).any(-1) | (one.layout.widths == 0))
    if paired:
        valid = [valid[0] & valid[1]] * 2
    else:
        both = set(names[0][valid[0]]) & set(names[1][valid[1]])
        valid = [np.array([name in both for name in each], dtype=bool) for each in names]
    left = {name for each, kept in zip(names, valid, strict=True) for name in each[~kept]}
    first, second = (one.take(kept) if left else one for one, kept in zip(sides, valid, strict=True))
    return first, second, len(left)


def _noted(row: dict[str, Any], left: int) -> dict[str, Any]:
    """Add to a comparison's note on how many items prompts were left out."""
    if not left:
        return row
    more = f"prompts of {left} {'items' if left > 1 else 'item'} left out: no valid answer on one side"
    return row | {"note": f"{row['note']}; {more}" if row["note"] else more}


def _listed(spec: TaskSpec, sample: Sample) -> Sample:
    """Return a sample with only the metrics that the spec lists."""
    return replace(sample, metrics={name: metric for name, metric in sample.metrics.items() if name in spec.metrics})


def compared(a: Sample, b: Sample, rng: np.random.Generator, *, paired: bool) -> list[dict[str, Any]]:
    """Compare each metric that both samples have.

    Returns:
        For each metric the fields of a ``Difference`` except ``adjusted``, task, country, answer scoring and split.
    """
    if paired:
        a, b = _same_units(a, b)
    names = [name for name in a.metrics if name in b.metrics and not np.isnan(a.value(name) - b.value(name))]
    rows: list[dict[str, Any]] = []
    missing = dict.fromkeys(("low", "high", "p", "detectable"))
    for name in names:
        one, two = a.value(name), b.value(name)
        row: dict[str, Any] = {"metric": name, "a": one, "b": two, "difference": one - two, "unit": a.unit, **missing}
        row |= {"higher_is_better": a.metrics[name].higher_is_better}
        if paired:
            row |= _interval(a, b, name)
        else:
            row |= {"n": min(len(a.of(name)), len(b.of(name)))}
            row |= {"note": "different personas on the two sides: answers cannot be paired"}
        rows.append(row)
    tested = [row for row in rows if paired and row["n"] >= LEAST_PAIRS]
    p = permutation(a, b, [a.metrics[row["metric"]] for row in tested], rng) if tested else ()
    for row, value in zip(tested, p, strict=True):
        row["p"] = float(value)
    return rows


def _same_units(a: Sample, b: Sample) -> tuple[Sample, Sample]:
    """Return the units that both samples have, in the same order."""
    _, rows, others = np.intersect1d(a.ids, b.ids, return_indices=True)
    return a.take(rows), b.take(others)


def _interval(a: Sample, b: Sample, name: str) -> dict[str, Any]:
    """Compute ``n``, ``note`` and, where valid, ``low``, ``high`` and ``detectable`` of two samples of the same units.

    The interval is Student's, of the mean of the units' differences, with the jackknife standard error. Its coverage is
    valid from 20 units on, if five or more of them have another difference than the most common one.
    """
    metric = a.metrics[name]
    rows = (a.counts[:, metric.cells] + b.counts[:, metric.cells]).any(1)
    a, b, n = a.take(rows), b.take(rows), int(rows.sum())
    if n < LEAST_PAIRS:
        units = "one persona" if (n, a.unit) == (1, "personas") else f"{n} {a.unit}"
        return {"n": n, "note": f"{units}: a paired test needs {LEAST_PAIRS} or more"}
    differs = np.zeros(n, dtype=bool)
    for one, two in ((a.sums, b.sums), (a.counts, b.counts)):
        differs |= (one[:, metric.cells] != two[:, metric.cells]).any(1)
    if not differs.any():
        return {"n": n, "note": "the answers do not differ"}
    without = a.without_one(name) - b.without_one(name)
    if np.isnan(without).any():
        return {"n": n, "note": f"an item was answered by one of the {a.unit} only"}
    error = standard_error(without)
    fields = {"n": n, "note": metric.biased, "detectable": smallest_difference(error * n**0.5, n)}
    if metric.biased:
        return fields
    if n < LEAST_UNITS:
        return fields | {"note": f"{n} {a.unit}: an interval needs {LEAST_UNITS} or more"}
    gaps = quotient(a.sums, a.counts) - quotient(b.sums, b.counts)
    if (few := differing(gaps[:, metric.cells])) < LEAST_DIFFERING:
        return fields | {"note": f"{few} of {n} {a.unit} unlike most: an interval needs {LEAST_DIFFERING}"}
    low, high = student(a.value(name) - b.value(name), error, n)
    return fields | {"low": low, "high": high}


def permutation(
    a: Sample, b: Sample, metrics: Sequence[Metric], rng: np.random.Generator, draws: int = DRAWS
) -> np.ndarray:
    """Compute two-sided p (metrics,) of the paired permutation test, which exchanges labels A and B of random units.

    The level is exact under the hypothesis that A and B have the same distribution of answers; the observed labelling
    counts as one of ``draws`` + 1 (Phipson & Smyth 2010). Both samples have the same units in the same order.
    """
    both = [(x.sum(0), y.sum(0), y - x) for x, y in ((a.sums, b.sums), (a.counts, b.counts))]
    if not any(gap.any() for _, _, gap in both):
        return np.ones(len(metrics))

    def distances(exchanged: np.ndarray) -> np.ndarray:
        """Compute |A - B| (metrics, draws); ``exchanged`` (draws, units) is 1 for units with swapped labels."""
        totals_a, totals_b = [], []
        for first, second, gap in both:
            change = exchanged @ gap if gap.any() else np.zeros((len(exchanged), gap.shape[1]))
            totals_a.append(first + change)
            totals_b.append(second - change)
        one, two = quotient(*totals_a), quotient(*totals_b)
        return np.stack([abs(m.value(one[:, m.cells]) - m.value(two[:, m.cells])) for m in metrics])

    observed = distances(np.zeros((1, len(a))))
    least = observed - 1e-9 * np.maximum(1.0, observed)  # tolerance for rounding: an equal labelling counts
    beyond = np.zeros(len(metrics))
    for start in range(0, draws, _CHUNK):
        some = rng.integers(0, 2, (min(_CHUNK, draws - start), len(a))).astype(float)
        beyond += (~(distances(some) < least)).sum(1)  # a labelling without a value (NaN) counts as well
    return (1 + beyond) / (1 + draws)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Adjust the p of a family of tests by Holm (1979); None stays None and is no part of the family."""
    adjusted: list[float | None] = [None] * len(p)
    tested = sorted((value, place) for place, value in enumerate(p) if value is not None)
    least = 0.0
    for rank, (value, place) in enumerate(tested):
        least = max(least, min(1.0, (len(tested) - rank) * value))
        adjusted[place] = least
    return adjusted


def smallest_difference(deviation: float, n: int, power: float = 0.8, level: float = 0.05) -> float:
    """Compute the smallest true mean difference that a paired two-sided test over ``n`` units detects with this power.

    ``deviation`` is the standard deviation of a unit's difference.
    """
    if n < 2:
        return float("inf")
    return float((stats.t.ppf(1 - level / 2, n - 1) + stats.t.ppf(power, n - 1)) * deviation / n**0.5)


@dataclass(frozen=True)
class Detectable:
    """The smallest difference in a metric that a protocol detects with 80 % power at the 5 % level, in the worst case.

    In the worst case half of the units have the largest possible difference, and the other half the opposite one.
    ``difference`` is None where there are too few units for a test.
    """

    metric: str
    unit: str
    n: int
    difference: float | None


def detectable(spec: TaskSpec, personas: int = 0) -> list[Detectable]:
    """Compute the detectable differences of a task's held-out protocol, for its default country and bounded metrics.

    Raises:
        UsageError, InputError: as ``measure_of``.
    """
    measure = measure_of(spec, spec.metadata.default_country, MeasureOptions())
    layout = render(spec, "heldout", ProtocolOptions(personas)).layout
    sample = _listed(spec, measure.sample(measure.constant(layout), "expected"))
    rows = []
    for name, metric in sample.metrics.items():
        if metric.bounds and not metric.biased:
            n, width = len(sample.of(name)), metric.bounds[1] - metric.bounds[0]
            rows.append(Detectable(name, sample.unit, n, smallest_difference(width, n) if n >= LEAST_PAIRS else None))
    return rows


@dataclass(frozen=True)
class Association:
    """A rank correlation over countries with its 95 % interval and p; ``statistic`` is kendall or spearman.

    ``low`` and ``high`` are None where the ranks are the same or opposite, so that the interval has no width.
    """

    statistic: str
    value: float
    low: float | None
    high: float | None
    p: float
    n: int


def associations(x: np.ndarray, y: np.ndarray) -> tuple[Association, ...]:
    """Compute Kendall's tau-b and Spearman's rho of two arrays (countries,).

    Intervals are of Fisher's z, with the standard errors of Fieller, Hartley & Pearson (1957) for tau and of Bonett &
    Wright (2000) for rho. The result is empty where one array has the same value for all countries.

    Raises:
        UsageError: fewer than ten countries.
    """
    n = len(x)
    if n < LEAST_COUNTRIES:
        raise UsageError(f"rank correlation over {n} countries: too few; give {LEAST_COUNTRIES} or more.")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return ()
    tau, rho = stats.kendalltau(x, y), stats.spearmanr(x, y)
    errors = {"kendall": (0.437 / (n - 4)) ** 0.5, "spearman": ((1 + rho.statistic**2 / 2) / (n - 3)) ** 0.5}
    both = []
    for name, test in (("kendall", tau), ("spearman", rho)):
        value, low, high = float(test.statistic), None, None
        if abs(value) < 1 - 1e-9:
            low, high = np.tanh(np.arctanh(value) + np.array([-1.959964, 1.959964]) * errors[name]).tolist()
        both.append(Association(name, value, low, high, float(test.pvalue), n))
    return tuple(both)


@dataclass(frozen=True)
class Points:
    """The values of runs that differ in their seed alone, shown one by one instead of as an interval."""

    values: tuple[float, ...]

    def shown(self, form: str) -> str:
        """Format all values, and their range where there are two or more."""
        listed = ", ".join(f"{value:{form}}" for value in self.values)
        return f"{listed} ({min(self.values):{form}} to {max(self.values):{form}})" if len(self.values) > 1 else listed


def shared(a: Answers, b: Answers, *, paired: bool = True) -> tuple[Answers, Answers]:
    """Return the answers of both sides to the prompts that they share, in the same order.

    Without ``paired``, prompts are the same if item, paraphrase and order are, whatever the persona.
    """
    keys_a, keys_b = (_keys(answers.layout, a.layout, paired) for answers in (a, b))
    kept = []
    for answers, keys, others in ((a, keys_a, keys_b), (b, keys_b, keys_a)):
        rows = np.flatnonzero(np.isin(keys, others))
        kept.append(answers.take(rows[np.argsort(keys[rows], kind="stable")]))
    return kept[0], kept[1]


def _keys(layout: Layout, like: Layout, personas: bool) -> np.ndarray:
    """Compute one number (prompts,) a cell, equal where item, paraphrase and order (and persona) are the same."""
    items, paraphrases, orders = (
        {name: number for number, name in enumerate(getattr(like, what))} for what in ("items", "paraphrases", "orders")
    )
    key = np.zeros(len(layout), dtype=np.int64)
    for names, levels, column in (
        (items, layout.items, layout.item),
        (paraphrases, layout.paraphrases, layout.paraphrase),
        (orders, layout.orders, layout.order),
    ):
        number = np.array([names.get(level, len(names) + place) for place, level in enumerate(levels)])
        key = key * (len(names) + len(levels) + 1) + number[column]
    return key * (1 << 20) + layout.persona if personas else key
