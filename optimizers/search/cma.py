"""CMA-ES (Hansen & Ostermeier 2001) and separable CMA-ES (Ros & Hansen 2008) with an ask-tell interface, by cmaes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from .interface import checked

MOST_TRIALS = 10_000  # a generation in a saved state


class CovarianceAdaptation:
    """Minimise by adapting a Gaussian; on the library's convergence, restart around the best trial.

    The library's state is private, so a search is restored by repeating all calls of ``tell``: no evaluation is
    repeated, and the same library gives the same trials.

    Example:

        >>> import numpy as np
        >>> cma = CovarianceAdaptation(np.zeros(3), sigma=1.0, seed=0)
        >>> for _ in range(60):
        ...     cma.tell(((cma.ask() - 1.0) ** 2).sum(axis=1))
        >>> bool(cma.best[1] < 1e-6)
        True

    Args:
        start: (dim,) mean of the first generation.
        sigma: its standard deviation in every coordinate, above 0.
        seed: of the library's generator.
        population: trials a generation; None for the library's 4 + 3 ln dim.
        separable: adapt variances only, for hundreds of dimensions and more.
    """

    def __init__(
        self, start: np.ndarray, *, sigma: float, seed: int, population: int | None = None, separable: bool = False
    ) -> None:
        self._start = np.array(start, dtype=np.float64)
        if self._start.ndim != 1 or not len(self._start) or not np.isfinite(self._start).all() or not sigma > 0:
            raise ValueError("start must be a finite vector and sigma above 0")
        self._settings: dict[str, Any] = {
            "sigma": sigma,
            "seed": seed,
            "population": population,
            "separable": separable,
        }
        self._told: list[np.ndarray] = []
        self._best, self._loss = self._start.copy(), np.inf
        self._restarts = 0
        self._begin(self._start)

    def _begin(self, mean: np.ndarray) -> None:
        from cmaes import CMA, SepCMA

        kind = SepCMA if self._settings["separable"] else CMA
        options: dict[str, Any] = {"sigma": self._settings["sigma"], "seed": self._settings["seed"] + self._restarts}
        self._cma = kind(mean=mean.copy(), population_size=self._settings["population"], **options)
        self._trials = np.zeros((0, len(mean)))

    @property
    def best(self) -> tuple[np.ndarray, float]:
        """Return the (dim,) trial of lowest loss and that loss."""
        return self._best.copy(), self._loss

    @property
    def limits(self) -> None:
        """Return None: the library ranks every trial."""
        return None

    def ask(self) -> np.ndarray:
        """Return (n, dim) trials; the same ones until their losses are told."""
        if not len(self._trials):
            self._trials = np.stack([self._cma.ask() for _ in range(self._cma.population_size)])
        return self._trials.copy()

    def tell(self, losses: np.ndarray) -> None:
        """Tell the losses (m,) of the first m trials. Fewer than n end the search: the library needs whole generations.

        Raises ValueError for NaN and RuntimeError if no trials were asked for.
        """
        losses = checked(losses, len(self._trials))
        self._told.append(losses)
        if len(losses) and losses.min() < self._loss:
            self._best, self._loss = self._trials[losses.argmin()].copy(), float(losses.min())
        if len(losses) == len(self._trials):
            finite = np.nan_to_num(losses, posinf=np.finfo(np.float64).max / 1e10)
            self._cma.tell(list(zip(self._trials, finite.tolist(), strict=True)))
            if self._cma.should_stop():
                self._restarts += 1
                self._begin(self._best)
        self._trials = np.zeros((0, len(self._start)))

    def state(self) -> dict[str, np.ndarray]:
        """Return the settings and all losses."""
        sizes = np.array([len(losses) for losses in self._told], dtype=np.int64)
        told = np.concatenate(self._told) if self._told else np.zeros(0)
        settings = {f"cma_{key}": np.array(-1 if value is None else value) for key, value in self._settings.items()}
        return settings | {"cma_start": self._start.copy(), "cma_told": told, "cma_sizes": sizes}

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Restore a search by telling all losses again; ValueError for an invalid state."""
        population, sizes, told = int(state["cma_population"]), state["cma_sizes"], state["cma_told"]
        fits = told.ndim == sizes.ndim == 1 and sizes.dtype == np.int64
        if not fits or (sizes < 0).any() or sizes.sum() != len(told):
            raise ValueError("the losses and the sizes of generations do not match")
        if population != -1 and not 2 <= population <= MOST_TRIALS:
            raise ValueError(f"invalid population {population:.3g}")
        search = cls(
            state["cma_start"],
            sigma=float(state["cma_sigma"]),
            seed=int(state["cma_seed"]),
            population=None if population < 0 else population,
            separable=bool(state["cma_separable"]),
        )
        for losses in np.split(told, np.cumsum(sizes)[:-1]) if len(sizes) else ():
            search.ask()
            search.tell(losses)
        return search
