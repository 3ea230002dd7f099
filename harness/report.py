"""The table that puts runs side by side, for the terminal and for Markdown."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.table import Table
from rich.text import Text

from ..tasks.score import Score
from ..tasks.spec import TaskSpec
from .submission import Spent


@dataclass(frozen=True)
class Column:
    """One score of every row: ``heading`` on one or two lines, ``form`` how its number is written."""

    heading: str
    metric: str
    readout: str
    split: str
    form: str = ".3f"

    def find(self, scores: Iterable[Score]) -> Score | None:
        """The score that belongs into this column."""
        wanted = (self.metric, self.readout, self.split)
        return next((s for s in scores if (s.metric, s.readout, s.split) == wanted), None)


HOFSTEDE = (
    Column("fit\nexpected", "loss", "expected", "fit", ",.0f"),
    Column("fit\nargmax", "loss", "argmax", "fit", ",.0f"),
    Column("heldout\nexpected", "loss", "expected", "heldout", ",.0f"),
    Column("heldout\nargmax", "loss", "argmax", "heldout", ",.0f"),
    Column("heldout\nskill", "skill", "expected", "heldout", ".2f"),
    Column("reversed\norder", "loss_reversed", "expected", "heldout", ",.0f"),
)
HOFSTEDE_TEXT = (
    Column("fit\ntext", "loss", "text", "fit", ",.0f"),
    Column("heldout\ntext", "loss", "text", "heldout", ",.0f"),
    Column("heldout\nexpected", "loss", "expected", "heldout", ",.0f"),
    Column("heldout\nskill", "skill", "text", "heldout", ".2f"),
    Column("reversed\norder", "loss_reversed", "text", "heldout", ",.0f"),
    Column("heldout\nunparsed", "unparsed", "text", "heldout", ".2f"),
)
_HOFSTEDE_NOTE = (
    "loss: sum of squared errors of the six indices, lower is better; skill: 1 - loss / loss of the constant answer\n"
)


def columns_of(spec: TaskSpec) -> tuple[Column, ...]:
    """What a task's table shows: the headline where it was fitted, then held out in every read-out and as control,
    then the other metrics that the spec lists."""
    if spec.metadata.measure == "hofstede":
        return HOFSTEDE_TEXT if spec.default_readout == "text" else HOFSTEDE
    headline, usual = spec.metadata.headline.metric, spec.default_readout
    columns = [Column(f"fit\n{headline}", headline, usual, "fit")]
    for readout in spec.metadata.readouts:
        columns.append(Column(f"heldout\n{headline}, {readout}", headline, readout, "heldout"))
    if "control" in spec.metadata.splits.named:
        columns.append(Column(f"control\n{headline}", headline, usual, "control"))
    columns += [Column(f"heldout\n{name}", name, usual, "heldout") for name in spec.metrics if name != headline]
    return tuple(columns)


@dataclass(frozen=True)
class Row:
    """One line of the table: an aligner's scores for one task and country, and what it cost."""

    aligner: str
    scores: Sequence[Score]
    spent: Spent | None

    def cells(self, columns: Sequence[Column]) -> list[str]:
        """Aligner, the columns in order, survey evaluations and seconds; * marks collapsed answers."""
        cells = [self.aligner]
        for column in columns:
            found = column.find(self.scores)
            mark = "*" if found and found.note == "collapsed" else ""
            cells.append("-" if found is None else f"{found.value:{column.form}}{mark}")
        cells.append(f"{self.spent.survey_evaluations:.0f}" if self.spent else "0")
        cells.append(f"{self.spent.seconds:.0f}" if self.spent else "0")
        return cells


def ranked(rows: Iterable[Row], spec: TaskSpec) -> list[Row]:
    """The rows by the held-out headline in the task's first read-out, the best first; those without it last."""
    headline = spec.metadata.headline
    column = Column("", headline.metric, spec.default_readout, "heldout")
    sign = -1 if headline.higher_is_better else 1

    def place(row: Row) -> float:
        found = column.find(row.scores)
        return sign * found.value if found else math.inf

    return sorted(rows, key=place)


def headings(columns: Sequence[Column]) -> list[str]:
    """Column headings, in the order of ``Row.cells``."""
    return ["aligner", *(column.heading for column in columns), "evals", "sec"]


def table(rows: Iterable[Row], title: str, spec: TaskSpec, first: str = "aligner") -> Table:
    """The rows as a terminal table; where its rows are not aligners, ``first`` says what, and costs are left out."""
    rows, columns = list(rows), columns_of(spec)
    result = Table(
        title=Text(title),
        caption=caption(rows, spec),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    width = len(headings(columns)) if first == "aligner" else 1 + len(columns)
    result.add_column(first, no_wrap=True)
    for heading in headings(columns)[1:width]:
        result.add_column(heading, justify="right", overflow="fold")
    for row in rows:
        result.add_row(*map(Text, row.cells(columns)[:width]))
    return result


def caption(rows: Sequence[Row], spec: TaskSpec) -> str:
    """What the numbers are, the headline's interval of the last row, and the mark where it is used."""
    columns = columns_of(spec)
    headline = spec.metadata.headline
    if spec.metadata.measure == "hofstede":
        text = _HOFSTEDE_NOTE
    else:
        better = "higher" if headline.higher_is_better else "lower"
        text = f"{headline.metric}: {better} is better\n"
    found = Column("", headline.metric, spec.default_readout, "heldout").find(rows[-1].scores) if rows else None
    if found and found.low is not None:
        text += f"{rows[-1].aligner}, heldout: {found.value:.3f}, 95 % interval {found.low:.3f} to {found.high:.3f}\n"
    if any("*" in cell for row in rows for cell in row.cells(columns)):
        text += "* collapsed: all 24 answers within a quarter of a scale step\n"
    return text.rstrip("\n")


def escape(text: str) -> str:
    """A stranger's text as inert Markdown."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(text))


def markdown(rows: Iterable[Row], spec: TaskSpec) -> str:
    """The rows as a Markdown table."""
    columns = columns_of(spec)
    names = [heading.replace("\n", " ") for heading in headings(columns)]
    lines = ["| " + " | ".join(names) + " |", "|---|" + "---:|" * (len(names) - 1)]
    escaped = ([escape(cell) for cell in row.cells(columns)] for row in rows)
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in escaped)]) + "\n"
