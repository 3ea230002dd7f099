"""Parts that several measures use: spreads over orders and paraphrases, means by group, the fields of their scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..answers import Answers, Layout, chosen
from ..schema import Scoring, SplitName
from ..score import Score, ScoreFields
from ..spec import OWN_EDITION, TaskSpec

COLLAPSED_RANGE = 1 / 16  # of the scale: a quarter of a step of five options


class NoReference:
    """Parts of the measure protocol for tasks that carry their own answers: any country, one edition."""

    spec: TaskSpec
    country: str
    caution: str | None = None

    @staticmethod
    def countries(spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
        """Return no country: a model is aligned to a country, but the country does not decide which answer is right."""
        return ()

    def fields(self, answers: Answers, split: SplitName, scoring: Scoring, n: int) -> ScoreFields:
        """Build the common fields of a split's scores under one answer scoring."""
        return ScoreFields(self.spec.name, self.country, OWN_EDITION, split, scoring, answers.layout, n)


def variance(probs: Any, values: Any) -> Any:
    """Compute the variance (..., prompts) of answers drawn from option probabilities (..., prompts, options).

    Args:
        values: what the options count, (prompts, options); numpy arrays or torch tensors, as ``probs``.
    """
    means = (probs * values).sum(-1)
    return (probs * (values - means[..., None]) ** 2).sum(-1)


def middle_answers(layout: Layout) -> Answers:
    """Return the middle option of every scale (the upper of two middles) for all prompts.

    Nothing for open questions.
    """
    probs = (np.arange(layout.codes.shape[1]) == (layout.widths // 2)[:, None]).astype(float)
    probs *= (layout.widths > 0)[:, None]
    return Answers(layout, probs[None], np.zeros((1, len(layout))))


def uniform_answers(layout: Layout) -> Answers:
    """Return equal probability on every option for all prompts; nothing for open questions."""
    probs = layout.inside / np.maximum(layout.widths, 1)[:, None]
    return Answers(layout, probs[None], np.zeros((1, len(layout))))


def certain_answers(layout: Layout, codes: np.ndarray) -> Answers:
    """Return all probability on the option with the given code (prompts,); none where no option has it."""
    probs = ((layout.codes == codes[:, None]) & layout.inside).astype(float)
    return Answers(layout, probs[None], np.zeros((1, len(layout))))


def group_means(values: np.ndarray, group: np.ndarray, size: int) -> np.ndarray:
    """Compute the mean (size, ...) of values (prompts, ...) by group (prompts,); NaN for an empty group."""
    counts = np.bincount(group, minlength=size).astype(float)
    flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
    sums = np.stack([np.bincount(group, column, minlength=size) for column in flat.T], axis=1)
    with np.errstate(invalid="ignore"):
        return (sums / counts[:, None]).reshape(size, *values.shape[1:])


def unanswered(fields: ScoreFields, answers: Answers) -> list[Score]:
    """Score the share of texts without an answer, or the probability off the options."""
    return [fields.row(name, value, False) for name, value in missing(answers, fields.scoring).items()]


def missing(answers: Answers, scoring: Scoring) -> dict[str, float]:
    """Compute by metric the share of texts without an answer, or the probability off the options.

    ``cloze`` has neither: the options are not all that the model could say, and none is left out.
    """
    if scoring == "cloze":
        return {}
    if scoring not in ("text", "verbalized"):
        return {"off_options": float(answers.off_options[0].mean())}
    asked = answers.layout.widths > 0
    return {"unparsed": float(np.isnan(answers.values(scoring)[0][asked]).mean()) if asked.any() else 0.0}


def in_effect_one(answers: Answers, scoring: Scoring) -> bool:
    """Return whether answers to several items are in effect one: the same place of every scale, or the same option.

    The mean places of the items, from 0 to 1, lie within ``COLLAPSED_RANGE``, or their mean option numbers within as
    much of the narrowest scale: then they say nothing of the country.
    """
    layout, spread = answers.layout, chosen(answers, scoring)
    read = (spread.sum(-1) > 0) & (layout.widths > 1)
    number = (spread * np.arange(spread.shape[1])).sum(-1)[read] / spread.sum(-1)[read]
    steps = layout.widths[read] - 1
    by_item = group_means(np.stack([number / steps, number], axis=1), layout.item[read], len(layout.items))
    by_item = by_item[~np.isnan(by_item).any(-1)]
    if len(by_item) < 2:
        return False
    place, option = np.ptp(by_item, axis=0)
    return bool(place < COLLAPSED_RANGE or option < COLLAPSED_RANGE * steps.min())


def chosen_or_equal(answers: Answers, scoring: Scoring) -> np.ndarray:
    """Return ``chosen``, with equal shares for items without any valid answer, unless that is all of them.

    Left out, a model would come nearer to a country by not answering the items on which it is far off.
    """
    layout, spread = answers.layout, chosen(answers, scoring)
    answered = np.bincount(layout.item[spread.any(-1)], minlength=len(layout.items)) > 0
    lacking = ~answered[layout.item] & answered.any()
    return np.where(lacking[:, None], uniform_answers(layout).probs[0], spread)


def agreement(answers: Answers) -> tuple[float, int] | None:
    """Compute the share of parsed texts whose code is the most probable option, and their number; None without both."""
    if answers.parsed is None or not answers.weighed:
        return None
    parsed, likeliest = answers.values("text")[0], answers.values("argmax")[0]
    read = (answers.layout.widths > 0) & ~np.isnan(parsed) & ~np.isnan(likeliest)
    return (float((parsed == likeliest)[read].mean()), int(read.sum())) if read.any() else None


def spreads(fields: ScoreFields, answers: Answers, metric: str, value: Callable[[Answers], float]) -> Iterator[Score]:
    """Compute the spread of the headline over paraphrases and orders.

    Largest minus smallest, if there are two or more.
    """
    layout = answers.layout
    for name, levels, column in (
        ("paraphrase", layout.asked_paraphrases, layout.paraphrase),
        ("order", layout.asked_orders, layout.order),
    ):
        known = {"paraphrase": layout.paraphrases, "order": layout.orders}[name]
        if len(levels) < 2:
            continue
        each = [value(answers.take(column == known.index(level))) for level in levels]
        if np.isfinite(each).all():
            yield fields.row(f"{metric}_{name}_spread", np.ptp(each), False)
