"""Differential evolution that adapts itself: L-SHADE (Tanabe & Fukunaga 2014, IEEE CEC, 1658-1665)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import numpy as np

from .interface import Population, checked, pack_rng, unpack_rng

# As published: H = 6 pairs of F and CR in memory, p = 0.11, an archive of 2.6 times the population, at least 4 members.
_MEMORY, _GREEDY, _ARCHIVED, _SPREAD, _SMALLEST = 6, 0.11, 2.6, 0.1, 4
_ARRAYS = ("population", "losses", "trials", "scales", "rates", "archive", "scale_memory", "rate_memory")
_NUMBERS = ("bound", "started", "place", "largest", "begun")


class SuccessHistoryEvolution(Population):
    """Minimise by DE/current-to-pbest/1/bin; F and CR follow those that led to better members, the population shrinks.

    Example:

        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> told = 0
        >>> de = SuccessHistoryEvolution(rng.uniform(-5, 5, (20, 3)), lambda: told / 1500, rng=rng, bound=5)
        >>> while told < 1500:
        ...     trials = de.ask()
        ...     told += len(trials)
        ...     de.tell(((trials - 1.0) ** 2).sum(axis=1))
        >>> bool(de.best[1] < 1e-6)
        True

    Args:
        start: (n, dim) vectors within ``bound``, n >= 4; copied.
        spent: returns the share of the budget spent, 0 to 1; the population, published as 18 a dimension where there
            are 10,000 evaluations a dimension, shrinks linearly to 4 at 1.
        rng: the only source of randomness; used, not copied.
        bound: coordinates stay from ``-bound`` to ``bound``: beyond it they are put between it and the member's.

    Raises ValueError for another start.
    """

    def __init__(
        self, start: np.ndarray, spent: Callable[[], float], *, rng: np.random.Generator, bound: float
    ) -> None:
        x = self._population = np.array(start, np.float64)
        if x.ndim != 2 or len(x) < _SMALLEST or not x.shape[1] or not (abs(x) <= bound).all():
            raise ValueError(f"start must be (n, dim) with n >= {_SMALLEST}, within {bound}; it has shape {x.shape}")
        self._rng, self._bound, self._spent, self._started = rng, float(bound), spent, spent()
        self._losses = np.full(len(x), np.inf)
        self._trials = self._archive = x[:0].copy()
        self._scales = self._rates = np.zeros(0)
        self._scale_memory, self._rate_memory = np.full(_MEMORY, 0.5), np.full(_MEMORY, 0.5)
        self._place, self._largest, self._begun = 0, len(x), False

    def ask(self) -> np.ndarray:
        """Return (n, dim) trials, the start at first; the same ones until their losses are told."""
        if not len(self._trials):
            self._trials = self._breed() if self._begun else self._population.copy()
        return self._trials.copy()

    def tell(self, losses: np.ndarray) -> None:
        """Tell the losses (m,) of the first m trials; the other trials are dropped.

        Raises ValueError for NaN and RuntimeError if no trials were asked for.
        """
        losses = checked(losses, len(self._trials))
        before = self._losses[: len(losses)].copy()
        better = np.flatnonzero(losses < before)
        if self._begun:
            self._archive = np.concatenate([self._archive, self._population[better]])
            self._learn(better, before[better] - losses[better])
        won = np.flatnonzero(losses <= before)
        self._population[won], self._losses[won] = self._trials[won], losses[won]
        self._trials, self._begun = self._trials[:0].copy(), True
        self._shrink()

    def _breed(self) -> np.ndarray:
        """Return trials (n, dim), one a member; draws F and CR, the other members, then the crossover."""
        x, rng, (n, dim) = self._population, self._rng, self._population.shape
        which = rng.integers(_MEMORY, size=n)
        rate = self._rate_memory[which]
        # A memory without a value (below 0: all successful CR were 0) keeps CR at 0.
        self._rates = np.where(rate < 0, 0, rng.normal(rate, _SPREAD)).clip(0, 1)
        self._scales = self._drawn_scales(self._scale_memory[which])
        greedy = np.argsort(self._losses, kind="stable")[: max(2, round(_GREEDY * n))]
        towards = x[rng.choice(greedy, size=n)]
        own = np.arange(n)
        first = (own + rng.integers(1, n, size=n)) % n
        union = np.concatenate([x, self._archive])
        second = np.array(rng.integers(len(union), size=n))
        while (taken := (second == own) | (second == first)).any():
            second[taken] = rng.integers(len(union), size=int(taken.sum()))
        mutants = x + self._scales[:, None] * (towards - x + x[first] - union[second])
        keep = rng.random((n, dim)) > self._rates[:, None]
        keep[own, rng.integers(dim, size=n)] = False
        trials = np.where(keep, x, mutants)
        trials = np.where(trials > self._bound, (self._bound + x) / 2, trials)
        return np.where(trials < -self._bound, (x - self._bound) / 2, trials)

    def _drawn_scales(self, centres: np.ndarray) -> np.ndarray:
        """Draw F (n,) from Cauchy distributions: above 0, at most 1."""
        drawn = np.zeros(len(centres))
        while (left := drawn <= 0).any():
            drawn[left] = centres[left] + _SPREAD * self._rng.standard_cauchy(int(left.sum()))
        return drawn.clip(max=1)

    def _learn(self, better: np.ndarray, gains: np.ndarray) -> None:
        """Renew one place of the memory from the F and CR of the trials that were better than their members."""
        if not len(better):
            return
        weights = gains / gains.sum() if np.isfinite(gains).all() else np.full(len(gains), 1 / len(gains))
        scales, rates = self._scales[better], self._rates[better]
        self._scale_memory[self._place] = (weights * scales**2).sum() / (weights * scales).sum()
        none = self._rate_memory[self._place] < 0 or not rates.any()
        self._rate_memory[self._place] = -1 if none else (weights * rates**2).sum() / (weights * rates).sum()
        self._place = (self._place + 1) % _MEMORY

    def _shrink(self) -> None:
        """Drop the worst members so that the population decreases linearly with the budget, and old archive."""
        done = min(1.0, (self._spent() - self._started) / max(1 - self._started, 1e-9))
        size = round(self._largest + (_SMALLEST - self._largest) * done)
        kept = np.sort(np.argsort(self._losses, kind="stable")[:size])
        self._population, self._losses = self._population[kept], self._losses[kept]
        most = round(_ARCHIVED * size)
        if len(self._archive) > most:
            self._archive = self._archive[self._rng.choice(len(self._archive), most, replace=False)]

    def state(self) -> dict[str, np.ndarray]:
        """Return all arrays and the generator, pending trials included."""
        arrays = {f"shade_{name}": getattr(self, f"_{name}").copy() for name in _ARRAYS}
        numbers = {f"shade_{name}": np.array(getattr(self, f"_{name}")) for name in _NUMBERS}
        return arrays | numbers | {"shade_rng": pack_rng(self._rng)}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], spent: Callable[[], float]) -> Self:
        """Restore the search of ``state()``; ``spent`` is passed again."""
        rng, bound = unpack_rng(state["shade_rng"]), float(state["shade_bound"])
        search = cls(state["shade_population"], spent, rng=rng, bound=bound)
        for name in _ARRAYS:
            setattr(search, f"_{name}", np.array(state[f"shade_{name}"]))
        for name in _NUMBERS:
            setattr(search, f"_{name}", state[f"shade_{name}"].item())
        return search
