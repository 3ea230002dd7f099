"""The Inglehart-Welzel cultural map: a projection of ten item means onto its two axes, and the points of countries.

The shipped projection is a ridge regression of the World Values Survey Association's published coordinates on the ten
means of the countries for which they are known. Its error is that of countries left out of the fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..reading import read_csv

AXES = ("traditional_secular", "survival_selfexpression")
INDICATORS = ("A008", "A165", "E018", "E025", "F063", "F118", "F120", "G006", "Y002", "Y003")
ZONES = (
    "African-Islamic", "Latin America", "West & South Asia", "Orthodox Europe", "Confucian", "Catholic Europe",
    "Protestant Europe", "English-Speaking",
)  # fmt: skip
RIDGE = 2.0  # between 1 and 3 the error of countries left out hardly changes


@dataclass(frozen=True, eq=False)
class Projection:
    """A linear projection of ten item means, in the order of ``INDICATORS``, and countries on its map.

    Attributes:
        slope: (2, 10), offset: (2,), of the coordinates in the order of ``AXES``.
        error: (2,) root mean square error in map units, countries left out; zero for one fitted on respondents.
        r2: (2,) explained variance of the same; None for a projection fitted on respondents.
        leverage: (10, 10) of standardised means, by which the error grows away from the fitted countries.
        points: coordinates (2,) by country; zones: the cultural zone by country, where it has one.
        means: the ten means by country, where they are known.
    """

    slope: np.ndarray
    offset: np.ndarray
    error: np.ndarray
    r2: np.ndarray | None
    leverage: np.ndarray
    points: Mapping[str, np.ndarray]
    zones: Mapping[str, str]
    means: Mapping[str, np.ndarray]

    def coordinates(self, means: np.ndarray) -> np.ndarray:
        """Compute coordinates (..., 2) from ten means (..., 10)."""
        located: np.ndarray = means @ self.slope.T + self.offset
        return located

    def standard_error(self, means: np.ndarray) -> np.ndarray:
        """Compute the standard error (2,) of the coordinates of ten means (10,), which grows outside the fitted range.

        As for a prediction by regression: the residual's deviation times the root of 1 + leverage.
        """
        centre, scale = self._standard
        z = (means - centre) / scale
        wider: np.ndarray = self.error * np.sqrt(1 + z @ self.leverage @ z)
        return wider

    @property
    def world(self) -> np.ndarray:
        """Return the mean point (2,) of all countries."""
        mean: np.ndarray = np.mean(list(self.points.values()), axis=0)
        return mean

    def nearest(self, point: np.ndarray) -> dict[str, float]:
        """Return the distance of a point to every country in map units, the nearest first."""
        reach = np.linalg.norm(np.array(list(self.points.values())) - point, axis=1)
        return dict(sorted(zip(self.points, reach.tolist(), strict=True), key=lambda pair: pair[1]))

    def zone(self, point: np.ndarray) -> str:
        """Return the cultural zone whose mean point is the nearest."""
        return min(self._zone_means, key=lambda zone: float(np.linalg.norm(self._zone_means[zone] - point)))

    @cached_property
    def _zone_means(self) -> dict[str, np.ndarray]:
        members = {zone: [self.points[code] for code in self.zones if self.zones[code] == zone] for zone in ZONES}
        return {zone: np.mean(points, axis=0) for zone, points in members.items() if points}

    def means_at(self, point: np.ndarray) -> np.ndarray:
        """Compute ten means (10,) whose coordinates are a point (2,).

        They are the means that countries there have on average, a regression on the coordinates, moved by the least
        number of standard deviations that brings them exactly to the point.
        """
        centre, scale = self._standard
        known = np.array([self.points[code] for code in self.means])
        z = (np.array(list(self.means.values())) - centre) / scale
        usual = np.linalg.lstsq(known - known.mean(0), z, rcond=None)[0]
        start = centre + scale * ((point - known.mean(0)) @ usual)
        moved: np.ndarray = start + scale * (np.linalg.pinv(self.slope * scale) @ (point - self.coordinates(start)))
        return moved

    @cached_property
    def _standard(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation (10,) of the countries' means."""
        return standard(np.array(list(self.means.values())))


def standard(table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and sample standard deviation of each column."""
    return table.mean(0), table.std(0, ddof=1)


def load_projection(path: Path) -> Projection:
    """Read ``countries.csv`` and fit the projection on the countries whose ten means are known.

    Raises:
        InputError: a malformed file; names line, column and remedy.
    """
    try:
        return _load(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


@lru_cache(maxsize=4)
def _load(path: Path, changed: int) -> Projection:
    points, zones, means = {}, {}, {}
    columns = ("iso2", "zone", *AXES, *INDICATORS)
    for line, row in enumerate(read_csv(path, columns), start=2):
        code = row["iso2"]
        if row["zone"] not in ZONES or code in points:
            raise InputError(f"{path}:{line}: {code!r}: there twice, or in an unknown zone {row['zone']!r}.")
        points[code], zones[code] = _numbers(row, AXES, f"{path}:{line}"), row["zone"]
        if row[INDICATORS[0]]:
            means[code] = _numbers(row, INDICATORS, f"{path}:{line}")
    if len(means) <= len(INDICATORS):
        raise InputError(f"{path}: {len(means)} countries with ten means; the projection needs more than ten.")
    x, y = np.array(list(means.values())), np.array([points[code] for code in means])
    slope, offset = ridge(x, y)
    error, r2 = left_out(x, y)
    return Projection(slope, offset, error, r2, _leverage(x), points, zones, means)


def _numbers(row: Mapping[str, str], names: tuple[str, ...], where: str) -> np.ndarray:
    try:
        values = np.array([float(row[name]) for name in names])
    except ValueError:
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise InputError(f"{where}: {', '.join(names)}: a cell is missing or not a finite number. Correct this line.")
    return values


def ridge(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit coordinates (countries, 2) to standardised means (countries, 10): slope (2, 10) and offset (2,)."""
    centre, scale = standard(x)
    z = (x - centre) / scale
    beta = np.linalg.solve(z.T @ z + RIDGE * np.eye(z.shape[1]), z.T @ (y - y.mean(0)))
    slope = beta.T / scale
    return slope, y.mean(0) - slope @ centre


def left_out(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute root mean square error and explained variance (2,) of a ridge, each country left out in turn."""
    residual = np.empty_like(y)
    for i in range(len(x)):
        slope, offset = ridge(np.delete(x, i, 0), np.delete(y, i, 0))
        residual[i] = y[i] - (slope @ x[i] + offset)
    return np.sqrt((residual**2).mean(0)), 1 - (residual**2).sum(0) / ((y - y.mean(0)) ** 2).sum(0)


def _leverage(x: np.ndarray) -> np.ndarray:
    """Return the matrix (10, 10) whose quadratic form in standardised means is their leverage in the ridge."""
    centre, scale = standard(x)
    z = (x - centre) / scale
    inverse = np.linalg.inv(z.T @ z + RIDGE * np.eye(z.shape[1]))
    matrix: np.ndarray = inverse @ (z.T @ z) @ inverse
    return matrix
