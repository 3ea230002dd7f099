"""Training data from the prompts of an objective: the option nearest to the country's figure, and the farthest one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..harness.alignment.objective import Objective

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class Pair(NamedTuple):
    """Token ids of a prompt and of the two options after it."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]


def nearest_and_farthest(objective: Objective) -> tuple[np.ndarray, np.ndarray]:
    """Return the options (prompts,) nearest to the country's figure and those farthest from it, as places in a row."""
    layout = objective.prompts.layout
    distance = np.abs(layout.codes - objective.demonstrations[:, None]).astype(float)
    near = np.where(layout.inside, distance, np.inf).argmin(1)
    far = np.where(layout.inside, distance, -np.inf).argmax(1)
    return near, far


def preference_pairs(model: LanguageModel, objective: Objective, preamble: str = "") -> list[Pair]:
    """Return one pair a fitted prompt behind a preamble, tokenised as the prompts are when they are answered."""
    encoded = model.tokenised(objective.prompts, preamble)
    near, far = nearest_and_farthest(objective)
    return [
        Pair(context, options[good], options[bad])
        for context, options, good, bad in zip(encoded.contexts, encoded.options, near, far, strict=True)
    ]


def in_batches(count: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Draw ``rows`` of ``count`` examples (rows,): every example once in random order, then again in another."""
    rounds = -(-rows // count)
    drawn: np.ndarray = np.concatenate([rng.permutation(count) for _ in range(rounds)])[:rows]
    return drawn
