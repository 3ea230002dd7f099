"""Differential evolution (Storn & Price 1997, J. Global Optimization 11:341-359) with an ask-tell interface."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from .interface import Population, pack_rng, unpack_rng

_MIN_MEMBERS = {"rand1bin": 4, "best1bin": 3}  # so that r1, r2, r3 (r2, r3) can differ from one another and from i


class DifferentialEvolution(Population):
    """Minimise a function of ``dim`` real coordinates by DE/rand/1/bin or DE/best/1/bin.

    Example:

        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> de = DifferentialEvolution(rng.uniform(-5, 5, (20, 3)), rng=rng, bounds=(-5, 5))
        >>> for _ in range(60):
        ...     trials = de.ask()
        ...     de.tell(((trials - 1.0) ** 2).sum(axis=1))
        >>> vector, loss = de.best
        >>> bool(loss < 1e-6), vector.round(2).tolist()
        (True, [1.0, 1.0, 1.0])

    Args:
        start: (n, dim) float32 or float64, finite and within ``bounds``; copied, its dtype is kept throughout.
        rng: The only source of randomness; used, not copied.
        strategy: ``rand1bin`` (n >= 4) or ``best1bin`` (n >= 3).
        mutation: F in [0, 2], or (low, high) to draw one F a generation uniformly (dither).
        recombination: CR in [0, 1], the chance that a coordinate comes from the mutant.
        bounds: None, or (low, high), each a scalar or (dim,), rounded to the dtype of ``start``. Trial coordinates
            beyond a bound are reflected about it, then clipped.

    Attribute ``generation`` counts the generations told: 0 while the start population has no losses.
    Raises ValueError where ``start`` or a setting is not as above.
    """

    def __init__(
        self,
        start: np.ndarray,
        *,
        rng: np.random.Generator,
        strategy: str = "rand1bin",
        mutation: float | tuple[float, float] = 0.5,
        recombination: float = 0.9,
        bounds: tuple[Any, Any] | None = None,
    ) -> None:
        x = self._population = np.array(start)
        if x.ndim != 2 or x.dtype not in (np.float32, np.float64) or not np.isfinite(x).all():
            raise ValueError(f"start must be finite, (n, dim), float32 or float64; it is {x.dtype} of shape {x.shape}")
        if strategy not in _MIN_MEMBERS:
            raise ValueError(f"strategy must be one of {', '.join(_MIN_MEMBERS)}, not {strategy!r}")
        if len(x) < _MIN_MEMBERS[strategy] or x.shape[1] < 1:
            raise ValueError(f"{strategy} needs n >= {_MIN_MEMBERS[strategy]} and dim >= 1; start has shape {x.shape}")
        scale = np.array([mutation, mutation] if np.ndim(mutation) == 0 else mutation, dtype=float)
        if scale.shape != (2,) or not 0 <= scale[0] <= scale[1] <= 2:
            raise ValueError(f"mutation must be a number in [0, 2] or (low, high) in [0, 2], not {mutation!r}")
        if not 0 <= recombination <= 1:
            raise ValueError(f"recombination must be in [0, 1], not {recombination!r}")
        self._rng, self._strategy = rng, strategy
        self._mutation, self._recombination = (float(scale[0]), float(scale[1])), float(recombination)
        self._bounds = x[:0].copy() if bounds is None else self._checked_bounds(bounds)
        self._losses = np.full(len(x), np.inf)
        self._trials = x[:0].copy()  # empty: none are pending
        self.generation = 0

    @property
    def population(self) -> np.ndarray:
        """Return an (n, dim) copy of the members, in the dtype of ``start``."""
        return self._population.copy()

    @property
    def losses(self) -> np.ndarray:
        """Return an (n,) float64 copy of the members' losses; +inf for a member without a loss."""
        return self._losses.copy()

    def ask(self) -> np.ndarray:
        """Return (n, dim) trials to evaluate, the start population at first.

        The same ones until their losses are told.
        """
        if not len(self._trials):
            self._trials = self._breed() if self.generation else self._population.copy()
        return self._trials.copy()

    def tell(self, losses: np.ndarray) -> None:
        """End the generation with ``losses``, (m,) of the first m <= n trials; the other trials are dropped.

        Raises ValueError for a wrong shape, NaN or -inf (+inf is allowed, as bad) and RuntimeError if no trials were
        asked for; both leave the state unchanged.
        """
        if not len(self._trials):
            raise RuntimeError("no trials are pending: call ask first")
        losses = np.asarray(losses, np.float64)
        if losses.ndim != 1 or len(losses) > len(self._losses):
            raise ValueError(f"losses must have shape (m,) with m <= {len(self._losses)}, not {losses.shape}")
        if not (losses > -np.inf).all():
            i = int(np.argmin(losses > -np.inf))
            raise ValueError(f"losses must be numbers or +inf, but that of trial {i} is {losses[i]}")
        # Selection (p. 345, unnumbered): u_i,G+1 replaces x_i,G when it is no worse. The paper asks for strictly
        # better; accepting ties lets the population drift over the plateaus of a stepwise loss.
        won = np.flatnonzero(losses <= self._losses[: len(losses)])
        self._population[won] = self._trials[won]
        self._losses[won] = losses[won]
        self._trials = self._trials[:0].copy()
        self.generation += 1

    def state(self) -> dict[str, np.ndarray]:
        """Return all that ``from_state`` needs, pending trials included; ``np.savez`` saves it without pickle."""
        settings = {"strategy": self._strategy, "mutation": self._mutation, "recombination": self._recombination}
        state = {"settings": np.frombuffer(json.dumps(settings).encode(), np.uint8), "rng": pack_rng(self._rng)}
        for key in ("population", "losses", "trials", "bounds"):
            state[key] = getattr(self, f"_{key}").copy()
        return {**state, "generation": np.array(self.generation)}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Return the search of ``state()``, settings included, with its own generator; KeyError without an array."""
        rng, settings = unpack_rng(state["rng"]), json.loads(state["settings"].tobytes())
        de = cls(state["population"], rng=rng, bounds=tuple(state["bounds"]) or None, **settings)
        de._losses, de._trials = np.array(state["losses"]), np.array(state["trials"])
        de.generation = int(state["generation"])
        return de

    def _breed(self) -> np.ndarray:
        """Return (n, dim) trials u_i,G+1, one a member; draws F, then the indices, then the crossover."""
        x, (n, dim) = self._population, self._population.shape
        scale = self._rng.uniform(*self._mutation)
        keys = self._rng.random((n, n))
        np.fill_diagonal(keys, np.inf)  # each row's order is a random permutation with i itself last
        r2, r3, r1 = np.argsort(keys, axis=1)[:, :3].T
        # Eq. 2: v_i,G+1 = x_r1,G + F (x_r2,G - x_r3,G); DE/best/1 (notation of p. 345) has x_best,G for x_r1,G.
        trials = x[r2]
        trials -= x[r3]
        trials *= scale
        trials += x[r1] if self._strategy == "rand1bin" else x[np.argmin(self._losses)]
        # Eqs. 3 and 4: u_ji,G+1 = v_ji,G+1 if randb(j) <= CR or j = rnbr(i), else x_ji,G. randb(j) is drawn from
        # [0, 1) here, so `<` makes CR exactly the chance, 0 and 1 included.
        keep = self._rng.random((n, dim), dtype=x.dtype) >= self._recombination
        keep[np.arange(n), self._rng.integers(dim, size=n)] = False
        np.copyto(trials, x, where=keep)
        if len(self._bounds):
            low, high = self._bounds
            back = np.where(trials < low, low + (low - trials), high - (trials - high))  # reflected once
            trials = np.where((trials < low) | (trials > high), back, trials).clip(low, high)
        return trials

    def _checked_bounds(self, bounds: tuple[Any, Any]) -> np.ndarray:
        """Return ``bounds`` as (2, dim) in the dtype of the population, or raise ValueError."""
        dim, dtype = self._population.shape[1], self._population.dtype
        if len(bounds) != 2 or any(np.shape(bound) not in ((), (dim,)) for bound in bounds):
            raise ValueError(f"bounds must be (low, high), each a scalar or of shape ({dim},)")
        low, high = checked = np.stack([np.broadcast_to(np.asarray(bound, dtype), dim) for bound in bounds])
        outside = ~((low <= self._population) & (self._population <= high))
        if outside.any():
            raise ValueError(f"bounds must contain start, but {outside.sum()} of its coordinates lie outside: clip it")
        return checked
