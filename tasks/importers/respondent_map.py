"""Fit of the cultural map's projection on a survey's respondents, as the World Values Survey Association defines it.

Principal components of ten items over respondents, two factors rotated by varimax (Kaiser 1958), scores of unit
variance; a country's coordinates are its mean scores, rescaled to 1.81 x + 0.038 (survival to self-expression) and
1.61 x - 0.1 (traditional to secular).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..metrics.map_editions import CountryMeans, FittedProjection
from ..metrics.map_projection import AXES, INDICATORS
from .official import officials
from .people import latest, read_people

ANSWERS = (*INDICATORS[:8], "E003", "E004", "A029", "A039", "A040", "A042")
INDICES = ("Y002", "Y003")  # both files may hold them ready made, under these names
CODES = {
    "A008": (1, 4), "A165": (1, 2), "E018": (1, 3), "E025": (1, 3), "F063": (1, 10), "F118": (1, 10), "F120": (1, 10),
    "G006": (1, 4), "E003": (1, 4), "E004": (1, 4), "A029": (0, 2), "A039": (0, 2), "A040": (0, 2), "A042": (0, 2),
    "Y002": (1, 3), "Y003": (-2, 2),
}  # fmt: skip
"""Lowest and highest valid code of each item; all others, the surveys' negative ones among them, are missing."""
RESCALED = {"survival_selfexpression": (1.81, 0.038), "traditional_secular": (1.61, -0.1)}
MARKERS = {"traditional_secular": ("F063", -1), "survival_selfexpression": ("F118", 1)}  # an item and its sign
LEAST = 200  # respondents with all ten items


def indicators(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Compute the ten items (respondents, 10) from columns (respondents,) by the names of trend files; NaN is missing.

    Codes outside ``CODES`` are missing. Trust is 1 or 0. Post-materialism and autonomy are taken from ``Y002`` and
    ``Y003`` where these are valid, the latter with the opposite sign, else from the two choices and the four qualities
    (1 is chosen or mentioned).

    Raises:
        InputError: a column is missing.
    """
    valid = {name: _valid(values, *CODES[name]) for name, values in columns.items() if name in CODES}
    if missing := [name for name in INDICATORS[:8] if name not in valid]:
        raise InputError(
            f"no column {missing[0]!r} ({officials()[missing[0]].named['wave7']} in wave 7). The map needs ten items."
        )
    if "Y003" in valid:
        valid["Y003"] = -valid["Y003"]  # files count independence and determination minus faith and obedience
    for name, parts in (("Y002", ("E003", "E004")), ("Y003", ("A029", "A039", "A040", "A042"))):
        if name not in valid and (lacking := [part for part in parts if part not in valid]):
            raise InputError(f"no column {name!r}, and none {lacking[0]!r} to make it from. The map needs ten items.")
        if all(part in valid for part in parts):
            made = _post_materialism(valid) if name == "Y002" else _autonomy(valid)
            valid[name] = np.where(np.isnan(valid[name]), made, valid[name]) if name in valid else made
    valid["A165"] = 2 - valid["A165"]
    return np.stack([valid[name] for name in INDICATORS], axis=1)


def _valid(values: np.ndarray, low: int, high: int) -> np.ndarray:
    numbers = np.asarray(values, dtype=float)
    return np.where((numbers >= low) & (numbers <= high) & (numbers == np.round(numbers)), numbers, np.nan)


def _post_materialism(valid: Mapping[str, np.ndarray]) -> np.ndarray:
    """Compute 1 (materialist) to 3 (post-materialist) from the first and the second choice of four aims."""
    chosen = [np.where(np.isnan(valid[name]), np.nan, np.isin(valid[name], (2, 4))) for name in ("E003", "E004")]
    return 1 + chosen[0] + chosen[1]


def _autonomy(valid: Mapping[str, np.ndarray]) -> np.ndarray:
    """Compute faith + obedience - independence - determination, each 1 if mentioned: -2 to 2."""
    named = {n: np.where(np.isnan(valid[n]), np.nan, valid[n] == 1) for n in ("A029", "A039", "A040", "A042")}
    autonomy: np.ndarray = named["A040"] + named["A042"] - named["A029"] - named["A039"]
    return autonomy


def fit_projection(items: np.ndarray, country: np.ndarray, weight: np.ndarray) -> FittedProjection:
    """Fit the projection on respondents.

    The components are those of respondents with all ten items; a country's ten means are those of all its valid
    answers. The scores are linear in the items, so a point is a linear function of ten means.

    Args:
        items: (respondents, 10) as ``indicators`` gives them.
        country: (respondents,) two-letter codes, empty for none. weight: (respondents,), zero or less for none.

    Raises:
        InputError: too few respondents, an item that does not vary, or factors that are not the map's.
    """
    kept = (country != "") & (weight > 0) & np.isfinite(weight)
    items, country, weight = items[kept], country[kept], weight[kept]
    whole = ~np.isnan(items).any(1)
    if whole.sum() < LEAST:
        raise InputError(f"{whole.sum()} respondents with all ten items of the map; the fit needs {LEAST}.")
    x, w = items[whole], weight[whole] / weight[whole].sum()
    centre = w @ x
    scale = np.sqrt(w @ (x - centre) ** 2)
    if not scale.all():
        raise InputError(f"{INDICATORS[int(scale.argmin())]}: every respondent gave the same answer. Mend the column.")
    z = (x - centre) / scale
    values, vectors = np.linalg.eigh((z * w[:, None]).T @ z)
    top = values[-2:][::-1]
    vectors = vectors[:, -2:][:, ::-1]
    rotation = varimax(vectors * np.sqrt(top))
    rotation = rotation @ _oriented((vectors * np.sqrt(top)) @ rotation)
    loadings = (vectors * np.sqrt(top)) @ rotation
    factors, shift = np.array([RESCALED[axis] for axis in AXES]).T
    slope = factors[:, None] * ((vectors / np.sqrt(top)) @ rotation).T / scale
    return FittedProjection.model_validate(
        {
            "indicators": INDICATORS,
            "slope": slope.tolist(),
            "offset": (shift - slope @ centre).tolist(),
            "loadings": loadings.tolist(),
            "rotation": rotation.tolist(),
            "explained": ((loadings**2).sum(0) / len(INDICATORS)).tolist(),
            "respondents": int(whole.sum()),
            "countries": _countries(items, country, weight),
        }
    )


def varimax(loadings: np.ndarray) -> np.ndarray:
    """Compute the rotation (2, 2) that maximises the varimax criterion of two factors' loadings (items, 2).

    Rows are normalised by their communality; with two factors the angle has a closed form (Kaiser 1958).
    """
    x, y = (loadings / np.sqrt((loadings**2).sum(1, keepdims=True))).T
    u, v = x**2 - y**2, 2 * x * y
    n = len(loadings)
    top = 2 * (u @ v) - 2 * u.sum() * v.sum() / n
    low = u @ u - v @ v - (u.sum() ** 2 - v.sum() ** 2) / n
    angle = np.arctan2(top, low) / 4
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _oriented(loadings: np.ndarray) -> np.ndarray:
    """Return the matrix (2, 2) that orders two factors as ``AXES`` and gives each the sign of its axis."""
    places = [INDICATORS.index(MARKERS[axis][0]) for axis in AXES]
    first = int(abs(loadings[places[0]]).argmax())
    if int(abs(loadings[places[1]]).argmax()) == first:
        raise InputError("the two factors are not those of the map: God and homosexuality lie on the same one.")
    order = np.eye(2)[:, [first, 1 - first]]
    signs = [np.sign(loadings[place] @ order[:, axis]) * MARKERS[AXES[axis]][1] for axis, place in enumerate(places)]
    return order * np.array(signs)


def _countries(items: np.ndarray, country: np.ndarray, weight: np.ndarray) -> dict[str, CountryMeans]:
    """Compute each country's weighted means of valid answers, for countries that have all ten."""
    found = {}
    for code in sorted(set(country.tolist())):
        here = country == code
        valid = ~np.isnan(items[here])
        sums = weight[here] @ valid
        if (sums > 0).all():
            means = weight[here] @ np.where(valid, items[here], 0) / sums
            found[code] = CountryMeans(means=tuple(means.tolist()), respondents=int(valid.any(1).sum()))
    if len(found) < 2:
        raise InputError(f"{len(found)} countries with all ten items of the map; it needs two.")
    return found


def read_respondents(source: Path) -> FittedProjection:
    """Read the respondents of a survey's file, in the last wave of their country, and fit the projection.

    Raises:
        InputError: not an official file, or as ``fit_projection``; names column and remedy.
    """
    people = read_people(source, [*ANSWERS, *INDICES])
    kept = people.kept & latest(people)
    country = np.array(people.countries)[people.country]
    try:
        items = indicators({name: values[kept] for name, values in people.columns.items()})
        return fit_projection(items, country[kept], people.weight[kept])
    except InputError as error:
        raise InputError(f"{source}: {error}") from None
