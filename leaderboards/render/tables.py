"""Boards as tables for papers and spreadsheets: Markdown, CSV, LaTeX (booktabs), JSON."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Sequence
from typing import Any

from ...harness.report import Column, escape, headline_of, markdown_table
from ...tasks.countries import name_of
from ..glossary import explanation, label, precision
from ..rank import Board, Standing

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "-": r"{-}",  # no ligature
    **{mark: f"\\{mark}" for mark in "&%$#_"},
}
WORDS = (1, 3)  # the columns of a board that are no numbers: who made a row, and with what
_FORMULA = tuple("=+-@\t\r|%")
BOLD_NOTE = "Bold: better than every other row in paired permutation tests, Holm-corrected, at 5 %."
RANK_NOTE = "Rank: one more than the rows whose range lies wholly on the better side; in brackets by value alone."
RANGE_NOTE = "Range: 95 % interval, or (s) from the lowest to the highest of three seeds or more."


def latex_escape(text: str) -> str:
    """A stranger's text as inert LaTeX."""
    return "".join(_LATEX.get(c, c) for c in text)


def csv_safe(text: str) -> str:
    """A stranger's text that no spreadsheet takes for a formula (OWASP: a leading quote)."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def columns(board: Board) -> list[Column]:
    """The headline and what else a paper prints: skill, the other read-outs held out, the headline where fitted."""
    spec, headline = board.spec, headline_of(board.spec)
    skill = [Column("", "skill", headline.readout, "heldout")] if spec.metadata.measure == "hofstede" else []
    others = [Column("", headline.metric, name, "heldout") for name in spec.metadata.readouts]
    return list(dict.fromkeys([*skill, headline, *others, Column("", headline.metric, headline.readout, "fit")]))


def _heading(column: Column) -> str:
    split = {"heldout": "held out", "fit": "fitted"}.get(column.split, column.split)
    return f"{label(column.metric)}, {split}, {column.readout.replace('_', ' ')}"


def _range(standing: Standing, places: int) -> str:
    if standing.low is None or standing.high is None:
        return ""
    mark = " (s)" if standing.basis == "seeds" else ""
    return f"{standing.low:,.{places}f} to {standing.high:,.{places}f}{mark}"


def table(board: Board) -> tuple[list[str], list[list[str]]]:
    """Headings and cells of a board as plain text; rows that no aligner made come last, without a rank."""
    shown, places = columns(board), precision(board.spec.metadata.headline.metric)
    headings = ["Rank", "Aligner", "Seed", "Model", *(_heading(column) for column in shown), "Range", "Evaluations"]
    rows = []
    for standing in board.standings:
        manifest = standing.entry.manifest
        values = [_value(column, standing.row.scores) for column in shown]
        spent = f"{manifest.budget.survey_evaluations:,.0f}"
        who = [manifest.aligner.name, str(manifest.seed), manifest.model.name]
        rows.append([standing.place, *who, *values, _range(standing, places), spent])
    for row in board.trivial:
        rows.append(["", row.name, "", "", *(_value(column, row.scores) for column in shown), "", ""])
    return headings, rows


def _value(column: Column, scores: Sequence[Any]) -> str:
    found = column.find(scores)
    if found is None:
        return ""
    return f"{found.value:,.{precision(found.metric)}f}{'*' if found.note == 'collapsed' else ''}"


def notes(board: Board, bold: Collection[int]) -> list[str]:
    """The lines that belong below a table: what its number is, and what ranks, ranges and marks mean."""
    headline = board.spec.metadata.headline
    better = "higher" if headline.higher_is_better else "lower"
    lines = [f"{label(headline.metric)}: {explanation(headline.metric)}; {better} is better.", RANK_NOTE]
    if any(standing.basis for standing in board.standings):
        lines.append(RANGE_NOTE)
    if bold:
        lines.append(BOLD_NOTE)
    if any("*" in cell for row in table(board)[1] for cell in row[4:]):
        lines.append("*: collapsed, nearly the same answer whatever is asked.")
    return lines


def markdown(board: Board, bold: Collection[int]) -> str:
    """A board as a Markdown table under its title; ``bold`` are the row numbers that a test supports."""
    headings, rows = table(board)
    lines = []
    for number, row in enumerate(rows):
        cells = [escape(cell) for cell in row]
        lines.append([f"**{cell}**" if cell else "" for cell in cells] if number in bold else cells)
    said = [escape(line) + "  " for line in notes(board, bold)]
    return "\n".join([f"### {escape(board.title)}", "", markdown_table(headings, lines, WORDS), *said]) + "\n"


def latex(board: Board, bold: Collection[int]) -> str:
    """A board as a LaTeX table; the preamble needs ``\\usepackage{booktabs}``."""
    headings, rows = table(board)
    form = "".join("l" if at in WORDS else "r" for at in range(len(headings)))
    body = []
    for number, row in enumerate(rows):
        cells = [latex_escape(cell) for cell in row]
        if number in bold:
            cells = [rf"\textbf{{{cell}}}" if cell else "" for cell in cells]
        if number == len(board.standings):
            body.append(r"\midrule")
        body.append(" & ".join(cells) + r" \\")
    name = re.sub(r"[^a-z0-9]+", "-", f"{board.key.task}-{board.key.country}".lower())
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{latex_escape(board.title)}. {' '.join(map(latex_escape, notes(board, bold)))}}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{{form}}}",
            r"\toprule",
            " & ".join(map(latex_escape, headings)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


FIELDS = (
    "task", "country", "variant", "suite", "rank", "by_value_alone", "submission", "aligner", "seed", "model", "metric",
    "readout", "split", "value", "low", "high", "basis", "gain", "note", "survey_evaluations", "seconds", "tokens",
    "verified",
)  # fmt: skip


def records(boards: Sequence[Board], verified: Collection[str], suite: str) -> list[dict[str, Any]]:
    """One record a row and number of the boards' tables, for machines."""
    found = []
    for board in boards:
        where = {"task": board.key.task, "country": board.key.country, "variant": board.variant}
        where["suite"] = suite if board.in_suite else ""
        for standing in board.standings:
            manifest = standing.entry.manifest
            who = {
                "rank": standing.rank,
                "by_value_alone": standing.basis is None,
                "submission": standing.entry.name,
                "aligner": manifest.aligner.name,
                "seed": manifest.seed,
                "model": manifest.model.name,
                "survey_evaluations": manifest.budget.survey_evaluations,
                "seconds": manifest.budget.seconds,
                "tokens": manifest.budget.tokens,
                "verified": manifest.answers.sha256 in verified,
            }
            found += _numbers(board, standing.row.scores, where | who, standing)
        for row in board.trivial:
            found += _numbers(board, row.scores, where | {"aligner": row.name}, None)
    return [{field: record.get(field) for field in FIELDS} for record in found]


def _numbers(board: Board, scores: Any, base: dict[str, Any], standing: Standing | None) -> list[dict[str, Any]]:
    rows = []
    for column in columns(board):
        if (score := column.find(scores)) is None:
            continue
        low, high, basis = score.low, score.high, "interval" if score.low is not None else None
        if standing and column == headline_of(board.spec):
            low, high, basis = standing.low, standing.high, standing.basis
            base = base | {"gain": False if standing.no_gain else standing.row.gain}
        number = {"metric": score.metric, "readout": score.readout, "split": score.split, "value": score.value}
        rows.append(base | number | {"low": low, "high": high, "basis": basis, "note": score.note})
    return rows


def as_csv(records: Sequence[dict[str, Any]]) -> str:
    """Records as CSV with a heading; texts that a spreadsheet would calculate are quoted."""
    text = io.StringIO()
    writer = csv.DictWriter(text, FIELDS, lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({key: csv_safe(value) if isinstance(value, str) else value for key, value in record.items()})
    return text.getvalue()


def country_title(board: Board) -> str:
    """Task and country, for a figure's heading."""
    return f"{board.spec.name}, {name_of(board.key.country)}"
