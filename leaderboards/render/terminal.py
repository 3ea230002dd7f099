"""Boards in the terminal and as plain Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...harness import report
from ...harness.centred import ALL, LEAST_COUNTRIES
from ...tasks.metrics.reference import DIMENSIONS
from ..rank import Board
from ..reported import reported_lines
from ..sets import AlignedSet


def markdown(found: Sequence[Board]) -> str:
    """All boards with their notes, as the terminal shows them."""
    parts = []
    for board in found:
        parts.append(f"### {report.escape(board.title)}\n\n{report.markdown(board.rows(), board.spec)}")
        parts += [f"- {report.escape(note)}" for note in board.notes]
        parts.append("")
    return "\n".join(parts)


def show(found: Sequence[Board], sets: Sequence[AlignedSet], console: Console) -> None:
    """Print all boards, the aligned sets and what others reported."""
    for board in found:
        console.print(report.table(board.rows(), board.title, board.spec))
        for note in board.notes:
            console.print(f"  {note}", style="dim", highlight=False, markup=False)
        console.print()
    for title in dict.fromkeys(each.title for each in sets):
        mine = [each for each in sets if each.title == title]
        if any(each.centred for each in mine):
            console.print(centred_table(mine, title))
        else:
            most = max(len(each.countries) for each in mine)
            text = f"{title}: between countries, free of C: needs {LEAST_COUNTRIES} countries, the most are {most}\n"
            console.print(text, highlight=False, markup=False)
    for task in dict.fromkeys(board.spec.name for board in found):
        for line in reported_lines(task):
            console.print(line, highlight=False, markup=False)


def centred_table(sets: Sequence[AlignedSet], title: str) -> Table:
    """Between-country agreement of sets, free of C: explained variance, correlation and mean skill."""
    few = [f"{each.aligner} ({len(each.countries)})" for each in sets if each.centred is None]  # countries of each
    text = (
        "explained variance of the centred indices (0: countries do not differ, 1: perfect) and their correlation;\n"
        "by dimension: explained variance; skill: mean of the single-country skills, which rest on C\n"
    )
    if any(each.centred and each.centred.collapsed for each in sets):
        text += "* collapsed in so many countries\n"
    if few:
        text += f"needs {LEAST_COUNTRIES} countries: {', '.join(few)}\n"
    result = Table(
        title=Text(f"{title}: between countries, free of C"),
        caption=Text(text.rstrip("\n")),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for heading in ("aligner", "countries", "explained", "correlation", *DIMENSIONS, "skill"):
        result.add_column(heading, justify="left" if heading == "aligner" else "right", no_wrap=True)
    for each in sets:
        if (value := each.centred) is not None:
            r, countries = value.correlation[ALL], len(value.countries)
            told = f"{countries} ({len(value.collapsed)}*)" if value.collapsed else str(countries)
            cells = [each.aligner, told, f"{value.explained_variance[ALL]:.2f}", "-" if r is None else f"{r:.2f}"]
            cells += [f"{value.explained_variance[name]:.2f}" for name in DIMENSIONS]
            result.add_row(*map(Text, (*cells, f"{value.skill:.2f}")))
    return result
