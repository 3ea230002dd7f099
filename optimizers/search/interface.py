"""The interface of every search: ask for trials, tell their losses; no model, and a state of plain arrays."""

from __future__ import annotations

import json
from typing import Protocol, runtime_checkable

import numpy as np


class Search(Protocol):
    """A minimiser of a function of real vectors.

    A search is independent of models. ``state`` is everything needed to continue exactly, pending trials included; a
    class method ``from_state`` restores the search.
    """

    @property
    def best(self) -> tuple[np.ndarray, float]:
        """Return the vector (dim,) of lowest loss so far, and that loss (+inf before the first losses)."""

    @property
    def limits(self) -> np.ndarray | None:
        """Return losses (n,) that the trials must not exceed to have an effect; None if every loss counts."""

    def ask(self) -> np.ndarray:
        """Return trials (n, dim) to evaluate; the same ones until their losses are told."""

    def tell(self, losses: np.ndarray) -> None:
        """Tell the losses (m,) of the first m <= n trials; the other trials are dropped."""

    def state(self) -> dict[str, np.ndarray]:
        """Return plain arrays."""


@runtime_checkable
class AnswerSearch(Search, Protocol):
    """A search that learns from the model's answers to every trial, besides their losses."""

    def tell_answers(self, probs: np.ndarray, losses: np.ndarray) -> None:
        """Tell option probabilities (m, prompts, options) and losses (m,) of the first m <= n trials."""


class Population:
    """The best member of a search that keeps vectors with their losses, and what its trials have to reach."""

    _population: np.ndarray  # (n, dim)
    _losses: np.ndarray  # (n,), +inf for a member without a loss

    @property
    def best(self) -> tuple[np.ndarray, float]:
        """Return the (dim,) member of lowest loss, the first among equals, and that loss (+inf before any)."""
        i = int(np.argmin(self._losses))
        return self._population[i].copy(), float(self._losses[i])

    @property
    def limits(self) -> np.ndarray:
        """Return the (n,) losses of the members, which their trials must not exceed to have an effect."""
        return self._losses.copy()


def checked(losses: np.ndarray, pending: int) -> np.ndarray:
    """Return the losses told for the first of ``pending`` trials as (m,) float64.

    Raises:
        RuntimeError: no trials are pending. ValueError: NaN, another shape, or more losses than trials.
    """
    if not pending:
        raise RuntimeError("no trials are pending: call ask first")
    losses = np.asarray(losses, dtype=np.float64)
    if losses.ndim != 1 or np.isnan(losses).any() or len(losses) > pending:
        raise ValueError("losses must be numbers, at most one a trial")
    return losses


def pack_rng(rng: np.random.Generator) -> np.ndarray:
    """Encode a generator's state as bytes (uint8)."""
    return np.frombuffer(json.dumps(rng.bit_generator.state, default=np.ndarray.tolist).encode(), np.uint8)


def unpack_rng(data: np.ndarray) -> np.random.Generator:
    """Decode the generator of ``pack_rng``; ValueError for anything else."""
    saved = json.loads(data.tobytes())
    kind = getattr(np.random, str(saved["bit_generator"]), None)
    if not (isinstance(kind, type) and issubclass(kind, np.random.BitGenerator)):  # no other call by name
        raise ValueError(f"unknown generator {str(saved['bit_generator'])[:40]!r}")
    rng = np.random.Generator(kind())
    rng.bit_generator.state = saved
    return rng
