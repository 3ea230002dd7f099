"""The measure of a survey with the structure of VSM 2013: from answers to indices to loss.

Mean answer per item over paraphrases, orders and personas, then the six indices, then the distance to the published
scores. The 24 items are fixed, so intervals come from personas and are given for the indices only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...errors import InputError, UsageError, did_you_mean
from ..answers import Answers, Layout, item_means, read
from ..countries import name_of
from ..measure import MeasureOptions
from ..sample import Metric, Sample, quotient, tally
from ..schema import Scoring, SplitName
from ..score import COLLAPSED, Score
from ..spec import TaskSpec
from .common import agreement, middle_answers, missing, variance
from .hofstede import CONSTANTS, ITEMS, NORMS, distance, inverse, is_collapsed, means_with, terms, total, weights
from .reference import DIMENSIONS, scores_of

BIASED = "a squared distance: what varies only adds to it, so that resampling is biased upward near zero"


@dataclass(frozen=True)
class SurveyLoss:
    """Compute the loss (population,) of option probabilities (population, prompts, options); numpy float64 or torch.

    ``is_drawn``: answers are drawn from the probabilities, so that their variance counts.
    """

    codes: np.ndarray
    matrix: np.ndarray
    offset: np.ndarray
    scoring: Scoring
    norm: str
    is_drawn: bool = False

    def __call__(self, probs: Any) -> Any:
        return total(self.terms(probs), self.norm)

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        """Return the prompts that each index depends on."""
        return tuple(np.flatnonzero(row) for row in self.matrix)

    def total(self, terms: Any) -> Any:
        """Compute the loss (population,) from terms (population, 6)."""
        return total(terms, self.norm)

    def terms(self, probs: Any) -> Any:
        """Compute each index's term of the loss, (population, 6)."""
        like = getattr(probs, "new_tensor", np.asarray)  # torch keeps its graph, dtype and device
        answers = read(probs, like(self.codes), self.scoring)
        error = answers @ like(self.matrix.T) + like(self.offset)
        if not self.is_drawn:
            return terms(error, self.norm)
        square = error**2 + variance(probs, like(self.codes)) @ like(self.matrix.T) ** 2
        return (square + 1e-24) ** 0.5 if self.norm == "l1" else square  # the root has a gradient at zero, too

    def of_drawn(self) -> SurveyLoss:
        """Return the loss to expect of drawn answers."""
        return replace(self, is_drawn=True)


class HofstedeSurvey:
    """The measure of answers to the 24 items against one country's six published scores."""

    def __init__(self, spec: TaskSpec, country: str, options: MeasureOptions) -> None:
        if spec.items.ids != ITEMS:
            raise InputError(f"{spec.path}: metadata.measure: hofstede needs the items m01 to m24, in this order.")
        for name, known in (("constants", CONSTANTS), ("norm", NORMS)):
            if (value := getattr(options, name)) not in known:
                hint = did_you_mean(value, known)
                raise UsageError(f"--{name} {value!r}: not one of {', '.join(known)}.{hint}")
        self.spec, self.country, self.options = spec, country, options
        self.scores = scores_of(spec, options.edition)
        self.target = self.scores.target(country)
        self.shift = self.scores.world if options.constants == "world" else np.zeros(len(DIMENSIONS))

    @property
    def caution(self) -> str | None:
        """Return a caution if a country's row contains estimates."""
        if not self.scores.is_estimate(self.country):
            return None
        return f"the published scores of {name_of(self.country)} rest on estimates (edition {self.scores.edition})"

    @staticmethod
    def countries(spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
        """Return the codes of the countries with all six scores in an edition."""
        return scores_of(spec, edition).complete

    def loss_function(self, layout: Layout, scoring: Scoring) -> SurveyLoss:
        """Return the loss of answers to these prompts under one answer scoring and the norm of the options.

        Raises:
            UsageError: an item is missing; no index can be computed from half of its items.
        """
        if len(np.unique(layout.item)) < len(ITEMS):
            raise UsageError(f"{self.spec.name}: its loss needs all its items; take a task of labels or pairs.")
        matrix = weights() @ item_means(layout)
        return SurveyLoss(layout.codes, matrix, self.shift - self.target, scoring, self.options.norm)

    def demonstrations(self, layout: Layout) -> np.ndarray:
        """Return codes (prompts,) by inverse modelling: the integer answers whose indices are nearest to the target."""
        return inverse(self.target, self.shift)[layout.item]

    def constant(self, layout: Layout) -> Answers:
        """Return the middle of the scale for all prompts: every index equals its constant."""
        return middle_answers(layout)

    def baselines(self, layout: Layout) -> dict[str, Answers]:
        """Return answers whose indices are the world mean, between neighbouring codes; there are no data on majorities.

        Under ``world`` constants they equal the constant answer, because C itself is the world mean.
        """
        means = means_with(self.scores.world, self.shift)[layout.item]
        probs = np.maximum(1 - abs(layout.codes - means[:, None]), 0)
        return {"world mean": Answers(layout, probs[None], np.zeros((1, len(layout))))}

    def score(self, answers: Answers, split: SplitName, scoring: Scoring) -> list[Score]:
        """Compute all metrics of one split under one answer scoring.

        ``loss`` uses the option orders that fitting may use; the other orders of the split have their own
        ``loss_<order>``. Unparsed texts are left out of the means and counted in ``unparsed``.
        """
        paraphrases, orders = answers.layout.asked_paraphrases, answers.layout.asked_orders
        usual = self._usual(answers)
        rows = list(self._aggregate(answers, scoring, paraphrases, usual))
        for order in orders:
            if order not in usual:
                rows += self._turned(answers, scoring, paraphrases, order, rows)
        base = {"task": self.spec.name, "country": self.country, "scoring": scoring, "split": split}
        identity = {"edition": self.scores.edition, "constants": self.options.constants}
        return [Score(**base, **identity, **{"paraphrases": paraphrases, "orders": usual} | row) for row in rows]

    def _usual(self, answers: Answers) -> tuple[str, ...]:
        """Return the presented orders that fitting may use; all orders if none of them was presented."""
        orders, fitted = answers.layout.asked_orders, self.spec.metadata.splits.fit.orders
        return tuple(order for order in orders if order in fitted) or orders

    def sample(self, answers: Answers, scoring: Scoring) -> Sample:
        """Return the item means of every persona in the orders that fitting may use: ``loss`` and the six indices."""
        asked = answers.take(answers.layout.where(answers.layout.asked_paraphrases, self._usual(answers)))
        layout = asked.layout
        found = tally(layout.persona, layout.item, asked.values(scoring)[0], len(ITEMS))
        matrix = weights()
        metrics = {"loss": Metric(np.arange(len(ITEMS)), self._distance, higher_is_better=False, biased=BIASED)}
        for row, name in enumerate(DIMENSIONS):
            cells = np.flatnonzero(matrix[row])
            reach = 2 * abs(matrix[row]).sum()  # each of its four answers lies within two points of the middle
            bounds = (self.shift[row] - reach, self.shift[row] + reach)
            metrics[name] = Metric(cells, partial(_index, matrix[row, cells], self.shift[row]), bounds=bounds)
        return Sample("personas", *found, metrics)

    def _distance(self, means: np.ndarray) -> np.ndarray:
        """Compute the loss (...,) of item means (..., 24)."""
        return distance(means @ weights().T + self.shift - self.target, "sse")

    def _aggregate(
        self, answers: Answers, scoring: Scoring, paraphrases: tuple[str, ...], orders: tuple[str, ...]
    ) -> Iterator[dict[str, Any]]:
        asked = answers.take(answers.layout.where(paraphrases, orders))
        people = len(np.unique(asked.layout.persona))
        base: dict[str, Any] = {"n": people, "higher_is_better": None}
        for metric, value in missing(asked, scoring).items():
            yield base | {"metric": metric, "value": value, "higher_is_better": False}
        if scoring == "text" and (same := agreement(asked)):
            yield base | {"metric": "agreement", "value": same[0], "higher_is_better": True}
        means = self._item_means(asked, scoring)
        if np.isnan(means).any():
            return  # an item without a single valid answer has no mean, so no index can be computed
        note = COLLAPSED if is_collapsed(means) else None
        error = weights() @ means + self.shift - self.target
        base["note"] = note
        yield from self._losses(error, base)
        yield from self._indices(asked, scoring, base)
        yield base | {"metric": "spread", "value": float(means.std())}
        yield base | {"metric": "distinct", "value": float(len(np.unique(np.round(means))))}
        yield base | {"metric": "collapsed", "value": float(note is not None), "higher_is_better": False}
        if len(paraphrases) > 1:
            each = [self._loss(asked.take(asked.layout.where((name,), orders)), scoring) for name in paraphrases]
            if not np.isnan(each).any():
                yield base | {
                    "metric": "loss_paraphrase_spread",
                    "value": float(np.ptp(each)),
                    "higher_is_better": False,
                }

    def _losses(self, error: np.ndarray, base: dict[str, Any]) -> Iterator[dict[str, Any]]:
        lower = base | {"higher_is_better": False}
        for metric, norm in (("loss", "sse"), ("l2", "l2"), ("l1", "l1")):
            yield lower | {"metric": metric, "norm": norm, "value": float(distance(error, norm))}
        null = distance(self.shift - self.target, "sse")
        skill = 1 - float(distance(error, "sse") / null) if null > 0 else 0.0
        yield base | {"metric": "skill", "norm": "sse", "value": skill, "higher_is_better": True}

    def _indices(self, asked: Answers, scoring: Scoring, base: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Compute each index and its error, with an interval if 20 or more personas differ sufficiently."""
        index = weights() @ self._item_means(asked, scoring) + self.shift
        sample = self.sample(asked, scoring)
        for row, name in enumerate(DIMENSIONS):
            low, high = sample.interval(name) or (None, None)
            yield base | {"metric": name, "value": float(index[row]), "low": low, "high": high}
            yield base | {"metric": f"{name}_error", "value": float(index[row] - self.target[row])}

    def _turned(
        self, answers: Answers, scoring: Scoring, paraphrases: tuple[str, ...], order: str, rows: list[dict[str, Any]]
    ) -> Iterator[dict[str, Any]]:
        """Compute the loss of the same paraphrases with the options in another order."""
        asked = answers.take(answers.layout.where(paraphrases, (order,)))
        value = self._loss(asked, scoring)
        if (unparsed := missing(asked, scoring).get("unparsed")) is not None:
            row = {"metric": f"unparsed_{order}", "value": unparsed}
            yield row | {"n": rows[0]["n"], "higher_is_better": False, "orders": (order,)}
        usual = next((row["value"] for row in rows if row["metric"] == "loss"), np.nan)
        if np.isnan(value) or np.isnan(usual):
            return
        note = COLLAPSED if is_collapsed(self._item_means(asked, scoring)) else None
        base = {"n": rows[0]["n"], "higher_is_better": False, "norm": "sse", "note": note}
        yield base | {"metric": f"loss_{order}", "value": value, "orders": (order,)}
        both = {"note": None, "orders": ("natural", order)}
        yield base | {"metric": "loss_order_spread", "value": abs(value - usual)} | both

    def _loss(self, asked: Answers, scoring: Scoring) -> float:
        error = weights() @ self._item_means(asked, scoring) + self.shift - self.target
        return float(distance(error, "sse"))

    @staticmethod
    def _item_means(asked: Answers, scoring: Scoring) -> np.ndarray:
        """Compute the mean valid answer (24,) of each item; NaN for an item without one."""
        item = asked.layout.item
        _, sums, counts = tally(np.zeros_like(item), item, asked.values(scoring)[0], len(ITEMS))
        return quotient(sums, counts)[0]


def _index(factors: np.ndarray, constant: float, means: np.ndarray) -> np.ndarray:
    """Compute an index (...,) from the means (..., items) of its four items."""
    return means @ factors + constant
