"""The overview of a board, and its forms: terminal, Markdown, LaTeX, records.

A row for each model and aligner, a column for each task: one table for the terminal, for papers and for the site. Runs
that differ in country and seed alone are pooled (``pooling.py``); other models, settings or budgets are another row,
other editions or protocols another column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..harness.report.results import html_table
from ..harness.report.tables import escape, markdown_table, narrow_table
from ..tasks.glossary import COLUMNS, label
from .metric_labels import precision
from .overview_rows import R2, Column, Row
from .pooling import Cell
from .render.tables import latex_escape, latex_table

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

TITLE = "Overview"
POOLED = "means over countries, in each over seeds; costs: mean of a run's fitting"
IMPROVED = "(k/n): k of n runs are improvements"
COLLAPSED = "*: with collapsed runs"
RANGES = "[a, b]: 95 % interval, or (s) range over seeds"
SPREAD = "±: standard deviation over random prefixes"
CENTRED = "between-country R2: explained variance of country-centred indices"


@dataclass(frozen=True)
class Overview:
    """The table: rows of runs, the best of the first column of a task first, then those over other countries, then
    baselines; ``countries`` are all countries of the boards."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    countries: tuple[str, ...]

    @property
    def main(self) -> int:
        """Return the place of the column that orders the rows: the first task's."""
        return next((at for at, column in enumerate(self.columns) if column.metric != R2), 0)

    def to_frame(self) -> pd.DataFrame:
        """Return the table as a frame of formatted cells."""
        import pandas as pd

        return pd.DataFrame(texts(self), columns=headings(self))

    def to_markdown(self) -> str:
        """Return the table as Markdown, without its notes."""
        return markdown(self)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one record for each row and column, and for each seed's row."""
        yield from records(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        yield table(self, options.max_width)

    def _repr_html_(self) -> str:
        return html_table(self.to_frame())


def places(column: Column) -> int:
    """Return the decimal places of a column."""
    return 2 if column.metric == R2 else precision(column.metric)


def heading(column: Column) -> str:
    """Format task, score and the better direction of a column."""
    name = "between-country R2" if column.metric == R2 else label(column.metric).lower()
    return f"{column.title}: {name} {'↑' if column.higher_is_better else '↓'}"


def notes(found: Overview) -> list[str]:
    """Return the notes of the table, with the blank and the unranked cells' reasons and cautions of references."""
    if not found.columns:
        return []
    cells = [cell for row in found.rows for cell in row.cells]
    used = {
        IMPROVED: any(cell.judged for cell in cells),
        COLLAPSED: any(cell.collapsed for cell in cells),
        RANGES: any(cell.low is not None for cell in cells),
        SPREAD: any(cell.spread is not None for cell in cells),
        CENTRED: any(column.metric == R2 for column in found.columns),
    }
    return [
        POOLED,
        *(note for note, is_used in used.items() if is_used),
        f"rank by {heading(found.columns[found.main])[:-2]}: {COLUMNS['rank'].meaning}",
        *(f"{', '.join(names)}: {text}" for text, names in _of_columns(found).items()),
        *(f"{', '.join(names)}: {text}" for text, names in _of_rows(found).items()),
    ]


def _of_columns(found: Overview) -> dict[str, list[str]]:
    """Return what is to know about columns, countries and cautions, each with the titles of its columns."""
    lines: dict[str, list[str]] = {}
    for column in found.columns:
        codes, number = ", ".join(column.countries), len(column.countries)
        for text in (f"{number} countries, {codes}" if number > 1 else codes, *column.cautions):
            if text and column.title not in lines.setdefault(text, []):
                lines[text].append(column.title)
    return lines


def _of_rows(found: Overview) -> dict[str, list[str]]:
    """Return the reasons for blank and unranked cells, each with the names of its rows."""
    lines: dict[str, dict[str, None]] = {}
    for row in (row for row in found.rows if row.submissions):
        name, is_named = title(row, found), bool(_only(row, found))
        for cell, column in zip(row.cells, found.columns, strict=True):
            if cell.reason:
                is_unranked = cell.value is not None and cell.rank is None
                where = f"{name} in {column.title}" if is_unranked and not is_named else name
                lines.setdefault(cell.reason, {})[where] = None
    return {reason: list(names) for reason, names in lines.items()}


def title(row: Row, found: Overview) -> str:
    """Format the name of a row, with its differing settings, and its countries where all its means are over fewer."""
    name, only = ", ".join(filter(None, (row.name, row.detail))), _only(row, found)
    return f"{name}, {' and '.join(only)} only" if only else name


def _is_partial(cell: Cell, column: Column) -> bool:
    return bool(cell.countries) and not set(cell.countries) >= set(column.countries)


def _only(row: Row, found: Overview) -> tuple[str, ...]:
    """Return the countries that a row of runs is named by: those of all its means if some column has more, else ()."""
    over = {cell.countries for cell in row.cells if cell.countries}
    partial = any(_is_partial(cell, column) for cell, column in zip(row.cells, found.columns, strict=True))
    return over.pop() if row.submissions and partial and len(over) == 1 else ()


def _fewer(cell: Cell, column: Column) -> str:
    """Format the countries of a mean over fewer than its column's; "" for the others."""
    if not _is_partial(cell, column):
        return ""
    if len(cell.countries) == 1:
        return f", {cell.countries[0]} only"
    return f", {len(set(cell.countries) & set(column.countries))} of {len(column.countries)} countries"


def text(cell: Cell, decimals: int, whole: bool = True) -> str:
    """Format a cell; "-" if it is blank. ``whole``: with its range."""
    if cell.value is None:
        return "-"
    spread = "" if cell.spread is None else f" ± {cell.spread:.{decimals}f}"
    marks = "*" * bool(cell.collapsed) + "†" * (cell.rank is not None and bool(cell.reason))
    parts = [f"{cell.value:z.{decimals}f}{marks}{spread}"]
    if whole and cell.low is not None and cell.high is not None:
        mark = " (s)" if cell.basis == "seeds" else ""
        parts.append(f"[{cell.low:z.{decimals}f}, {cell.high:z.{decimals}f}]{mark}")
    return " ".join([*parts, *([f"({cell.improvements}/{cell.judged})"] if cell.judged else [])])


def headings(found: Overview) -> list[str]:
    """Return the headings of ``texts``."""
    costs = (COLUMNS[name].label.lower() for name in ("evaluations", "seconds", "tokens"))
    return ["rank", "aligner", *map(heading, found.columns), *costs]


def texts(found: Overview, whole: bool = True) -> list[list[str]]:
    """Format the cells of each row, with their countries where these are fewer; ``whole``: with ranges."""
    rows = []
    for row in found.rows:
        is_named = bool(_only(row, found))
        cells = [
            text(cell, places(column), whole) + ("" if is_named else _fewer(cell, column))
            for cell, column in zip(row.cells, found.columns, strict=True)
        ]
        cost = [] if row.cost is None else [row.cost.survey_evaluations, row.cost.seconds, row.cost.tokens]
        shown = [f"{value:,.0f}" for value in cost] or ["", "", ""]
        rank = row.cells[found.main].place if row.submissions and row.cells else ""
        rows.append([rank, title(row, found), *cells, *shown])
    return rows


def table(found: Overview, width: int) -> Table:
    """Return the table for a terminal of ``width`` characters, its name first, without ranges."""
    names, lines = headings(found), texts(found, whole=False)
    order = [1, 0, *range(2, len(names))]
    cells = [[line[at] for at in order] for line in lines]
    kept = {1, 2 + found.main}
    spare = [at for at in (*range(len(names) - 1, len(names) - 3, -1), *range(len(names) - 4, 1, -1)) if at not in kept]
    caption = "\n".join([*notes(found), "ranges: --format md"])
    return narrow_table(TITLE, caption, [names[at] for at in order], cells, spare, width)


def markdown(found: Overview) -> str:
    """Return the table as Markdown, without its notes."""
    rows = [[escape(cell) for cell in line] for line in texts(found)]
    return markdown_table([escape(name) for name in headings(found)], rows, words=(1,))


def markdown_section(found: Overview) -> str:
    """Return the table as Markdown with its title and notes."""
    return "\n".join([f"### {TITLE}", "", markdown(found), *(escape(line) + "  " for line in notes(found)), ""])


def latex(found: Overview) -> str:
    """Return the table as LaTeX (booktabs)."""
    names = [name.replace("↑", "(higher)").replace("↓", "(lower)") for name in headings(found)]
    lines = [" & ".join(latex_escape(cell) for cell in line) + r" \\" for line in texts(found)]
    return latex_table(f"{TITLE}. {'; '.join(notes(found))}.", "overview", "rl" + "r" * (len(names) - 2), names, lines)


def records(found: Overview) -> Iterator[dict[str, Any]]:
    """Yield one record for each row and column; seeds follow the row that pools them. A blank cell has a ``note``."""
    for row in found.rows:
        for one in (row, *row.seeds):
            for column, cell in zip(found.columns, one.cells, strict=True):
                yield _record(one, column, cell)


def _record(row: Row, column: Column, cell: Cell) -> dict[str, Any]:
    who = {
        "kind": "overview" if row.submissions else "overview baseline",
        "task": column.variant.task,
        "country": " ".join(cell.countries),
        "variant": column.title,
        "aligner": row.configuration.aligner,
        "detail": row.detail,
        "model": row.configuration.model,
        "seed": row.seed,
        "metric": column.metric,
        "split": "heldout",
        "verified": row.verified == len(row.submissions) if row.submissions else None,
        "point_estimate_only": cell.basis is None if cell.rank is not None else None,
        "note": cell.reason or ("collapsed" if cell.collapsed else None),
    }
    costs = asdict(row.cost) if row.cost else {}
    numbers = {key: value for key, value in asdict(cell).items() if key not in ("countries", "reason")}
    return who | costs | numbers | {"direction": "higher" if column.higher_is_better else "lower"}
