"""The commands ``ls`` and ``task``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from ..tasks.countries import name_of
from ..tasks.measure import MeasureOptions, countries_of, measure_of
from ..tasks.spec import load_spec
from .registry import listing, spec_path, table


@click.command()
@click.argument("what", type=click.Choice(["tasks", "aligners", "models", "countries"]))
@click.option("--task", default="vsm13", show_default=True, help="Whose countries.")
@click.option("--edition", help="Edition of the reference.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def ls(what: str, task: str, edition: str | None, as_json: bool) -> None:
    """List tasks, aligners, models or countries."""
    rows = {"tasks": _tasks, "aligners": _aligners, "models": _models}.get(what, lambda: _countries(task, edition))()
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    result = Table(box=None, pad_edge=False)
    for column in rows[0]:
        result.add_column(column, overflow="fold")
    for row in rows:
        result.add_row(*(str(value) for value in row.values()))
    Console().print(result)


def _tasks() -> list[dict[str, Any]]:
    specs = {name: load_spec(path) for name, path in listing("tasks").items()}
    return [
        {"task": name, "title": spec.metadata.title, "headline": spec.metadata.headline.metric,
         "read-outs": ", ".join(spec.metadata.readouts), "default country": spec.metadata.default_country}
        for name, spec in specs.items()
    ]  # fmt: skip


def _aligners() -> list[dict[str, Any]]:
    # The classes live beside torch code; their summaries are worth the wait of one import.
    return [
        {"aligner": name, "summary": kind.summary, "budget": "yes" if kind.budgeted else "no",
         "settings": ", ".join(f"{key}={field.default}" for key, field in kind.Settings.model_fields.items()) or "none"}
        for name, kind in listing("aligners").items()
    ]  # fmt: skip


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
    codes = countries_of(spec, None)
    measure_of(spec, spec.metadata.default_country, MeasureOptions())
    click.echo(f"{path}: valid ({len(spec.items.items)} items, {len(spec.wordings)} wordings, {len(codes)} countries).")
