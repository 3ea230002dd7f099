"""Answer distributions against a country's answer shares, item by item (World Values Survey and the like).

Headline: Wasserstein-1 over the codes, divided by the scale's range (Zhao et al. 2024, WorldValuesBench). Beside it the
Jensen-Shannon distance in natural logarithms as in scipy, total variation, smoothed Kullback-Leibler divergence, and
accuracy against the majority and against respondents drawn at random. A spec may also list the published similarities
``similarity`` (1 - Jensen-Shannon distance to base 2; Durmus et al. 2023, GlobalOpinionQA) and ``representativeness``
(1 - normalised Wasserstein-1; Santurkar et al. 2023, OpinionQA).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from ...errors import InputError, UsageError
from ..answers import UNPARSED, Answers, Layout, chosen
from ..items import Questions, Survey
from ..measure import MeasureOptions
from ..sample import SHARE, Metric, Sample, tally
from ..schema import Scoring, SplitName
from ..score import COLLAPSED, Score, ScoreFields
from ..spec import TaskSpec
from .common import (
    agreement,
    certain_answers,
    chosen_or_equal,
    group_means,
    in_effect_one,
    middle_answers,
    spreads,
    unanswered,
    uniform_answers,
)
from .distribution_distances import DistanceLoss, jensen_shannon, kl_clca, smoothed_kl, split_half, wasserstein
from .share_reference import merges_of, reference_of, table_of
from .target_distributions import TargetDistributions

BIASED = "a distance: what varies only adds to it, so that resampling is biased upward near zero"


@dataclass(frozen=True)
class Alike:
    """Items with equal numbers of options and of codes that count, so that they can be scored together.

    ``items`` (items,) are their numbers, ``codes`` and ``target`` (items, codes) the codes that count and their shares,
    ``counts_as`` (items, options, codes) is 1 where an option counts as a code, ``ordered`` (items,) for scales.
    """

    items: np.ndarray
    codes: np.ndarray
    target: np.ndarray
    counts_as: np.ndarray
    ordered: np.ndarray

    def take(self, rows: np.ndarray) -> Alike:
        """Return some of the items, by a mask."""
        columns = {name: getattr(self, name)[rows] for name in ("items", "codes", "target", "counts_as", "ordered")}
        return replace(self, **columns)

    def counted(self, spread: np.ndarray) -> np.ndarray:
        """Map answers over options (..., items, options) to answers over the codes that count (..., items, codes)."""
        whole = spread / spread.sum(-1, keepdims=True)
        return np.einsum("...io,ioc->...ic", whole, self.counts_as)

    def distance(self, metric: str, spread: np.ndarray) -> np.ndarray:
        """Compute a metric (..., items) of distributions over the codes that count; Wasserstein-1 for scales only."""
        if metric in _SIMILARITIES:
            of, largest = _SIMILARITIES[metric]
            return 1 - self.distance(of, spread) / largest
        if metric == "w1":
            ordered = self.ordered
            return wasserstein(spread[..., ordered, :], self.target[ordered], self.codes[ordered])
        return _DISTANCES[metric](spread, self.target)


class Shares:
    """The measure of the distance between a model's answers and a country's shares."""

    caution = None

    def __init__(self, spec: TaskSpec, country: str, options: MeasureOptions) -> None:
        self.spec, self.country = spec, country
        self.merged = merges_of(spec, country)
        self.reference = reference_of(spec, country, options.edition)
        self.items = [i for i, name in enumerate(spec.items.ids) if self._has_shares(name)]
        if not self.items:
            raise UsageError(f"country {country}: {spec.name}: none of its items was asked in that country.")
        self.codes = {i: self._codes(spec.items.ids[i]) for i in self.items}
        self.target = {i: self._target(i) for i in self.items}
        self.ordered = {i: _is_ordered(spec, spec.items.ids[i]) for i in self.items}

    def _has_shares(self, item: str) -> bool:
        return item in self.reference.shares and bool(self.spec.items.codes(item))

    @staticmethod
    def countries(spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
        """Return the codes of the countries that an edition has shares of."""
        return table_of(spec, edition)[0].countries

    def _codes(self, item: str) -> np.ndarray:
        """Return the code that each option counts as in this country, (options,)."""
        merge = self.merged.get(item, {})
        return np.array([merge.get(code, code) for code in self.spec.items.codes(item)])

    def _target(self, item: int) -> np.ndarray:
        """Return the country's shares over the codes as counted, in ascending order."""
        merge = self.merged.get(self.spec.items.ids[item], {})
        shares: dict[int, float] = defaultdict(float)
        for code, share in self.reference.shares[self.spec.items.ids[item]].items():
            shares[merge.get(code, code)] += share
        codes = np.unique(self.codes[item])
        if extra := sorted(set(shares) - set(codes.tolist())):
            raise InputError(
                f"{self.spec.path}: the reference has code {extra[0]} of {self.spec.items.ids[item]} in "
                f"{self.country}, the scale has {codes.tolist()}."
            )
        row = np.array([shares.get(code, 0.0) for code in codes.tolist()])
        return row / row.sum()

    @cached_property
    def alike(self) -> tuple[Alike, ...]:
        """Return the items in groups of the same shape."""
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for item in self.items:
            groups[len(self.codes[item]), len(self.target[item])].append(item)
        found = []
        for items in groups.values():
            codes = [np.unique(self.codes[item], return_inverse=True) for item in items]
            places = np.array([place for _, place in codes])
            found.append(
                Alike(
                    np.array(items),
                    np.array([counted for counted, _ in codes]),
                    np.array([self.target[item] for item in items]),
                    (places[..., None] == np.arange(len(codes[0][0]))).astype(float),
                    np.array([self.ordered[item] for item in items]),
                )
            )
        return tuple(found)

    def loss_function(self, layout: Layout, scoring: Scoring) -> DistanceLoss:
        """Return the mean distance over the items asked in the country.

        Wasserstein-1, or total variation without an order.
        """
        width = layout.codes.shape[1]
        rows = np.flatnonzero(np.isin(layout.item, self.items))
        rows = rows[np.argsort(layout.item[rows], kind="stable")]
        asked, starts, counts = np.unique(layout.item[rows], return_index=True, return_counts=True)
        place = np.arange(counts.max(initial=0))
        prompts = rows[starts[:, None] + np.minimum(place, counts[:, None] - 1)]
        weight = (place < counts[:, None]) / counts[:, None]
        target, gaps = np.zeros((len(asked), width)), np.zeros((len(asked), width))
        for row, item in enumerate(asked.tolist()):
            codes, counted = self.codes[item], np.unique(self.codes[item])
            if not self.ordered[item]:
                target[row, : len(codes)], gaps[row, : len(codes)] = self.target[item], 0.5
                continue
            cumulative = np.cumsum(self.target[item])
            for option in range(len(codes) - 1):
                step = codes[option + 1] - codes[option]
                target[row, option] = cumulative[np.searchsorted(counted, codes[option])]
                gaps[row, option] = max(step, 0) / (counted[-1] - counted[0])
        ordered = np.array([self.ordered[item] for item in asked.tolist()], dtype=bool)
        return DistanceLoss(prompts, weight, target, gaps, ordered, scoring)

    def distributions(self, layout: Layout) -> TargetDistributions:
        """Return the country's shares for each prompt."""
        width, size = layout.codes.shape[1], len(layout.items)
        shares, counts_as = np.zeros((size, width)), np.zeros((size, width, width))
        for alike in self.alike:
            options, codes = alike.counts_as.shape[1:]
            shares[alike.items, :codes] = alike.target
            counts_as[alike.items, :options, :codes] = alike.counts_as
        return TargetDistributions(shares[layout.item], counts_as[layout.item])

    def demonstrations(self, layout: Layout) -> np.ndarray:
        """Return the country's modal answer (prompts,); ``UNPARSED`` for items not asked in the country."""
        usual = {}
        for item in self.items:
            commonest = np.unique(self.codes[item])[self.target[item].argmax()]
            own = self.spec.items.codes(self.spec.items.ids[item])
            usual[item] = commonest if commonest in own else own[int(np.flatnonzero(self.codes[item] == commonest)[0])]
        return np.array([usual.get(item, UNPARSED) for item in layout.item.tolist()]).astype(int)

    def constant(self, layout: Layout) -> Answers:
        """Return the middle of the scale for all prompts."""
        return middle_answers(layout)

    def baselines(self, layout: Layout) -> dict[str, Answers]:
        """Return the mean of the other countries' shares, with equal weights, and their modal answer.

        Countries in which an item's scale was shortened are left out of its mean; an item that was asked in no other
        country gets equal probabilities. There are none without other countries.
        """
        sums = self._elsewhere(layout.codes.shape[1])[layout.item]
        if not sums.any():
            return {}
        total = sums.sum(-1, keepdims=True)
        probs = np.where(total > 0, sums / np.where(total > 0, total, 1), uniform_answers(layout).probs[0])
        commonest = layout.codes[np.arange(len(layout)), probs.argmax(-1)]
        average = Answers(layout, probs[None], np.zeros((1, len(layout))))
        return {"world mean": average, "majority": certain_answers(layout, commonest)}

    def _elsewhere(self, width: int) -> np.ndarray:
        """Sum the other countries' shares, (items, width), in code order; zeros for content-free items."""
        table, _ = table_of(self.spec, self.reference.edition)
        ids = self.spec.items.ids
        numbers = {name: i for i, name in enumerate(ids)}
        item = np.array([numbers.get(name, -1) for name in table.questions], dtype=np.int64)[table.question]
        taken = (item >= 0) & (table.country != table.countries.index(self.country))
        for number, code in enumerate(table.countries):
            if short := [numbers[name] for name in merges_of(self.spec, code) if name in numbers]:
                taken &= (table.country != number) | ~np.isin(item, short)
        every = [(i << 32) + code for i, name in enumerate(ids) for code in self.spec.items.codes(name)]
        places = [i * width + place for i, name in enumerate(ids) for place in range(len(self.spec.items.codes(name)))]
        key = (item[taken] << 32) + table.code[taken]
        found = np.minimum(np.searchsorted(every, key), len(every) - 1)
        offered = np.array(every)[found] == key
        size = len(ids) + len(dict.fromkeys(self.spec.items.free.values())) * len(self.spec.metadata.splits.named)
        at = np.array(places)[found[offered]]
        return np.bincount(at, table.share[taken][offered], minlength=size * width).reshape(size, width)

    def score(self, answers: Answers, split: SplitName, scoring: Scoring) -> list[Score]:
        """Compute distances over the items asked in the country, also by theme; ``n`` is the number of personas."""
        layout = answers.layout
        people = len(np.unique(layout.persona))
        fields = ScoreFields(self.spec.name, self.country, self.reference.edition, split, scoring, layout, people)
        rows = unanswered(fields, answers)
        if scoring == "text" and (same := agreement(answers)):
            rows.append(fields.row("agreement", same[0], True))
        found = self._compared(answers, scoring)
        if not found:
            return rows
        compared = np.concatenate([alike.items for alike, _ in found])
        note = COLLAPSED if in_effect_one(answers, scoring) else None
        sample = self.sample(answers, scoring)
        for metric in (*_DISTANCES, "w1", *self._similarities):
            values = _in_order(found, metric)
            if len(values):
                low, high = (sample.interval(metric) if metric in sample.metrics else None) or (None, None)
                rows.append(fields.row(metric, values.mean(), metric in _HIGHER, low=low, high=high, note=note))
        rows.append(fields.row("collapsed", note is not None, False, note=note))
        rows += self._themes(fields, found)
        answered = chosen(answers, scoring).any(-1)
        rows.append(fields.row("items", len(np.intersect1d(layout.item[answered], compared)), None))
        if set(compared.tolist()) <= set(self.halves):  # the smallest distance that sampling noise permits
            halves = [self.halves[i] for i in sorted(compared.tolist()) if self.ordered[i]]
            rows += [fields.row("w1_split_half", np.mean(halves), False)] if halves else []
            if halves and "representativeness" in self._similarities:
                rows.append(fields.row("representativeness_split_half", 1 - np.mean(halves), True))
        for metric in ("w1", *self._similarities):
            rows += spreads(fields, answers, metric, partial(self._mean, scoring=scoring, metric=metric))
        return rows

    @property
    def _similarities(self) -> list[str]:
        """Return the published similarities that the spec lists."""
        return [name for name in _SIMILARITIES if name in self.spec.metrics]

    def _themes(self, fields: ScoreFields, found: _Compared) -> list[Score]:
        """Compute the headline over the items of each theme of a survey."""
        items = self.spec.items
        if not isinstance(items, Survey):
            return []
        values = _in_order(found, "w1")
        names = np.array([items.items[items.ids[i]].dimension for alike, _ in found for i in alike.items])
        names = names[np.argsort(np.concatenate([alike.items for alike, _ in found]))]
        return [fields.row(f"w1_{name}", values[names == name].mean(), False) for name in dict.fromkeys(names.tolist())]

    def sample(self, answers: Answers, scoring: Scoring) -> Sample:
        """Return each persona's distribution over the options of each item: the distances, and ``accuracy_sampled``.

        Only ``accuracy_sampled`` is linear in them; a distance is not, and ``BIASED`` gives the reason why it has no
        interval.
        """
        layout, spread = answers.layout, chosen_or_equal(answers, scoring)
        answered, width = spread.sum(-1) > 0, layout.codes.shape[1]
        columns = []
        for option in range(width):
            values = np.where(answered, spread[:, option], np.nan)
            columns.append(tally(layout.persona, layout.item * width + option, values, len(layout.items) * width))
        sums, counts = (np.sum([column[place] for column in columns], axis=0) for place in (1, 2))
        valid = counts[:, np.array(self.items) * width].any(0)
        alike, whole = self.cells_of(np.array(self.items)[valid], width)
        metrics = {}
        scales = any(each.ordered.any() for each in alike)
        for name in (*(_SAMPLED if scales else _UNORDERED), *self._similarities):
            if name in _OF_SCALES and not scales:
                continue
            biased = BIASED if name in _BIASED else None
            metrics[name] = Metric(whole, partial(_mean_over, alike, name), name in _HIGHER, SHARE, biased)
        return Sample("personas", columns[0][0], sums, counts, metrics)

    def cells_of(self, asked: np.ndarray, width: int) -> tuple[list[Alike], np.ndarray]:
        """Return some of the items, by number, in groups of the same shape, and their cells in a sample."""
        alike = [each.take(rows) for each in self.alike if (rows := np.isin(each.items, asked)).any()]
        cells = [(each.items[:, None] * width + np.arange(each.counts_as.shape[1])).ravel() for each in alike]
        return alike, np.concatenate(cells or [np.zeros(0, dtype=int)]).astype(int)

    def _mean(self, answers: Answers, scoring: Scoring, metric: str) -> float:
        values = _in_order(self._compared(answers, scoring), metric)
        return float(values.mean()) if len(values) else float("nan")

    def _compared(self, answers: Answers, scoring: Scoring) -> _Compared:
        """Return the model's distribution over the codes that count, by item; none without any valid answer."""
        spread = chosen_or_equal(answers, scoring)
        answered = spread.sum(-1) > 0
        means = group_means(spread[answered], answers.layout.item[answered], len(answers.layout.items))
        found = []
        for alike in self.alike:
            own = means[alike.items, : alike.counts_as.shape[1]]
            known = ~np.isnan(own).any(-1)
            if known.any():
                part = alike.take(known)
                found.append((part, part.counted(own[known])))
        return found

    @cached_property
    def halves(self) -> dict[int, float]:
        """Compute the expected distance between two halves of the country's own sample, for the items with counts."""
        counts = {i: self.reference.counts.get(self.spec.items.ids[i]) for i in self.items}
        return {i: split_half(self.target[i], np.unique(self.codes[i]), n) for i, n in counts.items() if n}


_Compared = list[tuple[Alike, np.ndarray]]


def _in_order(found: _Compared, metric: str) -> np.ndarray:
    """Return a metric of every item that has it (items,), in the order of the file."""
    values = [alike.distance(metric, spread) for alike, spread in found]
    items = [alike.items[alike.ordered] if metric in _OF_SCALES else alike.items for alike, _ in found]
    return np.concatenate(values)[np.argsort(np.concatenate(items))] if found else np.zeros(0)


def by_item(alike: list[Alike], metric: str, means: np.ndarray) -> Iterator[np.ndarray]:
    """Compute a metric (..., items) of the model's shares, ``means`` (..., cells of these items), group by group."""
    start = 0
    for each in alike:
        items, options = each.counts_as.shape[:2]
        stop = start + items * options
        own = means[..., start:stop].reshape(*means.shape[:-1], items, options)
        yield each.distance(metric, each.counted(own))
        start = stop


def _mean_over(alike: list[Alike], metric: str, means: np.ndarray) -> np.ndarray:
    """Compute the mean (...,) over items of a metric, as ``by_item``."""
    total, number = np.zeros(means.shape[:-1]), 0
    for values in by_item(alike, metric, means):
        total, number = total + values.sum(-1), number + values.shape[-1]
    return total / max(number, 1)


def _is_ordered(spec: TaskSpec, item: str) -> bool:
    """Return whether the options of an item are a scale; a survey's always are."""
    return spec.items.by_id[item].ordered if isinstance(spec.items, Questions) else True


_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {  # of distributions (..., codes) each
    "js": jensen_shannon,
    "tv": lambda p, q: abs(p - q).sum(-1) / 2,
    "kl": smoothed_kl,
    "kl_clca": kl_clca,
    "accuracy_majority": lambda p, q: (p.argmax(-1) == q.argmax(-1)).astype(float),
    "accuracy_sampled": lambda p, q: (p * q).sum(-1),
}
_SIMILARITIES = {  # by metric: the distance that it is 1 minus a share of, and the largest value of that distance
    "similarity": ("js", float(np.sqrt(np.log(2)))),  # so that the logarithm's base is 2
    "representativeness": ("w1", 1.0),
}
_OF_SCALES = ("w1", "representativeness")  # for items whose options are a scale
_HIGHER = ("accuracy_majority", "accuracy_sampled", *_SIMILARITIES)
_UNORDERED = ("js", "tv", "accuracy_sampled")  # for items whose options are no scale
_SAMPLED = ("w1", *_UNORDERED)
_BIASED = ("w1", "js", "tv", *_SIMILARITIES)
