"""Choices between the high and the low pole of a dimension: preference pairs and forced choices.

A country's pole of a dimension is the high one if its published score is above the world mean. Shares are means over
both orders, so that a model which answers by position scores one half.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import InputError
from ..answers import IN_TEXT, UNPARSED, Answers, Layout, chosen
from ..items import Questions
from ..measure import MeasureOptions
from ..sample import SHARE, Metric, Sample, average, quotient, tally
from ..schema import Scoring, SplitName
from ..score import Score, ScoreFields
from ..spec import TaskSpec
from .accuracy import same_content
from .common import certain_answers, middle_answers, spreads, unanswered
from .reference import DIMENSIONS, scores_of

LEAST = 1e-9  # added to probabilities before taking logarithms


@dataclass(frozen=True)
class ChosenLoss:
    """Mean -log probability (population,) of the chosen options (prompts,), from probabilities over the options.

    Of answers in text, whose probabilities are mostly 0 or 1, it is the mean probability of the other options.
    ``rows`` are the prompts that count, if not all do.
    """

    target: np.ndarray
    scoring: Scoring
    rows: np.ndarray | None = None

    def __call__(self, probs: Any) -> Any:
        if self.rows is not None:
            probs = probs[..., self.rows, :]
        if self.scoring == "argmax":
            return 1 - (np.asarray(probs).argmax(-1) == self.target).mean(-1)
        picked = probs[..., np.arange(len(self.target)), self.target] + LEAST
        if self.scoring in IN_TEXT:
            return 1 - picked.mean(-1)
        return -(picked.log() if hasattr(picked, "log") else np.log(picked)).mean(-1)


class Poles:
    """The measure of pole choices: option 1 of every question is the high pole, option 2 the low one."""

    def __init__(self, spec: TaskSpec, country: str, options: MeasureOptions) -> None:
        if not isinstance(spec.items, Questions):
            raise InputError(f"{spec.path}: metadata.measure: poles needs questions with two options, high pole first.")
        self.spec, self.country = spec, country
        self.questions = spec.items.questions
        for question in self.questions:
            if question.options and (len(question.options) != 2 or question.dimension not in DIMENSIONS):
                raise InputError(
                    f"{spec.path}: question {question.id[:60]!r}: two options and one of {', '.join(DIMENSIONS)}."
                )
        self.scores = scores_of(spec, options.edition)
        self.high = self.scores.high(country)
        self.dimension = np.array([DIMENSIONS.index(q.dimension) if q.options else -1 for q in self.questions])

    caution = None

    @staticmethod
    def countries(spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
        """Return the codes of the countries with all six scores in an edition."""
        return scores_of(spec, edition).complete

    def _side(self, layout: Layout) -> np.ndarray:
        """Return the index (prompts,) of the option on the country's pole: 0 the high pole, 1 the low one."""
        low = np.array([0 if self.high[name] else 1 for name in DIMENSIONS])
        return low[self.dimension[layout.item]]

    def loss_function(self, layout: Layout, scoring: Scoring) -> ChosenLoss:
        """Return the loss of the options on the country's pole."""
        rows = np.flatnonzero(layout.widths == 2)
        return ChosenLoss(self._side(layout)[rows], scoring, rows if len(rows) < len(layout) else None)

    def demonstrations(self, layout: Layout) -> np.ndarray:
        """Return the code (prompts,) of the country's pole; ``UNPARSED`` for open questions."""
        return np.where(layout.widths == 2, self._side(layout) + 1, UNPARSED)

    def constant(self, layout: Layout) -> Answers:
        """Return the option with the second code, the low pole, for all prompts."""
        return middle_answers(layout)

    def baselines(self, layout: Layout) -> dict[str, Answers]:
        """Return each dimension's pole that most other countries lean to; open questions are left unanswered."""
        others = [self.scores.high(code) for code in self.scores.complete if code != self.country]
        if not others:
            return {}
        high = np.array([np.mean([each[name] for each in others]) > 0.5 for name in DIMENSIONS])
        return {"majority": certain_answers(layout, np.where(high, 1, 2)[self.dimension[layout.item]])}

    def fields(self, answers: Answers, split: SplitName, scoring: Scoring, n: int) -> ScoreFields:
        """Build the common fields of a split's scores under one answer scoring."""
        return ScoreFields(self.spec.name, self.country, self.scores.edition, split, scoring, answers.layout, n)

    def score(self, answers: Answers, split: SplitName, scoring: Scoring) -> list[Score]:
        """Compute ``pole_accuracy``, ``high_<dimension>``, the losses of both poles, and position effects."""
        closed = answers.take(answers.layout.widths == 2)
        layout = closed.layout
        if not len(layout):
            return []
        asked = np.unique(layout.item)
        fields = self.fields(closed, split, scoring, len(asked))
        spread = chosen(closed, scoring)[:, :2]
        answered = spread.sum(-1) > 0
        rows = unanswered(fields, closed)
        if not answered.any():
            return rows
        sample = self.sample(answers, scoring)
        for name, metric in sample.metrics.items():
            low, high = sample.interval(name) or (None, None)
            more = {"n": len(sample.of(name)), "low": low, "high": high}
            rows.append(fields.row(name, sample.value(name), metric.higher_is_better, **more))
        if scoring == "expected":
            rows += self._losses(fields, closed)
        rows.append(fields.row("position_bias", abs(2 * self._first(layout, spread)[answered].mean() - 1), False))
        if (same := same_content(closed, scoring)) is not None:
            rows.append(fields.row("consistency", same, True))
        rows += spreads(fields, closed, "pole_accuracy", lambda part: self._mean_side(part, scoring))
        return rows

    def sample(self, answers: Answers, scoring: Scoring) -> Sample:
        """Return the choices by question, each question counting once; unanswered questions are left out.

        In ``pole_accuracy`` the mean over dimensions on whose high pole the country lies and the mean over the others
        have equal weight, so that always taking the same pole scores one half.
        """
        closed = answers.take(answers.layout.widths == 2)
        layout, spread = closed.layout, chosen(closed, scoring)[:, :2]
        on_side = np.take_along_axis(spread, self._side(layout)[:, None], 1)[:, 0]
        found = [np.where(spread.sum(-1) > 0, values, np.nan) for values in (on_side, spread[:, 0])]
        nothing = np.zeros_like(layout.item)
        (ids, *side), (_, *high) = (tally(layout.item, nothing, values, 1) for values in found)
        dimension = self.dimension[ids]
        low = np.array([not self.high[name] for name in DIMENSIONS])[dimension]
        # a question counts once, however often it was presented: means first
        once, choice, is_high = side[1] > 0, quotient(*side), quotient(*high)
        groups = [(low == pole)[:, None] & once for pole in (False, True)]
        groups += [(dimension == number)[:, None] & once for number in range(len(DIMENSIONS))]
        counts = np.concatenate(groups, axis=1).astype(float)
        sums = np.nan_to_num(np.concatenate([choice, choice, *[is_high] * len(DIMENSIONS)], axis=1)) * counts
        metrics = {"pole_accuracy": Metric(np.flatnonzero(counts[:, :2].any(0)), average, True, SHARE)}
        for number, name in enumerate(DIMENSIONS):
            if counts[:, 2 + number].any():
                metrics[f"high_{name}"] = Metric(np.array([2 + number]), average, None, SHARE)
        return Sample("questions", ids, sums, counts, metrics)

    def _mean_side(self, closed: Answers, scoring: Scoring) -> float:
        return self.sample(closed, scoring).value("pole_accuracy")

    @staticmethod
    def _first(layout: Layout, spread: np.ndarray) -> np.ndarray:
        """Return the share of each answer that is on the option listed first."""
        return np.where(layout.order == 1, spread[:, 1], spread[:, 0])

    def _losses(self, fields: ScoreFields, closed: Answers) -> list[Score]:
        """Compute -log probability of the option on the country's pole among the two, and of each pole as it is.

        ``loss_high_*`` and ``loss_low_*`` include the probability off the options (the seed paper's Table 1a);
        ``loss``, the mean over the country's pole, does not, because stock lm-eval adds a template's line break to
        every option.
        """
        layout = closed.layout
        sided = np.take_along_axis(closed.probs[0, :, :2], self._side(layout)[:, None], 1)
        logs = -np.log(closed.probs[0, :, :2] * (1 - closed.off_options[0])[:, None] + LEAST)
        rows = [fields.row("loss", -np.log(sided + LEAST).mean(), False)]
        for number, name in enumerate(DIMENSIONS):
            own = self.dimension[layout.item] == number
            if own.any():
                rows.append(fields.row(f"loss_high_{name}", logs[own, 0].mean(), None))
                rows.append(fields.row(f"loss_low_{name}", logs[own, 1].mean(), None))
        return rows
