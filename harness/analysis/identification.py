"""Country identification: distances of answers to every country, and the rank of the country aligned to.

A model aligned to X that comes nearer to X may have come nearer to all countries by a common shift, and countries
resemble each other. Therefore the submissions of an aligned set, one a country, are each scored against all countries
of the set: D[i, j] is the distance of the submission aligned to country i from country j. Double-centring removes the
mean distance of each submission and of each country, B = D - row means - column means + mean. For the squared distance
of Hofstede's indices B is -2 (x_i - mean x) . (y_j - mean y), in which the constants C cancel.

The identification rank of row i is the rank of B[i, i] among B[i, :], 1 for the nearest, with mid-ranks for ties; with
n countries the mean rank of answers without information is (n + 1) / 2. The p of the permutation test is the
probability of a mean rank as low when the labels of the submissions are permuted.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from ...errors import InputError, UsageError
from ...tasks.answers import Answers
from ...tasks.calibration import is_free
from ...tasks.measure import MeasureOptions, countries_of, measure_of
from ...tasks.metrics.common import chosen_or_equal
from ...tasks.metrics.shares import Shares
from ...tasks.prompts import of_split
from ...tasks.schema import Scoring
from ...tasks.score import Score
from ...tasks.spec import TaskSpec

MEASURES = (
    "hofstede",
    "shares",
    "cultural_map",
)  # measures whose headline is a distance of mean answers to the reference
LEAST_COUNTRIES = 6
ALIKE = 0.9  # least share of the items of a country that another one was asked, too
MOST_EXACT = 8  # countries up to which all permutations are enumerated: 40,320
PERMUTATIONS = 9_999


@dataclass(frozen=True)
class Identification:
    """The identification ranks of an aligned set; matrices are (submissions, countries) in the order of ``countries``.

    ``p`` is None below six countries; ``permutations`` is the number of labellings that it is computed from.
    """

    countries: tuple[str, ...]
    distances: np.ndarray
    centred: np.ndarray
    ranks: np.ndarray
    p: float | None
    permutations: int

    @property
    def mean_rank(self) -> float:
        """Return the mean identification rank: 1 if every country is identified, (n + 1) / 2 without information."""
        return float(self.ranks.mean())


def distances(
    spec: TaskSpec, answers: Answers, scoring: Scoring, options: MeasureOptions, own: str
) -> dict[str, float]:
    """Compute the held-out headline against every country of the reference, the nearest first.

    Countries are compared on the same items: those that were asked in all of them. A country in which less than
    ``ALIKE`` of the items of ``own`` were asked is left out.

    Args:
        own: a country of the reference; its score defines the paraphrases and orders that the headline uses.

    Raises:
        UsageError: a task whose headline is no distance to countries. InputError: no headline can be computed.
    """
    if spec.metadata.measure not in MEASURES:
        raise UsageError(f"{spec.name}: its answers have no distance to countries. Take a task like vsm13 or wvs.")
    known = countries_of(spec, options.edition)
    held_out = heldout(spec, answers)
    measure = measure_of(spec, own if own in known else known[0], options)
    first = _headline(spec, measure.score(held_out, "heldout", scoring))
    if first is None:
        raise InputError(f"{spec.name}: no answer can be scored by {scoring}. Take another `scoring`.")
    mean = pooled(held_out.take(held_out.layout.where(first.paraphrases, first.orders)), scoring)
    measures = {code: measure_of(spec, code, options) for code in known}
    if isinstance(measure, Shares):
        measures, items = _on_same_items(measures, own, mean.layout.item)
        mean = mean.take(np.isin(mean.layout.item, items))
    losses = {code: each.loss_function(mean.layout, "expected") for code, each in measures.items()}
    by_country = {code: float(loss(mean.probs)[0]) for code, loss in losses.items()}
    return dict(sorted(by_country.items(), key=lambda pair: pair[1]))


def _on_same_items(measures: Mapping[str, Any], own: str, answered: np.ndarray) -> tuple[dict[str, Any], list[int]]:
    """Return the measures of the countries that can be compared with ``own``, and the items asked in all of them."""
    asked = {code: set(each.items) & set(answered.tolist()) for code, each in measures.items()}
    wanted = asked.get(own) or set.union(*asked.values())
    kept = {code: each for code, each in measures.items() if len(asked[code] & wanted) >= ALIKE * len(wanted)}
    return kept, sorted(set.intersection(wanted, *(asked[code] for code in kept)))


def heldout(spec: TaskSpec, answers: Answers) -> Answers:
    """Return the held-out answers to real items."""
    return answers.take(of_split(spec, answers.layout, "heldout") & ~is_free(answers.layout))


def _headline(spec: TaskSpec, rows: Sequence[Score]) -> Score | None:
    return next((row for row in rows if row.metric == spec.metadata.headline.metric), None)


def pooled(answers: Answers, scoring: Scoring) -> Answers:
    """Average the answers to each item over paraphrases, orders and personas, without unparsed answers.

    Headlines of mean answers are the same for these few rows, which saves time with many countries. As for headlines,
    an item without any valid answer has equal shares.
    """
    layout, spread = answers.layout, chosen_or_equal(answers, scoring)
    read = spread.sum(-1) > 0
    items, rows, place = np.unique(layout.item[read], return_index=True, return_inverse=True)
    sums = np.stack([np.bincount(place, column, len(items)) for column in spread[read].T], axis=1)
    kept = layout.take(np.flatnonzero(read)[rows])
    return Answers(kept, (sums / sums.sum(-1, keepdims=True))[None], np.zeros((1, len(items))))


def identification(rows: Mapping[str, Mapping[str, float]], rng: np.random.Generator) -> Identification:
    """Compute the identification ranks of an aligned set and their permutation test.

    Args:
        rows: by the country that a submission is aligned to, its distances to other countries; countries without a
            distance from or to another one are left out, those that lack the most first.
        rng: draws the permutations where there are too many to enumerate.

    Raises:
        UsageError: fewer than two countries.
    """
    countries = _comparable(rows)
    if len(countries) < 2:
        raise UsageError("the countries of the set were asked too different questions to be compared.")
    table = np.array([[rows[i][j] for j in countries] for i in countries])
    centred = double_centred(table)
    ranks = rankdata(np.round(centred, 9), axis=1)  # differences by rounding are ties
    enough = len(countries) >= LEAST_COUNTRIES
    p, permutations = permutation_p(ranks, rng) if enough else (None, 0)
    return Identification(countries, table, centred, np.diag(ranks), p, permutations)


def _comparable(rows: Mapping[str, Mapping[str, float]]) -> tuple[str, ...]:
    """Return countries that all have distances to each other; of two, the one without a distance to it is left out."""
    kept = sorted(rows)
    while True:
        to = {code: sum(code not in rows[other] for other in kept) for code in kept}
        lacking = {code: (to[code] + sum(other not in rows[code] for other in kept), to[code]) for code in kept}
        if not any(to.values()):
            return tuple(kept)
        kept.remove(max(kept, key=lambda code: lacking[code]))


def double_centred(table: np.ndarray) -> np.ndarray:
    """Subtract the row and column means from a matrix and add its mean."""
    return table - table.mean(1, keepdims=True) - table.mean(0) + table.mean()


def permutation_p(ranks: np.ndarray, rng: np.random.Generator) -> tuple[float, int]:
    """Compute the p of a mean rank as low under random labels, and the number of labellings used.

    Args:
        ranks: (n, n), the rank of country j among the distances of the submission labelled i.

    Returns:
        The exact p over all n! labellings up to eight countries; else (1 + hits) / (1 + 9,999) over random labellings
        (Phipson & Smyth 2010), never zero.
    """
    n = len(ranks)
    observed = np.trace(ranks) + 1e-9
    if n <= MOST_EXACT:
        every = np.array(list(itertools.permutations(range(n))))
        return float((ranks[np.arange(n), every].sum(1) <= observed).mean()), math.factorial(n)
    drawn = rng.permuted(np.tile(np.arange(n), (PERMUTATIONS, 1)), axis=1)
    hits = int((ranks[np.arange(n), drawn].sum(1) <= observed).sum())
    return (1 + hits) / (1 + PERMUTATIONS), PERMUTATIONS
