"""The command ``sweep``."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..errors import RunError
from ..tasks.countries import name_of
from .commands import run_defaults
from .sweep import STATUS, Cell, cells, default_workers, read_grid, run_cells

_STYLES = {"waiting": "dim", "running": "bold cyan", "done": "green", "skipped": "green dim", "failed": "red"}


@click.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--out", type=click.Path(file_okay=False), help="Where runs go [default: the file's name without .yaml].")
@click.option("--workers", type=click.IntRange(1), default=default_workers, help="Processes with a model each.")
@click.option("--retries", type=click.IntRange(0), default=1, show_default=True, help="Further tries of a failed run.")
@click.option("--dry-run", is_flag=True, help="Check the file and list its runs; nothing is run.")
@click.option("--json", "as_json", is_flag=True, help="Print the runs as JSON and nothing else.")
def sweep(file: str, out: str | None, workers: int, retries: int, dry_run: bool, as_json: bool) -> None:
    """Run a grid of models, aligners, tasks, countries and seeds; stopped anywhere, the same command goes on."""
    path = Path(file)
    root = Path(out) if out else Path(path.stem)
    grid = cells(read_grid(path), run_defaults(), path)
    console = Console(stderr=True, quiet=as_json and not os.isatty(2))
    if not dry_run:
        started = time.monotonic()
        with Live(console=console, refresh_per_second=2, transient=True) as live:
            run_cells(grid, root, workers, retries, lambda now: live.update(_table(now, started, workers)))
    if as_json:
        click.echo(json.dumps([cell.record() for cell in grid], indent=2))
    else:
        Console().print(_table(grid, None, workers))
        click.echo(f"next       culteval leaderboard show {root}")
    if failed := [cell for cell in grid if cell.state == "failed"]:
        raise RunError(f"{len(failed)} of {len(grid)} runs failed; their reasons are in {root / STATUS}.")


def _table(grid: Sequence[Cell], started: float | None, workers: int) -> Group:
    """Runs by aligner and country, and what is left."""
    table = Table(box=None, pad_edge=False)
    for heading in ("aligner", "tasks", "country", "seed", "state"):
        table.add_column(heading)
    shown = list(grid) if len(grid) <= 40 else [cell for cell in grid if cell.state in ("running", "failed")]
    for cell in shown:
        state = f"{cell.state} {cell.reasons[-1][:60]}" if cell.reasons and cell.state != "done" else cell.state
        where = (cell.config.aligner, ", ".join(cell.config.tasks), name_of(cell.config.country), str(cell.config.seed))
        table.add_row(*map(Text, where), Text(state, style=_STYLES[cell.state]))
    return Group(table, Text(_summary(grid, started, workers)))


def _summary(grid: Sequence[Cell], started: float | None, workers: int) -> str:
    states = [cell.state for cell in grid]
    text = ", ".join(f"{states.count(state)} {state}" for state in _STYLES if state in states)
    finished = [cell.seconds for cell in grid if cell.state == "done"]
    left = states.count("waiting") + states.count("running")
    if started is not None and finished and left:
        minutes = statistics.mean(finished) * left / workers / 60
        text += f"; about {minutes:.0f} min left"
    return text
