"""The cultural map of a board: its rows as marked points, and what the site shows beside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ...harness.report.map_figure import Mark, draw_map, located
from ...harness.report.tables import headline_of
from ...tasks.countries import name_of
from ...tasks.metrics.cultural_map import caution_of
from ...tasks.metrics.map_editions import projection_of
from ...tasks.metrics.map_projection import ZONES
from ..boards import Board, Standing
from .tables import country_title

MEASURE, UNALIGNED = "cultural_map", "naive"
WORLD = "mean of all countries"


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
        world = {"name": WORLD, "at": projection.world.tolist()}
        maps[board.key.edition] = {"countries": countries, "zones": ZONES, "world": world}
        maps[board.key.edition]["note"] = caution_of(projection) or "points follow from the projection without error"
    return maps


def _zone(name: str | None) -> int | None:
    return None if name is None else ZONES.index(name)


def draw_board_map(axes: Any, board: Board, shown: Sequence[Standing]) -> None:
    """Draw some rows of a board on the cultural map, with the mean of all countries and the random-prefix controls."""
    projection = projection_of(board.spec, board.key.edition)[1]
    scoring = headline_of(board.spec).scoring
    at = {one.entry.name: located(one.row.scores, scoring, "heldout") for one in shown}
    bare = {_model(one): at[one.entry.name] for one in shown if _is_bare(one)}
    several, marks = len({_model(one) for one in shown}) > 1, list[Mark]()
    for one in sorted(shown, key=lambda one: not _is_bare(one)):
        found, start = at[one.entry.name], bare.get(_model(one))
        if found is None:
            continue
        name = "unaligned" if _is_bare(one) else one.row.aligner
        name += f", {one.entry.manifest.model.name}" if several else ""
        origin = start[0] if start and not _is_bare(one) else None
        marks.append(Mark(name, *found, "unaligned" if _is_bare(one) else "aligned", origin))
    for row in board.baselines:
        if row.spread and (found := located(row.scores, scoring, "heldout")):
            marks.append(Mark(row.name, *found, "null"))
    secular, expression = projection.world.tolist()
    marks.append(Mark(WORLD, (secular, expression), (0.0, 0.0), "null"))
    note = "\n".join(
        filter(None, (f"{scoring}, held out; ellipse: 95 % region of personas and projection", board.caution))
    )
    draw_map(axes, projection, marks, country_title(board), note, [board.key.country])


def _is_bare(one: Standing) -> bool:
    return one.entry.manifest.aligner.name == UNALIGNED


def _model(one: Standing) -> tuple[str, str]:
    return one.entry.manifest.model.name, one.entry.manifest.model.dtype
