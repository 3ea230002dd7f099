"""The command group ``leaderboard``."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

FOLDER = click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default="culteval-runs")


@click.group()
def leaderboard() -> None:
    """Put finished runs side by side."""


def _note(text: str) -> None:
    click.echo(f"note: {text}", err=True)


@leaderboard.command()
@FOLDER
@click.option("--format", "form", type=click.Choice(["terminal", "md", "json"]), default="terminal", show_default=True)
def show(folder: Path, form: str) -> None:
    """Rank the finished runs of a folder by their held-out headline, a table a task and country."""
    from rich.console import Console

    from ..harness import report
    from ..harness.scoring import Shelf
    from .collect import entries
    from .rank import boards
    from .suite import read_suite

    found = boards(entries(folder, _note), Shelf(), read_suite())
    if form == "json":
        rows = [score.model_dump() for board in found for row in board.rows() for score in row.scores]
        click.echo(json.dumps(rows))
        return
    for board in found:
        if form == "md":
            click.echo(f"### {report.escape(board.title)}\n\n{report.markdown(board.rows(), board.spec)}")
        else:
            Console().print(report.table(board.rows(), board.title, board.spec))


@leaderboard.command()
@FOLDER
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), required=True, help="Where the site goes.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
def build(folder: Path, out: Path, as_json: bool) -> None:
    """Make a site of a folder of runs or submissions: one folder of pages that open from disk.

    Scores are made from the answers. Built again, only what is new is read.
    """
    from rich.console import Console

    from ..harness.display import TerminalDisplay
    from .render import site

    with TerminalDisplay(Console(stderr=True)) as display:
        made = site.build(folder, out, _note, lambda done, total: display.advance("submissions", done, total, None))
    page = out / "index.html"
    if as_json:
        click.echo(json.dumps(asdict(made) | {"page": str(page)}))
        return
    click.echo(f"{made.submissions} submissions on {made.boards} boards, {made.renewed} read anew.\nopen {page}")
