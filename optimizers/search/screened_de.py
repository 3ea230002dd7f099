"""Differential evolution whose trials are screened by a Gaussian process of the answers (Liu et al. 2014)."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Self

import numpy as np

from .interface import pack_rng, unpack_rng

if TYPE_CHECKING:
    from .answer_model import AnswerModel

Loss = Callable[[np.ndarray], np.ndarray]
"""Compute losses (n,) of option probabilities (n, prompts, options)."""

EVALUATED = 5  # trials of a generation that are evaluated
DRAWS = 32  # of the answers of one trial
LARGEST = 20_000_000  # predicted numbers at once: 160 MB
_LEAST = 1e-9  # probability, before its logarithm
_ARRAYS = ("vectors", "logs", "losses", "trials")


@dataclass(frozen=True)
class Breeding:
    """How trials are bred and screened.

    ``population`` best vectors are parents; F is drawn for each trial between the two ends of ``mutation``;
    ``recombination`` is CR; ``sigma`` is the scale of steps around the best; coordinates stay within ``bound``;
    ``screening`` trials are bred for each that is evaluated.
    """

    population: int
    mutation: tuple[float, float]
    recombination: float
    sigma: float
    bound: float
    screening: int


class ScreenedEvolution:
    """Minimise a loss of answers by evaluating only the most promising of many trials of DE/best/1/bin.

    The scheme of Liu, Zhang & Gielen 2014 (IEEE Trans. Evol. Comput. 18(2):180-192, "GPEME"): parents are the best of
    all vectors evaluated; a Gaussian process orders their trials; the first are evaluated. It is fitted to the answers,
    and trials are ordered by expected improvement over the best loss, averaged over drawn answers. A third of the
    trials are normal steps around the best vector, and a third are drawn as at the start: in a wide space, much of what
    is better is far from it.

    Args:
        start: (n, dim) vectors, the first generation.
        loss: loss of option probabilities.
        rng: the only source of randomness; used, not copied.
    """

    def __init__(self, start: np.ndarray, loss: Loss, breeding: Breeding, *, rng: np.random.Generator) -> None:
        self._loss, self._breeding, self._rng = loss, breeding, rng
        self._trials = np.array(start, np.float64)
        self._vectors = self._trials[:0].copy()
        self._logs, self._losses = np.zeros((0, 0, 0), np.float32), np.zeros(0)

    @property
    def best(self) -> tuple[np.ndarray, float]:
        """Return the vector (dim,) of lowest loss and that loss (+inf before the first)."""
        if not len(self._losses):
            return self._trials[0].copy(), np.inf
        i = int(np.argmin(self._losses))
        return self._vectors[i].copy(), float(self._losses[i])

    @property
    def limits(self) -> None:
        """Return None: the answers of every trial are learned from."""
        return None

    def ask(self) -> np.ndarray:
        """Return (n, dim) trials to evaluate, the start at first; the same ones until their answers are told."""
        if not len(self._trials):
            self._trials = self._screened()
        return self._trials.copy()

    def tell(self, losses: np.ndarray) -> None:
        """Raise TypeError: this search learns from answers (``tell_answers``)."""
        raise TypeError("ScreenedEvolution is told answers, not losses alone: call tell_answers")

    def tell_answers(self, probs: np.ndarray, losses: np.ndarray) -> None:
        """Tell option probabilities (m, prompts, options) and losses (m,) of the first m trials.

        Raises ValueError for a loss that is NaN and RuntimeError if no trials were asked for.
        """
        if not len(self._trials):
            raise RuntimeError("no trials are pending: call ask first")
        if np.isnan(losses).any() or len(losses) > len(self._trials) or len(probs) != len(losses):
            raise ValueError("losses must be numbers, one for each trial's answers")
        logs = np.log(np.maximum(probs, _LEAST)).astype(np.float32)
        self._logs = np.concatenate([self._logs, logs]) if len(self._logs) else logs
        self._vectors = np.concatenate([self._vectors, self._trials[: len(losses)]])
        self._losses = np.concatenate([self._losses, losses])
        self._trials = self._trials[:0]

    def state(self) -> dict[str, np.ndarray]:
        """Return all evaluated vectors with their answers, pending trials, the settings and the generator."""
        arrays = {f"de_{name}": getattr(self, f"_{name}").copy() for name in _ARRAYS}
        settings = np.frombuffer(json.dumps(asdict(self._breeding)).encode(), np.uint8)
        return arrays | {"de_settings": settings, "de_rng": pack_rng(self._rng)}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], loss: Loss) -> Self:
        """Restore the search of ``state()``; ``loss`` is passed again."""
        settings = json.loads(state["de_settings"].tobytes())
        breeding = Breeding(**settings | {"mutation": tuple(settings["mutation"])})
        search = cls(state["de_trials"], loss, breeding, rng=unpack_rng(state["de_rng"]))
        for name in _ARRAYS:
            setattr(search, f"_{name}", np.array(state[f"de_{name}"]))
        return search

    def _screened(self) -> np.ndarray:
        """Return the most promising (n, dim) of many trials, no two of them close to each other."""
        from .answer_model import AnswerModel  # scipy, which no other search loads

        logs = self._logs.reshape(len(self._logs), -1).astype(np.float64)
        answers = AnswerModel(self._vectors, logs)
        trials = self._bred()
        gains = self._gains(answers, trials)
        apart = 0.05 * self._breeding.sigma * trials.shape[1] ** 0.5
        kept: list[int] = []
        for i in np.argsort(-gains, kind="stable"):
            if all(np.linalg.norm(trials[i] - trials[j]) > apart for j in kept):
                kept.append(int(i))
            if len(kept) == EVALUATED:
                break
        return trials[kept]

    def _bred(self) -> np.ndarray:
        """Return trials (n, dim): by DE/best/1/bin from the best vectors, near the best, and drawn; a third each."""
        how, rng = self._breeding, self._rng
        parents = self._vectors[np.argsort(self._losses, kind="stable")[: how.population]]
        count, dim = -(-EVALUATED * how.screening // 3), parents.shape[1]
        first, second = rng.integers(len(parents), size=(2, count))
        mutants = parents[0] + rng.uniform(*how.mutation, (count, 1)) * (parents[first] - parents[second])
        keep = rng.random((count, dim)) >= how.recombination
        keep[np.arange(count), rng.integers(dim, size=count)] = False
        bred = np.where(keep, parents[rng.integers(len(parents), size=count)], mutants)
        scale = how.sigma * rng.choice([0.1, 0.3, 0.6], (count, 1))
        near = parents[0] + scale * rng.standard_normal((count, dim))
        drawn = how.sigma * rng.standard_normal((count, dim))
        return np.concatenate([bred, near, drawn]).clip(-how.bound, how.bound)

    def _gains(self, answers: AnswerModel, trials: np.ndarray) -> np.ndarray:
        """Return the expected improvement (n,) of trials over the best loss; ties go to the lower expected loss."""
        shape, best = self._logs.shape[1:], self._losses.min()
        at_once = max(1, LARGEST // (DRAWS * shape[0] * shape[1]))
        gains = []
        for start in range(0, len(trials), at_once):
            drawn = answers.sample(trials[start : start + at_once], DRAWS, self._rng)
            probs = np.exp(drawn.reshape(-1, *shape))
            probs /= probs.sum(-1, keepdims=True)
            losses = np.asarray(self._loss(probs)).reshape(DRAWS, -1)
            gains.append(np.maximum(best - losses, 0).mean(0) - 1e-6 * losses.mean(0))
        return np.concatenate(gains)
