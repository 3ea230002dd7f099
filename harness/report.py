"""The table that puts runs side by side, for the terminal and for Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from ..tasks.score import Score
from .submission import Spent

COLUMNS = (
    ("fit\nexpected", "loss", "expected", "fit"),
    ("fit\nargmax", "loss", "argmax", "fit"),
    ("heldout\nexpected", "loss", "expected", "heldout"),
    ("heldout\nargmax", "loss", "argmax", "heldout"),
    ("heldout\nskill", "skill", "expected", "heldout"),
    ("reversed\norder", "loss_reversed", "expected", "heldout"),
)
FOOTNOTE = (
    "loss: sum of squared errors of the six indices, lower is better; skill: 1 - loss / loss of the constant answer"
)


@dataclass(frozen=True)
class Row:
    """One line of the table: an aligner's scores for one task and country, and what it cost."""

    aligner: str
    task: str
    country: str
    scores: Sequence[Score]
    spent: Spent | None

    def heldout_loss(self) -> float:
        """What boards rank by: the loss of the held-out split in its first read-out; infinite where there is none."""
        losses = (s.value for s in self.scores if (s.metric, s.split) == ("loss", "heldout"))
        return next(losses, float("inf"))

    def cells(self) -> list[str]:
        """Aligner, the columns in order, survey evaluations and seconds; * marks collapsed answers."""
        cells = [self.aligner]
        for _, metric, readout, split in COLUMNS:
            wanted = (metric, readout, split)
            found = next((s for s in self.scores if (s.metric, s.readout, s.split) == wanted), None)
            mark = "*" if found and found.note == "collapsed" else ""
            number = "-" if found is None else f"{found.value:.2f}" if metric == "skill" else f"{found.value:,.0f}"
            cells.append(number + mark)
        cells.append(f"{self.spent.survey_evaluations:.0f}" if self.spent else "0")
        cells.append(f"{self.spent.seconds:.0f}" if self.spent else "0")
        return cells


def headings() -> list[str]:
    """Column headings, in the order of ``Row.cells``."""
    return ["aligner", *(column[0] for column in COLUMNS), "evals", "sec"]


def table(rows: Iterable[Row], title: str, first: str = "aligner") -> Table:
    """The rows as a terminal table; where its rows are not aligners, ``first`` says what, and costs are left out."""
    rows = list(rows)
    result = Table(
        title=Text(title),
        caption=caption(rows),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    width = len(headings()) if first == "aligner" else 1 + len(COLUMNS)
    result.add_column(first, no_wrap=True)
    for heading in headings()[1:width]:
        result.add_column(heading, justify="right")
    for row in rows:
        result.add_row(*map(Text, row.cells()[:width]))
    return result


def caption(rows: Sequence[Row]) -> str:
    """What the numbers are, and the mark where it is used."""
    collapsed = any("*" in cell for row in rows for cell in row.cells())
    return FOOTNOTE + ("\n* collapsed: all 24 answers within a quarter of a scale step" if collapsed else "")


def escape(text: str) -> str:
    """A stranger's text as inert Markdown."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(text))


def markdown(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    names = [heading.replace("\n", " ") for heading in headings()]
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    escaped = ([escape(cell) for cell in row.cells()] for row in rows)
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in escaped)]) + "\n"
