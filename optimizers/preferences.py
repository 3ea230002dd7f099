"""Training data from the prompts of an objective: the option nearest to the country's figure, and the farthest one.

Prompts without a figure of the country, such as questions that were not asked there, are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import UsageError
from ..harness.alignment.objective import Objective
from ..tasks.answers import UNPARSED

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class Pair(NamedTuple):
    """Token ids of a prompt and of the two options after it."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


class Known(NamedTuple):
    """The rows (n,) of the prompts with a figure of the country; of each the nearest and the farthest option (n,)."""

    rows: np.ndarray
    near: np.ndarray
    far: np.ndarray


def nearest_and_farthest(objective: Objective) -> Known:
    """Find the options nearest to the country's figures and farthest from them, as places in a row.

    Of two ends that are equally far, the lower and the higher one take turns: with one of them always, a model would
    learn about the end and not about the figure.

    Raises:
        UsageError: no prompt has a figure of the country.
    """
    layout, figures = objective.prompts.layout, objective.demonstrations
    rows = np.flatnonzero(figures != UNPARSED)
    if not len(rows):
        raise UsageError(f"`fit` {objective.task}: none of these questions was asked in the country.")
    inside = layout.inside[rows]
    distance = np.abs(layout.codes[rows] - figures[rows, None]).astype(float)
    near = np.where(inside, distance, np.inf).argmin(1)
    farthest = inside & (distance == np.where(inside, distance, -np.inf).max(1, keepdims=True))
    low, high = farthest.argmax(1), farthest.shape[1] - 1 - farthest[:, ::-1].argmax(1)
    turn = np.cumsum(low != high) % 2 == 1
    return Known(rows, near, np.where(turn, low, high))


def preference_pairs(model: LanguageModel, objective: Objective, preamble: str = "") -> list[Pair]:
    """Return one pair a fitted prompt behind a preamble, tokenised as the prompts are when they are answered."""
    encoded = model.tokenised(objective.prompts, preamble)
    return [
        Pair(encoded.contexts[row], encoded.options[row][good], encoded.options[row][bad])
        for row, good, bad in zip(*map(np.ndarray.tolist, nearest_and_farthest(objective)), strict=True)
    ]


def in_batches(count: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``rows`` of ``count`` examples (rows,): every example once in random order, then again in another."""
    rounds = -(-rows // count)
    drawn: np.ndarray = np.concatenate([rng.permutation(count) for _ in range(rounds)])[:rows]
    return drawn
