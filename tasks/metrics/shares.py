"""Answer distributions against a country's answer shares, item by item (World Values Survey and the like).

Headline: Wasserstein-1 over the codes, divided by the scale's range (Zhao et al. 2024, WorldValuesBench). Beside it the
Jensen-Shannon distance in natural logarithms as scipy has it, total variation, smoothed Kullback-Leibler divergence,
and accuracy against the majority and against respondents drawn at random.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from ...errors import InputError, UsageError, did_you_mean
from ..answers import Answers, Layout, chosen
from ..countries import name_of
from ..imported import imported
from ..items import Survey
from ..measure import MeasureOptions
from ..reading import read_csv, read_yaml
from ..sample import SHARE, Metric, Sample, tally
from ..schema import Readout, SplitName, Strict
from ..score import Score, Sheet
from ..spec import TaskSpec, parse
from .common import agreement, certain_answers, group_means, middle_answers, spreads, unanswered, uniform_answers

SMOOTHING = 0.01  # of the uniform distribution mixed into both sides of the Kullback-Leibler divergence
BENT = "a distance: what varies only adds to it, so that resampling is biased upward near zero"
FIELDS = ("country", "question", "code", "share")


class Variants(Strict):
    """``variants.yaml``: codes that count as another one (``merge``) for some items of some ``countries``."""

    merge: dict[int, int]
    countries: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Reference:
    """Answer shares of one country: ``shares[item]`` maps codes to shares that add up to 1; ``counts`` where known."""

    edition: str
    shares: dict[str, dict[int, float]]
    counts: dict[str, int]


@dataclass(frozen=True)
class DistanceObjective:
    """Mean normalised Wasserstein-1 (population,) of probabilities (population, prompts, options).

    ``mean`` (items, prompts) averages the prompts of an item; ``target`` (items, options) are cumulative shares and
    ``gaps`` (items, options) the weight of each step of the scale, zero where it does not count.
    """

    mean: np.ndarray
    target: np.ndarray
    gaps: np.ndarray
    readout: Readout

    def __call__(self, probs: Any) -> Any:
        like = getattr(probs, "new_tensor", np.asarray)
        if self.readout == "argmax":
            probs = (np.arange(probs.shape[-1]) == np.asarray(probs).argmax(-1)[..., None]).astype(float)
        shares = like(self.mean) @ probs
        return (abs(shares.cumsum(-1) - like(self.target)) * like(self.gaps)).sum(-1).mean(-1)


class Shares:
    """Scores how far a model's answers lie from a country's shares."""

    caution = None

    def __init__(self, spec: TaskSpec, country: str, options: MeasureOptions) -> None:
        if not isinstance(spec.items, Survey):
            raise InputError(f"{spec.path}: metadata.measure: shares needs a survey with scales.")
        self.spec, self.survey, self.country = spec, spec.items, country
        self.merged = _merges(spec, country)
        self.reference = reference_of(spec, country, options.edition)
        missing = "no item of it was asked there"
        self.items = [i for i, name in enumerate(spec.items.ids) if name in self.reference.shares]
        if not self.items:
            raise UsageError(f"country {country}: {spec.name}: {missing}.")
        self.codes = {i: self._codes(spec.items.ids[i]) for i in self.items}
        self.target = {i: self._target(i) for i in self.items}

    @staticmethod
    def countries(spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
        """Codes of the countries that an edition has shares of."""
        return tuple(load_shares(_file(spec, edition)[0]))

    def _codes(self, item: str) -> np.ndarray:
        """The code that each option counts as in this country, (options,)."""
        merge = self.merged.get(item, {})
        return np.array([merge.get(code, code) for code in self.spec.items.codes(item)])

    def _target(self, item: int) -> np.ndarray:
        """The country's shares over the codes as counted, in ascending order."""
        merge = self.merged.get(self.spec.items.ids[item], {})
        shares: dict[int, float] = defaultdict(float)
        for code, share in self.reference.shares[self.spec.items.ids[item]].items():
            shares[merge.get(code, code)] += share
        codes = np.unique(self.codes[item])
        if odd := sorted(set(shares) - set(codes.tolist())):
            raise InputError(
                f"{self.spec.path}: the reference has code {odd[0]} of {self.spec.items.ids[item]} in {self.country}, "
                f"the scale has {codes.tolist()}."
            )
        row = np.array([shares.get(code, 0.0) for code in codes.tolist()])
        return row / row.sum()

    def objective(self, layout: Layout, readout: Readout) -> DistanceObjective:
        """Mean normalised Wasserstein-1 over the items that the country was asked."""
        width = layout.codes.shape[1]
        asked = [i for i in self.items if (layout.item == i).any()]
        mean = np.stack([(layout.item == i) / (layout.item == i).sum() for i in asked])
        target, gaps = np.zeros((len(asked), width)), np.zeros((len(asked), width))
        for row, item in enumerate(asked):
            codes, counted = self.codes[item], np.unique(self.codes[item])
            cumulative = np.cumsum(self.target[item])
            for option in range(len(codes) - 1):
                step = codes[option + 1] - codes[option]
                target[row, option] = cumulative[np.searchsorted(counted, codes[option])]
                gaps[row, option] = max(step, 0) / (counted[-1] - counted[0])
        return DistanceObjective(mean, target, gaps, readout)

    def demonstrations(self, layout: Layout) -> np.ndarray:
        """The commonest answer (prompts,) of the country; the middle of the scale where it was not asked."""
        usual = {}
        for item in self.items:
            commonest = np.unique(self.codes[item])[self.target[item].argmax()]
            own = self.spec.items.codes(self.spec.items.ids[item])
            usual[item] = commonest if commonest in own else own[int(np.flatnonzero(self.codes[item] == commonest)[0])]
        middle = layout.codes[np.arange(len(layout)), layout.widths // 2]
        return np.array([usual.get(int(i), m) for i, m in zip(layout.item, middle, strict=True)]).astype(int)

    def constant(self, layout: Layout) -> Answers:
        """The middle of the scale, whatever is asked."""
        return middle_answers(layout)

    def worldly(self, layout: Layout) -> dict[str, Answers]:
        """The mean of the other countries' shares, each country counting once, and their commonest answer.

        Countries whose scale of an item was shortened are left out of its mean; an item that no other country was asked
        is answered evenly.
        """
        table = load_shares(_file(self.spec, self.reference.edition)[0])
        others = [(row, _merges(self.spec, code)) for code, row in table.items() if code != self.country]
        probs = uniform_answers(layout).probs[0]
        for item, name in enumerate(self.spec.items.ids):
            codes = self.spec.items.codes(name)
            known = [row[name] for row, short in others if name in row and name not in short]
            mean = np.array([sum(shares.get(code, (0.0, 0))[0] for shares in known) for code in codes])
            if mean.sum() > 0:
                probs[layout.item == item, : len(codes)] = mean / mean.sum()
        commonest = layout.codes[np.arange(len(layout)), probs.argmax(-1)]
        average = Answers(layout, probs[None], np.zeros((1, len(layout))))
        return {"world mean": average, "majority": certain_answers(layout, commonest)}

    def score(self, answers: Answers, split: SplitName, readout: Readout) -> list[Score]:
        """Distances over the items asked in the country, by theme too; ``n`` is the number of model respondents."""
        layout = answers.layout
        people = len(np.unique(layout.respondent))
        sheet = Sheet(self.spec.name, self.country, self.reference.edition, split, readout, layout, people)
        rows = [unanswered(sheet, answers)]
        if readout == "text" and (same := agreement(answers)):
            rows.append(sheet.row("agreement", same[0], True))
        pairs = self._pairs(answers, readout)
        if not pairs:
            return rows
        each = {metric: np.array([of(p, q) for p, q, _ in pairs.values()]) for metric, of in _DISTANCES.items()}
        each["w1"] = np.array([wasserstein(p, q, codes) for p, q, codes in pairs.values()])
        sample = self.sample(answers, readout)
        for metric, values in each.items():
            low, high = (sample.interval(metric) if metric in sample.metrics else None) or (None, None)
            rows.append(sheet.row(metric, values.mean(), metric in _HIGHER, low=low, high=high))
        themes = np.array([self.survey.items[self.survey.ids[i]].dimension for i in pairs])
        rows += [sheet.row(f"w1_{name}", each["w1"][themes == name].mean(), False) for name in dict.fromkeys(themes)]
        rows.append(sheet.row("items", len(pairs), None))
        if set(pairs) <= set(self.halves):  # as near as noise lets anything come
            rows.append(sheet.row("w1_split_half", np.mean([self.halves[i] for i in pairs]), False))
        rows += spreads(sheet, answers, "w1", lambda part: self._headline(part, readout))
        return rows

    def sample(self, answers: Answers, readout: Readout) -> Sample:
        """How a respondent's answers to each item are spread over its options: the distances, and ``accuracy_sampled``.

        Only ``accuracy_sampled`` is linear in them; a distance is not, and ``BENT`` says why it carries no interval.
        """
        layout, spread = answers.layout, chosen(answers, readout)
        answered, width = spread.sum(-1) > 0, layout.codes.shape[1]
        columns = []
        for option in range(width):
            values = np.where(answered, spread[:, option], np.nan)
            columns.append(tally(layout.respondent, layout.item * width + option, values, len(layout.items) * width))
        sums, counts = (np.sum([column[place] for column in columns], axis=0) for place in (1, 2))
        asked = [item for item in self.items if counts[:, item * width].any()]
        cells = np.concatenate([item * width + np.arange(len(self.codes[item])) for item in asked] or [[]]).astype(int)
        metrics = {}
        for name in _SAMPLED:
            bent = None if name in _HIGHER else BENT
            metrics[name] = Metric(cells, partial(self._mean_over, asked, name), name in _HIGHER, SHARE, bent)
        return Sample("respondents", columns[0][0], sums, counts, metrics)

    def _mean_over(self, items: list[int], metric: str, means: np.ndarray) -> np.ndarray:
        """Mean (...,) over items of a metric of the model's shares, ``means`` (..., cells of these items)."""
        total, start = np.zeros(means.shape[:-1]), 0
        for item in items:
            stop = start + len(self.codes[item])
            counted, place = np.unique(self.codes[item], return_inverse=True)
            own = means[..., start:stop] @ (place[:, None] == np.arange(len(counted))).astype(float)
            pair = own / own.sum(-1, keepdims=True), self.target[item]
            total = total + (wasserstein(*pair, counted) if metric == "w1" else _DISTANCES[metric](*pair))
            start = stop
        return total / max(len(items), 1)

    def _headline(self, answers: Answers, readout: Readout) -> float:
        pairs = self._pairs(answers, readout)
        return float(np.mean([wasserstein(*pair) for pair in pairs.values()])) if pairs else float("nan")

    def _pairs(self, answers: Answers, readout: Readout) -> dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Model's and country's distribution and the codes, by item; items without a valid answer are left out."""
        spread = chosen(answers, readout)
        answered = spread.sum(-1) > 0
        means = group_means(spread[answered], answers.layout.item[answered], len(answers.layout.items))
        pairs = {}
        for item in self.items:
            codes = self.codes[item]
            own = means[item, : len(codes)]
            if not np.isnan(own).any():
                counted, place = np.unique(codes, return_inverse=True)
                model = np.bincount(place, own / own.sum(), minlength=len(counted))
                pairs[item] = (model, self.target[item], counted)
        return pairs

    @cached_property
    def halves(self) -> dict[int, float]:
        """Distance to expect between two halves of the country's own sample, by item; of items with counts."""
        counts = {i: self.reference.counts.get(self.spec.items.ids[i]) for i in self.items}
        return {i: split_half(self.target[i], np.unique(self.codes[i]), n) for i, n in counts.items() if n}


def split_half(shares: np.ndarray, codes: np.ndarray, n: int) -> float:
    """The normalised Wasserstein-1 to expect between random halves of ``n`` people with these shares, exactly.

    K of the n answered at or below a code. A random half of h people has k of them, which is hypergeometric (n, K, h),
    so E|F1 - F2| = sum over k of P(k) |k / h - (K - k) / (n - h)|; the expectation of the distance is the sum over the
    codes, by linearity, and the same people being split for all items changes no mean over items. With weighted shares
    K is rounded from them, and what weights add to the noise is not counted.
    """
    from scipy.stats import hypergeom  # takes a second to load

    if n < 2:
        return 0.0
    half = n // 2
    steps = np.diff(codes) / (codes[-1] - codes[0])
    k = np.arange(half + 1)[:, None]
    below = np.round(np.cumsum(shares)[:-1] * n).astype(int)
    apart = (hypergeom.pmf(k, n, below, half) * abs(k / half - (below - k) / (n - half))).sum(0)
    return float(apart @ steps)


def wasserstein(p: np.ndarray, q: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Wasserstein-1 between distributions (..., codes) over ascending codes, divided by their range."""
    return (abs(np.cumsum(p - q, -1))[..., :-1] * np.diff(codes)).sum(-1) / (codes[-1] - codes[0])


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon distance in nats; 0 where the two are equal, whatever rounding makes of it."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isclose(p, q).all(-1), 0.0, jensenshannon(p, q, axis=-1))


def smoothed_kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(country || model) in nats, one per cent of the uniform distribution mixed into both."""
    mixed = [(1 - SMOOTHING) * each + SMOOTHING / each.shape[-1] for each in (q, p)]
    return rel_entr(*mixed).sum(-1)


def kl_clca(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """What CLCA's released code calls KL: a softmax is taken of what is a distribution already.

    ``kl_div(log_softmax(model), country)``, summed over the options; a perfect answer does not score 0. For comparison
    with published tables only (Liu, Korhonen & Gurevych 2025).
    """
    soft = np.exp(p) / np.exp(p).sum(-1, keepdims=True)
    return rel_entr(q, soft).sum(-1)


_DISTANCES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {  # of distributions (..., codes), (codes,)
    "js": jensen_shannon,
    "tv": lambda p, q: abs(p - q).sum(-1) / 2,
    "kl": smoothed_kl,
    "kl_clca": kl_clca,
    "accuracy_majority": lambda p, q: (p.argmax(-1) == q.argmax()).astype(float),
    "accuracy_sampled": lambda p, q: p @ q,
}
_HIGHER = ("accuracy_majority", "accuracy_sampled")
_SAMPLED = ("w1", "js", "tv", "accuracy_sampled")


def _file(spec: TaskSpec, edition: str | None) -> tuple[Path, str]:
    """The file of an edition and the edition's name.

    Raises:
        UsageError: no such edition here.
    """
    reference = spec.metadata.reference
    if reference is None:
        raise InputError(f"{spec.path}: metadata.reference: missing. This measure compares with answer shares.")
    name = reference.default_edition if edition is None else edition
    if name in reference.editions:
        return spec.folder / reference.file, name
    own = imported(spec.folder.name)
    if name not in own:
        known = (*reference.editions, *own)
        hint = did_you_mean(name, known)
        raise UsageError(
            f"--edition {name!r}: {spec.name} has {', '.join(known)}.{hint} `culteval data import` adds some."
        )
    return own[name], name


def reference_of(spec: TaskSpec, country: str, edition: str | None) -> Reference:
    """A country's shares.

    Raises:
        UsageError: the edition or the country is not there. InputError: a malformed file.
    """
    path, name = _file(spec, edition)
    table = load_shares(path)
    if country not in table:
        wave = " Saudi Arabia is not in wave 7 of the survey." if country == "SA" else ""
        known = ", ".join(sorted(table))
        raise UsageError(
            f"country {country}: edition {name!r} of {spec.name} has no shares of {name_of(country)}.{wave} "
            f"It has {known}."
        )
    shares = {item: {code: share for code, (share, _) in row.items()} for item, row in table[country].items()}
    counts = {item: sum(n for _, n in row.values()) for item, row in table[country].items()}
    return Reference(name, shares, counts)


def load_shares(path: Path) -> dict[str, dict[str, dict[int, tuple[float, int]]]]:
    """``country -> question -> code -> (share, count)``; a count is 0 where the file has none.

    Raises:
        InputError: a malformed file; names line, field and remedy.
    """
    try:
        return _load_shares(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


@lru_cache(maxsize=4)  # scoring against every country reads the same file for each
def _load_shares(path: Path, changed: int) -> dict[str, dict[str, dict[int, tuple[float, int]]]]:
    table: dict[str, dict[str, dict[int, tuple[float, int]]]] = defaultdict(lambda: defaultdict(dict))
    for line, row in enumerate(read_csv(path, FIELDS), start=2):
        try:
            share, count = float(row["share"]), int(row.get("count") or 0)
            code = int(row["code"])
            if not 0 <= share <= 1:
                raise ValueError(f"share {share} is not between 0 and 1")
            if count < 0:
                raise ValueError(f"count {count} is below zero")
        except (TypeError, ValueError) as error:
            raise InputError(f"{path}:{line}: {error}. Expected {', '.join(FIELDS)}.") from None
        if code in table[row["country"]][row["question"]]:
            raise InputError(f"{path}:{line}: {row['question']} code {code} of {row['country']} is there twice.")
        table[row["country"]][row["question"]][code] = (share, count)
    for country, questions in table.items():
        for question, codes in questions.items():
            if abs((total := sum(share for share, _ in codes.values())) - 1) > 1e-3:
                raise InputError(
                    f"{path}: {question} of {country}: shares add up to {total:.3f}, not 1. Mend its rows."
                )
    return {country: dict(questions) for country, questions in table.items()}


def _merges(spec: TaskSpec, country: str) -> dict[str, dict[int, int]]:
    """Codes that count as another one, by item: scales that were shortened in a country (``variants.yaml``)."""
    path = spec.folder / "variants.yaml"
    if not path.is_file():
        return {}
    variants = parse(Variants, read_yaml(path), path)
    return {item: variants.merge for item in variants.countries.get(country, ())}
