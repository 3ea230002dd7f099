"""The command group ``leaderboard``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..harness.centred import ALL, LEAST_COUNTRIES
from ..tasks.metrics.reference import DIMENSIONS
from .board import AlignedSet, Board, aligned_sets, boards, entries
from .reported import reported_lines


@click.group()
def leaderboard() -> None:
    """Put finished runs side by side."""


@leaderboard.command()
@click.argument("folder", type=click.Path(file_okay=False), default="culteval-runs")
@click.option("--format", "form", type=click.Choice(["terminal", "md", "json"]), default="terminal", show_default=True)
def show(folder: str, form: str) -> None:
    """Rank the finished runs of a folder by their held-out headline, a table a task and country."""
    runs = entries(Path(folder), lambda text: click.echo(f"note: {text}", err=True))
    found = boards(runs)
    if form == "json":
        click.echo(json.dumps([score.model_dump() for board in found for row in board.rows for score in row.scores]))
    elif form == "md":
        _as_markdown(found)
    else:
        _as_tables(found, aligned_sets(runs))


def _as_markdown(found: Sequence[Board]) -> None:
    from ..harness import report

    for board in found:
        click.echo(f"### {report.escape(board.title)}\n\n{report.markdown(board.rows, board.spec)}")
        for note in board.notes:
            click.echo(f"- {report.escape(note)}")
        click.echo()


def _as_tables(found: Sequence[Board], sets: Sequence[AlignedSet]) -> None:
    from ..harness import report

    console = Console()
    for board in found:
        console.print(report.table(board.rows, board.title, board.spec))
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
