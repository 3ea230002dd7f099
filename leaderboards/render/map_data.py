"""Collect what the site's cultural map shows beside the rows of a board: countries, zones, the projection's error."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ...tasks.countries import name_of
from ...tasks.metrics.cultural_map import caution_of
from ...tasks.metrics.map_editions import projection_of
from ...tasks.metrics.map_projection import ZONES
from ..boards import Board

MEASURE = "cultural_map"


def map_data(boards: Iterable[Board]) -> dict[str, Any]:
    """Return the map of each edition that boards use: its countries as code, name, zone and two coordinates."""
    maps: dict[str, Any] = {}
    for board in boards:
        if board.spec.metadata.measure != MEASURE or board.key.edition in maps:
            continue
        projection = projection_of(board.spec, board.key.edition)[1]
        outermost = sorted(projection.points, key=lambda code: -abs(projection.points[code]).sum())
        countries = [
            [code, name_of(code), _zone(projection.zones.get(code)), *projection.points[code].tolist()]
            for code in outermost
        ]
        world = {"name": "mean of all countries", "at": projection.world.tolist()}
        maps[board.key.edition] = {"countries": countries, "zones": ZONES, "world": world}
        maps[board.key.edition]["note"] = caution_of(projection) or "Points follow from the projection without error."
    return maps


def _zone(name: str | None) -> int | None:
    return None if name is None else ZONES.index(name)
