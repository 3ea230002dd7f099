"""Moments of a model's embeddings, the scale of soft prompts, computed in parts: a copy of all takes much memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


def mean_and_scale(model: LanguageModel) -> tuple[np.ndarray, float]:
    """Compute the mean embedding (dim,) float32 of ordinary tokens, and the standard deviation of all their numbers."""
    total, squares, count = np.zeros(model.dim), 0.0, 0
    for part in model.vocabulary_parts():
        vectors = part.astype(np.float64)
        total += vectors.sum(0)
        squares += float(np.vdot(vectors, vectors))
        count += len(vectors)
    size = count * model.dim
    return (total / count).astype(np.float32), float(np.sqrt(squares / size - (total.sum() / size) ** 2))


def scatter(model: LanguageModel, mean: np.ndarray) -> np.ndarray:
    """Compute the scatter matrix (dim, dim) of the embeddings of ordinary tokens around their mean."""
    found = np.zeros((model.dim, model.dim))
    for part in model.vocabulary_parts():
        centred = part.astype(np.float64) - mean
        found += centred.T @ centred
    return found
