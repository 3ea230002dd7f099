"""The table that puts runs side by side, for the terminal and for Markdown."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rich import box
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from ...tasks.schema import Readout
from ...tasks.score import COLLAPSED, Place, Score, find, place
from ...tasks.spec import TaskSpec


class Spent(Protocol):
    """What an aligner spent, as a submission's manifest has it."""

    @property
    def survey_evaluations(self) -> float: ...

    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True)
class Column:
    """One score of every row: ``heading`` on one or two lines, ``form`` how its number is written."""

    heading: str
    metric: str
    readout: Readout
    split: str
    form: str = ".3f"

    @property
    def place(self) -> Place:
        """Where its scores come from."""
        return self.metric, self.readout, self.split

    def find(self, scores: Iterable[Score]) -> Score | None:
        """The score that belongs into this column."""
        return find(scores, self.place)


HOFSTEDE = (
    Column("fit\nexpected", "loss", "expected", "fit", ",.0f"),
    Column("fit\nargmax", "loss", "argmax", "fit", ",.0f"),
    Column("heldout\nexpected", "loss", "expected", "heldout", ",.0f"),
    Column("heldout\nargmax", "loss", "argmax", "heldout", ",.0f"),
    Column("heldout\nskill", "skill", "expected", "heldout", "z.2f"),
    Column("reversed\norder", "loss_reversed", "expected", "heldout", ",.0f"),
)
HOFSTEDE_TEXT = (
    Column("fit\ntext", "loss", "text", "fit", ",.0f"),
    Column("heldout\ntext", "loss", "text", "heldout", ",.0f"),
    Column("heldout\nexpected", "loss", "expected", "heldout", ",.0f"),
    Column("heldout\nskill", "skill", "text", "heldout", "z.2f"),
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
    """One line of the table: an aligner's scores for one task and country, and what it cost.

    ``spread`` is the standard deviation by place where the scores are means over runs; ``improvement`` whether the
    headline is better than every baseline and the random prefixes, None where that is not known; ``rank`` its rank on
    a board.
    """

    aligner: str
    scores: Sequence[Score]
    spent: Spent | None
    spread: Mapping[Place, float] | None = None
    improvement: bool | None = None
    rank: str = ""

    def cells(self, columns: Sequence[Column]) -> list[str]:
        """Aligner, the columns in order, survey evaluations and seconds; * marks collapsed answers."""
        cells = [self.aligner]
        for column in columns:
            found = column.find(self.scores)
            mark = "*" if found and found.note == COLLAPSED else ""
            spread = f" ± {self.spread[place(found)]:{column.form}}" if found and self.spread else ""
            cells.append("-" if found is None else f"{found.value:{column.form}}{spread}{mark}")
        cells.append(f"{self.spent.survey_evaluations:.0f}" if self.spent else "0")
        cells.append(f"{self.spent.seconds:.0f}" if self.spent else "0")
        return cells


def headline_of(spec: TaskSpec) -> Column:
    """What a board ranks by: the headline on held-out prompts in the task's first read-out."""
    return Column("", spec.metadata.headline.metric, spec.default_readout, "heldout")


def ranked(rows: Iterable[Row], spec: TaskSpec) -> list[Row]:
    """The rows by the held-out headline in the task's first read-out, the best first; those without it last."""
    return sorted(rows, key=lambda row: badness(row.scores, spec))


def badness(scores: Sequence[Score], spec: TaskSpec) -> float:
    """The headline of ``headline_of`` with the sign that makes less better; infinity where it is missing."""
    found = headline_of(spec).find(scores)
    if found is None:
        return math.inf
    return -found.value if spec.metadata.headline.higher_is_better else found.value


def headings(columns: Sequence[Column]) -> list[str]:
    """Column headings, in the order of ``Row.cells``."""
    return ["aligner", *(column.heading for column in columns), "evals", "sec"]


def table(rows: Iterable[Row], title: str, spec: TaskSpec, width: int, first: str = "aligner") -> Table:
    """The rows as a terminal table of so many characters at most; where its rows are not aligners, ``first`` says what,
    and costs are left out.

    What there is no room for is named below: seconds, then scores from the right, evaluations last, never the headline.
    """
    rows, columns = list(rows), columns_of(spec)
    names, cells = _filled(rows, columns)
    scores, costs = list(range(1, 1 + len(columns))), [1 + len(columns), 2 + len(columns)]
    if first != "aligner":
        names, costs = [first, *names[1 : costs[0]]], []
    spare = [at for at in reversed(scores) if columns[at - 1].place != headline_of(spec).place]
    spare = [*costs[1:], *spare, *costs[:1]]
    return narrow_table(title, caption(rows, spec), names, cells, spare, width)


def narrow_table(
    title: str, caption: str, names: Sequence[str], cells: Sequence[Sequence[str]], spare: Iterable[int], width: int
) -> Table:
    """A terminal table, the first column words and the others numbers, none of which is broken.

    Args:
        spare: places of columns that may be left out where the table is wider than ``width`` characters, in this order;
            the caption names them.
    """
    widths = [
        max(map(cell_len, [*name.split(), *(line[at] for line in cells)]), default=0) for at, name in enumerate(names)
    ]
    shown, left_out = list(range(len(names))), list[int]()
    for at in spare:
        if sum(widths[place] + 2 for place in shown) <= width:  # one between columns, one beside each
            break
        shown.remove(at)
        left_out.append(at)
    if left_out:
        missing = ", ".join(" ".join(names[at].split()) for at in sorted(left_out))
        caption = f"{caption}\nno room here for: {missing}".lstrip("\n")
    result = Table(
        title=Text(title),
        caption=Text(caption),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for at in shown:
        result.add_column(names[at].replace(" ", "\n"), justify="right" if at else "left", no_wrap=True)
    for line in cells:
        result.add_row(*(Text(line[at]) for at in shown))
    return result


def _filled(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    """Headings and cells, with last columns ``improvement`` and ``rank`` where those are known of any row."""
    names, cells = headings(columns), [row.cells(columns) for row in rows]
    if any(row.improvement is not None for row in rows):
        names = [*names, "improvement"]
        says = {True: "yes", False: "no", None: ""}
        cells = [[*line, says[row.improvement]] for line, row in zip(cells, rows, strict=True)]
    if any(row.rank for row in rows):
        names = [*names, "rank"]
        cells = [[*line, row.rank] for line, row in zip(cells, rows, strict=True)]
    return names, cells


def caption(rows: Sequence[Row], spec: TaskSpec) -> str:
    """What the numbers are, the headline's interval of the last row, and the mark where it is used."""
    columns = columns_of(spec)
    headline = spec.metadata.headline
    if spec.metadata.measure == "hofstede":
        text = _HOFSTEDE_NOTE
    else:
        better = "higher" if headline.higher_is_better else "lower"
        text = f"{headline.metric}: {better} is better\n"
    found = headline_of(spec).find(rows[-1].scores) if rows else None
    if found and found.low is not None:
        text += f"{rows[-1].aligner}, heldout: {found.value:.3f}, 95 % interval {found.low:.3f} to {found.high:.3f}\n"
    if any("*" in cell for row in rows for cell in row.cells(columns)):
        text += "* collapsed: all 24 answers within a quarter of a scale step\n"
    if any(row.rank for row in rows):
        text += "rank: 1 + the rows better beyond interval or seeds; (in brackets) by value alone\n"
    return text.rstrip("\n")


def escape(text: str) -> str:
    """A stranger's text as inert Markdown."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(text, quote=False))


def markdown(rows: Iterable[Row], spec: TaskSpec) -> str:
    """The rows as a Markdown table."""
    names, cells = _filled(list(rows), columns_of(spec))
    names = [heading.replace("\n", " ") for heading in names]
    return markdown_table(names, ([escape(cell) for cell in line] for line in cells), words=range(1))


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], words: Container[int]) -> str:
    """A table of cells that are Markdown; the columns at the places ``words`` stand left, the others right."""
    return "\n".join(markdown_lines(headings, rows, words)) + "\n"


def markdown_lines(headings: Sequence[str], rows: Iterable[Sequence[str]], words: Container[int]) -> Iterator[str]:
    """The lines of ``markdown_table``, each as soon as its row is there."""
    yield _line(headings)
    yield "|" + "|".join("---" if place in words else "---:" for place in range(len(headings))) + "|"
    yield from map(_line, rows)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
