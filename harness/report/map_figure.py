"""Figure of the cultural map: countries by zone with their names, models as marked points with ellipses and arrows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...tasks.countries import name_of
from ...tasks.glossary import label as label_of
from ...tasks.intervals import error_of
from ...tasks.metrics.map_projection import AXES, ZONES, Projection
from ...tasks.score import Score
from .label_places import place_labels
from .plots import drawing, plain

SIZE = (12.0, 9.0)  # inches; 1,200 pixels wide at 100 dots an inch
POINTS = 72 / 100  # of a pixel at that resolution
STYLES: Mapping[str, tuple[str, str]] = dict(  # colours after Okabe & Ito, told apart by colour-blind people; markers
    zip(
        ZONES,
        (("#6b6b6b", "o"), ("#cc79a7", "s"), ("#e69f00", "^"), ("#56b4e9", "D"), ("#d55e00", "v"), ("#009e73", "p"),
         ("#0072b2", "h"), ("#4a1fb8", "P")),
        strict=True,
    )
)  # fmt: skip
INK, QUIET = "#111111", "#4d4d4d"
NAMES, MARKS = 7.0, 9.5  # font sizes
LONGEST = 40  # characters of a mark's name, which may be untrusted text
FAR = tuple(np.arange(8.0, 400.0, 12.0))  # pixels between a marked point and its label
NEAR, NEAR_RING = (5.0, 9.0), (11.0, 15.0)  # between a country and its name
RADIUS = float(np.sqrt(5.991))  # of the 95 % region of two independent normal deviates, in standard deviations
SHORT = {
    "BA": "Bosnia",
    "CD": "DR Congo",
    "GB": "Great Britain",
    "MK": "N. Macedonia",
    "TT": "Trinidad",
    "US": "United States",
}


@dataclass(frozen=True)
class Mark:
    """A marked point: its name, its coordinates, their standard errors.

    ``origin`` is the point of the unaligned model, from which an arrow leads to an aligned one.
    """

    name: str
    point: tuple[float, float]
    deviation: tuple[float, float]
    kind: Literal["aligned", "unaligned", "null"]
    origin: tuple[float, float] | None = None


def located(
    scores: Iterable[Score], scoring: str, split: str
) -> tuple[tuple[float, float], tuple[float, float]] | None:
    """Return the point of scores and its standard errors; None where there is no point.

    The errors are those of the personas, from the intervals of the coordinates where they are valid, and of the
    projection, added as variances.
    """
    found = {row.metric: row for row in scores if (row.scoring, row.split) == (scoring, split)}
    if not {*AXES, "projection_error"} <= found.keys():
        return None
    rows = [found[name] for name in AXES]
    people = [0.0 if row.low is None or row.high is None else error_of(row.low, row.high, row.n) for row in rows]
    first, second = (float(np.hypot(error, found["projection_error"].value)) for error in people)
    return (rows[0].value, rows[1].value), (first, second)


def write_map(
    path: Path, projection: Projection, marks: Sequence[Mark], title: str, note: str, own: Collection[str] = ()
) -> None:
    """Write an SVG or PNG of ``draw_map``."""
    with drawing(path, *SIZE) as axes:
        draw_map(axes, projection, marks, title, note, own)


def draw_map(
    axes: Any, projection: Projection, marks: Sequence[Mark], title: str, note: str, own: Collection[str] = ()
) -> None:
    """Draw the map: survival to self-expression to the right, traditional to secular upwards.

    Labels of marks never overlap anything but an arrow or an ellipse; a country whose name has no room is named by its
    code, or not at all.

    Args:
        marks: points, with the first ones drawn and named first.
        note: text below the axes.
        own: countries to ring, to which models are aligned.
    """
    countries = list(projection.points)
    places = np.array([projection.points[code] for code in countries])[:, ::-1]
    _frame(axes, np.concatenate([places, *(np.array([mark.point[::-1]]) for mark in marks)]), note)
    for zone, (colour, marker) in STYLES.items():
        rows = [row for row, code in enumerate(countries) if projection.zones.get(code) == zone]
        if rows:
            axes.scatter(*places[rows].T, c=colour, marker=marker, s=26, linewidths=0, label=zone, zorder=3)
    others = [row for row, code in enumerate(countries) if code not in projection.zones]
    axes.scatter(*places[others].T, c="#bbbbbb", s=20, linewidths=0, zorder=3)
    ringed = places[[row for row, code in enumerate(countries) if code in own]]
    axes.scatter(*ringed.T, facecolors="none", edgecolors=INK, s=150, linewidths=1.2, zorder=4)
    for mark in marks:
        _draw_mark(axes, mark)
    axes.legend(
        loc="lower right", fontsize=8, framealpha=0.9, edgecolor="none", title="Cultural zone", title_fontsize=8
    )
    axes.set_title(plain(title), loc="left", fontsize=12, fontweight="bold")
    _name_all(axes, countries, places, marks, own)


def _frame(axes: Any, places: np.ndarray, note: str) -> None:
    low, high = places.min(0), places.max(0)
    pad = (high - low) * 0.06
    axes.set_xlim(low[0] - pad[0], high[0] + pad[0])
    axes.set_ylim(low[1] - pad[1], high[1] + pad[1])
    secular, expression = (f"{label_of(name)} values \N{RIGHTWARDS ARROW}" for name in AXES)
    axes.set_xlabel(f"{expression}\n{plain(note)}", fontsize=9)
    axes.set_ylabel(secular, fontsize=9)
    axes.grid(color="#eeeeee", linewidth=0.7, zorder=0)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_mark(axes: Any, mark: Mark) -> None:
    """Draw a point (hollow: an unaligned model, a cross: a null), its 95 % region and the arrow to it."""
    from matplotlib.patches import Ellipse

    at, (high, wide) = mark.point[::-1], mark.deviation
    size = {"width": 2 * RADIUS * wide, "height": 2 * RADIUS * high}
    axes.add_patch(Ellipse(at, **size, facecolor=INK, alpha=0.04, edgecolor="none", zorder=1))
    axes.add_patch(Ellipse(at, **size, facecolor="none", edgecolor=INK, alpha=0.4, linewidth=0.5, zorder=2))
    if mark.origin is not None:
        style = {"arrowstyle": "-|>", "color": INK, "linewidth": 0.9, "shrinkA": 4, "shrinkB": 4, "alpha": 0.7}
        arrow = axes.annotate("", at, mark.origin[::-1], arrowprops=style, zorder=4)
        arrow.set_in_layout(False)
    if mark.kind == "null":
        axes.scatter(*at, c=INK, marker="x", s=46, linewidths=1.6, zorder=5)
        return
    fill = INK if mark.kind == "aligned" else "white"
    axes.scatter(*at, c=fill, edgecolors=INK, marker="o", s=46, linewidths=1.4, zorder=5)


def _name_all(
    axes: Any, countries: Sequence[str], places: np.ndarray, marks: Sequence[Mark], own: Collection[str]
) -> None:
    """Write the names of marks, then of countries: ringed ones first, then from the outermost to the middle."""
    names = [name_of(code) for code in countries]
    names = [SHORT.get(code, name.partition(",")[0]) for code, name in zip(countries, names, strict=True)]
    scene = _Scene(axes)
    dots, spots = scene.pixels(places), scene.pixels(np.array([mark.point[::-1] for mark in marks]).reshape(-1, 2))
    rings = np.array([code in own for code in countries])
    fixed = np.concatenate([_squares(spots, 6), _squares(dots, np.where(rings, 9, 3.5)), scene.legend_box()])
    shown = [mark.name if len(mark.name) <= LONGEST else f"{mark.name[: LONGEST - 2]}…" for mark in marks]
    found = scene.place(spots, shown, MARKS, [FAR] * len(marks), fixed)
    for box, spot, name in zip(found, spots, shown, strict=True):
        scene.write(box, name, MARKS, INK, spot, bold=True)
    fixed = np.concatenate([fixed, found[~np.isnan(found[:, 0])]])
    order = np.lexsort((-np.linalg.norm(dots - dots.mean(0), axis=1), ~rings))
    for texts in (names, countries):  # codes where names have no room
        near = [NEAR_RING if rings[row] else NEAR for row in order]
        left = scene.place(dots[order], [texts[row] for row in order], NAMES, near, fixed)
        for box, row in zip(left, order, strict=True):
            scene.write(box, texts[row], NAMES, QUIET)
        written = ~np.isnan(left[:, 0])
        fixed, order = np.concatenate([fixed, left[written]]), order[~written]


def _squares(centres: np.ndarray, half: float | np.ndarray) -> np.ndarray:
    reach = np.broadcast_to(half, len(centres))[:, None]
    return np.concatenate([centres - reach, centres + reach], axis=1)


class _Scene:
    """Axes with a fixed layout, measured in pixels at 100 dots an inch."""

    def __init__(self, axes: Any) -> None:
        from matplotlib.backends.backend_agg import RendererAgg

        self.axes, self.figure = axes, axes.figure
        self.figure.draw_without_rendering()
        self.figure.set_layout_engine("none")  # texts added from here on must not move the axes
        self.scale = 100 / self.figure.dpi
        width, height = self.figure.get_size_inches() * 100
        self.renderer = RendererAgg(width, height, 100)

    def pixels(self, places: np.ndarray) -> np.ndarray:
        """Convert data coordinates (n, 2) to pixels."""
        pixels: np.ndarray = self.axes.transData.transform(places) * self.scale
        return pixels

    def legend_box(self) -> np.ndarray:
        """Return the box (1, 4) of the legend."""
        extents: np.ndarray = self.axes.get_legend().get_window_extent().extents[None] * self.scale
        return extents

    def place(
        self,
        spots: np.ndarray,
        texts: Sequence[str],
        size: float,
        reaches: Sequence[Sequence[float]],
        fixed: np.ndarray,
    ) -> np.ndarray:
        """Find boxes (n, 4) for texts at points (n, 2)."""
        frame = tuple((self.axes.bbox.extents * self.scale).tolist())
        sizes = np.array([self._size(text, size) for text in texts]).reshape(-1, 2)
        return place_labels(spots, sizes, reaches, frame, fixed)

    def _size(self, text: str, size: float) -> tuple[float, float]:
        from matplotlib.font_manager import FontProperties

        font = FontProperties(size=size, weight="bold" if size == MARKS else "normal")
        width, height, _ = self.renderer.get_text_width_height_descent(text, font, ismath=False)
        line = self.renderer.get_text_width_height_descent("lp", font, ismath=False)[1]  # what a line takes at least
        return width + 3, max(height, line) + 3

    def write(
        self, box: np.ndarray, text: str, size: float, colour: str, spot: np.ndarray | None = None, bold: bool = False
    ) -> None:
        """Write a text in its box, with a line to its point where that is far; nothing without a box."""
        if np.isnan(box[0]):
            return
        middle = (box[:2] + box[2:]) / 2
        at = self.axes.transData.inverted().transform(middle / self.scale)
        style = {"fontsize": size, "color": colour, "ha": "center", "va": "center", "zorder": 7, "parse_math": False}
        if bold:
            style |= {"fontweight": "bold", "bbox": {"facecolor": "white", "alpha": 0.75, "pad": 0.5, "linewidth": 0}}
        self.axes.text(*at, text, **style).set_in_layout(False)
        if spot is not None:
            edge = np.clip(spot, box[:2], box[2:])
            if np.linalg.norm(edge - spot) > 12:
                line = self.axes.transData.inverted().transform(np.stack([spot, edge]) / self.scale)
                self.axes.plot(*line.T, color=INK, linewidth=0.5, alpha=0.6, zorder=4)
