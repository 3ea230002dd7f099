"""Scores: one number about one submission, with all fields needed to interpret it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, SupportsFloat

from .answers import Layout
from .schema import Scoring, SplitName, Strict


class Score(Strict):
    """One row of ``scores.json``.

    ``low`` and ``high`` bound a 95 % interval and are null if there is no valid interval; ``n`` counts the units that
    would be resampled (personas of a questionnaire, questions of a knowledge set). ``note`` is a label such as
    ``collapsed``.
    """

    task: str
    country: str
    aligner: str = ""
    metric: str
    scoring: Scoring
    split: SplitName
    value: float
    low: float | None = None
    high: float | None = None
    n: int
    higher_is_better: bool | None
    edition: str
    constants: str | None = None
    norm: str | None = None
    paraphrases: tuple[str, ...]
    orders: tuple[str, ...]
    note: str | None = None


Place = tuple[str, str, str]
COLLAPSED = "collapsed"  # the note of a score of answers that are nearly equal for every question


def place(score: Score) -> Place:
    """Return the key of a score: metric, answer scoring, split."""
    return score.metric, score.scoring, score.split


def find(scores: Iterable[Score], where: Place) -> Score | None:
    """Find the first score of a metric, answer scoring and split; None if there is none."""
    metric, scoring, split = where
    return next((s for s in scores if s.metric == metric and s.split == split and s.scoring == scoring), None)


@dataclass(frozen=True)
class ScoreFields:
    """The fields that all scores of one split and answer scoring have in common; ``row`` adds the others."""

    task: str
    country: str
    edition: str
    split: SplitName
    scoring: Scoring
    layout: Layout
    n: int

    def row(self, metric: str, value: SupportsFloat, higher_is_better: bool | None, **more: Any) -> Score:
        """Build one score; ``more`` overrides or adds fields."""
        fields = {
            "task": self.task,
            "country": self.country,
            "edition": self.edition,
            "split": self.split,
            "scoring": self.scoring,
            "paraphrases": self.layout.asked_paraphrases,
            "orders": self.layout.asked_orders,
            "n": self.n,
            "metric": metric,
            "value": float(value),
            "higher_is_better": higher_is_better,
        }
        return Score(**fields | more)
