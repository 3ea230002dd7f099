"""Pool the scores of comparable runs over countries and seeds: mean, range, rank.

Every country counts alike: seeds are averaged within a country first. The range of a pooled mean is

1. where every score has a 95 % interval: the mean of the lower and the mean of the upper bounds. The standard error of
   a mean is at most the mean of the standard errors, so this covers at least 95 % whatever the dependence of the runs,
   which share their questions;
2. else, where every country has several seeds with different answers, and all countries together at least as many more
   as one country needs on a board (two beyond the first): the mean of the lowest and the mean of the highest seeds. For
   one country this is the range of its board;
3. else none: the mean is a point estimate.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal, NamedTuple

from ..tasks.score import COLLAPSED, Score
from .boards import SEEDS, Basis, Name, ranks_of

Effect = Literal["helps", "costs"] | None


@dataclass(frozen=True)
class Value:
    """The score of one run in one column; ``answers`` tells them apart (``answered``), ``improvement`` is its mark."""

    country: str
    seed: int
    answers: Hashable
    score: Score
    improvement: bool | None = None


class SetValue(NamedTuple):
    """A figure of one aligned set, such as its between-country R2."""

    seed: int
    value: float
    countries: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """A pooled mean with its range; ``reason`` says why there is none, no rank, or runs without a score.

    ``countries`` are those of the mean. ``basis`` names the kind of range as on a board, None for a point estimate.
    ``judged`` runs have a verdict, ``improvements`` of them are improvements; ``collapsed`` counts runs. ``spread`` is
    the standard deviation over random prefixes. ``rank`` is None where the mean is over other countries than the
    column's. ``unaligned`` is the unaligned model's mean over the same countries, and ``effect`` says whether the whole
    range is better (helps) or worse (costs) than the whole range of that mean, beyond what any prefix does.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    basis: Basis = None
    countries: tuple[str, ...] = ()
    runs: int = 0
    seeds: int = 0
    improvements: int = 0
    judged: int = 0
    collapsed: int = 0
    spread: float | None = None
    rank: int | None = None
    unaligned: float | None = None
    effect: Effect = None
    reason: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        """Return the range, or twice the value of a point estimate.

        Raises:
            ValueError: the cell is blank.
        """
        if self.value is None:
            raise ValueError("a blank cell has no range")
        return (self.value, self.value) if self.low is None or self.high is None else (self.low, self.high)

    @property
    def place(self) -> str:
        """Format the rank: in brackets if it is a point estimate only."""
        if self.rank is None:
            return "-"
        return str(self.rank) if self.basis else f"({self.rank})"


def pooled(values: Iterable[Value]) -> Cell:
    """Average scores over seeds, then over countries; a blank cell without any."""
    by_country: dict[str, list[Value]] = defaultdict(list)
    for value in values:
        by_country[value.country].append(value)
    if not by_country:
        return Cell(reason="no run has this score")
    every = [value for members in by_country.values() for value in members]
    low, high, basis = _range(list(by_country.values()))
    judged = [value.improvement for value in every if value.improvement is not None]
    return Cell(
        value=fmean(fmean(value.score.value for value in members) for members in by_country.values()),
        low=low,
        high=high,
        basis=basis,
        countries=tuple(sorted(by_country)),
        runs=len(every),
        seeds=len({value.seed for value in every}),
        improvements=sum(judged),
        judged=len(judged),
        collapsed=sum(value.score.note == COLLAPSED for value in every),
    )


def _range(countries: Sequence[Sequence[Value]]) -> tuple[float | None, float | None, Basis]:
    """Return the bounds of the mean over countries and their basis, as described at the top."""
    scores = [[value.score for value in members] for members in countries]
    lows = [[score.low for score in members if score.low is not None] for members in scores]
    highs = [[score.high for score in members if score.high is not None] for members in scores]
    if list(map(len, lows)) == list(map(len, highs)) == list(map(len, scores)):
        return fmean(map(fmean, lows)), fmean(map(fmean, highs)), "interval"
    more = [min(len({one.seed for one in each}), len({one.answers for one in each})) - 1 for each in countries]
    if min(more) > 0 and sum(more) >= SEEDS - 1:
        seeds = [[score.value for score in members] for members in scores]
        return fmean(min(members) for members in seeds), fmean(max(members) for members in seeds), "seeds"
    return None, None, None


def pooled_sets(values: Sequence[SetValue], wanted: Collection[str]) -> Cell:
    """Average a figure of whole sets of countries, such as the between-country R2, over sets.

    Only sets over the same countries are averaged: over the wanted ones if there are any, else over the most common.

    Args:
        wanted: the countries of the column.
    """
    counted = Counter(one.countries for one in values)
    if not counted:
        return Cell(reason="between-country R2 needs one seed with all countries")
    same = tuple(sorted(wanted))
    countries = same if same in counted else max(counted, key=lambda one: (counted[one], len(one), one))
    found = [one.value for one in values if one.countries == countries]
    seeds = len({one.seed for one in values if one.countries == countries})
    ranged = min(len(set(found)), seeds) >= SEEDS
    return Cell(
        value=fmean(found),
        low=min(found) if ranged else None,
        high=max(found) if ranged else None,
        basis="seeds" if ranged else None,
        countries=countries,
        runs=len(found) * len(countries),
        seeds=seeds,
    )


def usual_countries(sets: Iterable[Collection[str]]) -> tuple[str, ...]:
    """Return the countries that the rows of a column are compared on, from the countries of each row.

    Of the rows' sets that at least half of the rows cover, it is the one with the most rows times countries; a larger
    one if two are equal.
    """
    every = [frozenset(one) for one in sets if one]
    covered = {one: sum(other >= one for other in every) for one in set(every)}
    wide = [one for one, rows in covered.items() if 2 * rows >= len(every)] or list(covered)
    return tuple(sorted(max(wide, key=lambda one: (covered[one] * len(one), len(one), sorted(one)), default=())))


def ranked(cells: Mapping[Name, Cell], countries: tuple[str, ...], higher_is_better: bool) -> dict[Name, Cell]:
    """Rank the cells over exactly these countries, as a board ranks its rows; the others say why they are not."""
    same = {name: cell.bounds for name, cell in cells.items() if cell.value is not None and cell.countries == countries}
    ranks = ranks_of(same, higher_is_better)
    return {name: replace(cell, rank=ranks[name]) if name in ranks else _unranked(cell) for name, cell in
            cells.items()}  # fmt: skip


def _unranked(cell: Cell) -> Cell:
    if cell.value is None:
        return cell
    reason = f"not ranked: mean over {', '.join(cell.countries)}"
    return replace(cell, reason=f"{reason}; {cell.reason}" if cell.reason else reason)


def compared(cell: Cell, unaligned: Cell, higher_is_better: bool, noise: float | None = None) -> Cell:
    """Return the cell with the unaligned model's mean over the same countries, and whether it is beyond it.

    A point estimate has no effect: nothing is known about its noise.

    Args:
        noise: the least difference of the means of an effect, such as two standard deviations over random prefixes;
            None where it is not known.
    """
    if cell.value is None or unaligned.value is None or cell.countries != unaligned.countries:
        return cell
    sign = 1 if higher_is_better else -1
    own, other = (sorted(sign * bound for bound in one.bounds) for one in (cell, unaligned))
    effect: Effect = None
    if cell.basis is not None and (noise is None or abs(cell.value - unaligned.value) > noise):
        effect = "helps" if own[0] > other[1] else "costs" if own[1] < other[0] else None
    return replace(cell, unaligned=unaligned.value, effect=effect)
