"""Dividing out the prior: what a model answers where nothing is asked.

The content-free item of Zhao et al. (2021, "Calibrate Before Use") is asked in the same wording, order and scale, so
that its probabilities are the prior of exactly that presentation, position and label together (Zheng et al. 2024
estimate the same prior by permuting options). The quotient is normalised over the options.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .answers import Answers, Layout
from .items import free_id, free_kind
from .spec import TaskSpec

LEAST = 1e-6  # a prior below this counts as this, so that no quotient explodes


def is_free(layout: Layout) -> np.ndarray:
    """Boolean mask (prompts,) of the content-free items among those asked."""
    return np.array([bool(free_kind(name)) for name in layout.items])[layout.item]


def calibrated(spec: TaskSpec, answers: Answers, split: str) -> Answers:
    """The answers of a split to its real items, each divided by its content-free one; text is left out.

    Raises:
        KeyError: a content-free answer is missing (a submission's reader has checked that none is).
    """
    layout = answers.layout
    free = is_free(layout)
    cells = list(zip(layout.wording.tolist(), layout.order.tolist(), layout.respondent.tolist(), strict=True))
    names = [layout.items[i] for i in layout.item]
    prior_of = {(names[row], *cells[row]): row for row in np.flatnonzero(free)}
    real = np.array([row for row in np.flatnonzero(~free) if layout.widths[row]], dtype=int)
    prior = np.array([prior_of[free_id(split, spec.items.free[names[row]]), *cells[row]] for row in real], dtype=int)
    odds = answers.probs[:, real] / np.maximum(answers.probs[:, prior], LEAST)
    kept = answers.take(real)
    return replace(kept, probs=odds / odds.sum(-1, keepdims=True), texts=None, parsed=None)
