"""Contextual calibration: divide option probabilities by those of content-free prompts.

The content-free item of Zhao et al. (2021, "Calibrate Before Use") is presented in the same paraphrase, order and
scale, so that its probabilities are the prior of exactly that presentation, position and label together (Zheng et al.
2024 estimate the same prior by permuting options). The quotient is normalised over the options. For cloze scoring it is
that of the likelihoods of the whole texts, domain-conditional PMI (``cloze.pmi``).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .answers import Answers, Layout
from .cloze import lengths_of, pmi
from .items import free_id, free_kind
from .spec import TaskSpec

LEAST = 1e-6  # a smaller prior is replaced by this value, so that quotients stay finite


def is_free(layout: Layout) -> np.ndarray:
    """Return a boolean mask (prompts,) of the prompts that show a content-free item."""
    return np.array([bool(free_kind(name)) for name in layout.items])[layout.item]


def calibrated(spec: TaskSpec, answers: Answers, split: str) -> Answers:
    """Compute the answers to a split's real items, each divided by its content-free answer; texts are left out.

    Raises:
        KeyError: a content-free answer is missing (reading a submission checks that none is).
    """
    layout = answers.layout
    free = is_free(layout)
    cells = list(zip(layout.paraphrase.tolist(), layout.order.tolist(), layout.persona.tolist(), strict=True))
    names = [layout.items[i] for i in layout.item]
    prior_of = {(names[row], *cells[row]): row for row in np.flatnonzero(free)}
    real = np.array([row for row in np.flatnonzero(~free) if layout.widths[row]], dtype=int)
    prior = np.array([prior_of[free_id(split, spec.items.free[names[row]]), *cells[row]] for row in real], dtype=int)
    kept = answers.take(real)
    if spec.cloze:
        probs = pmi(kept, answers.take(prior), lengths_of(spec, kept.layout))
    else:
        odds = kept.probs / np.maximum(answers.probs[:, prior], LEAST)
        probs = odds / odds.sum(-1, keepdims=True)
        probs[0] = np.where(kept.decided[:, None], probs[0], kept.probs[0])  # what nobody told of stays equal shares
    return replace(kept, probs=probs, texts=None, parsed=None)
