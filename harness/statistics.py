"""Whether a difference holds up: intervals, paired permutation tests, rank correlations, what a design can detect.

What is resampled is what would be drawn anew, the respondents of a questionnaire or the questions of a knowledge set
(``tasks/sample.py``); the items, wordings and orders of a questionnaire are fixed. ``docs/statistics.md`` explains the
choices. Everything here is numpy and scipy, and randomness comes from a generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from ..tasks.answers import Answers, Layout
from ..tasks.intervals import LEAST_RESPONDENTS, student
from ..tasks.measure import MeasureOptions, measure_of
from ..tasks.sample import Metric, Sample, quotient, standard_error
from ..tasks.schema import Readout, SplitName
from ..tasks.spec import TaskSpec
from .scoring import plain, readings

DRAWS = 9_999
LEAST_PAIRS = 6  # with fewer, no arrangement of labels is rare enough: 2 / 2^5 is above .05
_CHUNK = 1_000


@dataclass(frozen=True)
class Difference:
    """One metric of one split and read-out, A minus B.

    ``low`` and ``high`` bound the 95 % interval of the difference, ``p`` is that of the paired permutation test and
    ``adjusted`` the same after Holm's correction over all tests of the call; each is None where none is owed, and
    ``note`` says why. ``n`` counts the ``unit`` that is resampled. ``detectable`` is the smallest difference that such
    a comparison finds with 80 % power at the 5 % level, given how the units varied.
    """

    task: str
    country: str
    metric: str
    readout: str
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
    readouts: Sequence[Readout] | None = None,
    paired: bool = True,
) -> list[Difference]:
    """Every main metric of two sets of answers to a task, compared over the prompts that both answered.

    Args:
        readouts: those to compare [default: the spec's, where both sides have them].
        paired: whether respondent k is the same person on both sides; if not, respondents carry no test.

    Raises:
        UsageError: the reference has no figures for the country, or an option is unknown.
    """
    measure = measure_of(spec, country, options)
    a, b = shared(a, b, paired=paired)
    wanted = spec.metadata.readouts if readouts is None else readouts
    rows = []
    for (split, readout, mine), (_, _, other) in zip(readings(spec, a), readings(spec, b), strict=True):
        if split in splits and readout in wanted:
            one, two = (measure.sample(each, plain(readout)) for each in (mine, other))
            found = compared(one, two, rng, paired=paired or one.unit == "questions")
            where = {"task": spec.name, "country": country, "readout": readout, "split": split}
            rows += [Difference(**where, adjusted=None, **row) for row in found]
    adjusted = holm([row.p for row in rows])
    return [replace(row, adjusted=p) for row, p in zip(rows, adjusted, strict=True)]


def compared(a: Sample, b: Sample, rng: np.random.Generator, *, paired: bool) -> list[dict]:
    """For each metric that both have: values, difference, interval, p, n, unit, note, direction, detectable."""
    names = [name for name in a.metrics if name in b.metrics]
    if paired:
        _, rows, others = np.intersect1d(a.ids, b.ids, return_indices=True)
        a, b = a.take(rows), b.take(others)
    found = []
    for name in names:
        one, two = a.value(name), b.value(name)
        if np.isnan([one, two]).any():
            continue
        row = {"metric": name, "a": one, "b": two, "difference": one - two, "unit": a.unit}
        row |= {"higher_is_better": a.metrics[name].higher_is_better, "p": None}
        row |= {"low": None, "high": None, "detectable": None}
        if paired:
            found.append(row | _tested(a, b, name, rng))
        else:
            note = "other respondents on either side: nothing to pair"
            found.append(row | {"n": min(len(a.of(name)), len(b.of(name))), "note": note})
    return found


def _tested(a: Sample, b: Sample, name: str, rng: np.random.Generator) -> dict:
    """Interval, test and detectable difference of one metric of two samples with the same units."""
    cells = a.metrics[name].cells
    rows = (a.counts[:, cells] + b.counts[:, cells]).any(1)
    a, b, n = a.take(rows), b.take(rows), int(rows.sum())
    if n < LEAST_PAIRS:
        who = "one respondent" if (n, a.unit) == (1, "respondents") else f"{n} {a.unit}"
        return {"n": n, "note": f"{who}: a paired test needs {LEAST_PAIRS} or more"}
    found = {"n": n, "note": a.metrics[name].bent, "p": permutation(a, b, a.metrics[name], rng)}
    without = a.without_one(name) - b.without_one(name)
    if np.isnan(without).any():
        return found | {"note": "an item was answered by one of the units only"}
    difference = a.value(name) - b.value(name)
    error = standard_error(without)
    if (a.sums == b.sums).all() and (a.counts == b.counts).all():
        return found | {"note": "the answers do not differ"}
    found["detectable"] = smallest_difference(error * n**0.5, n)
    if not a.metrics[name].bent and n < LEAST_RESPONDENTS:
        return found | {"note": f"{n} {a.unit}: an interval needs {LEAST_RESPONDENTS} or more"}
    if not a.metrics[name].bent:
        found["low"], found["high"] = student(difference, error, n)
    return found


def permutation(a: Sample, b: Sample, metric: Metric, rng: np.random.Generator, draws: int = DRAWS) -> float:
    """Two-sided p of the paired permutation test: the labels A and B of each unit are exchanged at random.

    Exact in level for the hypothesis that A and B answer alike; the observed arrangement counts as one of ``draws`` + 1
    (Phipson & Smyth 2010). Both samples have the same units in the same order.
    """
    cells = metric.cells
    sums, counts = [np.stack([getattr(s, name)[:, cells] for s in (a, b)]) for name in ("sums", "counts")]

    def difference(exchanged: np.ndarray) -> np.ndarray:
        """A minus B (draws,) where ``exchanged`` (draws, units) is 1 for units whose labels are swapped."""
        values = []
        for mine, other in ((0, 1), (1, 0)):
            moved = [part[mine].sum(0) + exchanged @ (part[other] - part[mine]) for part in (sums, counts)]
            values.append(metric.value(quotient(*moved)))
        return values[0] - values[1]

    observed = abs(difference(np.zeros((1, len(a))))[0])
    least = observed - 1e-9 * max(1.0, observed)  # rounding must not make an equal arrangement a smaller one
    beyond = 0
    for start in range(0, draws, _CHUNK):
        some = rng.integers(0, 2, (min(_CHUNK, draws - start), len(a))).astype(float)
        beyond += int((~(abs(difference(some)) < least)).sum())  # an arrangement without a value counts against
    return (1 + beyond) / (1 + draws)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's (1979) adjusted p of a family of tests; None stays None and is no part of the family."""
    adjusted: list[float | None] = [None] * len(p)
    tested = sorted((value, place) for place, value in enumerate(p) if value is not None)
    least = 0.0
    for rank, (value, place) in enumerate(tested):
        least = max(least, min(1.0, (len(tested) - rank) * value))
        adjusted[place] = least
    return adjusted


def smallest_difference(deviation: float, n: int, power: float = 0.8, level: float = 0.05) -> float:
    """The smallest true mean difference that a paired two-sided test over ``n`` units finds with this power.

    ``deviation`` is the standard deviation of a unit's difference.
    """
    if n < 2:
        return float("inf")
    return float((stats.t.ppf(1 - level / 2, n - 1) + stats.t.ppf(power, n - 1)) * deviation / n**0.5)


def shared(a: Answers, b: Answers, *, paired: bool = True) -> tuple[Answers, Answers]:
    """The answers that both sides gave to the same prompts, in the same order.

    Without ``paired`` respondents are different people, and what is shared is items, wordings and orders.
    """
    keys = [_keys(each.layout, a.layout, paired) for each in (a, b)]
    kept = []
    for each, mine, other in ((a, *keys), (b, *keys[::-1])):
        rows = np.flatnonzero(np.isin(mine, other))
        kept.append(each.take(rows[np.argsort(mine[rows], kind="stable")]))
    return kept[0], kept[1]


def _keys(layout: Layout, like: Layout, respondents: bool) -> np.ndarray:
    """One number (prompts,) a cell, equal where item, wording and order (and respondent) have the same names."""
    items, wordings, orders = (
        {name: number for number, name in enumerate(getattr(like, what))} for what in ("items", "wordings", "orders")
    )
    key = np.zeros(len(layout), dtype=np.int64)
    for names, levels, column in (
        (items, layout.items, layout.item),
        (wordings, layout.wordings, layout.wording),
        (orders, layout.orders, layout.order),
    ):
        number = np.array([names.get(level, len(names) + place) for place, level in enumerate(levels)])
        key = key * (len(names) + len(levels) + 1) + number[column]
    return key * (1 << 20) + layout.respondent if respondents else key
