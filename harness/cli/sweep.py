"""The command ``sweep``."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ...errors import RunError, UsageError, shown
from ...tasks.countries import country as resolve
from ...tasks.countries import name_of
from ..report.progress import verbosity
from ..runs.answer_cache import answers_folder
from ..runs.config import assignments
from ..sweeps.executors.base import Executor
from ..sweeps.grid import Cell, cells, read_grid
from ..sweeps.scheduler import executor_of, run_cells
from ..sweeps.status import STATUS
from ..util.command_help import GroupedCommand, option
from .options import no_cache, terminal

MOST_SHOWN = 40  # rows that fit on a screen
_STYLES = {"waiting": "dim", "running": "bold cyan", "done": "green", "skipped": "green dim", "failed": "red"}


@click.command(cls=GroupedCommand)
@click.argument("file", type=click.Path(dir_okay=False))
@option(
    "--out",
    type=click.Path(file_okay=False),
    group="Sweep",
    help="Folder of the runs [default: the file's name without .yaml].",
)
@option("--dry-run", is_flag=True, group="Sweep", help="Check the file and list its runs; nothing is run.")
@option("--aligner", "aligners", multiple=True, group="Selection", help="Only runs of this aligner; may be repeated.")
@option("--country", "countries", multiple=True, group="Selection", help="Only runs for this country; may be repeated.")
@option(
    "--seed", "seeds", type=int, multiple=True, group="Selection", help="Only runs with this seed; may be repeated."
)
@option(
    "--executor",
    type=click.Choice(["local", "ray"]),
    default="local",
    show_default=True,
    group="Execution",
    help="Executor of runs: processes of this machine, or Ray.",
)
@option(
    "--address",
    envvar="RAY_ADDRESS",
    default="local",
    show_default=True,
    group="Execution",
    help="Ray's cluster: auto, HOST:6379, or local, which starts one here for the sweep.",
)
@option(
    "--workers",
    type=click.IntRange(1),
    group="Execution",
    help="Runs at once, each with a model [default: one for every 8 processors; with Ray, as many as fit].",
)
@option(
    "--retries",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    group="Execution",
    help="Retries of a failed run.",
)
@no_cache
@verbosity
@click.option("--json", "as_json", is_flag=True, help="Print the runs as JSON and nothing else.")
@click.pass_context
def sweep(ctx: click.Context, file: str, out: str | None, dry_run: bool, as_json: bool, **flags: Any) -> None:
    """Run a grid of models, aligners, settings, tasks, countries and seeds.

    Finished runs are skipped, so that the same command resumes a sweep that was stopped.
    """
    path = Path(file)
    root = Path(out) if out else Path(path.stem)
    given = ctx.get_parameter_source("address") is ParameterSource.COMMANDLINE
    if given and flags["executor"] != "ray":
        raise UsageError("--address goes with --executor ray.")
    spec = read_grid(path)
    grid = _chosen(cells(spec, path), flags)
    if not dry_run:
        executor = executor_of(flags["executor"], grid, spec.resources, flags["workers"], flags["address"])
        carry_out(grid, root.absolute(), executor, as_json, flags)
    if as_json:
        click.echo(json.dumps([cell.record() for cell in grid], indent=2))
    else:
        Console().print(table_of(grid, None, 1, whole=dry_run))
        following = "the same command without --dry-run" if dry_run else f"culteval leaderboard show {root}"
        click.echo(f"next       {following}")
    if failed := [cell for cell in grid if cell.state == "failed"]:
        raise RunError(f"{len(failed)} of {len(grid)} runs failed; their reasons are in {root / STATUS}.")


def _chosen(grid: Sequence[Cell], flags: Mapping[str, Any]) -> list[Cell]:
    """Choose the runs of a grid: all, or those of the given aligners, countries and seeds.

    Raises:
        UsageError: a value that no run has, or values that no run has together.
    """
    chosen = list(grid)
    wanted = {
        "aligner": flags["aligners"],
        "country": tuple(resolve(country).code for country in flags["countries"]),
        "seed": flags["seeds"],
    }
    for field, values in wanted.items():
        known = {getattr(cell.config, field) for cell in grid}
        if unknown := [value for value in values if value not in known]:
            have = ", ".join(sorted(map(str, known)))
            raise UsageError(f"--{field} {unknown[0]}: the file has no such run; it has {have}.")
        chosen = [cell for cell in chosen if not values or getattr(cell.config, field) in values]
    if not chosen:
        raise UsageError("--aligner, --country and --seed: the file has no run of these together.")
    return chosen


def carry_out(grid: Sequence[Cell], root: Path, executor: Executor, as_json: bool, flags: Mapping[str, Any]) -> None:
    """Run what is not finished and keep a table on the terminal up to date.

    Args:
        flags: ``no_cache``, ``talk`` and ``retries``, as in the command ``sweep``.
    """
    started, answers = time.monotonic(), None if flags["no_cache"] else answers_folder()
    with terminal(as_json, flags["talk"]) as display, executor:
        show = Live(console=display.console, refresh_per_second=2, transient=True)

        def tell(now: Sequence[Cell]) -> None:
            show.update(table_of(now, started, executor.workers, whole=False))

        with show:
            run_cells(grid, root, executor, flags["retries"], tell, answers)


def table_of(grid: Sequence[Cell], started: float | None, workers: int, whole: bool) -> Group:
    """Make the table of runs and the summary line.

    A large grid shows running and failed runs only, unless ``whole``.
    """
    table = Table(box=None, pad_edge=False)
    for heading in ("aligner", "budget", "tasks", "country", "seed", "state"):
        table.add_column(heading)
    whole = whole or len(grid) <= MOST_SHOWN
    rows = [cell for cell in grid if whole or cell.state in ("running", "failed")]
    for cell in rows:
        with_reason = cell.reasons and cell.state not in ("done", "skipped")
        state = f"{cell.state} {cell.reasons[-1][:60]}" if with_reason else cell.state
        config, aligner = cell.config, " ".join([cell.config.aligner, *assignments(cell.varied)])
        where = (aligner, str(config.budget), ", ".join(config.tasks), name_of(config.country), str(config.seed))
        table.add_row(*map(Text, where), Text(shown(state), style=_STYLES[cell.state]))
    summary = Text(_summary(grid, started, workers))
    return Group(table, summary) if rows else Group(summary)


def _summary(grid: Sequence[Cell], started: float | None, workers: int) -> str:
    states = [cell.state for cell in grid]
    text = ", ".join(f"{states.count(state)} {state}" for state in _STYLES if state in states)
    finished = [cell for cell in grid if cell.state == "done"]
    left = sum(cell.item_forwards for cell in grid if cell.state in ("waiting", "running"))
    if started is not None and finished and left:
        pace = sum(cell.seconds for cell in finished) / sum(cell.item_forwards for cell in finished)
        text += f"; about {left * pace / workers / 60:.0f} min left"
    return text
