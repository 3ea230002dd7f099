"""Correlations between items over personas beside those between people: what shares of answers do not show."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import UsageError
from ...tasks.answers import Layout
from ...tasks.imported_people import CORRELATIONS, correlations_of, edition_of
from ...tasks.intervals import student
from ...tasks.sample import standard_error
from ...tasks.schema import Scoring
from ...tasks.spec import TaskSpec
from ..report import plots
from ..report.results import Results
from ..scoring.submission import as_submission
from .subgroups import asked_task, heldout_answers

LEAST_PERSONAS = 20  # as for other statistics over personas
SINGLE = 1e-9  # of the sum of squares, which rounding alone leaves


@dataclass(frozen=True)
class Pair:
    """Two items: their correlation over personas and over people, and the number of people who answered both."""

    first: str
    second: str
    personas: float
    people: float
    count: int


@dataclass(frozen=True)
class Agreement:
    """How alike the two sets of correlations are, over the pairs of items; bounds are 95 % intervals over personas.

    ``correlation`` is Pearson's of the two sets; ``reliability`` is that of two halves of the personas, stepped up to
    all of them (Spearman-Brown), because few personas make it small. ``difference`` is the mean absolute difference,
    ``zero_difference`` that of independent answers, the mean absolute correlation over people; ``strength`` is the mean
    absolute correlation over personas.
    """

    pairs: int
    personas: int
    correlation: float | None
    low: float | None
    high: float | None
    reliability: float | None
    difference: float
    zero_difference: float
    strength: float


class Structure(Results[Pair]):
    """Pairs of items, the largest differences first, and how alike the two sets of correlations are."""

    def __init__(self, rows: Iterable[Pair], agreement: Agreement, about: dict[str, Any]) -> None:
        super().__init__(rows)
        self.agreement, self.about = agreement, about

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary a pair, with the fields of ``Pair``."""
        return [asdict(row) for row in self.rows]

    def plot(self) -> Any:
        """Draw a point a pair, people against personas, and return the matplotlib axes."""
        axes = plots.new_axes(5, 5)
        self._draw(axes)
        return axes

    def write(self, path: Path) -> None:
        """Write that figure, SVG or PNG by the file's suffix."""
        with plots.drawing(path, 5, 5) as axes:
            self._draw(axes)

    def _draw(self, axes: Any) -> None:
        title = f"correlations between items ({self.about['task']}, {self.about['country']})"
        points = np.array([(row.people, row.personas) for row in self.rows])
        plots.draw_scatter(axes, points, ("over people", "over personas"), title)


def structure(
    given: Any, task: str | None = None, scoring: Scoring | None = None, edition: str | None = None
) -> Structure:
    """Compare correlations between items over personas with those over the people of the country.

    A persona's answer to an item is its mean code over held-out paraphrases and option orders. Items that do not vary
    over personas have no correlation and are left out and counted.

    Args:
        given: a submission or run, or the path of either, with 20 personas or more.
        task: one of its tasks [default: the first that has answer shares].
        scoring: answer scoring [default: the task's first].
        edition: whose people [default: the submission's edition, else the only imported one].

    Raises:
        UsageError: too few personas, no such task or edition, or no people of the country. InputError: damaged files.
    """
    submission = as_submission(given)
    asked = asked_task(submission, task)
    spec, size = submission.cache.spec(asked.name), asked.protocol(submission.manifest.seed).people()
    if size < LEAST_PERSONAS:
        raise UsageError(
            f"{spec.name}: {size} personas; correlations need {LEAST_PERSONAS}. Run it with `personas` 100."
        )
    edition = edition_of(spec, CORRELATIONS, edition, asked.edition)
    scoring = scoring or spec.default_scoring
    people, counts = correlations_of(spec, edition, asked.country)
    answers = heldout_answers(submission, asked.name, scoring)
    means = _means(answers.layout, answers.values(scoring)[0], size, len(spec.items.ids))
    first, second = _compared(means, people)
    if len(first) < 3:
        raise UsageError(f"{spec.name}: fewer than three pairs of items vary over personas and over people.")
    own, theirs = _correlations(means)[first, second], people[first, second]
    ids = spec.items.ids
    order = np.argsort(-abs(own - theirs), kind="stable")
    rows = [
        Pair(ids[first[i]], ids[second[i]], float(own[i]), float(theirs[i]), int(counts[first[i], second[i]]))
        for i in order.tolist()
    ]
    about = {"task": spec.name, "country": asked.country, "edition": edition, "scoring": scoring, "split": "heldout"}
    about["constant_items"] = _constant(spec, means)
    return Structure(rows, _agreement(means, first, second, theirs), about)


def _means(layout: Layout, values: np.ndarray, size: int, items: int) -> np.ndarray:
    """Average answers (prompts,) by persona and item, (personas, items); NaN without a valid answer."""
    valid = ~np.isnan(values)
    at = (layout.persona.astype(np.int64) * items + layout.item)[valid]
    sums, counts = np.bincount(at, values[valid], size * items), np.bincount(at, minlength=size * items)
    return np.divide(sums, counts, out=np.full(size * items, np.nan), where=counts > 0).reshape(size, items)


def _varying(means: np.ndarray) -> np.ndarray:
    """Return which items (items,) every persona answered and not all alike."""
    return ~np.isnan(means).any(0) & (np.ptp(np.nan_to_num(means), axis=0) > 1e-9)


def _constant(spec: TaskSpec, means: np.ndarray) -> list[str]:
    return [name for name, varies in zip(spec.items.ids, _varying(means), strict=True) if not varies]


def _compared(means: np.ndarray, people: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of items that have both correlations, as two arrays of item numbers."""
    varies = _varying(means)
    both = np.isfinite(people) & varies & varies[:, None]
    first, second = np.nonzero(np.triu(both, 1))
    return first, second


def _correlations(means: np.ndarray) -> np.ndarray:
    """Compute correlations (items, items) over personas; NaN where an item does not vary."""
    centred = means - means.mean(0)
    norm = np.sqrt((centred**2).sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return (centred.T @ centred) / np.outer(norm, norm)


def _agreement(means: np.ndarray, first: np.ndarray, second: np.ndarray, theirs: np.ndarray) -> Agreement:
    own = _correlations(means)[first, second]
    alike = _pearson(own[None], theirs)[0]
    low, high = _interval(alike, _pearson(_without_one(means, first, second), theirs))
    halves = [_correlations(means[start::2])[first, second] for start in (0, 1)]
    known = np.isfinite(halves[0]) & np.isfinite(halves[1])
    half = _pearson(halves[0][None, known], halves[1][known])[0] if known.sum() > 2 else np.nan
    return Agreement(
        pairs=len(own),
        personas=len(means),
        correlation=None if np.isnan(alike) else float(alike),
        low=low,
        high=high,
        reliability=None if np.isnan(half) or half <= -1 else float(2 * half / (1 + half)),
        difference=float(abs(own - theirs).mean()),
        zero_difference=float(abs(theirs).mean()),
        strength=float(abs(own).mean()),
    )


def _without_one(means: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the pairs' correlations (personas, pairs) with each persona left out in turn."""
    n = len(means)
    x = means - means.mean(0)
    products, squares = (x.T @ x)[first, second], (x**2).sum(0)
    # Leaving out x_i moves the mean to -x_i / (n - 1), so that sums of squares about it fall by x_i^2 n / (n - 1).
    spread = squares - x**2 * n / (n - 1)
    spread[spread < SINGLE * squares] = 0  # only rounding is left where one persona alone differs
    found = np.empty((n, len(first)))
    for i in range(n):
        with np.errstate(invalid="ignore", divide="ignore"):
            scale = np.sqrt(np.maximum(spread[i, first] * spread[i, second], 0))
            found[i] = (products - x[i, first] * x[i, second] * n / (n - 1)) / scale
    return found


def _interval(value: float, without_one: np.ndarray) -> tuple[float | None, float | None]:
    """Compute a 95 % interval by the jackknife of Fisher's z; None where a persona decides whether an item varies."""
    if not np.isfinite(without_one).all() or not abs(value) < 1:
        return None, None
    error = standard_error(np.arctanh(without_one))
    low, high = student(float(np.arctanh(value)), error, len(without_one))
    return float(np.tanh(low)), float(np.tanh(high))


def _pearson(rows: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Compute Pearson's correlation (n,) of each row of (n, pairs) with (pairs,); NaN where one does not vary."""
    one, two = rows - rows.mean(-1, keepdims=True), other - other.mean()
    with np.errstate(invalid="ignore", divide="ignore"):
        found: np.ndarray = (one @ two) / np.sqrt((one**2).sum(-1) * (two**2).sum())
    return np.clip(found, -1, 1)
