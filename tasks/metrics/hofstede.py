"""The six Hofstede indices of VSM 2013 answers, their distance to published scores, and inverse modelling.

Formulas: Hofstede & Minkov, Values Survey Module 2013 Manual. The masculinity formula has 35 before both brackets; a
published paper prints 25 for the second, which is an error.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from .reference import DIMENSIONS

# index = a (m_p - m_q) + b (m_r - m_s) + C
FORMULAS: dict[str, tuple[int, int, int, int, int, int]] = {
    "pdi": (35, 7, 2, 25, 20, 23),
    "idv": (35, 4, 1, 35, 9, 6),
    "mas": (35, 5, 3, 35, 8, 10),
    "uai": (40, 18, 15, 25, 21, 24),
    "lto": (40, 13, 14, 25, 19, 22),
    "ivr": (35, 12, 11, 40, 17, 16),
}
ITEMS = tuple(f"m{i:02d}" for i in range(1, 25))
NORMS = ("sse", "l2", "l1")
CONSTANTS = ("world", "zero")
COLLAPSED_RANGE = 0.25  # scale points between the lowest and the highest item mean


def weights() -> np.ndarray:
    """Return the matrix (6, 24) of the six formulas over item means m01..m24; each row sums to zero."""
    matrix = np.zeros((len(DIMENSIONS), len(ITEMS)))
    for row, name in enumerate(DIMENSIONS):
        a, p, q, b, r, s = FORMULAS[name]
        for factor, item in ((a, p), (-a, q), (b, r), (-b, s)):
            matrix[row, item - 1] = factor
    return matrix


def terms(error: Any, norm: str) -> Any:
    """Compute each index's term of the distance, (..., 6) of errors (..., 6).

    Absolute value for ``l1``, else square.
    """
    return abs(error) if norm == "l1" else error**2


def total(terms: Any, norm: str) -> Any:
    """Compute the distance (...,) from terms (..., 6): their sum, for ``l2`` its root.

    It is monotonic in every term.
    """
    return terms.sum(-1) ** 0.5 if norm == "l2" else terms.sum(-1)


def distance(error: Any, norm: str) -> Any:
    """Compute the distance (...,) of errors (..., 6).

    ``sse`` sum of squares, ``l2`` its root, ``l1`` sum of absolutes.
    """
    return total(terms(error, norm), norm)


def is_collapsed(item_means: np.ndarray) -> bool:
    """Return whether 24 item means are in effect one answer: all lie within a quarter of a scale step."""
    return bool(np.ptp(item_means) < COLLAPSED_RANGE)


def means_with(index: np.ndarray, constants: np.ndarray) -> np.ndarray:
    """Compute item means (24,) with exactly these indices (6,), as close as possible to the middle of the scale.

    No two indices have an item in common, so the least-norm solution of weights @ (m - 3) = index - C needs no
    inversion. Means are clipped to the scale.
    """
    matrix = weights()
    return np.clip(3 + ((index - constants) / (matrix**2).sum(1)) @ matrix, 1, 5)


def inverse(target: np.ndarray, constants: np.ndarray) -> np.ndarray:
    """Compute the integer answers (24,) whose indices are nearest to ``target``: inverse modelling, by enumeration.

    Each index has four items of its own, so there are only 5^4 combinations per dimension; among equals the answers
    nearest to the middle of the scale are taken.
    """
    grid = np.array(list(itertools.product(range(1, 6), repeat=4)), dtype=float)
    codes = np.full(len(ITEMS), 3, dtype=int)
    for row, name in enumerate(DIMENSIONS):
        a, p, q, b, r, s = FORMULAS[name]
        miss = abs(grid @ np.array([a, -a, b, -b]) + constants[row] - target[row])
        best = grid[np.lexsort((((grid - 3) ** 2).sum(1), miss))[0]]
        codes[[p - 1, q - 1, r - 1, s - 1]] = best
    return codes
