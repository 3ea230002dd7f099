"""Base class of results: a sequence of rows that is also a pandas table and is shown in notebooks and terminals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar, overload

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

MOST_ROWS = 60  # rows shown in a notebook

Row = TypeVar("Row")


class Results(Sequence[Row], Generic[Row]):
    """Immutable sequence of rows, compared by value; a subclass defines ``records``."""

    shown: ClassVar[tuple[str, ...]] = ()  # columns of the short table; empty for all columns

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = tuple(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @overload
    def __getitem__(self, place: int) -> Row: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[Row, ...]: ...

    def __getitem__(self, place: int | slice) -> Row | tuple[Row, ...]:
        return self.rows[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, type(self)) and self.rows == other.rows

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({len(self.rows)} rows)"

    def records(self) -> list[dict[str, Any]]:
        """Return the rows of the table as dictionaries."""
        raise NotImplementedError

    def to_frame(self) -> pd.DataFrame:
        """Return the rows as a tidy table."""
        import pandas as pd

        return pd.DataFrame(self.records())

    def _short(self) -> pd.DataFrame:
        table = self.to_frame()
        return table[[name for name in self.shown or table.columns if name in table.columns]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        yield rich_table(self._short())

    def _repr_html_(self) -> str:
        return html_table(self._short())


def html_table(table: pd.DataFrame) -> str:
    """Return a table as HTML for notebooks, with all cells escaped."""
    html: str = table.to_html(index=False, max_rows=MOST_ROWS, na_rep="", border=0, escape=True)
    return html


def rich_table(table: pd.DataFrame) -> Table:
    """Return a table for the terminal, without interpreting markup in its cells."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    result = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, column in table.items():
        result.add_column(Text(str(name)), justify="right" if column.dtype.kind in "if" else "left", overflow="fold")
    for line in table.itertuples(index=False):
        result.add_row(*(Text(_cell(value)) for value in line))
    return result


def _cell(value: Any) -> str:
    if value is None or value != value:  # NaN
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
