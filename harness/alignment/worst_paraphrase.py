"""The loss of the paraphrase that is fitted worst, so that each is fitted by itself and none makes up for another.

Group distributionally robust optimisation with paraphrases as groups (Sagawa et al. 2020, arXiv 1911.08731). Argmax
answers are drawn, by probabilities at a low temperature, and the loss is the expected one: other words turn over near
ties, and a search for the loss of argmax answers alone ends in many of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np

from ...tasks.answers import Layout
from ...tasks.measure import DrawnLoss, LossFunction, Measure, SeparableLoss
from ...tasks.schema import Scoring

TEMPERATURE = 0.25  # options whose log-probabilities differ by less are drawn about equally often
_LEAST = 1e-300


@dataclass(frozen=True)
class WorstParaphrase:
    """Compute the largest of the losses (population,) of each paraphrase's prompts.

    ``rows`` are the prompts of each paraphrase, ``losses`` their losses; ``sharp``: of sharpened probabilities.
    """

    rows: tuple[np.ndarray, ...]
    losses: tuple[LossFunction, ...]
    sharp: bool

    def __call__(self, probs: Any) -> Any:
        return _largest([loss(part) for loss, part in self._divided(probs)])

    def _divided(self, probs: Any) -> list[tuple[Any, Any]]:
        read = sharpened(probs) if self.sharp else probs
        return [(loss, read[:, rows]) for loss, rows in zip(self.losses, self.rows, strict=True)]


class SeparableWorstParaphrase(WorstParaphrase):
    """The same where each paraphrase's loss is a sum of separate terms, so that candidates can be raced."""

    losses: tuple[SeparableLoss, ...]

    @property
    def parts(self) -> tuple[np.ndarray, ...]:
        """Return the prompts that each term depends on, paraphrase by paraphrase."""
        pairs = zip(self.losses, self.rows, strict=True)
        return tuple(rows[part] for loss, rows in pairs for part in loss.parts)

    def terms(self, probs: Any) -> Any:
        """Compute the terms of all paraphrases, (population, parts)."""
        return np.concatenate([loss.terms(part) for loss, part in self._divided(probs)], axis=-1)

    def total(self, terms: Any) -> Any:
        """Compute the loss (population,) from terms."""
        ends = np.cumsum([len(loss.parts) for loss in self.losses])[:-1]
        return _largest([loss.total(own) for loss, own in zip(self.losses, np.split(terms, ends, -1), strict=True)])


def worst_paraphrase(measure: Measure, layout: Layout, scoring: Scoring) -> LossFunction:
    """Return the loss of the paraphrase of a layout that is fitted worst."""
    rows = tuple(np.flatnonzero(layout.paraphrase == number) for number in np.unique(layout.paraphrase))
    sharp = scoring == "argmax"
    losses = tuple(measure.loss_function(layout.take(own), "expected" if sharp else scoring) for own in rows)
    if sharp:
        losses = tuple(drawn(loss) for loss in losses)
    separable = all(isinstance(loss, SeparableLoss) for loss in losses)
    return (SeparableWorstParaphrase if separable else WorstParaphrase)(rows, losses, sharp)


def drawn(loss: LossFunction) -> LossFunction:
    """Return the loss to expect of drawn answers where the loss knows it, else the loss of their mean."""
    return loss.of_drawn() if isinstance(loss, DrawnLoss) else loss


def sharpened(probs: Any, temperature: float = TEMPERATURE) -> Any:
    """Return option probabilities at a temperature, normalised; all zero where all are."""
    powers = _normalised(probs) ** (1 / temperature)
    return _normalised(powers)


def _normalised(weights: Any) -> Any:
    return weights / (weights.sum(-1)[..., None] + _LEAST)


def _largest(losses: Sequence[Any]) -> Any:
    """Return the largest of losses (population,), numpy or torch."""
    return reduce(lambda one, other: (one + other + abs(one - other)) / 2, losses)
