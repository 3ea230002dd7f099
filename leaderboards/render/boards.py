"""Collect the data of the board page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from ...harness.scoring.baselines import Baseline
from ...tasks.countries import name_of
from ...tasks.glossary import COLUMNS, MARKS, SCORINGS, SPLITS, label, meaning
from ...tasks.score import Place, Score, place
from ..boards import CEILING, Board, Standing
from ..country_sets import AlignedSet
from ..entries import Entry
from ..literature import Reported, reported_for
from ..metric_labels import board_metrics, precision, usual_metrics
from ..submission_page import number
from ..suite import Suite
from . import between
from .map_data import map_data

_SIZE = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s?([MB])(?![a-z])", re.IGNORECASE)
_EMBEDDED = {"smollm2": 135e6}


def size_of(model: str) -> float | None:
    """Return the number of parameters from a model's name, such as 8e9 for ``Llama-3.1-8B``, or None."""
    if model in _EMBEDDED:
        return _EMBEDDED[model]
    found = _SIZE.findall(model.replace("-", " ").replace("_", " "))
    return float(found[-1][0]) * (1e9 if found[-1][1] in "Bb" else 1e6) if found else None


def board_data(
    boards: Sequence[Board],
    sets: Sequence[AlignedSet],
    entries: Sequence[Entry],
    suite: Suite,
) -> dict[str, Any]:
    """Return all boards and submissions, and the definitions of metrics, marks and columns."""
    standing = {one.entry.name for board in boards for one in board.standings}
    entries = [entry for entry in entries if entry.name in standing]  # runs of a control are one row
    ids = {entry.name: index for index, entry in enumerate(entries)}
    metrics = sorted({name for board in boards for name in board_metrics(board.spec)})
    maps = map_data(boards)
    return ({"maps": maps} if maps else {}) | {
        "suite": {"version": suite.version, "tasks": list(suite.tasks)},
        "submissions": [_submission(entry) for entry in entries],
        "boards": [_board(board, ids) for board in boards],
        "sets": [_sets(title, members) for title, members in between.grouped(sets).items()],
        "metrics": {name: [label(name), meaning(name), precision(name)] for name in metrics},
        "splits": SPLITS,
        "scorings": SCORINGS,
        "marks": MARKS,
        "columns": {name: [one.label, one.meaning] for name, one in COLUMNS.items()},
    }


def _submission(entry: Entry) -> dict[str, Any]:
    manifest = entry.manifest
    return {
        "name": entry.name,
        "aligner": manifest.aligner.name,
        "seed": manifest.seed,
        "model": manifest.model.name,
        "dtype": manifest.model.dtype,
        "size": size_of(manifest.model.name),
        "fitted": manifest.fitted_to,
        "evaluations": number(manifest.budget.survey_evaluations),
        "seconds": number(manifest.budget.seconds),
        "tokens": manifest.budget.tokens,
        "verified": entry.verified,
        "differs": entry.differs,
    }


def _board(board: Board, ids: dict[str, int]) -> dict[str, Any]:
    spec, metrics = board.spec, board_metrics(board.spec)
    places = {
        place(s): s.higher_is_better
        for scores in [*(standing.row.scores for standing in board.standings), *(row.scores for row in board.baselines)]
        for s in scores
        if s.metric in metrics
    }
    order = sorted(places, key=lambda where: metrics.index(where[0]))
    headline = spec.metadata.headline
    return {
        "task": spec.name,
        "title": spec.metadata.title,
        "construct": " ".join(spec.metadata.construct_text.split()),
        "citation": " ".join(spec.metadata.citation.split()),
        "licence": spec.metadata.licence.data,
        "country": board.key.country,
        "countryName": name_of(board.key.country),
        "variant": board.variant,
        "edition": board.key.edition,
        "inSuite": board.in_suite,
        "hash": spec.hash,
        "caution": board.caution,
        "scorings": list(dict.fromkeys(where[1] for where in order)),
        "splits": [name for name in ("heldout", "fit", "control") if any(where[2] == name for where in order)],
        "headline": [headline.metric, spec.default_scoring, "heldout"],
        "places": [[*where, places[where]] for where in order],
        "usual": usual_metrics(spec),
        "rows": [_standing(standing, order, ids) for standing in board.standings],
        "baselines": [_baseline(row, order) for row in board.baselines],
        "notes": [note for note in board.notes],
        "reported": [_reported(row) for row in reported_for(spec.name)],
    }


def _sets(title: str, members: Sequence[AlignedSet]) -> dict[str, Any]:
    rows, notes = between.rows(members), between.notes(members)
    return {
        "task": members[0].task,
        "title": title,
        "headings": between.headings(members),
        "rows": rows,
        "notes": notes,
    }


def _standing(standing: Standing, places: Sequence[Place], ids: dict[str, int]) -> dict[str, Any]:
    bounds = [number(standing.low), number(standing.high)] if standing.basis else None
    return {
        "s": ids[standing.entry.name],
        "rank": standing.rank,
        "basis": standing.basis,
        "bounds": bounds,
        "improvement": standing.row.improvement,
    } | _values(standing.row.scores, places)


def _baseline(row: Baseline, places: Sequence[Place]) -> dict[str, Any]:
    spread = row.spread or {}
    spreads = {i: number(spread[place]) for i, place in enumerate(places) if place in spread}
    about = {"name": row.name, "note": row.note, "ceiling": row.name == CEILING, "sd": spreads}
    return about | _values(row.scores, places)


def _reported(row: Reported) -> dict[str, str]:
    return {"metric": row.what, "figures": row.values, "mark": row.mark, "source": row.source}


def _values(given: Iterable[Score], places: Sequence[Place]) -> dict[str, Any]:
    """Return values in the order of the places, with existing intervals and notes."""
    found = {place(score): score for score in given}
    scores = [found.get(place) for place in places]
    bounds = {i: [number(s.low), number(s.high)] for i, s in enumerate(scores) if s and s.low is not None}
    notes = {i: s.note for i, s in enumerate(scores) if s and s.note}
    return {"v": [number(s.value) if s else None for s in scores], "ci": bounds, "notes": notes}
