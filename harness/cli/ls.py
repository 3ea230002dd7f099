"""The command ``ls``: lists of tasks, aligners, models, countries and runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import InputError, UsageError, shown
from ...tasks.countries import name_of
from ...tasks.measure import MeasureOptions, countries_of, measure_of
from ...tasks.reading import read_unmarked
from ...tasks.spec import NotImportedError
from ..providers.settings import NOTES
from ..registry import FAMILIES, concrete, family, find, listing, local_tasks, spec_of, table

if TYPE_CHECKING:
    from ..runs.config import RunConfig
    from ..sweeps.status import Row

MOST_CONFIG, MOST_CELL = 1 << 20, 1_000  # bytes read of a run's configuration; characters shown of any value
_TASK_COLUMNS = ("headline", "answer scoring", "default country")
_RUN_FIELDS = ("tasks", "country", "aligner", "seed", "model", "budget")
WORD, NAME = 12, 24  # letters that a cell keeps on one line, and the first of a row


@click.command()
@click.argument("what", type=click.Choice(["tasks", "aligners", "models", "countries", "runs"]))
@click.argument("folder", required=False, type=click.Path())
@click.option("--task", default="vsm13", show_default=True, help="Countries of this task.")
@click.option("--edition", help="Edition of the reference.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(what: str, folder: str | None, task: str, edition: str | None, as_json: bool) -> None:
    """List tasks, aligners, models, countries, or the runs in a folder.

    FOLDER is one of runs [default: culteval-runs].
    """
    if folder is not None and what != "runs":
        raise UsageError(f"{folder!r}: only `ls runs` takes a folder.")
    rows = {
        "tasks": lambda: listing(
            "tasks", _task, [*local_tasks(), *(name for name in FAMILIES if name not in family(name))]
        ),
        "aligners": lambda: listing("aligners", _aligner),
        "models": _models,
        "countries": lambda: _countries(task, edition),
        "runs": lambda: _runs(Path(folder or "culteval-runs")),
    }[what]()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    result = Table(box=None, pad_edge=False)
    columns = [name for name in rows[0] if any(row[name] != "" for row in rows)] if rows else [f"no {what}"]
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    for number, column in enumerate(columns):
        most = WORD if number else NAME  # a narrow terminal folds what is longer, and no words
        short = all(len(row[number]) <= most for row in cells)
        result.add_column(column, overflow="fold", no_wrap=short)
    for row in cells:
        result.add_row(*map(Text, row))
    Console().print(result)


def _cell(value: Any) -> str:
    """Write a value on one bounded line of printable characters."""
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return shown(" ".join(text.split()))[:MOST_CELL]


def _task(name: str) -> dict[str, Any]:
    first, *others = family(name)
    if name != first:
        title = f"a family; stands for {concrete(name)} here"
        return {"task": name, "title": title} | dict.fromkeys(_TASK_COLUMNS, "-")
    try:
        spec = spec_of(name).metadata
    except NotImportedError:
        title = "not imported yet (culteval data import)" + (f"; stands for {concrete(name)} here" if others else "")
        return {"task": name, "title": title} | dict.fromkeys(_TASK_COLUMNS, "-")
    readouts = ", ".join(spec.readouts)
    row = {"task": name, "title": spec.title}
    return row | dict(zip(_TASK_COLUMNS, (spec.headline.metric, readouts, spec.default_country), strict=True))


def _aligner(name: str) -> dict[str, Any]:
    kind = find("aligners", name)
    settings = ", ".join(f"{key}={field.default}" for key, field in kind.Settings.model_fields.items()) or "none"
    budget = "yes" if kind.budgeted else "no"
    return {"aligner": name, "summary": kind.summary, "budget": budget, "settings": settings}


def _models() -> list[dict[str, Any]]:
    from ..models.embedded import EMBEDDED

    notes = {name: f"{model.name}, {model.license}; {model.note}" for name, model in EMBEDDED.items()}
    rows = [{"model": name, "description": notes.get(name, "plug-in")} for name in table("models")]
    rows.append({"model": "FOLDER or hub id", "description": "any causal language model of transformers"})
    return [*rows, *({"model": name, "description": note} for name, note in NOTES.items())]


def _countries(task: str, edition: str | None) -> list[dict[str, Any]]:
    spec = spec_of(concrete(task))
    options = MeasureOptions(edition=edition)
    codes = sorted(countries_of(spec, edition))
    estimated = {code: measure_of(spec, code, options).caution for code in codes}
    return [
        {"code": code, "country": name_of(code), "reference": "estimate" if estimated[code] else "published"}
        for code in codes
    ]


def _runs(folder: Path) -> list[dict[str, Any]]:
    """List the runs directly in a folder, and those that its sweep says failed; anything else is skipped.

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
    found = []
    for name in names:
        if (config := _config(folder / name)) is not None:
            row = failed.pop(name, None)
            finished = (folder / name / SCORES).is_file()
            found.append(_run(name, config, "finished" if finished else "failed" if row else "begun", row))
    return found + [_run(name, row, "failed", row) for name, row in failed.items()]  # of which nothing was written


def _run(name: str, told: RunConfig | Row, state: str, failed: Row | None) -> dict[str, Any]:
    """Make one row. A finished run keeps the reason too: the sweep found it damaged, or it was finished since."""
    reason = failed.reasons[-1] if failed and failed.reasons else ""
    fields = {field: getattr(told, field) for field in _RUN_FIELDS}
    return {"run": name} | fields | {"state": state, "reason": reason}


def _config(folder: Path) -> RunConfig | None:
    """Read the configuration of a run's folder; None where it cannot be read. No file that it names is opened."""
    from ..runs.config import RunConfig
    from ..runs.folder import CONFIG

    try:
        return RunConfig.model_validate_json(read_unmarked(folder / CONFIG, MOST_CONFIG))
    except (InputError, ValidationError):
        return None
