"""Dimensions compared between countries, free of the constants C.

Each index is free up to its constant, so one submission's distance to published scores depends on a convention. Over a
set of submissions, one a country, the constant is gone once the model's and the published indices are centred over
the same countries. With x[c, d] the model's index of country c on dimension d, y[c, d] the published one, x' and y' the
same minus their means over c:

- explained variance of d: 1 - sum_c (x' - y')^2 / sum_c y'^2, and over all dimensions the same with both sums over
  c and d (scikit-learn's ``explained_variance_score``, variance weighted). 1 is perfect; answers that do not differ
  between countries have 0, differences that point the wrong way less.
- correlation of d: Pearson's, sum_c x' y' / sqrt(sum_c x'^2 sum_c y'^2), and over all dimensions the same with sums
  over c and d (within-dimension). It forgives a wrong size of differences; where the model has none, there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ...tasks.metrics.reference import DIMENSIONS
from ...tasks.score import COLLAPSED, Score, find
from ..report.plots import dimensions

LEAST_COUNTRIES = 6
ALL = "all"  # the key of all dimensions together

Value = TypeVar("Value")


@dataclass(frozen=True)
class Centred:
    """Between-country agreement of a set of submissions.

    ``explained_variance`` and ``correlation`` are by dimension and for ``all``; a correlation is None where the model's
    indices do not differ. ``skill`` is the mean of the single-country skills; ``collapsed`` are the countries whose
    answers were one answer given 24 times.
    """

    countries: tuple[str, ...]
    explained_variance: Mapping[str, float]
    correlation: Mapping[str, float | None]
    skill: float
    collapsed: tuple[str, ...]


def centred(scores: Mapping[str, Sequence[Score]], readout: str, split: str = "heldout") -> Centred | None:
    """The headline of a set: ``scores`` are those of the submission aligned to each country, against that country.

    None where fewer than six countries have all their indices.
    """
    points = {code: dimensions(rows, readout, split) for code, rows in scores.items()}
    codes = tuple(sorted(code for code, found in points.items() if len(found) == len(DIMENSIONS)))
    if len(codes) < LEAST_COUNTRIES:
        return None
    both = np.array([[points[code][name] for name in DIMENSIONS] for code in codes])
    model, published = np.moveaxis(both - both.mean(0), 2, 0)
    usual = {code: row for code in codes if (row := find(scores[code], ("skill", readout, split))) is not None}
    return Centred(
        codes,
        _each(lambda x, y: 1 - float(((x - y) ** 2).sum() / (y**2).sum()), model, published),
        _each(_correlation, model, published),
        float(np.mean([row.value for row in usual.values()])),
        tuple(code for code, row in usual.items() if row.note == COLLAPSED),
    )


def _each(of: Callable[[np.ndarray, np.ndarray], Value], model: np.ndarray, published: np.ndarray) -> dict[str, Value]:
    """A statistic of all dimensions together and of each."""
    columns = {name: (model[:, d], published[:, d]) for d, name in enumerate(DIMENSIONS)}
    return {name: of(*pair) for name, pair in ({ALL: (model, published)} | columns).items()}


def _correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    size = float(((x**2).sum() * (y**2).sum()) ** 0.5)
    return float((x * y).sum()) / size if (x**2).mean() > 1e-12 else None
