"""Lists of tasks, aligners, models and countries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ...errors import on_one_line
from ...tasks.countries import name_of
from ...tasks.measure import MeasureOptions, countries_of, measure_of
from ...tasks.spec import NotImportedError
from ..providers.settings import NOTES
from ..registry import FAMILIES, concrete, family, find, listing, local_tasks, spec_of, table
from ..report.results import Results

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

MOST_CELL = 1_000  # characters shown of any value
WORD, NAME = 12, 24  # characters that a cell, and the first cell of a row, keep on one line
_TASK_COLUMNS = ("headline", "answer scoring", "default country")


class Listing(Results[Mapping[str, Any]]):
    """Rows of a list, each a mapping with the same keys.

    Args:
        what: the kind of rows, such as ``tasks``.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]], what: str) -> None:
        super().__init__(rows)
        self.what = what

    def __repr__(self) -> str:
        return f"Listing({len(self)} {self.what})"

    def records(self) -> list[dict[str, Any]]:
        """Return the rows as dictionaries."""
        return list(map(dict, self))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        from rich.table import Table
        from rich.text import Text

        result = Table(box=None, pad_edge=False)
        columns = [name for name in self.rows[0] if any(row[name] != "" for row in self)] if self else []
        cells = [[_cell(row[column]) for column in columns] for row in self]
        for number, column in enumerate(columns or [f"no {self.what}"]):
            most = WORD if number else NAME  # a narrow terminal folds longer cells only
            short = all(len(row[number]) <= most for row in cells)
            result.add_column(column, overflow="fold", no_wrap=short)
        for row in cells:
            result.add_row(*map(Text, row))
        yield result


def _cell(value: Any) -> str:
    """Format a value as one bounded line, safe to print to a terminal."""
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return on_one_line(text)[:MOST_CELL]


def list_tasks() -> Listing:
    """List the tasks that are built in, of plug-ins, and in the working folder."""
    families = (name for name in FAMILIES if name not in family(name))
    return Listing(listing("tasks", _task, [*local_tasks(), *families]), "tasks")


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
    scorings = ", ".join(spec.scorings)
    row = {"task": name, "title": spec.title}
    return row | dict(zip(_TASK_COLUMNS, (spec.headline.metric, scorings, spec.default_country), strict=True))


def list_aligners() -> Listing:
    """List the aligners with their settings and defaults."""
    return Listing(listing("aligners", _aligner), "aligners")


def _aligner(name: str) -> dict[str, Any]:
    kind = find("aligners", name)
    settings = ", ".join(f"{key}={field.default}" for key, field in kind.Settings.model_fields.items()) or "none"
    budget = "yes" if kind.budgeted else "no"
    return {"aligner": name, "summary": kind.summary, "budget": budget, "settings": settings}


def list_models() -> Listing:
    """List the models that have a name, with what they need, and how to name others."""
    rows = {name: _model(name) for name in table("models")}
    others = {"FOLDER or hub id": "any causal language model of transformers", "FILE.gguf": "a GGUF file of llama.cpp"}
    return Listing(({"model": name, "description": what} for name, what in (rows | others | NOTES).items()), "models")


def _model(name: str) -> str:
    """Describe a named model; memory and time are those of this machine where they were measured here."""
    from ..models.embedded import EMBEDDED
    from .measure import measured

    if name not in EMBEDDED:
        return "plug-in"
    model, here = EMBEDDED[name], measured().get(name)
    need = f"memory {model.memory / 1e9:.1f} GB"
    if here:
        need = f"here, in {here.dtype}: memory {here.memory / 1e9:.1f} GB, {here.seconds:.1f} s a survey"
    return (
        f"{model.name}: {model.parameters / 1e6:,.0f} M parameters, {model.languages}, {model.license}; {model.note}; "
        f"download {model.parts.size / 1e9:.1f} GB, disk {model.disk / 1e9:.1f} GB, {need}"
    )


def list_countries(task: str = "vsm13", edition: str | None = None) -> Listing:
    """List the countries of a task's reference.

    Raises:
        UsageError: no such task or edition. InputError: a malformed task.
    """
    spec = spec_of(concrete(task))
    options = MeasureOptions(edition=edition)
    codes = sorted(countries_of(spec, edition))
    estimated = {code: measure_of(spec, code, options).caution for code in codes}
    kinds = {code: "estimate" if estimated[code] else "published" for code in codes}
    return Listing(({"code": code, "country": name_of(code), "reference": kinds[code]} for code in codes), "countries")
