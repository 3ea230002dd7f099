"""A country's culture in words, from figures: Hofstede's six dimensions and the two axes of the values map.

The axes are those of Inglehart and Welzel (2005): traditional against secular-rational values, survival against
self-expression values. ``values_map.csv`` has our own estimate of them for twelve countries: means of the z-scores of
their ten indicators in the marginals of WVS wave 7 (Q8, Q14, Q15, Q17, Q45, Q164, Q184, Q254; Q46, Q57, Q154, Q155,
Q182, Q209). They describe groups, and compare only these countries.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from ...tasks.countries import name_of
from ...tasks.metrics.reference import DIMENSIONS, Scores
from ...tasks.spec import read_yaml

CUTS = (-1.0, -1 / 3, 1 / 3, 1.0)  # z-scores between the five levels
AXES = ("secular", "self_expression")
_HERE = Path(__file__).parent


def level(z: float) -> int:
    """Return the level 0 (lowest) to 4 of a z-score."""
    return int(np.searchsorted(CUTS, z, side="right"))


def values_map() -> dict[str, np.ndarray]:
    """Return the two axes (2,) in z-scores by country code."""
    with (_HERE / "values_map.csv").open(encoding="utf-8") as file:
        return {row["country"]: np.array([float(row[axis]) for axis in AXES]) for row in csv.DictReader(file)}


def in_words(scores: Scores, code: str) -> str:
    """Describe a country's culture in a sentence; the values map is left out if it has no figures of the country.

    Raises:
        UsageError: no Hofstede scores for the country.
    """
    words = read_yaml(_HERE / "culture.yaml")
    every = np.stack([scores.rows[name] for name in scores.complete])
    z = (scores.target(code) - every.mean(0)) / every.std(0)
    traits = [words["hofstede"][name][level(value)] for name, value in zip(DIMENSIONS, z, strict=True)]
    text = f"The culture of {name_of(code)} is {_listed(traits)}."
    if (place := values_map().get(code)) is not None:
        axes = [words["values_map"][axis][level(value)] for axis, value in zip(AXES, place, strict=True)]
        text += f" People there are {_listed(axes)}."
    return text


def _listed(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"
