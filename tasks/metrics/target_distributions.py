"""A country's answer distributions as the target of a fit, and the divergence of a model's answers from them.

Kullback-Leibler divergence from people to model, over the options alone: the loss of models fine-tuned on survey
distributions (Cao et al. 2025, arXiv 2502.07068; Suh et al. 2025, arXiv 2502.16761). It is the cross-entropy of soft
labels minus their entropy, so that its gradient is theirs and equal distributions have 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import entr

from ..answers import Layout

LEAST = 1e-9  # probabilities below count as this, the last decimal that a submission keeps


@dataclass(frozen=True)
class TargetDistributions:
    """The shares of a country's people who gave each answer, for a set of prompts.

    ``shares`` (prompts, codes) add up to 1, and are all zero where the question was not asked in the country;
    ``counts_as`` (prompts, options, codes) is 1 where an option counts as a code (several may, on a shortened scale).
    """

    shares: np.ndarray
    counts_as: np.ndarray

    @property
    def known(self) -> np.ndarray:
        """Return which prompts have a distribution, boolean (prompts,)."""
        return np.asarray(self.shares.any(1))

    def take(self, rows: np.ndarray) -> TargetDistributions:
        """Return the distributions of some prompts, by row numbers or a mask."""
        return TargetDistributions(self.shares[rows], self.counts_as[rows])

    def divergence(self, probs: Any) -> Any:
        """Compute KL(people || model) in nats (population, prompts), 0 for prompts without a distribution.

        Args:
            probs: option probabilities (population, prompts, options), of as many options as some prompt has; torch in,
                torch out, and differentiable.
        """
        like = getattr(probs, "new_tensor", np.asarray)
        counted = (probs[..., None, :] @ like(self.counts_as[:, : probs.shape[-1]]))[..., 0, :].clip(LEAST)
        logs = counted.log() if hasattr(counted, "log") else np.log(counted)
        return -(like(self.shares) * logs).sum(-1) - like(entr(self.shares).sum(-1))

    def loss(self, layout: Layout) -> DivergenceLoss:
        """Return the mean divergence over items, of each over its prompts: paraphrases, orders, personas."""
        known = self.known
        _, place, counts = np.unique(layout.item[known], return_inverse=True, return_counts=True)
        weight = np.zeros(len(known))
        weight[known] = 1 / (len(counts) * counts[place])
        return DivergenceLoss(self, weight)


@dataclass(frozen=True)
class DivergenceLoss:
    """Compute the weighted divergence (population,) of probabilities (population, prompts, options); numpy or torch."""

    target: TargetDistributions
    weight: np.ndarray

    def __call__(self, probs: Any) -> Any:
        like = getattr(probs, "new_tensor", np.asarray)
        return self.target.divergence(probs) @ like(self.weight)


def stacked(parts: Sequence[TargetDistributions]) -> TargetDistributions:
    """Concatenate the distributions of several sets of prompts, zero-padded to the widest."""
    options, codes = np.max([part.counts_as.shape[1:] for part in parts], axis=0)

    def padded(array: np.ndarray, *widths: int) -> np.ndarray:
        room = [(0, width - size) for width, size in zip(widths, array.shape[1:], strict=True)]
        return np.pad(array, [(0, 0), *room])

    shares = np.concatenate([padded(part.shares, codes) for part in parts])
    return TargetDistributions(shares, np.concatenate([padded(part.counts_as, options, codes) for part in parts]))
