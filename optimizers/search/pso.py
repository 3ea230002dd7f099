"""Particle swarm optimisation (Kennedy & Eberhart 1995) with Clerc and Kennedy's constriction (2002)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np

from .interface import Population, checked, pack_rng, unpack_rng

# Clerc & Kennedy 2002, IEEE Trans. Evol. Comput. 6:58-73: phi = 4.1 gives chi = 0.7298 and both weights chi * 2.05.
INERTIA, COGNITIVE, SOCIAL = 0.7298, 1.49618, 1.49618
_ARRAYS = ("position", "velocity", "population", "losses", "trials")


class ParticleSwarm(Population):
    """Minimise with particles that move towards their own best position and the swarm's.

    Example:

        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> swarm = ParticleSwarm(rng.uniform(-5, 5, (20, 3)), rng=rng)
        >>> for _ in range(120):
        ...     swarm.tell(((swarm.ask() - 1.0) ** 2).sum(axis=1))
        >>> bool(swarm.best[1] < 1e-6)
        True

    Args:
        start: (n, dim) positions, finite, n >= 2; copied.
        rng: the only source of randomness; used, not copied.
    """

    def __init__(self, start: np.ndarray, *, rng: np.random.Generator) -> None:
        self._position = np.array(start, dtype=np.float64)
        if self._position.ndim != 2 or len(self._position) < 2 or not np.isfinite(self._position).all():
            raise ValueError(f"start must be finite, (n, dim) with n >= 2; it has shape {np.shape(start)}")
        self._rng = rng
        self._velocity = np.zeros_like(self._position)
        self._population = self._position.copy()  # the best position of each particle
        self._losses = np.full(len(self._position), np.inf)
        self._trials = self._position[:0].copy()
        self._begun = False

    def ask(self) -> np.ndarray:
        """Return (n, dim) positions, the start at first; the same ones until their losses are told."""
        if not len(self._trials):
            if self._begun:
                self._move()
            self._trials = self._position.copy()
        return self._trials.copy()

    def _move(self) -> None:
        shape = self._position.shape
        to_own = self._rng.random(shape) * (self._population - self._position)
        to_best = self._rng.random(shape) * (self.best[0] - self._position)
        self._velocity = INERTIA * self._velocity + COGNITIVE * to_own + SOCIAL * to_best
        self._position = self._position + self._velocity

    def tell(self, losses: np.ndarray) -> None:
        """Tell the losses (m,) of the first m positions.

        Raises ValueError for NaN and RuntimeError if no positions were asked for.
        """
        losses = checked(losses, len(self._trials))
        better = np.flatnonzero(losses < self._losses[: len(losses)])
        self._population[better], self._losses[better] = self._trials[better], losses[better]
        self._trials = self._trials[:0].copy()
        self._begun = True

    def state(self) -> dict[str, np.ndarray]:
        """Return all arrays and the generator."""
        arrays = {f"pso_{name}": getattr(self, f"_{name}").copy() for name in _ARRAYS}
        return arrays | {"pso_rng": pack_rng(self._rng), "pso_begun": np.array(self._begun)}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Restore the swarm of ``state()``."""
        swarm = cls(state["pso_position"], rng=unpack_rng(state["pso_rng"]))
        for name in _ARRAYS:
            setattr(swarm, f"_{name}", np.array(state[f"pso_{name}"]))
        swarm._begun = bool(state["pso_begun"])
        return swarm
