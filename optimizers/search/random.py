"""Random search with an ask-tell interface: draws independent of all losses, the baseline for every search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Self

import numpy as np

from .interface import checked, pack_rng, unpack_rng

Draw = Callable[[np.random.Generator, int], np.ndarray]
"""Draw a number of vectors (n, dim) from a generator."""


class RandomDraws:
    """Keep the best of independent draws; draw k does not depend on the number of calls.

    Example:

        >>> import numpy as np
        >>> draw = lambda rng, count: rng.uniform(-5, 5, (count, 1))
        >>> search = RandomDraws(np.zeros((10, 1)), draw, rng=np.random.default_rng(0))
        >>> for _ in range(100):
        ...     search.tell(abs(search.ask() - 1.0)[:, 0])
        >>> bool(search.best[1] < 0.05)
        True

    Args:
        start: (n, dim) vectors, the first generation; later ones have the same number.
        draw: returns (n, dim) vectors from a generator.
        rng: the only source of randomness; used, not copied.
    """

    def __init__(self, start: np.ndarray, draw: Draw, *, rng: np.random.Generator) -> None:
        self._trials: np.ndarray | None = np.array(start)
        self._draw, self._rng, self._batch = draw, rng, len(self._trials)
        self._best, self._loss = self._trials[0].copy(), np.inf

    @property
    def best(self) -> tuple[np.ndarray, float]:
        """Return the (dim,) draw of lowest loss and that loss."""
        return self._best.copy(), self._loss

    @property
    def limits(self) -> np.ndarray:
        """Return the (n,) lowest loss so far, which a draw must improve on."""
        return np.full(self._batch, self._loss)

    def ask(self) -> np.ndarray:
        """Return (n, dim) draws; the same ones until their losses are told."""
        if self._trials is None:
            self._trials = np.array(self._draw(self._rng, self._batch))
        return self._trials.copy()

    def tell(self, losses: np.ndarray) -> None:
        """Tell the losses (m,) of the first m draws. ValueError for NaN, RuntimeError if no draws were asked for."""
        trials = self._trials
        losses = checked(losses, 0 if trials is None else len(trials))
        if trials is not None and len(losses) and losses.min() < self._loss:
            self._best, self._loss = trials[losses.argmin()].copy(), float(losses.min())
        self._trials = None

    def state(self) -> dict[str, np.ndarray]:
        """Return the best draw, the generator and pending draws."""
        pending = np.zeros((0, len(self._best))) if self._trials is None else self._trials.copy()
        kept = {"best": self._best.copy(), "loss": np.float64(self._loss), "batch": np.int64(self._batch)}
        return kept | {"rng": pack_rng(self._rng), "trials": pending}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray], draw: Draw) -> Self:
        """Restore the search of ``state()``; ``draw`` is passed again."""
        search = cls(state["best"][None], draw, rng=unpack_rng(state["rng"]))
        search._best, search._loss = np.array(state["best"]), float(state["loss"])
        search._batch = int(state["batch"])
        search._trials = np.array(state["trials"]) if len(state["trials"]) else None
        return search
