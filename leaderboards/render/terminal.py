"""Format boards for the terminal and as plain Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ...harness.analysis.between_countries import LEAST_COUNTRIES
from ...harness.report import tables as report
from ..boards import Board
from ..country_sets import AlignedSet
from ..literature import reported_lines
from . import between
from .tables import IMPROVEMENT_NOTE, VERIFIED_NOTE, markdown_beside


def markdown(found: Sequence[Board], sets: Sequence[AlignedSet]) -> str:
    """Return all boards with their notes, as in the terminal."""
    parts = []
    for board in found:
        parts.append(f"### {report.escape(board.title)}\n\n{report.markdown(board.rows(), board.spec)}")
        parts += [f"- {report.escape(note)}" for note in _notes(board)]
        parts.append("")
    return "\n".join([*parts, *markdown_beside((board.key.task for board in found), sets)])


def _notes(board: Board) -> list[str]:
    marked = any(standing.entry.verified for standing in board.standings)
    judged = any(standing.row.improvement is not None for standing in board.standings)
    return [*([IMPROVEMENT_NOTE] if judged else []), *board.notes, *([VERIFIED_NOTE] if marked else [])]


def shown(found: Sequence[Board], sets: Sequence[AlignedSet], width: int) -> Iterator[RenderableType]:
    """Yield all boards, aligned sets and reported figures, for a terminal of ``width`` characters."""
    for board in found:
        yield report.table(board.rows(), board.title, board.spec, width)
        for note in _notes(board):
            yield Text(f"  {note}", style="dim")
        yield ""
    for title, members in between.grouped(sets).items():
        if any(each.centred for each in members):
            yield centred_table(members, title, width)
            yield ""
        else:
            most = max(len(each.countries) for each in members)
            yield Text(f"{title}: between-country R2: needs {LEAST_COUNTRIES} countries, at most {most} here\n")
    for task in dict.fromkeys(board.spec.name for board in found):
        yield from map(Text, reported_lines(task))


def centred_table(sets: Sequence[AlignedSet], title: str, width: int) -> Table:
    """Return the table of between-country R2, correlation and mean skill of aligned sets."""
    caption, names = "\n".join(between.notes(sets)), between.headings(sets)
    spare = [names.index(index) for index in reversed(sets[0].indices)]
    return report.narrow_table(between.heading(title), caption, names, between.rows(sets), spare, width)
