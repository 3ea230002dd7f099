"""Pictures: the six dimensions against the target, distances to countries; SVG for files, bars for the terminal."""

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


def dimensions(scores: Sequence[Score], readout: str, split: str) -> dict[str, tuple[float, float]]:
    """Index and published target by dimension, as far as the scores hold them."""
    found = {row.metric: row.value for row in scores if row.readout == readout and row.split == split}
    return {name: (found[name], found[name] - found[f"{name}_error"]) for name in DIMENSIONS if name in found}


@contextmanager
def drawing(path: Path, width: float, height: float, panels: tuple[int, int] = (1, 1)) -> Iterator[Any]:
    """Axes that become a picture of so many inches when the block ends well: same data, same bytes.

    More ``panels`` than one, rows by columns, give an array of axes. PNG where the path says so, else SVG. No backend
    and no setting of matplotlib is changed for others.
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
    """The read-out to show: ``expected``, or ``text`` where no probabilities are known."""
    return "expected" if any(row.readout == "expected" for row in scores) else "text"


def write_figure(path: Path, scores: Sequence[Score], country: str) -> None:
    """An SVG of fitted and held-out indices beside the published ones; nothing where no index could be formed."""
    readout = pictured(scores)
    points = {split: dimensions(scores, readout, split) for split in ("fit", "heldout")}
    if not points["heldout"]:
        return
    rows = range(len(DIMENSIONS))
    targets = [points["heldout"][name][1] for name in DIMENSIONS]
    with drawing(path, 7, 3.6) as axes:
        axes.scatter(targets, rows, marker="|", s=400, linewidths=3, color="#222222", label="published", zorder=2)
        for split, colour, marker in (("fit", "#0072b2", "o"), ("heldout", "#d55e00", "D")):
            if points[split]:
                values = [points[split][name][0] for name in DIMENSIONS]
                axes.scatter(values, rows, color=colour, marker=marker, s=45, label=split, zorder=3)
        axes.set_yticks(rows, [label(name) for name in DIMENSIONS])
        axes.set_ylim(len(DIMENSIONS) - 0.4, -0.6)
        axes.grid(axis="x", color="#dddddd")
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_xlabel(f"index ({readout} read-out)")
        _entitle(axes, f"{scores[0].aligner}: indices against the published scores of {country}")
        axes.legend(ncols=3, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2))


def write_distances(path: Path, distances: Mapping[str, float], own: str, title: str, label: str) -> None:
    """An SVG with a bar a country, the nearest at the top as they are given, ``own`` in another colour."""
    places = range(len(distances))
    with drawing(path, 7, 1 + 0.19 * len(distances)) as axes:
        colours = ["#d55e00" if code == own else "#0072b2" for code in distances]
        axes.barh(places, list(distances.values()), color=colours, height=0.75)
        axes.set_yticks(places, [plain(name_of(code)) for code in distances], fontsize=8)
        axes.set_ylim(len(distances) - 0.4, -0.6)
        axes.grid(axis="x", color="#dddddd")
        axes.set_axisbelow(True)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.set_xlabel(plain(label))
        _entitle(axes, title)


def write_matrix(path: Path, countries: Sequence[str], matrix: np.ndarray, title: str) -> None:
    """An SVG of a matrix (submissions, countries) as a heat map around zero: blue is nearer than expected."""
    size = len(countries)
    most = float(abs(matrix).max()) or 1.0
    with drawing(path, 3.2 + 0.5 * size, 1.4 + 0.42 * size) as axes:
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto")
        for row in range(size):  # the true country of each submission
            axes.add_patch(_frame(row))
        axes.set_xticks(range(size), countries)
        axes.set_yticks(range(size), [plain(name_of(code)) for code in countries])
        axes.set_xlabel("scored against")
        axes.set_ylabel("aligned to")
        _entitle(axes, title)
        axes.figure.colorbar(image, ax=axes, label="distance, double-centred")


def _entitle(axes: Any, title: str) -> None:
    """A title above the whole picture, on more lines than one where it is wider."""
    axes.figure.suptitle(plain(title), x=0.01, horizontalalignment="left", fontsize=10, wrap=True)


def _frame(row: int) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((row - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="#111111", linewidth=2)


def plain(text: str) -> str:
    """A stranger's text without the dollar signs that matplotlib reads as mathematics."""
    return text.replace("$", "\\$")


def bars(scores: Sequence[Score], readout: str, split: str, country: str) -> Table:
    """The same picture in a terminal: a bar to the model's index, a mark at the published one."""
    title = f"Dimensions, {split} ({readout}):  ━ model  ◆ published, {country}"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    columns: tuple[tuple[str, JustifyMethod], ...]
    columns = (("", "left"), ("", "left"), ("model", "right"), ("published", "right"))
    for heading, justify in columns:
        table.add_column(heading, justify=justify, no_wrap=True)
    points = dimensions(scores, readout, split)
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
