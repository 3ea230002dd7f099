"""Figures of indices and distances: SVG or PNG for files, matplotlib axes for notebooks, bars for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import JustifyMethod
from rich.table import Table
from rich.text import Text

from ...tasks.countries import name_of
from ...tasks.glossary import label
from ...tasks.metrics.reference import DIMENSIONS
from ...tasks.score import Score
from ..util.atomic_io import replacing

WIDTH = 36

Estimate = tuple[float, float | None, float | None]
"""A value and the bounds of its interval, None without a valid interval."""


def dimensions(
    scores: Sequence[Score], scoring: str, split: str, names: Sequence[str] = DIMENSIONS
) -> dict[str, tuple[float, float]]:
    """Return index and published target by name, for the indices that have a score."""
    values = {row.metric: row.value for row in scores if row.scoring == scoring and row.split == split}
    return {name: (values[name], values[name] - values[f"{name}_error"]) for name in names if name in values}


@contextmanager
def drawing(path: Path, width: float, height: float, panels: tuple[int, int] = (1, 1)) -> Iterator[Any]:
    """Yield axes and write them to a file when the block succeeds; the same data give the same bytes.

    The global backend and settings of matplotlib are not changed.

    Args:
        path: the file, PNG by its suffix, else SVG.
        width, height: in inches.
        panels: rows and columns of axes; more than one panel gives an array of axes.
    """
    import matplotlib
    from matplotlib.figure import Figure

    form = "png" if path.suffix == ".png" else "svg"
    with matplotlib.rc_context({"svg.hashsalt": "culteval", "svg.fonttype": "none"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots(*panels)
        metadata = {"Software": None} if form == "png" else {"Date": None}
        with replacing(path) as temporary:
            figure.savefig(temporary, format=form, dpi=200, metadata=metadata)


def pictured(scores: Sequence[Score]) -> str:
    """Choose the answer scoring to show: ``expected``, else the first that is there; ``text`` without scores."""
    known = dict.fromkeys(row.scoring for row in scores)
    return "expected" if "expected" in known else next(iter(known), "text")


def new_axes(width: float, height: float) -> Any:
    """Make matplotlib axes for a notebook; ``width`` and ``height`` are in inches. They need no display."""
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")[1]


def write_figure(path: Path, scores: Sequence[Score], country: str) -> None:
    """Write an SVG of ``draw_dimensions``; write nothing where there is no index."""
    if dimensions(scores, pictured(scores), "heldout"):
        with drawing(path, 7, 3.6) as axes:
            draw_dimensions(axes, scores, country)


def draw_dimensions(axes: Any, scores: Sequence[Score], country: str) -> None:
    """Draw fitted and held-out indices beside the published ones; ``scores`` are of one task and country."""
    scoring = pictured(scores)
    points = {split: dimensions(scores, scoring, split) for split in ("fit", "heldout")}
    rows = range(len(DIMENSIONS))
    targets = [points["heldout"][name][1] for name in DIMENSIONS]
    axes.scatter(targets, rows, marker="|", s=400, linewidths=3, color="#222222", label="published", zorder=2)
    for split, colour, marker in (("fit", "#0072b2", "o"), ("heldout", "#d55e00", "D")):
        if points[split]:
            values = [points[split][name][0] for name in DIMENSIONS]
            axes.scatter(values, rows, color=colour, marker=marker, s=45, label=split, zorder=3)
    _label_rows(axes, [label(name) for name in DIMENSIONS])
    axes.set_xlabel(f"index ({scoring} scoring)")
    _entitle(axes, f"{scores[0].aligner}: indices against the published scores of {country}")
    axes.legend(ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def write_distances(path: Path, distances: Mapping[str, float], own: str, title: str, label: str) -> None:
    """Write an SVG of ``draw_distances``."""
    with drawing(path, 7, distances_height(distances)) as axes:
        draw_distances(axes, distances, own, title, label)


def distances_height(distances: Mapping[str, float]) -> float:
    """Return the height in inches of a figure with one bar a country."""
    return 1 + 0.19 * len(distances)


def draw_distances(axes: Any, distances: Mapping[str, float], own: str, title: str, label: str) -> None:
    """Draw a bar a country, the first at the top, ``own`` in another colour."""
    colours = ["#d55e00" if code == own else "#0072b2" for code in distances]
    axes.barh(range(len(distances)), list(distances.values()), color=colours, height=0.75)
    _label_rows(axes, [plain(name_of(code)) for code in distances], fontsize=8)
    axes.set_axisbelow(True)
    axes.set_xlabel(plain(label))
    _entitle(axes, title)


def draw_estimates(axes: Any, estimates: Mapping[str, Estimate], label: str, title: str, zero: bool = False) -> None:
    """Draw a point a row, with its 95 % interval if valid, the first at the top; ``zero`` adds a line at 0."""
    for row, (value, low, high) in enumerate(estimates.values()):
        if low is not None and high is not None:
            axes.plot((low, high), (row, row), color="#0072b2", linewidth=2, zorder=2)
        axes.plot(value, row, "o", color="#0072b2", zorder=3)
    if zero:
        axes.axvline(0, color="#222222", linewidth=1)
    _label_rows(axes, [plain(name) for name in estimates], fontsize=8)
    axes.set_xlabel(plain(label))
    _entitle(axes, title)


def draw_scatter(axes: Any, points: np.ndarray, labels: tuple[str, str], title: str) -> None:
    """Draw correlations (points, 2) against each other, from -1 to 1, with the line where the two are equal."""
    axes.axline((0, 0), slope=1, color="#999999", linewidth=1, zorder=1)
    axes.scatter(points[:, 0], points[:, 1], s=8, color="#0072b2", alpha=0.5, linewidths=0, zorder=2)
    axes.set(xlim=(-1, 1), ylim=(-1, 1), xlabel=labels[0], ylabel=labels[1], aspect="equal")
    axes.spines[["top", "right"]].set_visible(False)
    _entitle(axes, title)


def write_matrix(path: Path, countries: Sequence[str], matrix: np.ndarray, title: str) -> None:
    """Write an SVG of ``draw_matrix``."""
    with drawing(path, *matrix_size(countries)) as axes:
        draw_matrix(axes, countries, matrix, title)


def matrix_size(countries: Sequence[str]) -> tuple[float, float]:
    """Return width and height in inches of a figure of a matrix of countries."""
    return 3.2 + 0.5 * len(countries), 1.4 + 0.42 * len(countries)


def draw_matrix(axes: Any, countries: Sequence[str], matrix: np.ndarray, title: str) -> None:
    """Draw a matrix (submissions, countries) as a heat map around zero: blue is nearer than expected."""
    size = len(countries)
    most = float(abs(matrix).max()) or 1.0
    image = axes.imshow(matrix, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
    for row in range(size):  # the true country of each submission
        axes.add_patch(_frame(row))
    axes.set_xticks(range(size), countries)
    axes.set_yticks(range(size), [plain(name_of(code)) for code in countries])
    axes.set_xlabel("scored against")
    axes.set_ylabel("aligned to")
    _entitle(axes, title)
    axes.figure.colorbar(image, ax=axes, label="distance, double-centred")


def _label_rows(axes: Any, names: Sequence[str], **style: Any) -> None:
    """Name the rows of a horizontal plot, the first at the top."""
    axes.set_yticks(range(len(names)), names, **style)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.grid(axis="x", color="#dddddd")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _entitle(axes: Any, title: str) -> None:
    """Set the title of the whole figure, on several lines where it is wider."""
    axes.figure.suptitle(plain(title), x=0.01, horizontalalignment="left", fontsize=10, wrap=True)


def _frame(row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((row - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#111111", linewidth=2)


def plain(text: str) -> str:
    """Escape the dollar signs of untrusted text, which matplotlib reads as mathematics."""
    return text.replace("$", "\\$")


def bars(scores: Sequence[Score], scoring: str, split: str, country: str) -> Table:
    """Make a terminal table of the dimensions: a bar to the model's index, a mark at the published one."""
    title = f"Dimensions, {split} ({scoring}):  ━ model  ◆ published, {country}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    columns: tuple[tuple[str, JustifyMethod], ...]
    columns = (("", "left"), ("", "left"), ("model", "right"), ("published", "right"))
    for heading, justify in columns:
        table.add_column(heading, justify=justify, no_wrap=True)
    points = dimensions(scores, scoring, split)
    for name, (value, target) in points.items():
        table.add_row(label(name), _bar(value, target), f"{value:.0f}", f"{target:.0f}")
    return table


def _bar(value: float, target: float) -> Text:
    def place(number: float) -> int:
        return round(min(max(number, 0), 100) / 100 * (WIDTH - 1))

    cells = ["━" if i <= place(value) else " " for i in range(WIDTH)]
    text = Text("".join(cells), style="cyan")
    text.plain = text.plain[: place(target)] + "◆" + text.plain[place(target) + 1 :]
    text.stylize("bold yellow", place(target), place(target) + 1)
    return text
