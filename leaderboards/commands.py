"""The command group ``leaderboard``."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console

from .board import boards


@click.group()
def leaderboard() -> None:
    """Put finished runs side by side."""


@leaderboard.command()
@click.argument("folder", type=click.Path(file_okay=False), default="culteval-runs")
@click.option("--format", "form", type=click.Choice(["terminal", "md", "json"]), default="terminal", show_default=True)
def show(folder: str, form: str) -> None:
    """Rank the finished runs of a folder by their held-out headline, a table a task and country."""
    found = boards(Path(folder), lambda text: click.echo(f"note: {text}", err=True))
    if form == "json":
        click.echo(json.dumps([score.model_dump() for board in found for row in board.rows for score in row.scores]))
        return
    from ..harness import report

    for board in found:
        if form == "md":
            click.echo(f"### {report.escape(board.title)}\n\n{report.markdown(board.rows, board.spec)}")
        else:
            Console().print(report.table(board.rows, board.title, board.spec))
