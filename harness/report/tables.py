"""Tables of the scores of several runs, for the terminal and in Markdown."""

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

from ...tasks.schema import Scoring
from ...tasks.score import COLLAPSED, Place, Score, find, place
from ...tasks.spec import TaskSpec


class Spent(Protocol):
    """The budget that an aligner spent, with the fields of a manifest."""

    @property
    def survey_evaluations(self) -> float: ...

    @property
    def seconds(self) -> float: ...


@dataclass(frozen=True)
class Column:
    """A column with one score of every row: ``heading`` on one or two lines, ``form`` the format of its numbers."""

    heading: str
    metric: str
    scoring: Scoring
    split: str
    form: str = ".3f"

    @property
    def place(self) -> Place:
        """Return metric, answer scoring and split of its scores."""
        return self.metric, self.scoring, self.split

    def find(self, scores: Iterable[Score]) -> Score | None:
        """Return the score of this column; None where it is missing."""
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
HOFSTEDE_CLOZE = (
    Column("fit\ncloze", "loss", "cloze", "fit", ",.0f"),
    Column("heldout\ncloze", "loss", "cloze", "heldout", ",.0f"),
    Column("heldout\nskill", "skill", "cloze", "heldout", "z.2f"),
)
HOFSTEDE_VERBALIZED = (
    Column("fit\nverbalized", "loss", "verbalized", "fit", ",.0f"),
    Column("heldout\nverbalized", "loss", "verbalized", "heldout", ",.0f"),
    Column("heldout\nskill", "skill", "verbalized", "heldout", "z.2f"),
    Column("heldout\nunparsed", "unparsed", "verbalized", "heldout", ".2f"),
)
_HOFSTEDE_OF = {"text": HOFSTEDE_TEXT, "cloze": HOFSTEDE_CLOZE, "verbalized": HOFSTEDE_VERBALIZED}
_HOFSTEDE_NOTE = (
    "loss: sum of squared errors of the six indices, lower is better; skill: 1 - loss / loss of the constant answer\n"
)


def columns_of(spec: TaskSpec) -> tuple[Column, ...]:
    """Return the columns of a task's table.

    They are the headline on the fit split, held out by every answer scoring, and on the control split, then the other
    metrics that the spec lists.
    """
    if spec.metadata.measure == "hofstede":
        return _HOFSTEDE_OF.get(spec.default_scoring, HOFSTEDE)
    headline, default = spec.metadata.headline.metric, spec.default_scoring
    columns = [Column(f"fit\n{headline}", headline, default, "fit")]
    for scoring in spec.metadata.scorings:
        columns.append(Column(f"heldout\n{headline}, {scoring}", headline, scoring, "heldout"))
    if "control" in spec.metadata.splits.named:
        columns.append(Column(f"control\n{headline}", headline, default, "control"))
    columns += [Column(f"heldout\n{name}", name, default, "heldout") for name in spec.metrics if name != headline]
    return tuple(columns)


@dataclass(frozen=True)
class Row:
    """One row of a table: an aligner's scores for one task and country, and the budget spent.

    ``spread`` is the standard deviation by place where the scores are means over runs; ``improvement`` whether the
    headline is better than every baseline and the random-prefix control, None where that is not known; ``rank`` its
    rank on a board.
    """

    aligner: str
    scores: Sequence[Score]
    spent: Spent | None
    spread: Mapping[Place, float] | None = None
    improvement: bool | None = None
    rank: str = ""

    def cells(self, columns: Sequence[Column]) -> list[str]:
        """Format the cells: aligner, the columns in order, survey evaluations, seconds; * marks collapsed answers."""
        cells = [self.aligner]
        for column in columns:
            score = column.find(self.scores)
            mark = "*" if score and score.note == COLLAPSED else ""
            spread = f" ± {self.spread[place(score)]:{column.form}}" if score and self.spread else ""
            cells.append("-" if score is None else f"{score.value:{column.form}}{spread}{mark}")
        cells.append(f"{self.spent.survey_evaluations:.0f}" if self.spent else "0")
        cells.append(f"{self.spent.seconds:.0f}" if self.spent else "0")
        return cells


def headline_of(spec: TaskSpec) -> Column:
    """Return the column that boards rank by: the held-out headline by the task's first answer scoring."""
    return Column("", spec.metadata.headline.metric, spec.default_scoring, "heldout")


def line(row: Row, spec: TaskSpec) -> str:
    """Format a row as one line of text: the first four columns of its table, with their headings."""
    columns = columns_of(spec)[:4]
    pairs = zip(columns, row.cells(columns)[1:], strict=False)
    return f"{row.aligner}: " + ", ".join(f"{' '.join(column.heading.split())} {cell}" for column, cell in pairs)


def ranked(rows: Iterable[Row], spec: TaskSpec) -> list[Row]:
    """Sort rows by the held-out headline of ``headline_of``, the best first and rows without it last."""
    return sorted(rows, key=lambda row: badness(row.scores, spec))


def badness(scores: Sequence[Score], spec: TaskSpec) -> float:
    """Return the headline of ``headline_of`` with the sign for which lower is better; infinity where it is missing."""
    score = headline_of(spec).find(scores)
    if score is None:
        return math.inf
    return -score.value if spec.metadata.headline.higher_is_better else score.value


def headings(columns: Sequence[Column]) -> list[str]:
    """Return the column headings, in the order of ``Row.cells``."""
    return ["aligner", *(column.heading for column in columns), "evals", "sec"]


def table(rows: Iterable[Row], title: str, spec: TaskSpec, width: int, first: str = "aligner") -> Table:
    """Make a terminal table of the rows.

    Columns that do not fit are left out and named in the caption: seconds, then scores from the right, then survey
    evaluations, but never the headline.

    Args:
        width: characters at most.
        first: heading of the first column; the costs are left out where it is not ``aligner``.
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
    """Make a terminal table whose first column is text and whose others are numbers, without line breaks in cells.

    Args:
        spare: places of the columns to leave out, in this order, until the table has at most ``width`` characters; the
            caption names them.
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
        caption = f"{caption}\nnot shown at this width: {missing}".lstrip("\n")
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
        result.add_column(Text(names[at].replace(" ", "\n")), justify="right" if at else "left", no_wrap=True)
    for line in cells:
        result.add_row(*(Text(line[at]) for at in shown))
    return result


def _filled(rows: Sequence[Row], columns: Sequence[Column]) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells, with columns ``improvement`` and ``rank`` at the end where any row has them."""
    names, cells = headings(columns), [row.cells(columns) for row in rows]
    if any(row.improvement is not None for row in rows):
        names = [*names, "improvement"]
        labels = {True: "yes", False: "no", None: ""}
        cells = [[*line, labels[row.improvement]] for line, row in zip(cells, rows, strict=True)]
    if any(row.rank for row in rows):
        names = [*names, "rank"]
        cells = [[*line, row.rank] for line, row in zip(cells, rows, strict=True)]
    return names, cells


def caption(rows: Sequence[Row], spec: TaskSpec) -> str:
    """Explain the numbers of a table, with the last row's interval of the headline and the marks that are used."""
    columns = columns_of(spec)
    headline = spec.metadata.headline
    if spec.metadata.measure == "hofstede":
        text = _HOFSTEDE_NOTE
    else:
        better = "higher" if headline.higher_is_better else "lower"
        text = f"{headline.metric}: {better} is better\n"
    score = headline_of(spec).find(rows[-1].scores) if rows else None
    if score and score.low is not None:
        text += f"{rows[-1].aligner}, heldout: {score.value:.3f}, 95 % interval {score.low:.3f} to {score.high:.3f}\n"
    if any("*" in cell for row in rows for cell in row.cells(columns)):
        text += "* collapsed: nearly the same answer to every item\n"
    if any(row.rank for row in rows):
        text += "rank: 1 + the number of rows better by interval or seed range; (in brackets) point estimate only\n"
    return text.rstrip("\n")


def escape(text: str) -> str:
    """Escape untrusted text for Markdown; line breaks, which could begin a heading or a row, become spaces."""
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(" ".join(text.splitlines()), quote=False))


def markdown(rows: Iterable[Row], spec: TaskSpec) -> str:
    """Format rows as a Markdown table."""
    names, cells = _filled(list(rows), columns_of(spec))
    names = [heading.replace("\n", " ") for heading in names]
    return markdown_table(names, ([escape(cell) for cell in line] for line in cells), words=range(1))


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]], words: Container[int]) -> str:
    """Format cells of Markdown as a table, the columns at the places ``words`` left-aligned, others right-aligned."""
    return "\n".join(markdown_lines(headings, rows, words)) + "\n"


def markdown_lines(headings: Sequence[str], rows: Iterable[Sequence[str]], words: Container[int]) -> Iterator[str]:
    """Yield the lines of ``markdown_table``, one row at a time."""
    yield _line(headings)
    yield "|" + "|".join("---" if place in words else "---:" for place in range(len(headings))) + "|"
    yield from map(_line, rows)


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
