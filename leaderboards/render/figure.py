"""A board as a picture for a paper: a dot a row, its interval or seeds, and the best row that needs no alignment."""

from __future__ import annotations

from pathlib import Path

from ...harness.figure import drawing
from ...harness.report import headline_of
from ..glossary import label
from ..rank import Board
from .tables import country_title

MOST_ROWS = 40
INK, ACCENT, MUTED = "#1d2126", "#0b62a8", "#767d86"


def write(path: Path, board: Board) -> int:
    """Write a PNG or SVG of the best rows of a board; returns how many are left out. Same board, same bytes."""
    column = headline_of(board.spec)
    rated = [standing for standing in board.standings if standing.rank is not None]
    shown, lines = rated[:MOST_ROWS], [(row.name, column.find(row.scores)) for row in board.trivial]
    trivial = [(name, score.value) for name, score in lines if score is not None]
    height = 1.3 + 0.27 * len(shown)
    with drawing(path, 6.8, height) as axes:
        for place, standing in enumerate(shown):
            score = column.find(standing.row.scores)
            assert score is not None, "a row with a rank has a headline"
            if standing.low is not None and standing.high is not None:
                width = 3.5 if standing.basis == "interval" else 1.2
                axes.hlines(place, standing.low, standing.high, color=ACCENT, linewidth=width, alpha=0.55)
            axes.plot(score.value, place, "o", color=ACCENT, markersize=5)
        for name, value in trivial:
            axes.axvline(value, color=MUTED, linewidth=1, linestyle=":")
            where = {"xycoords": ("data", "axes fraction"), "xytext": (2, 3), "textcoords": "offset points"}
            axes.annotate(name, (value, 1), **where, fontsize=7, color=MUTED, parse_math=False)
        names = [f"{one.place}  {one.row.aligner}, {one.entry.manifest.model.name}" for one in shown]
        axes.set_yticks(range(len(shown)), names, fontsize=8, color=INK, parse_math=False)
        axes.set_ylim(len(shown) - 0.4, -0.8)
        if not board.spec.metadata.headline.higher_is_better:
            axes.invert_xaxis()  # the better side is on the right, as everywhere
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", color="#e6e6e2", linewidth=0.7)
        axes.set_axisbelow(True)
        axes.set_xlabel(f"{label(column.metric)}, held out, {column.readout} (better to the right)", fontsize=8)
        axes.set_title(country_title(board), loc="left", fontsize=10, fontweight="bold", pad=16, parse_math=False)
    return len(rated) - len(shown)
