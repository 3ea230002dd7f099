"""The commands ``ls`` and ``task``."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..tasks.countries import name_of
from ..tasks.measure import MeasureOptions, countries_of, measure_of
from ..tasks.spec import NotImportedError
from .api import NOTES
from .registry import find, listing, local_tasks, spec_of, table

_TASK_COLUMNS = ("headline", "read-outs", "default country")


@click.command()
@click.argument("what", type=click.Choice(["tasks", "aligners", "models", "countries"]))
@click.option("--task", default="vsm13", show_default=True, help="Whose countries.")
@click.option("--edition", help="Edition of the reference.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(what: str, task: str, edition: str | None, as_json: bool) -> None:
    """List tasks, aligners, models or countries."""
    rows = {
        "tasks": lambda: listing("tasks", _task, local_tasks()),
        "aligners": lambda: listing("aligners", _aligner),
        "models": _models,
        "countries": lambda: _countries(task, edition),
    }[what]()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    result = Table(box=None, pad_edge=False)
    for column in rows[0]:
        result.add_column(column, overflow="fold", no_wrap=column == next(iter(rows[0])))
    for row in rows:
        result.add_row(*(Text(str(value)) for value in row.values()))
    Console().print(result)


def _task(name: str) -> dict[str, Any]:
    try:
        spec = spec_of(name).metadata
    except NotImportedError:
        return {"task": name, "title": "not imported yet (culteval data import)"} | dict.fromkeys(_TASK_COLUMNS, "-")
    readouts = ", ".join(spec.readouts)
    row = {"task": name, "title": spec.title}
    return row | dict(zip(_TASK_COLUMNS, (spec.headline.metric, readouts, spec.default_country), strict=True))


def _aligner(name: str) -> dict[str, Any]:
    kind = find("aligners", name)
    settings = ", ".join(f"{key}={field.default}" for key, field in kind.Settings.model_fields.items()) or "none"
    budget = "yes" if kind.budgeted else "no"
    return {"aligner": name, "summary": kind.summary, "budget": budget, "settings": settings}


def _models() -> list[dict[str, Any]]:
    from .embedded import EMBEDDED

    notes = {name: f"{model.name}, {model.license}; {model.note}" for name, model in EMBEDDED.items()}
    rows = [{"model": name, "what": notes.get(name, "plug-in")} for name in table("models")]
    rows.append({"model": "FOLDER or hub id", "what": "any causal language model of transformers"})
    return [*rows, *({"model": name, "what": what} for name, what in NOTES.items())]


def _countries(task: str, edition: str | None) -> list[dict[str, Any]]:
    spec = spec_of(task)
    options = MeasureOptions(edition=edition)
    codes = sorted(countries_of(spec, edition))
    estimated = {code: measure_of(spec, code, options).caution for code in codes}
    return [
        {"code": code, "country": name_of(code), "reference": "estimate" if estimated[code] else "published"}
        for code in codes
    ]
