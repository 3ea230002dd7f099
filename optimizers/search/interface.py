"""What every search is: ask for trials, tell their losses; numpy only, its state plain arrays."""

from __future__ import annotations

import json
from typing import Protocol

import numpy as np


class Search(Protocol):
    """Minimises a function of real vectors.

    A search knows nothing of models. ``state`` is all that is needed to go on exactly, pending trials included; a class
    method ``from_state`` makes the search of it.
    """

    @property
    def best(self) -> tuple[np.ndarray, float]:
        """The vector (dim,) of lowest loss told so far, and that loss (+inf before any was told)."""

    @property
    def limits(self) -> np.ndarray | None:
        """Losses (n,) that the trials must not exceed to change anything; None where every loss counts."""

    def ask(self) -> np.ndarray:
        """Trials (n, dim) to evaluate; the same ones until they are told."""

    def tell(self, losses: np.ndarray) -> None:
        """Losses (m,) of the first m <= n trials; the other trials are dropped."""

    def state(self) -> dict[str, np.ndarray]:
        """Plain arrays."""


def pack_rng(rng: np.random.Generator) -> np.ndarray:
    """A generator's state as bytes (uint8)."""
    return np.frombuffer(json.dumps(rng.bit_generator.state, default=np.ndarray.tolist).encode(), np.uint8)


def unpack_rng(data: np.ndarray) -> np.random.Generator:
    """The generator of ``pack_rng``; ValueError for anything else."""
    saved = json.loads(data.tobytes())
    kind = getattr(np.random, str(saved["bit_generator"]), None)
    if not (isinstance(kind, type) and issubclass(kind, np.random.BitGenerator)):  # a name in a file calls nothing else
        raise ValueError(f"no generator {str(saved['bit_generator'])[:40]!r}")
    rng = np.random.Generator(kind())
    rng.bit_generator.state = saved
    return rng
