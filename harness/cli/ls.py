"""The command ``ls``: lists of tasks, aligners, models, countries and runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError
from rich.console import Console

from ...errors import InputError, UsageError
from ...tasks.reading import read_unmarked
from ..runs.listing import Listing, list_aligners, list_countries, list_models, list_tasks

if TYPE_CHECKING:
    from ..runs.config import RunConfig
    from ..sweeps.status import Row

MOST_CONFIG = 1 << 20  # bytes read of a run's configuration
_RUN_FIELDS = ("tasks", "country", "aligner", "seed", "model", "budget")


@click.command()
@click.argument("what", type=click.Choice(["tasks", "aligners", "models", "countries", "runs"]))
@click.argument("folder", required=False, type=click.Path())
@click.option("--task", default="vsm13", show_default=True, help="Countries of this task.")
@click.option("--edition", help="Edition of the reference.")
@click.option("--measure", metavar="MODEL", help="First measure the time and memory that a model takes here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(what: str, folder: str | None, task: str, edition: str | None, measure: str | None, as_json: bool) -> None:
    """List tasks, aligners, models, countries, or the runs in a folder.

    FOLDER is one of runs [default: culteval-runs].
    """
    if folder is not None and what != "runs":
        raise UsageError(f"{folder!r}: only `ls runs` takes a folder.")
    if measure is not None:
        _measure(measure, what)
    listing = {
        "tasks": list_tasks,
        "aligners": list_aligners,
        "models": list_models,
        "countries": lambda: list_countries(task, edition),
        "runs": lambda: Listing(_runs(Path(folder or "culteval-runs")), "runs"),
    }[what]()
    if as_json:
        click.echo(json.dumps(listing.rows, indent=2))
    else:
        Console().print(listing)


def _measure(model: str, what: str) -> None:
    """Measure a named model, which is fetched first if needed."""
    from ..registry import find
    from ..runs.measure import measure

    if what != "models":
        raise UsageError(f"--measure {model}: only `ls models` measures a model.")
    find("models", model)()
    with Console(stderr=True).status(f"measuring {model}: it answers a survey twice"):
        measure(model)


def _runs(folder: Path) -> list[dict[str, Any]]:
    """List the runs directly in a folder, and those that failed in its sweep; anything else is skipped.

    Raises:
        InputError: no such folder, or its ``sweep.json`` is damaged.
    """
    from ..runs.execute import SCORES
    from ..sweeps.status import read_rows

    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False))
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}). Give a folder of runs.") from None
    failed = {name: row for name, row in read_rows(folder).items() if row.state == "failed"}
    rows = []
    for name in names:
        if (config := _config(folder / name)) is not None:
            row = failed.pop(name, None)
            finished = (folder / name / SCORES).is_file()
            rows.append(_run(name, config, "finished" if finished else "failed" if row else "begun", row))
    return rows + [_run(name, row, "failed", row) for name, row in failed.items()]  # failed before writing a folder


def _run(name: str, source: RunConfig | Row, state: str, failed: Row | None) -> dict[str, Any]:
    """Make one row. A finished run keeps the reason too: the sweep found it damaged, or it was finished since."""
    reason = failed.reasons[-1] if failed and failed.reasons else ""
    fields = {field: getattr(source, field) for field in _RUN_FIELDS}
    return {"run": name} | fields | {"state": state, "reason": reason}


def _config(folder: Path) -> RunConfig | None:
    """Read the configuration of a run's folder, without opening files that it names; None where it is unreadable."""
    from ..runs.config import RunConfig
    from ..runs.folder import CONFIG

    try:
        return RunConfig.model_validate_json(read_unmarked(folder / CONFIG, MOST_CONFIG))
    except (InputError, ValidationError):
        return None
