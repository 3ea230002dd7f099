"""Draw a board as a figure: a dot for each row, its interval or seed range, and the baselines; or the cultural map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...harness.report import map_figure
from ...harness.report.plots import drawing
from ...harness.report.tables import headline_of
from ...tasks.glossary import label
from ..boards import Board, Standing
from .map_data import MEASURE, draw_board_map
from .tables import country_title

MOST_ROWS = 40
LETTER = 0.011  # width of a letter as a share of the axes
INK, ACCENT, MUTED = "#1d2126", "#0b62a8", "#767d86"


def write(path: Path, board: Board) -> int:
    """Write a PNG or SVG of the best rows of a board; return the number of omitted rows. Reproducible bytes."""
    with drawing(path, *size(board)) as axes:
        draw(axes, board)
    return max(0, len(_rated(board)) - MOST_ROWS)


def size(board: Board) -> tuple[float, float]:
    """Return width and height in inches."""
    if board.spec.metadata.measure == MEASURE:
        return map_figure.SIZE
    return 6.8, 1.3 + 0.27 * min(MOST_ROWS, len(_rated(board)))


def _rated(board: Board) -> list[Standing]:
    return [standing for standing in board.standings if standing.rank is not None]


def draw(axes: Any, board: Board) -> None:
    """Draw the best rows of a board on axes of ``size``."""
    shown = _rated(board)[:MOST_ROWS]
    if board.spec.metadata.measure == MEASURE:
        draw_board_map(axes, board, shown)
    else:
        _draw_rows(axes, board, shown)


def _draw_rows(axes: Any, board: Board, shown: Sequence[Standing]) -> None:
    column = headline_of(board.spec)
    baselines: dict[str, list[str]] = {}  # by value: equal baselines share a line
    for row in board.baselines:
        if (score := column.find(row.scores)) is not None:
            baselines.setdefault(f"{score.value:.6g}", []).append(row.name)
    for place, standing in enumerate(shown):
        score = column.find(standing.row.scores)
        assert score is not None, "a row with a rank has a headline"
        if standing.low is not None and standing.high is not None:
            width = 3.5 if standing.basis == "interval" else 1.2
            axes.hlines(place, standing.low, standing.high, color=ACCENT, linewidth=width, alpha=0.55)
        axes.plot(score.value, place, "o", color=ACCENT, markersize=5)
    for value in baselines:
        axes.axvline(float(value), color=MUTED, linewidth=1, linestyle=":")
    names = [f"{one.place}  {one.row.aligner}, {one.entry.manifest.model.name}" for one in shown]
    axes.set_yticks(range(len(shown)), names, fontsize=8, color=INK, parse_math=False)
    axes.set_ylim(len(shown) - 0.4, -0.8)
    if not board.spec.metadata.headline.higher_is_better:
        axes.invert_xaxis()  # better values on the right
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e6e2", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel(f"{label(column.metric)}, held out, {column.scoring} (better to the right)", fontsize=8)
    levels = _name_lines(axes, {float(value): ", ".join(names) for value, names in baselines.items()})
    pad = 7 + 9 * levels
    axes.set_title(country_title(board), loc="left", fontsize=10, fontweight="bold", pad=pad, parse_math=False)


def _name_lines(axes: Any, names: dict[float, str]) -> int:
    """Write names above vertical lines, stacked if lines are near; return the number of text lines."""
    start, end = axes.get_xlim()
    taken: list[float] = []  # by level, the right end of its text as a share of the width
    for place, name in sorted(((value - start) / (end - start), name) for value, name in names.items()):
        level = next((at for at, reach in enumerate(taken) if reach < place), len(taken))
        taken[level : level + 1] = [place + LETTER * (len(name) + 1)]
        where = {"xycoords": "axes fraction", "xytext": (2, 3 + 9 * level), "textcoords": "offset points"}
        axes.annotate(name, (place, 1), **where, fontsize=7, color=MUTED, parse_math=False)
    return len(taken)
