"""Collect the data of the overview's page and of the pages of models and aligners."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ...harness.scoring.score import TaskCache
from ...optimizers.cards import described, own_aligners
from ...tasks.countries import name_of
from ...tasks.glossary import COLUMNS, MARKS, meaning
from ..boards import Board
from ..entries import Entry
from ..overview import Overview, heading, places
from ..overview_builder import is_over_all, overview, scopes
from ..overview_rows import R2, Column, Row
from ..pooling import Cell
from ..submission_page import number, visible
from ..suite import Suite
from .boards import size_of
from .map_data import map_data

_SHOWN = ("rank", "evaluations", "seconds", "tokens", "marks")  # glossary entries of the page's columns


def overview_pages(boards: Sequence[Board], shelf: TaskCache, suite: Suite) -> Iterator[tuple[str, str, Any]]:
    """Yield the data files of the overview as file, name in the script, and data.

    ``overview`` has all that the first view needs; ``scope-N`` the table over another set of countries, and
    ``seeds-N`` the seeds that are folded into its rows.
    """
    usual, sets = overview(boards, shelf), scopes(boards)
    differs = not is_over_all(usual, boards)
    tables = [usual, *(overview(boards, shelf, countries) for countries in sets[0 if differs else 1 :])]
    labels = [_label(one.countries, len(sets[0])) for one in tables]
    codes = [list(one.countries) for one in tables]
    if differs:
        labels[0], codes[0] = "those of most runs", []
    for at, found in enumerate(tables):
        yield f"seeds-{at}", "seeds", [[_row(seed) for seed in row.seeds] for row in found.rows]
        if at:
            yield f"scope-{at}", "scope", _table(found)
    about: dict[str, Any] = {
        "suite": {"version": suite.version, "tasks": list(suite.tasks)},
        "marks": MARKS,
        "terms": {name: [COLUMNS[name].label, COLUMNS[name].meaning] for name in _SHOWN},
        "countries": {code: name_of(code) for code in usual.countries},
        "scopes": [list(pair) for pair in zip(codes, labels, strict=True)],
        "maps": map_data(boards) if any(row.points for row in usual.rows) else {},
    }
    yield "overview", "overview", about | {"table": _table(usual)}


def _label(countries: Sequence[str], every: int) -> str:
    if len(countries) == 1:
        return name_of(countries[0])
    return f"{'all' if len(countries) == every else 'only'} {len(countries)}: {', '.join(countries)}"


def _table(found: Overview) -> dict[str, Any]:
    return {
        "columns": [_column(column) for column in found.columns],
        "main": found.main,
        "rows": [_row(row) for row in found.rows],
    }


def _column(column: Column) -> dict[str, Any]:
    metric = "explained_variance" if column.metric == R2 else column.metric
    return {
        "task": column.variant.task,
        "title": heading(column),
        "about": meaning(metric),
        "places": places(column),
        "higher": column.higher_is_better,
        "countries": list(column.countries),
        "cautions": list(column.cautions),
    }


def _row(row: Row) -> dict[str, Any]:
    cost = row.cost
    found: dict[str, Any] = {
        "aligner": row.configuration.aligner,
        "model": row.configuration.model,
        "detail": row.detail,
        "cells": [_cell(cell) for cell in row.cells],
    }
    if cost is not None:
        found |= {"cost": [number(cost.survey_evaluations), number(cost.seconds), number(cost.tokens)]}
        found |= {"marks": list(row.marks), "runs": len(row.submissions), "countries": list(row.countries)}
    if row.seed is not None:
        found |= {"seed": row.seed, "submissions": [list(one) for one in row.submissions]}
    if row.points:
        found["points"] = [
            [one.country, one.edition, *map(number, (*one.at, *one.error, *(one.start or (None, None))))]
            for one in row.points
        ]
    return found


def _cell(cell: Cell) -> dict[str, Any]:
    """Return the fields of a cell that are not empty, by short names."""
    counts = {"n": cell.runs, "seeds": cell.seeds, "better": cell.improvements, "of": cell.judged}
    counts["collapsed"] = cell.collapsed
    numbers = {"lo": cell.low, "hi": cell.high, "sd": cell.spread, "bare": cell.unaligned}
    found = {
        "basis": cell.basis,
        "rank": cell.rank,
        "in": list(cell.countries),
        "effect": cell.effect,
        "why": cell.reason,
    }
    return {
        "v": number(cell.value),
        **{name: value for name, value in (found | counts).items() if value},
        **{name: number(value) for name, value in numbers.items() if value is not None},
    }


def cards_data(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return what is known of the board's aligners and models: method cards of this package; names and revisions."""
    models: dict[str, dict[str, Any]] = defaultdict(lambda: {"revisions": set(), "forward": set(), "submissions": 0})
    used = set()
    for entry in entries:
        manifest = entry.manifest
        used.add(manifest.aligner.name)
        found = models[f"{manifest.model.name} {manifest.model.dtype}"]
        found["size"] = size_of(manifest.model.name)
        found["revisions"].add(manifest.model.revision)
        found["forward"].add(manifest.model.forward)
        found["submissions"] += 1
    cards = {}
    for name, aligner in own_aligners().items():
        if name in used:
            text, rows = described(name, aligner)
            cards[name] = {"summary": aligner.summary, "text": text, "rows": rows}
    lists = {name: {key: sorted(value) if isinstance(value, set) else value for key, value in each.items()} for
             name, each in models.items()}  # fmt: skip
    return {"aligners": cards, "models": visible(lists)}
