"""Format boards as tables for papers: Markdown and LaTeX (booktabs)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from ...harness.report.tables import Column, escape, headline_of, markdown_table
from ...tasks.countries import name_of
from ...tasks.glossary import COLUMNS, MARKS, label, meaning
from ...tasks.score import COLLAPSED
from ..boards import Board, Standing
from ..country_sets import AlignedSet
from ..literature import TITLE, reported_for
from ..metric_labels import precision
from . import between

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
WORDS = (1, 3)  # text columns of a board: aligner and model
BOLD_NOTE = "Bold: better than every other row in paired permutation tests, Holm-corrected, at 5 %."
RANK_NOTE = f"Rank: {COLUMNS['rank'].meaning}."
VERIFIED_NOTE = f"(v): verified, {MARKS['verified']}."
IMPROVEMENT_NOTE = f"improvement: {MARKS['improvement']}."
REPORTED = ("Figure", "Value by method", "How far comparable, and source")
RANGE_NOTE = f"Range: {COLUMNS['range'].meaning}."


def latex_escape(text: str) -> str:
    """Escape untrusted text for LaTeX."""
    return "".join(_LATEX.get(c, c) for c in text)


def columns(board: Board) -> list[Column]:
    """Return the columns of a paper: skill, headline, other answer scorings held out, headline on ``fit``."""
    spec, headline = board.spec, headline_of(board.spec)
    skill = [Column("", "skill", headline.scoring, "heldout")] if spec.metadata.measure == "hofstede" else []
    others = [Column("", headline.metric, name, "heldout") for name in spec.metadata.scorings]
    return list(dict.fromkeys([*skill, headline, *others, Column("", headline.metric, headline.scoring, "fit")]))


def _heading(column: Column) -> str:
    split = {"heldout": "held out", "fit": "fitted"}.get(column.split, column.split)
    return f"{label(column.metric)}, {split}, {column.scoring.replace('_', ' ')}"


def _range(standing: Standing, places: int) -> str:
    if standing.low is None or standing.high is None:
        return ""
    mark = " (s)" if standing.basis == "seeds" else ""
    return f"{standing.low:z,.{places}f} to {standing.high:z,.{places}f}{mark}"


def table(board: Board) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of a board as plain text; baselines come last, without a rank."""
    shown, places = columns(board), precision(board.spec.metadata.headline.metric)
    numbers = [_heading(column) for column in shown]
    first, last = ("rank", "aligner", "seed", "model"), ("range", "evaluations")
    headings = [*(COLUMNS[name].label for name in first), *numbers, *(COLUMNS[name].label for name in last)]
    rows = []
    for standing in board.standings:
        manifest = standing.entry.manifest
        values = [_value(column, standing.row.scores) for column in shown]
        spent = f"{manifest.budget.survey_evaluations:,.0f}"
        mark = " (v)" if standing.entry.verified else ""
        who = [manifest.aligner.name + mark, str(manifest.seed), manifest.model.name]
        rows.append([standing.place, *who, *values, _range(standing, places), spent])
    for row in board.baselines:
        rows.append(["", row.name, "", "", *(_value(column, row.scores) for column in shown), "", ""])
    return headings, rows


def _value(column: Column, scores: Sequence[Any]) -> str:
    found = column.find(scores)
    if found is None:
        return ""
    return f"{found.value:z,.{precision(found.metric)}f}{'*' if found.note == COLLAPSED else ''}"


def notes(board: Board, rows: Sequence[Sequence[str]], bold: Collection[int]) -> list[str]:
    """Return the notes of a table: definitions of the metric, ranks, ranges and marks."""
    headline = board.spec.metadata.headline
    better = "higher" if headline.higher_is_better else "lower"
    lines = [f"{label(headline.metric)}: {meaning(headline.metric)}; {better} is better.", RANK_NOTE]
    if any(standing.basis for standing in board.standings):
        lines.append(RANGE_NOTE)
    if bold:
        lines.append(BOLD_NOTE)
    if any("*" in cell for row in rows for cell in row[4:]):
        lines.append("*: collapsed, nearly the same answer to all items.")
    if any(row[1].endswith(" (v)") for row in rows[: len(board.standings)]):
        lines.append(VERIFIED_NOTE)
    return lines


def markdown(board: Board, bold: Collection[int]) -> str:
    """Format a board as a Markdown table with its title; ``bold`` are numbers of rows (``proven``)."""
    headings, rows = table(board)
    lines = []
    for number, row in enumerate(rows):
        cells = [escape(cell) for cell in row]
        lines.append([f"**{cell}**" if cell else "" for cell in cells] if number in bold else cells)
    return _section(board.title, headings, lines, WORDS, notes(board, rows, bold))


def _section(
    title: str, headings: Sequence[str], lines: Iterable[Sequence[str]], words: Collection[int], below: Iterable[str]
) -> str:
    parts = [
        f"### {escape(title)}",
        "",
        markdown_table(headings, lines, words),
        *(escape(line) + "  " for line in below),
    ]
    return "\n".join(parts) + "\n"


def markdown_beside(tasks: Iterable[str], sets: Iterable[AlignedSet]) -> list[str]:
    """Format aligned sets and figures reported elsewhere."""
    parts = []
    for title, group in between.grouped(sets).items():
        lines = [[escape(cell) for cell in row] for row in between.rows(group)]
        if lines:
            parts.append(
                _section(between.heading(title), between.headings(group), lines, between.WORDS, between.notes(group))
            )
    for task in dict.fromkeys(tasks):
        if rows := _reported(task):
            lines = [[escape(cell) for cell in row] for row in rows]
            parts.append(_section(f"{task}: {TITLE}", REPORTED, lines, range(len(REPORTED)), ()))
    return parts


def _reported(task: str) -> list[tuple[str, str, str]]:
    """Return the cells of figures reported for a task, in the order of ``REPORTED``."""
    return [(row.what, row.values, f"{row.mark}. {row.source}") for row in reported_for(task)]


def latex(board: Board, bold: Collection[int]) -> str:
    """Format a board as a LaTeX table; the preamble needs ``\\usepackage{booktabs}``."""
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
    name = f"{board.key.task} {board.key.country}"
    return latex_table(f"{board.title}. {' '.join(notes(board, rows, bold))}", name, form, headings, body)


def latex_beside(tasks: Iterable[str], sets: Iterable[AlignedSet]) -> list[str]:
    """Format aligned sets and figures reported elsewhere as LaTeX."""
    parts = []
    for title, members in between.grouped(sets).items():
        if body := _latex_rows(between.rows(members)):
            caption = ". ".join([between.heading(title), *between.notes(members)])
            headings = between.headings(members)
            form = "l" + "r" * (len(headings) - 1)
            parts.append(latex_table(caption, f"between {members[0].task}", form, headings, body))
    for task in dict.fromkeys(tasks):
        if body := _latex_rows(_reported(task)):
            form = "".join(rf"p{{{share}\linewidth}}" for share in (0.25, 0.25, 0.45))
            parts.append(latex_table(f"{task}: {TITLE}.", f"reported {task}", form, REPORTED, body))
    return parts


def _latex_rows(rows: Iterable[Sequence[str]]) -> list[str]:
    return [" & ".join(map(latex_escape, row)) + r" \\" for row in rows]


def latex_table(caption: str, name: str, form: str, headings: Sequence[str], body: Sequence[str]) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", name.lower())
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering\small",
            rf"\caption{{{latex_escape(caption)}}}",
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


def country_title(board: Board) -> str:
    """Format task and country for the heading of a figure."""
    return f"{board.spec.name}, {name_of(board.key.country)}"
