"""Sampling units of a metric: the personas of a questionnaire, or the questions of a knowledge set.

A unit is what a replication of the survey would draw anew, so units are resampled; the items of a questionnaire, its
paraphrases and its orders are fixed. Every metric here is a function of means over the units, by cell; a cell is an
item, an option of an item or a group of questions. A unit without an answer to an item counts in the other cells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from .intervals import LEAST_DIFFERING, LEAST_UNITS, student, wilson_of_mean

Unit = Literal["personas", "questions"]
Interval = tuple[float, float]
SHARE = (0.0, 1.0)
ROUNDING = 1e-9


@dataclass(frozen=True)
class Metric:
    """A number computed from the means of some cells.

    ``value`` maps means (..., cells) to (...,) and ``cells`` are the indices of the cells it uses. ``bounds`` are the
    smallest and largest value that one unit's answers can give. ``biased`` is the reason why a metric that is not
    linear in its means has no valid interval; else it is None.
    """

    cells: np.ndarray
    value: Callable[[np.ndarray], np.ndarray]
    higher_is_better: bool | None = None
    bounds: tuple[float, float] | None = None
    biased: str | None = None


@dataclass(frozen=True)
class Sample:
    """Sums and counts (units, cells) of valid answers, and the metrics computed from their quotients.

    ``ids`` (units,) identify the units, so that two samples can be paired.
    """

    unit: Unit
    ids: np.ndarray
    sums: np.ndarray
    counts: np.ndarray
    metrics: Mapping[str, Metric]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: np.ndarray) -> Sample:
        """Return some of the units (mask or indices, with repetitions for a bootstrap)."""
        return replace(self, ids=self.ids[rows], sums=self.sums[rows], counts=self.counts[rows])

    def of(self, name: str) -> Sample:
        """Return the units of one metric, with the metric's cells only."""
        metric = self.metrics[name]
        counts = self.counts[:, metric.cells]
        rows = counts.any(1)
        whole = replace(metric, cells=np.arange(len(metric.cells)))
        return Sample(self.unit, self.ids[rows], self.sums[rows][:, metric.cells], counts[rows], {name: whole})

    def value(self, name: str) -> float:
        """Compute the metric over all units; NaN if one of its cells has no valid answer."""
        metric = self.metrics[name]
        means = quotient(self.sums.sum(0), self.counts.sum(0))
        return float(metric.value(means[metric.cells]))

    def without_one(self, name: str) -> np.ndarray:
        """Compute the metric (units,) with each unit left out in turn."""
        metric = self.metrics[name]
        means = quotient(self.sums.sum(0) - self.sums, self.counts.sum(0) - self.counts)
        return metric.value(means[:, metric.cells])

    def interval(self, name: str) -> Interval | None:
        """Compute a 95 % interval from the units; None if there is no valid interval.

        The standard error is the jackknife's, which for complete answers equals the standard deviation over the units
        divided by the root of their number. None for a metric that is not linear, and for fewer than 20 personas or
        where fewer than five differ from the majority: the variance of nearly constant answers cannot be estimated.
        """
        metric, units = self.metrics[name], self.of(name)
        if metric.biased or not len(units) or np.isnan(value := units.value(name)):
            return None
        error = standard_error(units.without_one(name)) if len(units) > 1 else 0.0
        if np.isnan(error):
            return None
        if metric.bounds == SHARE and self.unit == "questions":
            return wilson_of_mean(value, error, len(units))
        if len(units) < LEAST_UNITS or differing(quotient(units.sums, units.counts)) < LEAST_DIFFERING:
            return None
        return student(value, error, len(units))


def average(means: np.ndarray) -> np.ndarray:
    """Compute the mean (...,) of cells' means (..., cells), with equal weights."""
    return means.mean(-1)


def quotient(sums: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Compute means from sums and counts of equal shape; NaN where the count is zero."""
    return np.divide(sums, counts, out=np.full(np.shape(sums), np.nan), where=counts > 0)


def standard_error(without_one: np.ndarray) -> float:
    """Compute the jackknife standard error from a number's values (units,) with each unit left out (Tukey 1958)."""
    n = len(without_one)
    return float(np.sqrt((n - 1) / n * ((without_one - without_one.mean()) ** 2).sum()))


def differing(means: np.ndarray) -> int:
    """Count the units, of means (units, cells), that differ from the median, hence from the majority, in some cell.

    NaN, where a unit did not answer, does not count as different.
    """
    answered = means[:, ~np.isnan(means).all(0)]
    return int((abs(answered - np.nanmedian(answered, 0)) > ROUNDING).any(1).sum())


def tally(
    unit: np.ndarray, cell: np.ndarray, values: np.ndarray, cells: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ``ids`` (units,), ``sums`` and ``counts`` (units, cells) of values (prompts,), without NaN values."""
    ids, row = np.unique(unit, return_inverse=True)
    valid = ~np.isnan(values)
    at, size = (row * cells + cell)[valid], len(ids) * cells
    sums = np.bincount(at, values[valid], minlength=size).reshape(len(ids), cells)
    counts = np.bincount(at, minlength=size).reshape(len(ids), cells).astype(float)
    return ids, sums, counts
