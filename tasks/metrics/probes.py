"""Open-ended probes, scored without a judge: forced choices in both orders, and properties of generated text."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np

from ..answers import Answers
from ..schema import Scoring, SplitName
from ..score import Score, ScoreFields
from .common import agreement
from .poles import Poles

# Phrases with which models decline to answer or to have a view. "I can't help smiling" and "as a large family" are
# answers.
_MACHINE = r"(ai|artificial (intelligence|mind|being)|large language model|language model)\b"
_CANNOT = r"(cannot|can't|can not|won't|am not able to|am unable to|'m unable to|do not have|don't have)"
_WHAT = r"(answer|assist|help (you|with)|provide|choose|the ability|personal|(any )?(feelings|opinions|preferences))\b"
REFUSALS = re.compile(
    rf"\b(as an? {_MACHINE}|i( a|')m (just |only )?an? {_MACHINE}|i {_CANNOT} {_WHAT}|"
    r"i( would|'d) (prefer|rather) not\b|i prefer not to\b|i( a|')m sorry, but (no\b|i\b))",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+")


class Probes(Poles):
    """Choices as in ``Poles``.

    For ``text`` also refusals, repetition, collapse and agreement with the probabilities.
    """

    def score(self, answers: Answers, split: SplitName, scoring: Scoring) -> list[Score]:
        """Compute the scores of the forced choices, then those of the text."""
        rows = super().score(answers, split, scoring)
        if scoring != "text":
            return rows
        fields = self.fields(answers, split, scoring, len(np.unique(answers.layout.item)))
        return rows + self._text(fields, answers)

    def _text(self, fields: ScoreFields, answers: Answers) -> list[Score]:
        texts, layout = answers.texts, answers.layout
        if texts is None:
            return []
        rows = [fields.row("refusal", np.mean([refuses(text) for text in texts]), False)]
        rows.append(fields.row("empty", np.mean([not text.strip() for text in texts]), False))
        spoken = [text for text, width in zip(texts, layout.widths, strict=True) if width == 0]
        if spoken:
            rows.append(fields.row("distinct_1", distinct(spoken, 1), True))
            rows.append(fields.row("distinct_2", distinct(spoken, 2), True))
            rows.append(fields.row("identical", identical(spoken), False))
            rows.append(fields.row("repetition", np.mean([repetition(text) for text in spoken]), False))
        if same := agreement(answers):
            rows.append(fields.row("agreement", same[0], True, n=same[1]))
        return rows


def refuses(text: str) -> bool:
    """Return whether a text declines to answer, judged by its first 200 characters."""
    return bool(REFUSALS.search(text[:200].replace("\u2019", "'")))


def distinct(texts: list[str], length: int) -> float:
    """Compute distinct n-grams over all n-grams (Li et al. 2016), of all texts together; 0 if there are none."""
    grams = [gram for text in texts for gram in _grams(text, length)]
    return len(set(grams)) / len(grams) if grams else 0.0


def identical(texts: list[str]) -> float:
    """Compute the share of texts that equal another one word for word: 0 if all differ, near 1 at a collapse."""
    counts = Counter(" ".join(_WORD.findall(text.lower())) for text in texts)
    return sum(count for count in counts.values() if count > 1) / len(texts)


def repetition(text: str) -> float:
    """Compute the share of a text's three-word sequences that occurred before in it."""
    grams = _grams(text, 3)
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _grams(text: str, length: int) -> list[tuple[str, ...]]:
    words = _WORD.findall(text.lower())
    return [tuple(words[i : i + length]) for i in range(len(words) - length + 1)]
