"""Editions of the map's projection: the shipped one, and those that users fit on a survey's respondents."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field, model_validator

from ...errors import InputError, UsageError, did_you_mean
from ..imported import imported
from ..reading import read_yaml
from ..schema import Strict
from ..spec import TaskSpec, parse
from .map_projection import INDICATORS, Projection, load_projection

SUFFIX = ".yaml"

Pair = tuple[float, float]
Ten = Annotated[tuple[float, ...], Field(min_length=10, max_length=10)]


class CountryMeans(Strict):
    """A country's ten weighted means, and its number of respondents with an answer to any of the ten items."""

    means: Ten
    respondents: int = Field(ge=1)


class FittedProjection(Strict):
    """A projection fitted on respondents: varimax-rotated loadings, and the coordinates' slope and offset.

    ``loadings`` (10, 2) and ``rotation`` (2, 2) are kept to be read; coordinates need ``slope`` and ``offset`` only.
    """

    indicators: tuple[str, ...]
    slope: tuple[Ten, Ten]
    offset: Pair
    loadings: tuple[Pair, ...]
    rotation: tuple[Pair, Pair]
    explained: Pair
    respondents: int
    countries: dict[str, CountryMeans] = Field(min_length=2)

    @model_validator(mode="after")
    def _known(self) -> FittedProjection:
        if self.indicators != INDICATORS:
            raise ValueError(f"indicators: expected {', '.join(INDICATORS)}")
        return self

    def projection(self, zones: dict[str, str]) -> Projection:
        """Build the projection; its coordinates are what the map is defined by, so that it has no error."""
        slope, offset = np.array(self.slope), np.array(self.offset)
        means = {code: np.array(row.means) for code, row in self.countries.items()}
        points = {code: slope @ row + offset for code, row in means.items()}
        size = len(INDICATORS)
        known = {code: zones[code] for code in points if code in zones}
        return Projection(slope, offset, np.zeros(2), None, np.zeros((size, size)), points, known, means)


def projection_of(spec: TaskSpec, edition: str | None) -> tuple[str, Projection]:
    """Return the name and the projection of an edition, or of the default one.

    Raises:
        UsageError: no such edition. InputError: a malformed file; names field and remedy.
    """
    reference = spec.metadata.reference
    if reference is None or reference.file is None:
        raise InputError(f"{spec.path}: metadata.reference: missing. This measure compares with points of countries.")
    shipped = load_projection(spec.folder / reference.file)
    name = reference.default_edition if edition is None else edition
    if name in reference.editions:
        return name, shipped
    own = imported(spec.folder.name, SUFFIX)
    if name not in own:
        known = (*reference.editions, *own)
        hint = did_you_mean(name, known)
        raise UsageError(
            f"`edition` {name!r}: {spec.name} has {', '.join(known)}.{hint} `culteval data import iw-map` adds some."
        )
    return name, parse(FittedProjection, read_yaml(own[name]), own[name]).projection(dict(shipped.zones))
