"""Compute the overall table: a row for each aligner, a column for each task; means over countries and seeds."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..harness.analysis.between_countries import ALL
from ..harness.report.results import html_table
from ..harness.report.tables import Column, escape, markdown_table, narrow_table
from ..harness.scoring.score import TaskCache
from ..tasks.glossary import label
from ..tasks.measure import indices_of
from ..tasks.score import Score, place
from .boards import Board, key_of, settings_of
from .country_sets import aligned_sets
from .entries import Entry
from .metric_labels import precision
from .render.tables import columns

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

BASELINES = ("constant", "uniform", "world mean", "random prefix")  # with a row in the table
UNALIGNED = "naive"
R2 = "between_country_r2"
NOTES = (
    "means over countries, in each over seeds; between-country R2: explained variance of country-centred indices",
    "(k/n): k of n runs are better than every baseline by interval or seed range, and than random prefixes by 2 SD",
    "±: standard deviation over random prefixes",
)


class _Task(NamedTuple):
    """The common properties of the boards of one column: all but the country."""

    name: str
    edition: str
    constants: str
    asked: str


class _RowKey(NamedTuple):
    """The common properties of the runs of one row: all but country and seed. A baseline has no settings."""

    aligner: str
    model: str = ""
    settings: str = "{}"
    allowed: int = 0


@dataclass(frozen=True)
class Cell:
    """A mean, its spread over random prefixes, the number of improvements and of runs."""

    value: float
    spread: float | None = None
    improvements: int = 0
    runs: int = 0

    def text(self, places: int) -> str:
        """Format the cell with a number of decimal places."""
        spread = "" if self.spread is None else f" ± {self.spread:.{places}f}"
        return f"{self.value:z.{places}f}{spread}" + (f" ({self.improvements}/{self.runs})" if self.runs else "")


@dataclass
class _Values:
    """The values of one row in one column, by country; a baseline has spreads and no runs."""

    countries: set[str] = field(default_factory=set)
    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    improved: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))
    spreads: list[float] = field(default_factory=list)

    def add(self, country: str, score: Score | None, improved: bool | None = None) -> None:
        self.countries.add(country)
        if score is not None:
            self.values[country].append(score.value)
            self.improved[country] += [] if improved is None else [improved]

    def cell(self, countries: Collection[str]) -> Cell | None:
        """Average over the countries with a value; None if there is none."""
        means = [float(np.mean(each)) for code, each in self.values.items() if code in countries]
        improved = [one for code, each in self.improved.items() for one in each if code in countries]
        spread = float(np.mean(self.spreads)) if self.spreads else None
        return Cell(float(np.mean(means)), spread, sum(improved), len(improved)) if means else None


@dataclass(frozen=True)
class Row:
    """An aligner or baseline, the countries of its means, and one cell for each column (None: no value)."""

    name: str
    countries: tuple[str, ...]
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Overall:
    """The overall table: ``columns`` are pairs of task title and metric; ``rows`` are aligners, then baselines.

    Aligners are ordered by the headline of the first task; those without runs in every country come last.
    """

    columns: tuple[tuple[str, str], ...]
    rows: tuple[Row, ...]

    @property
    def headings(self) -> list[str]:
        """Return the headings of ``texts``."""
        return ["aligner", *(f"{task}: {_label(metric)}" for task, metric in self.columns)]

    def texts(self) -> list[list[str]]:
        """Format the cells of each row; "-" if there is no value."""
        places = [2 if metric == R2 else precision(metric) for _, metric in self.columns]
        return [
            [row.name, *("-" if cell is None else cell.text(at) for cell, at in zip(row.cells, places, strict=True))]
            for row in self.rows
        ]

    def to_frame(self) -> pd.DataFrame:
        """Return the table as a frame of formatted cells: a row for each aligner, a column for each task."""
        import pandas as pd

        return pd.DataFrame(self.texts(), columns=self.headings)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        yield self.table(options.max_width)

    def table(self, width: int) -> Table:
        """Return the table for a terminal of ``width`` characters."""
        spare = range(len(self.headings) - 1, 0, -1)
        return narrow_table("Overall", "\n".join(NOTES), self.headings, self.texts(), spare, width)

    def to_markdown(self) -> str:
        """Return the table as Markdown, without its notes."""
        rows = [[escape(cell) for cell in line] for line in self.texts()]
        return markdown_table(self.headings, rows, words=range(1))

    def _repr_html_(self) -> str:
        return html_table(self.to_frame())

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one record for each value."""
        for row in self.rows:
            for (task, metric), cell in zip(self.columns, row.cells, strict=True):
                if cell is not None:
                    who = {"aligner": row.name, "countries": row.countries}
                    yield who | {"task": task, "metric": metric} | asdict(cell)


def _label(metric: str) -> str:
    return "between-country R2" if metric == R2 else label(metric).lower()


def overall(found: Sequence[Board], shelf: TaskCache) -> Overall:
    """Average the headlines of boards over countries and seeds.

    Only comparable runs are averaged: other models, settings or budgets are another row; other editions, constants or
    protocols are another column.
    """
    boards: dict[_Task, list[Board]] = defaultdict(list)
    for board in found:
        boards[_Task(board.key.task, *board.key[2:])].append(board)
    runs: dict[_RowKey, dict[str, Entry]] = defaultdict(dict)
    table: dict[_RowKey, dict[_Task, _Values]] = defaultdict(lambda: defaultdict(_Values))
    for task, members in boards.items():
        for board in members:
            _add(board, task, runs, table)
    all_of = {task: {board.key.country for board in members} for task, members in boards.items()}
    everywhere = {code for each in all_of.values() for code in each}
    centred = [task for task, members in boards.items() if indices_of(members[0].spec)]
    rows, names, titles = [], _names(runs), _titles(boards)
    for who, where in _ordered(runs, table, boards, all_of):
        name = names.get(who) or " ".join(filter(None, who[:2]))
        whole = where == everywhere
        between = [_between(runs.get(who, {}), task, shelf) if whole else None for task in centred]
        cells = [each.cell(where) if (each := table[who].get(task)) else None for task in boards]
        title = name if whole else f"{name}, {' and '.join(sorted(where))} only"
        rows.append(Row(title, tuple(sorted(where)), (*between, *cells)))
    shown = [(titles[task], R2) for task in centred]
    shown += [(titles[task], _column(members).metric) for task, members in boards.items()]
    return Overall(tuple(shown), tuple(rows))


def _column(boards: Sequence[Board]) -> Column:
    """Return the score of a column: the first of a table for a paper."""
    return columns(boards[0])[0]


def _add(
    board: Board, task: _Task, runs: dict[_RowKey, dict[str, Entry]], table: dict[_RowKey, dict[_Task, _Values]]
) -> None:
    """Add the rows of a board to the table, and its submissions to ``runs`` by name."""
    column, country = _column([board]), board.key.country
    for standing in board.standings:
        manifest = standing.entry.manifest
        model, allowed = f"{manifest.model.name} {manifest.model.dtype}", manifest.budget.item_forwards_allowed
        who = _RowKey(manifest.aligner.name, model, settings_of(standing.entry), allowed)
        runs[who][standing.entry.name] = standing.entry
        table[who][task].add(country, column.find(standing.row.scores), standing.row.improvement)
    for row in board.baselines:
        equal = row.note if row.note and row.note.startswith("also ") else ""  # on a board, equal rows are one
        model = found[1] if (found := re.search(r", ([^,]+ b?float\d+)", row.name)) else ""  # if there are several
        for name in (name for name in BASELINES if row.name.startswith(name) or name in equal):
            score, cell = column.find(row.scores), table[_RowKey(name, model)][task]
            cell.add(country, score)
            cell.spreads += [row.spread[place(score)]] if score and row.spread else []


def _ordered(
    runs: Mapping[_RowKey, object],
    table: Mapping[_RowKey, Mapping[_Task, _Values]],
    boards: Mapping[_Task, Sequence[Board]],
    all_of: Mapping[_Task, set[str]],
) -> Iterator[tuple[_RowKey, set[str]]]:
    """Yield the rows in order, each with the countries of its means."""
    everywhere = {code for each in all_of.values() for code in each}

    def best_first(who: _RowKey) -> float:
        first, members = next(iter(boards.items()))
        cell = table[who][first].cell(everywhere) if first in table[who] else None
        higher = _column(members).metric == "skill" or members[0].spec.metadata.headline.higher_is_better
        return float("inf") if cell is None else -cell.value if higher else cell.value

    aligners = sorted(runs, key=best_first)
    whole = [who for who in aligners if all(each.countries == all_of[task] for task, each in table[who].items())]
    yield from ((who, everywhere) for who in whole)
    for who in (who for who in aligners if who not in whole):  # followed by the unaligned model in the same countries
        where = {code for each in table[who].values() for code in each.countries}
        yield who, where
        yield from ((one, where) for one in whole if one.aligner == UNALIGNED and one.model == who.model)
    yield from ((who, everywhere) for name in BASELINES for who in table if who.aligner == name)


def _between(runs: Mapping[str, Entry], task: _Task, shelf: TaskCache) -> Cell | None:
    """Average the between-country R2 of a row's aligned sets over seeds; None without a set of six countries."""
    spec = shelf.spec(task.name)
    answered = [entry for entry in runs.values() if any(one.name == task.name for one in entry.manifest.tasks)]
    members = [entry for entry in answered if key_of(entry.manifest.task(task.name), spec)[2:] == task[1:]]
    found = [each.centred for each in aligned_sets(members, shelf) if each.task == task.name]
    values = [each.explained_variance[ALL] for each in found if each]
    return Cell(float(np.mean(values))) if values else None


def _titles(boards: Mapping[_Task, Sequence[Board]]) -> dict[_Task, str]:
    """Return the titles of columns: the task, and edition and protocol if a task has several columns."""
    names = [task.name for task in boards]
    return {
        task: task.name if names.count(task.name) == 1 else f"{task.name} ({members[0].variant})"
        for task, members in boards.items()
    }


def _names(runs: Iterable[_RowKey]) -> dict[_RowKey, str]:
    """Return the names of rows: the aligner, and model, budget and settings that differ between its rows."""
    runs = list(runs)
    several = len({who.model for who in runs}) > 1
    names = {}
    for who in runs:
        same = [one for one in runs if (one.aligner, one.model) == (who.aligner, who.model)]
        parts = [f"{who.aligner} {who.model}" if several else who.aligner]
        if len({one.allowed for one in same}) > 1:
            parts.append(f"{who.allowed:,} item forwards")
        settings = [json.loads(one.settings) for one in same]
        own = json.loads(who.settings)
        differing = [key for key in own if any(other.get(key) != own[key] for other in settings)]
        names[who] = ", ".join([*parts, *(f"{key}={own[key]}" for key in differing)])
    return names
