"""Country identification: answers scored against every country, and whether the right one is the nearest.

A model aligned to X that comes nearer to X may have come nearer to everybody (a shift common to all countries), and
countries resemble each other. So the submissions of an aligned set, one a country, are each scored against all
countries of the set: D[i, j] is the distance of the submission aligned to country i from country j. Double-centring
takes out how near a submission is to all countries and how near a country is to all submissions, B = D - row means -
column means + mean. For the squared distance of Hofstede's indices B is -2 (x_i - mean x) . (y_j - mean y): the
constants C are gone.

The identification rank of row i is the place of B[i, i] among B[i, :], 1 the nearest, the middle of equals; with n
countries the mean rank of answers without information is (n + 1) / 2. The permutation test asks how often the mean rank
is as low when the labels of the submissions are permuted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from ...errors import InputError, UsageError
from ...tasks.answers import Answers, chosen
from ...tasks.calibration import is_free
from ...tasks.measure import MeasureOptions, countries_of, measure_of
from ...tasks.prompts import of_split
from ...tasks.schema import Readout
from ...tasks.score import Score
from ...tasks.spec import TaskSpec

MEASURES = ("hofstede", "shares")  # whose headline is their objective, a distance of mean answers to figures
LEAST_COUNTRIES = 6
MOST_EXACT = 8  # countries up to which all permutations are tried: 40,320
PERMUTATIONS = 9_999


@dataclass(frozen=True)
class Identification:
    """An aligned set against itself; matrices are (submissions, countries), both in the order of ``countries``.

    ``p`` is None below six countries; ``permutations`` says how many labellings it rests on.
    """

    countries: tuple[str, ...]
    distances: np.ndarray
    centred: np.ndarray
    ranks: np.ndarray
    p: float | None
    permutations: int

    @property
    def mean_rank(self) -> float:
        """1 where every country is identified, (n + 1) / 2 without information."""
        return float(self.ranks.mean())


def distances(
    spec: TaskSpec, answers: Answers, readout: Readout, options: MeasureOptions, own: str
) -> dict[str, float]:
    """The held-out headline against every country of the reference, the nearest first.

    Args:
        own: a country of the reference, whose score says which presentations the headline rests on.

    Raises:
        UsageError: a task whose headline is no distance to countries. InputError: no headline can be formed.
    """
    if spec.metadata.measure not in MEASURES:
        raise UsageError(f"{spec.name}: its answers have no distance to countries; vsm13 and wvs, for two, do.")
    known = countries_of(spec, options.edition)
    asked = heldout(spec, answers)
    measure = measure_of(spec, own if own in known else known[0], options)
    first = _headline(spec, measure.score(asked, "heldout", readout))
    if first is None:
        raise InputError(f"{spec.name}: no answer in the read-out {readout} can be scored. Take another `scoring`.")
    mean = pooled(asked.take(asked.layout.where(first.wordings, first.orders)), readout)
    found = {}
    for code in known:
        loss = measure_of(spec, code, options).loss_function(mean.layout, "expected")
        found[code] = float(loss(mean.probs)[0])
    return dict(sorted(found.items(), key=lambda pair: pair[1]))


def heldout(spec: TaskSpec, answers: Answers) -> Answers:
    """The held-out answers to real items."""
    return answers.take(of_split(spec, answers.layout, "heldout") & ~is_free(answers.layout))


def _headline(spec: TaskSpec, rows: Sequence[Score]) -> Score | None:
    return next((row for row in rows if row.metric == spec.metadata.headline.metric), None)


def pooled(answers: Answers, readout: Readout) -> Answers:
    """One answer an item: the mean over everything it was asked in, unread answers aside.

    Headlines of mean answers are the same for these few rows, and every country reads them instead of all.
    """
    layout, spread = answers.layout, chosen(answers, readout)
    read = spread.sum(-1) > 0
    items, rows, place = np.unique(layout.item[read], return_index=True, return_inverse=True)
    sums = np.stack([np.bincount(place, column, len(items)) for column in spread[read].T], axis=1)
    kept = layout.take(np.flatnonzero(read)[rows])
    return Answers(kept, (sums / sums.sum(-1, keepdims=True))[None], np.zeros((1, len(items))))


def identification(rows: Mapping[str, Mapping[str, float]], rng: np.random.Generator) -> Identification:
    """Whether each submission of a set is nearest to its own country.

    Args:
        rows: by the country a submission is aligned to, its distances to countries, these among them.
        rng: draws the permutations where there are too many to try them all.

    Raises:
        ValueError: fewer than two countries.
    """
    countries = tuple(sorted(rows))
    if len(countries) < 2:
        raise ValueError("a set needs two countries")
    table = np.array([[rows[i][j] for j in countries] for i in countries])
    centred = double_centred(table)
    ranks = rankdata(np.round(centred, 9), axis=1)  # what rounding alone tells apart are equals
    enough = len(countries) >= LEAST_COUNTRIES
    p, tried = permutation_p(ranks, rng) if enough else (None, 0)
    return Identification(countries, table, centred, np.diag(ranks), p, tried)


def double_centred(table: np.ndarray) -> np.ndarray:
    """A matrix less its row and column means, its mean added back."""
    return table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()


def permutation_p(ranks: np.ndarray, rng: np.random.Generator) -> tuple[float, int]:
    """How probable so low a mean rank is when labels mean nothing, and how many labellings were tried.

    Args:
        ranks: (n, n), the rank of country j among the distances of the submission labelled i.

    Returns:
        Exact over all n! labellings up to eight countries; else (1 + hits) / (1 + 9,999) over random ones (Phipson &
        Smyth 2010), never zero.
    """
    n = len(ranks)
    observed = np.trace(ranks) + 1e-9
    if n <= MOST_EXACT:
        every = np.array(list(itertools.permutations(range(n))))
        return float((ranks[np.arange(n), every].sum(1) <= observed).mean()), math.factorial(n)
    drawn = rng.permuted(np.tile(np.arange(n), (PERMUTATIONS, 1)), axis=1)
    hits = int((ranks[np.arange(n), drawn].sum(1) <= observed).sum())
    return (1 + hits) / (1 + PERMUTATIONS), PERMUTATIONS
