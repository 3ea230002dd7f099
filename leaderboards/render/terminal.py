"""Boards in the terminal and as plain Markdown."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...harness import report
from ...harness.centred import LEAST_COUNTRIES
from ..rank import Board
from ..reported import reported_lines
from ..sets import AlignedSet
from . import between
from .tables import VERIFIED_NOTE, markdown_beside


def markdown(found: Sequence[Board], sets: Sequence[AlignedSet], verified: Collection[str]) -> str:
    """All boards with their notes, as the terminal shows them."""
    parts = []
    for board in found:
        parts.append(f"### {report.escape(board.title)}\n\n{report.markdown(board.rows(verified), board.spec)}")
        parts += [f"- {report.escape(note)}" for note in _notes(board, verified)]
        parts.append("")
    return "\n".join([*parts, *markdown_beside((board.key.task for board in found), sets)])


def _notes(board: Board, verified: Collection[str]) -> list[str]:
    marked = any(standing.entry.manifest.answers.sha256 in verified for standing in board.standings)
    return [*board.notes, VERIFIED_NOTE] if marked else list(board.notes)


def show(found: Sequence[Board], sets: Sequence[AlignedSet], verified: Collection[str], console: Console) -> None:
    """Print all boards, the aligned sets and what others reported."""
    for board in found:
        console.print(report.table(board.rows(verified), board.title, board.spec))
        for note in _notes(board, verified):
            console.print(f"  {note}", style="dim", highlight=False, markup=False)
        console.print()
    for title, mine in between.grouped(sets).items():
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
    result = Table(
        title=Text(between.heading(title)),
        caption=Text("\n".join(between.notes(sets))),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for number, heading in enumerate(between.HEADINGS):
        word = number in between.WORDS
        result.add_column(heading, justify="left" if word else "right", no_wrap=word, overflow="fold")
    for row in between.rows(sets):
        result.add_row(*map(Text, row))
    return result
