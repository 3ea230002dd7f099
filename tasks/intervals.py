"""Intervals of proportions."""

from __future__ import annotations


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's 95 % interval of a share over ``n`` questions (Wilson 1927).

    A mean of fractions varies no more than one of zeros and ones, so that for those it is conservative.
    """
    if n == 0:
        return 0.0, 1.0
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)
