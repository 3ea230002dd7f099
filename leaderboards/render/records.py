"""Write boards as records: JSON and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ...harness.report.tables import headline_of
from ...tasks.score import Place, Score
from ..boards import Board, Standing
from ..country_sets import AlignedSet
from ..literature import reported_for
from ..overview import Overview
from . import between
from .tables import columns

_FORMULA = tuple("=+-@\t\r|%")
FIELDS = (
    "kind", "task", "country", "variant", "suite", "rank", "point_estimate_only", "submission", "aligner", "seed",
    "model", "metric", "scoring", "split", "value", "low", "high", "basis", "spread", "improvement", "note",
    "survey_evaluations", "seconds", "tokens", "verified", "source",
)  # fmt: skip
POOLED = ("detail", "direction", "runs", "seeds", "improvements", "judged", "collapsed", "unaligned", "effect")
EXPORTED = (*FIELDS, *POOLED)  # the fields of an exported file, which opens on the overview


def exported(overview: Overview, rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the records of an exported file: the overview's (``kind`` overview, overview baseline), then the rows."""
    return [{field: record.get(field) for field in EXPORTED} for record in (*overview.records(), *rows)]


def records(boards: Sequence[Board], sets: Iterable[AlignedSet], suite: str) -> list[dict[str, Any]]:
    """Return one record for each row and value of boards, aligned sets and reported figures.

    ``kind`` is submission, baseline, set or reported. ``spread`` is the standard deviation over the runs of a baseline.
    """
    found: list[dict[str, Any]] = []
    for board in boards:
        where = {"task": board.key.task, "country": board.key.country, "variant": board.variant}
        where["suite"] = suite if board.in_suite else ""
        for standing in board.standings:
            manifest = standing.entry.manifest
            who = {
                "kind": "submission",
                "rank": standing.rank,
                "point_estimate_only": standing.basis is None,
                "submission": standing.entry.name,
                "aligner": manifest.aligner.name,
                "seed": manifest.seed,
                "model": manifest.model.name,
                "survey_evaluations": manifest.budget.survey_evaluations,
                "seconds": manifest.budget.seconds,
                "tokens": manifest.budget.tokens,
                "verified": standing.entry.verified,
                "improvement": standing.row.improvement,
            }
            found += _numbers(board, standing.row.scores, where | who, standing)
        for row in board.baselines:
            found += _numbers(board, row.scores, where | {"kind": "baseline", "aligner": row.name}, spread=row.spread)
    found += between.records(sets)
    for task in dict.fromkeys(board.key.task for board in boards):
        found += _reported(task)
    return [{field: record.get(field) for field in FIELDS} for record in found]


def _reported(task: str) -> Iterator[dict[str, Any]]:
    for row in reported_for(task):
        about = {"kind": "reported", "task": task, "country": " ".join(row.countries), "model": row.model}
        about |= {"metric": row.metric, "note": row.mark, "source": row.source}
        yield from (about | {"aligner": method, "value": value} for method, value in row.figures.items())


def _numbers(
    board: Board,
    scores: Iterable[Score],
    base: dict[str, Any],
    standing: Standing | None = None,
    spread: Mapping[Place, float] | None = None,
) -> list[dict[str, Any]]:
    rows = []
    for column in columns(board):
        if (score := column.find(scores)) is None:
            continue
        low, high, basis = score.low, score.high, "interval" if score.low is not None else None
        if standing and column == headline_of(board.spec):
            low, high, basis = standing.low, standing.high, standing.basis
        number = {"metric": score.metric, "scoring": score.scoring, "split": score.split, "value": score.value}
        more = {"spread": (spread or {}).get(column.place), "note": score.note}
        rows.append(base | number | {"low": low, "high": high, "basis": basis} | more)
    return rows


def as_csv(records: Sequence[dict[str, Any]]) -> str:
    """Write exported records as CSV with a header; texts that a spreadsheet would evaluate are quoted."""
    text = io.StringIO()
    writer = csv.DictWriter(text, EXPORTED, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: csv_safe(value) if isinstance(value, str) else value for key, value in record.items()})
    return text.getvalue()


def csv_safe(text: str) -> str:
    """Escape untrusted text that a spreadsheet would take for a formula (OWASP: leading quote)."""
    return f"'{text}" if text.startswith(_FORMULA) else text
