"""The overview of a board: a row for each model and aligner, a column for each task.

One table for the terminal, for papers and for the site: runs that differ in country and seed alone are pooled
(``pooling.py``); other models, settings or budgets are another row, other editions or protocols another column.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from .pooling import Cell

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions

R2 = "between_country_r2"


class Variant(NamedTuple):
    """The common properties of the boards of one column: all but the country."""

    task: str
    edition: str
    constants: str
    asked: str


class Configuration(NamedTuple):
    """The common properties of the runs of one row: all but country and seed. A baseline has no settings.

    ``settings`` and ``fitted`` (loss, and tasks and country if not the answered ones) are JSON.
    """

    aligner: str
    model: str = ""
    settings: str = "{}"
    allowed: int = 0
    fitted: str = "{}"


@dataclass(frozen=True)
class Column:
    """A score of one task: ``countries`` are those that most rows have, on which the rows are ranked.

    ``cautions`` describe the reference figures of these countries, such as estimates.
    """

    variant: Variant
    title: str
    metric: str
    higher_is_better: bool
    countries: tuple[str, ...]
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """The mean cost of a run's fitting: survey evaluations, seconds on the submitter's machine, tokens read."""

    survey_evaluations: float
    seconds: float
    tokens: float


@dataclass(frozen=True)
class Point:
    """The mean point of a row on the cultural map of a country's board: secular and self-expression coordinates.

    ``error`` are mean standard errors; ``start`` is the point of the unaligned model on the same board.
    """

    country: str
    edition: str
    at: tuple[float, float]
    error: tuple[float, float]
    start: tuple[float, float] | None


@dataclass(frozen=True)
class Row:
    """Runs of one configuration, or a baseline, with one cell for each column.

    ``detail`` names budget and settings that differ from other rows of the same model and aligner; ``name`` is short.
    ``submissions`` are their names by country; ``verified`` and ``differs`` count them. ``seeds`` are the rows that
    are folded into this one: one for each seed, without further ones.
    """

    configuration: Configuration
    name: str
    detail: str
    cells: tuple[Cell, ...]
    cost: Cost | None = None
    submissions: tuple[tuple[str, str], ...] = ()
    verified: int = 0
    differs: int = 0
    points: tuple[Point, ...] = ()
    seed: int | None = None
    seeds: tuple[Row, ...] = ()

    @property
    def countries(self) -> tuple[str, ...]:
        """Return the countries of its means."""
        return tuple(sorted({code for cell in self.cells for code in cell.countries}))

    @property
    def marks(self) -> tuple[str, ...]:
        """Return the marks of a row of runs: verified if all runs are, collapsed if any is."""
        if not self.submissions:
            return ()
        found = ["verified" if self.verified == len(self.submissions) else "self-reported"]
        found += ["collapsed"] if any(cell.collapsed for cell in self.cells) else []
        return (*found, *(["scores differ"] if self.differs else []))


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

        from .render import overview

        return pd.DataFrame(overview.texts(self), columns=overview.headings(self))

    def to_markdown(self) -> str:
        """Return the table as Markdown, without its notes."""
        from .render import overview

        return overview.markdown(self)

    def records(self) -> Iterator[dict[str, Any]]:
        """Yield one record for each row and column, and for each seed's row."""
        from .render import overview

        yield from overview.records(self)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        from .render import overview

        yield overview.table(self, options.max_width)

    def _repr_html_(self) -> str:
        from ..harness.report.results import html_table

        return html_table(self.to_frame())
