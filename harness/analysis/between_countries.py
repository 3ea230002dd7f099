"""Between-country agreement of indices, invariant to the constants C of the VSM.

Each index is defined up to a constant, so one submission's distance to published scores depends on a convention. Over a
set of submissions, one a country, the constant cancels when the model's and the published indices are centred over the
same countries. With x[c, d] the model's index of country c on dimension d, y[c, d] the published one, x' and y' the
same minus their means over c:

- explained variance of d (between-country R2): 1 - sum_c (x' - y')^2 / sum_c y'^2, and over all dimensions the same
  with both sums over c and d (scikit-learn's ``explained_variance_score``, variance weighted). 1 is perfect; answers
  that do not differ between countries have 0, differences in the wrong direction less.
- correlation of d: Pearson's, sum_c x' y' / sqrt(sum_c x'^2 sum_c y'^2), and over all dimensions the same with sums
  over c and d (within-dimension). It is invariant to the scale of differences, and undefined without differences.
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

    ``explained_variance`` and ``correlation`` are by index and for ``all``; a correlation is None where the model's
    indices do not differ. ``skill`` is the mean of the single-country skills, None for a task without them;
    ``collapsed`` are the countries of which all mean answers are the same.
    """

    countries: tuple[str, ...]
    explained_variance: Mapping[str, float]
    correlation: Mapping[str, float | None]
    skill: float | None
    collapsed: tuple[str, ...]


def centred(scores: Mapping[str, Sequence[Score]], scoring: str, indices: Sequence[str] = DIMENSIONS) -> Centred | None:
    """Compute the between-country agreement of a set, or None where fewer than six countries have all indices.

    Args:
        scores: by country, the scores against it of the submission aligned to it; the held-out ones are taken.
        indices: names of the indices, each of which has a metric and one of its error.
    """
    points = {code: dimensions(rows, scoring, "heldout", indices) for code, rows in scores.items()}
    codes = tuple(sorted(code for code, found in points.items() if len(found) == len(indices)))
    if len(codes) < LEAST_COUNTRIES:
        return None
    both = np.array([[points[code][name] for name in indices] for code in codes])
    model, published = np.moveaxis(both - both.mean(0), 2, 0)
    skills = [row.value for code in codes if (row := find(scores[code], ("skill", scoring, "heldout"))) is not None]
    collapsed = (code for code in codes if any(_is_collapsed(row, scoring) for row in scores[code]))
    return Centred(
        codes,
        _each(lambda x, y: 1 - float(((x - y) ** 2).sum() / (y**2).sum()), model, published, indices),
        _each(_correlation, model, published, indices),
        float(np.mean(skills)) if skills else None,
        tuple(collapsed),
    )


def _is_collapsed(score: Score, scoring: str) -> bool:
    return score.note == COLLAPSED and (score.scoring, score.split) == (scoring, "heldout")


def _each(
    of: Callable[[np.ndarray, np.ndarray], Value], model: np.ndarray, published: np.ndarray, indices: Sequence[str]
) -> dict[str, Value]:
    """Compute a statistic of all indices together and of each."""
    columns = {name: (model[:, d], published[:, d]) for d, name in enumerate(indices)}
    return {name: of(*pair) for name, pair in ({ALL: (model, published)} | columns).items()}


def _correlation(x: np.ndarray, y: np.ndarray) -> float | None:
    size = float(((x**2).sum() * (y**2).sum()) ** 0.5)
    return float((x * y).sum()) / size if (x**2).mean() > 1e-12 else None
