"""Distances between answer distributions (Wasserstein-1, Jensen-Shannon, Kullback-Leibler), split halves, a loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.special import rel_entr

from ..schema import Scoring

SMOOTHING = 0.01  # of the uniform distribution mixed into both sides of the Kullback-Leibler divergence


def split_half(shares: np.ndarray, codes: np.ndarray, n: int) -> float:
    """Compute the exact expected normalised Wasserstein-1 between random halves of ``n`` people with these shares.

    K of the n answered at or below a code. A random half of h people has k of them, which is hypergeometric (n, K, h),
    so E|F1 - F2| = sum over k of P(k) |k / h - (K - k) / (n - h)|; the expectation of the distance is the sum over the
    codes, by linearity, and using the same halves for all items changes no mean over items. With weighted shares K is
    rounded from them, and the additional variance from weights is not included.
    """
    from scipy.stats import hypergeom  # takes a second to load

    if n < 2:
        return 0.0
    half = n // 2
    steps = np.diff(codes) / (codes[-1] - codes[0])
    k = np.arange(half + 1)[:, None]
    below = np.round(np.cumsum(shares)[:-1] * n).astype(int)
    apart = (hypergeom.pmf(k, n, below, half) * abs(k / half - (below - k) / (n - half))).sum(0)
    return float(apart @ steps)


def wasserstein(p: np.ndarray, q: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Compute Wasserstein-1 of distributions (..., codes) by the range of ascending codes, (codes,) or (..., codes)."""
    return (abs(np.cumsum(p - q, -1))[..., :-1] * np.diff(codes)).sum(-1) / (codes[..., -1] - codes[..., 0])


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Compute the Jensen-Shannon distance in nats; exactly 0 for equal distributions, without rounding errors."""
    with np.errstate(invalid="ignore"):
        return np.where(np.isclose(p, q).all(-1), 0.0, jensenshannon(p, q, axis=-1))


def smoothed_kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Compute KL(country || model) in nats, with one per cent of the uniform distribution mixed into both."""
    mixed = [(1 - SMOOTHING) * each + SMOOTHING / each.shape[-1] for each in (q, p)]
    return rel_entr(*mixed).sum(-1)


def kl_clca(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Compute the value that CLCA's released code calls KL: a softmax is taken of what is a distribution already.

    ``kl_div(log_softmax(model), country)``, summed over the options; a perfect answer does not score 0. For comparison
    with published tables only (Liu, Korhonen & Gurevych 2025).
    """
    soft = np.exp(p) / np.exp(p).sum(-1, keepdims=True)
    return rel_entr(q, soft).sum(-1)


@dataclass(frozen=True)
class DistanceLoss:
    """Mean distance (population,) of probabilities (population, prompts, options) over items.

    Normalised Wasserstein-1 if the options are a scale (``ordered``, (items,)), else total variation. ``prompts``
    (items, most) are the prompts of an item and ``weight`` (items, most) averages them; ``target`` (items, options) are
    shares, cumulative ones on a scale, and ``gaps`` (items, options) the weight of each step, zero where none counts.
    """

    prompts: np.ndarray
    weight: np.ndarray
    target: np.ndarray
    gaps: np.ndarray
    ordered: np.ndarray
    scoring: Scoring

    def __call__(self, probs: Any) -> Any:
        like = getattr(probs, "new_tensor", np.asarray)
        if self.scoring == "argmax":
            probs = like((np.arange(probs.shape[-1]) == np.asarray(probs).argmax(-1)[..., None]).astype(float))
        shares = (probs[:, self.prompts] * like(self.weight)[..., None]).sum(-2)
        scale = like(self.ordered[:, None].astype(float))
        reached = shares.cumsum(-1) * scale + shares * (1 - scale)
        return (abs(reached - like(self.target)) * like(self.gaps)).sum(-1).mean(-1)
