"""Gaussian process of a model's answers as functions of a search vector (Rasmussen & Williams 2006, chapter 2)."""

from __future__ import annotations

import itertools

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular
from scipy.spatial.distance import cdist

LENGTHS = (0.3, 0.5, 1.0, 2.0, 4.0)  # of the median distance between vectors
NOISES = (0.001, 0.03, 0.1, 0.3)  # variance of the noise by that of the signal: answers of bfloat16 are rounded


class AnswerModel:
    """Predict answers at new vectors from those at known ones.

    All outputs share a squared-exponential kernel, whose length scale and noise maximise the marginal likelihood over a
    grid; mean and size are each output's own. Predicting answers instead of the loss uses that the loss is a known
    function of them (composite functions: Astudillo & Frazier 2019, arXiv 1906.01537).

    Example:

        >>> import numpy as np
        >>> known = np.random.default_rng(0).uniform(-1, 1, (40, 1))
        >>> model = AnswerModel(known, np.hstack([np.sin(3 * known), 5 + known**2]))
        >>> drawn = model.sample(np.array([[0.5]]), 200, np.random.default_rng(0))
        >>> drawn.mean(0).round(2).tolist()
        [[1.0, 5.25]]

    Args:
        vectors: (n, dim), n >= 2, not all equal.
        answers: (n, outputs), finite.
    """

    def __init__(self, vectors: np.ndarray, answers: np.ndarray) -> None:
        self._known = np.asarray(vectors, np.float64)
        self._mean, self._spread = answers.mean(0), answers.std(0) + 1e-9
        scaled = (answers - self._mean) / self._spread
        distances = cdist(self._known, self._known)
        usual = float(np.median(distances[np.triu_indices(len(distances), 1)])) or 1.0
        fits = (_Fit(distances, scaled, share * usual, noise) for share, noise in itertools.product(LENGTHS, NOISES))
        self._fit = max(fits, key=lambda fit: fit.evidence)

    def sample(self, vectors: np.ndarray, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Draw answers (draws, n, outputs) at vectors (n, dim), independent of one another given the known ones."""
        near = _kernel(cdist(np.asarray(vectors, np.float64), self._known), self._fit.length)
        mean = near @ self._fit.weights
        explained = (solve_triangular(self._fit.factor, near.T, lower=True) ** 2).sum(0)
        deviation = np.sqrt(np.maximum(1 - explained, 0))[:, None] * self._fit.amplitude
        noise = rng.standard_normal((draws, *mean.shape))
        return (mean + deviation * noise) * self._spread + self._mean


class _Fit:
    """The posterior of one length scale and noise; ``evidence`` is its log marginal likelihood up to a constant."""

    def __init__(self, distances: np.ndarray, outputs: np.ndarray, length: float, noise: float) -> None:
        self.length, count = length, len(outputs)
        self.factor = cholesky(_kernel(distances, length) + noise * np.eye(count), lower=True)
        self.weights = cho_solve((self.factor, True), outputs)
        self.amplitude = np.sqrt((outputs * self.weights).sum(0) / count)  # of most likelihood, for each output
        size = count * float(np.log(self.amplitude + 1e-6).sum())
        self.evidence = -size - outputs.shape[1] * float(np.log(np.diag(self.factor)).sum())


def _kernel(distances: np.ndarray, length: float) -> np.ndarray:
    kernel: np.ndarray = np.exp(-0.5 * (distances / length) ** 2)
    return kernel
