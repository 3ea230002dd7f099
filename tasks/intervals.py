"""Confidence intervals of means and proportions over sampled units: personas or questions."""

from __future__ import annotations

LEAST_UNITS = 20  # the manual's minimum for a group of respondents; a variance estimate from fewer is unreliable
LEAST_DIFFERING = 5  # units that differ from the majority; docs/statistics.md has the simulation


def wilson(share: float, n: float, z: float = 1.959964) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of a share over ``n`` questions (Wilson 1927).

    The variance of a mean of fractions is at most that of zeros and ones, so the interval is conservative for
    fractions.
    """
    if n == 0:
        return 0.0, 1.0
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)


def wilson_of_mean(share: float, error: float, n: int) -> tuple[float, float]:
    """Compute Wilson's 95 % interval of a mean of fractions with standard error ``error`` over ``n`` units.

    The effective sample size is the one at which zeros and ones have the same variance, times (z / t)^2 because the
    variance is estimated (Korn & Graubard 1998). For zeros and ones the result is slightly wider than Wilson's
    interval. Below 20 units, and where all units are equal, the variance cannot be estimated, and ``n`` is used as it
    is.
    """
    if n < LEAST_UNITS or error <= 0 or not 0 < share < 1:
        return wilson(share, n)
    from scipy.special import ndtri, stdtrit  # on use: loading it is a quarter of a command's start

    narrowing = (ndtri(0.975) / stdtrit(n - 1, 0.975)) ** 2
    return wilson(share, share * (1 - share) / error**2 * narrowing)


def student(mean: float, error: float, n: int) -> tuple[float, float]:
    """Compute Student's 95 % interval of a mean over ``n`` units, two or more, with standard error ``error``."""
    half = _reach(n) * error
    return mean - half, mean + half


def error_of(low: float, high: float, n: int) -> float:
    """Compute the standard error of a mean from its interval by ``student``."""
    return (high - low) / 2 / _reach(n)


def _reach(n: int) -> float:
    """Return the standard errors from the middle of Student's 95 % interval to its ends."""
    from scipy.special import stdtrit

    return float(stdtrit(n - 1, 0.975))
