"""The commands ``ls`` and ``task``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ..errors import InputError, UsageError
from ..tasks.countries import name_of
from ..tasks.measure import MeasureOptions, countries_of, measure_of
from ..tasks.spec import load_spec
from .registry import find, listing, spec_path, table


@click.command()
@click.argument("what", type=click.Choice(["tasks", "aligners", "models", "countries"]))
@click.option("--task", default="vsm13", show_default=True, help="Whose countries.")
@click.option("--edition", help="Edition of the reference.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(what: str, task: str, edition: str | None, as_json: bool) -> None:
    """List tasks, aligners, models or countries."""
    rows = {
        "tasks": lambda: listing("tasks", _task),
        "aligners": lambda: listing("aligners", _aligner),
        "models": _models,
        "countries": lambda: _countries(task, edition),
    }[what]()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    result = Table(box=None, pad_edge=False)
    for column in rows[0]:
        result.add_column(column, overflow="fold")
    for row in rows:
        result.add_row(*(str(value) for value in row.values()))
    Console().print(result)


def _task(name: str) -> dict[str, Any]:
    spec = load_spec(spec_path(name)).metadata
    readouts = ", ".join(spec.readouts)
    row = {"task": name, "title": spec.title, "headline": spec.headline.metric, "read-outs": readouts}
    return row | {"default country": spec.default_country}


def _aligner(name: str) -> dict[str, Any]:
    kind = find("aligners", name)
    settings = ", ".join(f"{key}={field.default}" for key, field in kind.Settings.model_fields.items()) or "none"
    budget = "yes" if kind.budgeted else "no"
    return {"aligner": name, "summary": kind.summary, "budget": budget, "settings": settings}


def _models() -> list[dict[str, Any]]:
    from .embedded import EMBEDDED

    notes = {name: f"{model.name}, {model.license}; {model.note}" for name, model in EMBEDDED.items()}
    rows = [{"model": name, "what": notes.get(name, "plug-in")} for name in table("models")]
    return [*rows, {"model": "FOLDER or hub id", "what": "any causal language model of transformers"}]


def _countries(task: str, edition: str | None) -> list[dict[str, Any]]:
    spec = load_spec(spec_path(task))
    options = MeasureOptions(edition=edition)
    codes = sorted(countries_of(spec, edition))
    estimated = {code: measure_of(spec, code, options).caution for code in codes}
    return [
        {"code": code, "country": name_of(code), "reference": "estimate" if estimated[code] else "published"}
        for code in codes
    ]


@click.group()
def task() -> None:
    """Check task specs."""


@task.command()
@click.argument("path", type=click.Path(dir_okay=False))
def validate(path: str) -> None:
    """Check a spec's schema, items, splits and references; nothing of it is executed."""
    spec = load_spec(Path(path))
    default = spec.metadata.default_country
    try:
        codes = countries_of(spec, None)
        measure_of(spec, default, MeasureOptions())
    except UsageError as error:
        raise InputError(f"{path}: metadata.default_country: {error}") from None
    click.echo(f"{path}: valid ({len(spec.items.items)} items, {len(spec.wordings)} wordings, {len(codes)} countries).")
