"""Accuracy on questions with right answers, by country, kind and pooled, with Wilson intervals over the questions.

A question in several paraphrases and orders counts once, with the mean over them, and so do variants of one question
(BLEnD asks it with many sets of wrong options). Questions of a group (the four judgements of a CulturalBench-Hard
question, Chiu et al. 2024) count as one, right only if all of them are right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from ..answers import Answers, Layout, chosen
from ..countries import name_of
from ..items import Questions
from ..measure import MeasureOptions
from ..sample import SHARE, Metric, Sample, average
from ..schema import Scoring, SplitName
from ..score import Score, ScoreFields
from ..spec import TaskSpec
from .common import NoReference, certain_answers, group_means, middle_answers, spreads, unanswered


@dataclass(frozen=True)
class ErrorLoss:
    """Compute 1 - accuracy (population,) of probabilities (population, prompts, options); numpy or torch."""

    right: np.ndarray
    weight: np.ndarray
    scoring: Scoring

    def __call__(self, probs: Any) -> Any:
        like = getattr(probs, "new_tensor", np.asarray)
        if self.scoring != "argmax":
            return 1 - (probs * like(self.right.astype(float))).sum(-1) @ like(self.weight)
        best = np.asarray(probs).argmax(-1)
        hit = np.take_along_axis(np.broadcast_to(self.right, probs.shape), best[..., None], -1)[..., 0]
        return 1 - hit @ self.weight


class Accuracy(NoReference):
    """The measure that scores answers against the right options of the questions."""

    def __init__(self, spec: TaskSpec, country: str, options: MeasureOptions) -> None:
        if not isinstance(spec.items, Questions) or not all(q.right for q in spec.items.questions):
            raise InputError(f"{spec.path}: metadata.measure: accuracy needs questions that each have an answer.")
        self.spec, self.country = spec, country
        self.questions = spec.items.questions
        self.places = sorted({q.country for q in self.questions if q.country})
        if self.places and country not in self.places:
            self.caution = f"no question is about {name_of(country)}: `accuracy` is that of all questions"
        names = [q.variant_of or q.group or q.id for q in self.questions]
        self.units = list(dict.fromkeys(names))
        number = {name: i for i, name in enumerate(self.units)}
        self.unit_of = np.array([number[name] for name in names])
        self.has_variants = any(q.variant_of for q in self.questions)
        judged = {name: i for i, name in enumerate(dict.fromkeys(q.group or q.id for q in self.questions))}
        self.judged_of = np.array([judged[q.group or q.id] for q in self.questions])
        self.unit_of_judged = np.empty(len(judged), dtype=int)
        self.unit_of_judged[self.judged_of] = self.unit_of
        self.place_of = np.empty(len(self.units), dtype=object)
        self.place_of[self.unit_of] = [q.country for q in self.questions]
        self.kind_of = np.empty(len(self.units), dtype=object)
        self.kind_of[self.unit_of] = [q.kind for q in self.questions]
        self.right = np.zeros((len(self.questions), max(len(q.options) for q in self.questions)), dtype=bool)
        for row, question in enumerate(self.questions):
            self.right[row, [code - 1 for code in question.right]] = True

    def _right(self, layout: Layout) -> np.ndarray:
        """Return which options are right, boolean (prompts, options)."""
        return self.right[layout.item][:, : layout.codes.shape[1]]

    def loss_function(self, layout: Layout, scoring: Scoring) -> ErrorLoss:
        """Return 1 - accuracy on the country's own questions if the task has some, else on all.

        Questions of a group are judged one by one, which has a gradient.
        """
        own = np.array([q.country == self.country for q in self.questions])[layout.item]
        weight = own.astype(float) if own.any() else np.ones(len(layout))
        if self.has_variants:
            unit = self.unit_of[layout.item]
            weight /= np.bincount(unit)[unit]
        return ErrorLoss(self._right(layout), weight / weight.sum(), scoring)

    def demonstrations(self, layout: Layout) -> np.ndarray:
        """Return the first right code (prompts,) of each question."""
        return np.array([q.right[0] for q in self.questions])[layout.item]

    def constant(self, layout: Layout) -> Answers:
        """Return the same option for every question."""
        return middle_answers(layout)

    def baselines(self, layout: Layout) -> dict[str, Answers]:
        """Return for every question the code that is right most often over all questions (the first of equals)."""
        codes, counts = np.unique([code for q in self.questions for code in q.right], return_counts=True)
        commonest = np.minimum(codes[counts.argmax()], layout.widths)
        return {"majority": certain_answers(layout, commonest)}

    def score(self, answers: Answers, split: SplitName, scoring: Scoring) -> list[Score]:
        """Compute ``accuracy`` on the country's own questions (on all if none), pooled, by country and by kind."""
        sample = self.sample(answers, scoring)
        own = sample.of("accuracy").ids
        fields = self.fields(answers, split, scoring, len(own))
        each = [self._accuracy(fields, name, sample) for name in sample.metrics]
        rows = [each[0], *unanswered(fields, answers), *each[1:]]
        if scoring != "cloze":  # which show no letters
            rows += self._habits(fields, answers, scoring)
        rows += spreads(fields, answers, "accuracy", lambda part: float(np.nanmean(self._units(part, scoring)[own])))
        return rows

    def sample(self, answers: Answers, scoring: Scoring) -> Sample:
        """Return how right each question is.

        ``accuracy``; for tasks with countries, ``accuracy_all`` and by country; for questions with a ``kind``, by kind.
        """
        units = self._units(answers, scoring)
        asked, where = ~np.isnan(units), self.place_of
        own = asked & (where == self.country) if (where[asked] == self.country).any() else asked
        groups = {"accuracy": own}
        if self.places:
            groups["accuracy_all"] = asked
            by_place = {f"accuracy_{place}": asked & (where == place) for place in self.places}
            groups |= {name: rows for name, rows in by_place.items() if rows.any()}
        for kind in sorted({q.kind for q in self.questions if q.kind}):
            if (rows := asked & (self.kind_of == kind)).any():
                groups[f"accuracy_of_{kind}"] = rows
        counts = np.stack(list(groups.values()), axis=1).astype(float)
        metrics = {name: Metric(np.array([i]), average, True, SHARE) for i, name in enumerate(groups)}
        return Sample("questions", np.arange(len(units)), np.nan_to_num(units)[:, None] * counts, counts, metrics)

    @staticmethod
    def _accuracy(fields: ScoreFields, metric: str, sample: Sample) -> Score:
        low, high = sample.interval(metric) or (0.0, 1.0)
        return fields.row(metric, sample.value(metric), True, n=len(sample.of(metric)), low=low, high=high)

    def _units(self, answers: Answers, scoring: Scoring) -> np.ndarray:
        """Compute how right each question or group is, 0 to 1; NaN where it was not presented."""
        layout = answers.layout
        # A text that is twice as likely as another is no answer that is half right: the likeliest is the answer.
        decided = "argmax" if scoring == "cloze" else scoring
        hit = (chosen(answers, decided) * self._right(layout)).sum(-1)
        if len(self.unit_of_judged) == len(self.questions):
            return group_means(hit, self.unit_of[layout.item], len(self.units))
        # A group is judged within each presentation (paraphrase, order, persona), then averaged over them.
        cell = np.stack([self.judged_of[layout.item], layout.paraphrase, layout.order, layout.persona], axis=1)
        cells, place = np.unique(cell, axis=0, return_inverse=True)
        whole = np.ones(len(cells))
        np.multiply.at(whole, place.ravel(), hit)
        return group_means(whole, self.unit_of_judged[cells[:, 0]], len(self.units))

    def _habits(self, fields: ScoreFields, answers: Answers, scoring: Scoring) -> list[Score]:
        """Score position effects.

        The excess of the most frequent letter over its share, and consistency between orders.
        """
        layout = answers.layout
        letters = chosen(answers, scoring)
        turned = (layout.order == 1)[:, None]
        width = layout.codes.shape[1]
        place = np.arange(width)[None]
        shown = np.where(turned, layout.widths[:, None] - 1 - place, place)
        by_letter = np.take_along_axis(letters, np.clip(shown, 0, width - 1), 1)
        full = layout.widths == width
        rows = []
        if by_letter[full].any():
            share = by_letter[full].sum(0) / max(by_letter[full].sum(), 1e-12)
            rows.append(fields.row("position_bias", share.max() - 1 / width, False))
        if (same := same_content(answers, scoring)) is not None:
            rows.append(fields.row("consistency", same, True))
        return rows


def same_content(answers: Answers, scoring: Scoring) -> float | None:
    """Compute how often the same content is chosen in both orders: share of pairs, for ``expected`` their overlap.

    None if no prompt was answered in both orders.
    """
    layout, spread = answers.layout, chosen(answers, scoring)
    keys = [tuple(row) for row in np.stack([layout.item, layout.paraphrase, layout.persona], axis=1).tolist()]
    answered = spread.sum(-1) > 0
    first = {key: row for row, key in enumerate(keys) if layout.order[row] == 0 and answered[row]}
    pairs = [
        (first[key], row) for row, key in enumerate(keys) if layout.order[row] == 1 and answered[row] and key in first
    ]
    if not pairs:
        return None
    one, other = np.array(pairs).T
    return float(np.minimum(spread[one], spread[other]).sum(-1).mean())
