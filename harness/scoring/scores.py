"""Scores as a researcher handles them: a sequence of rows that is also a table and a picture."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, overload

from ...errors import UsageError, did_you_mean
from ...tasks.countries import name_of
from ...tasks.score import Score
from ..registry import spec_of
from ..report import plots, tables

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

_SHOWN = ("task", "country", "metric", "readout", "split", "value", "low", "high", "n", "note")  # of rows in a notebook
_MOST_ROWS = 60


class Scores(Sequence[Score]):
    """Scores of one submission, in the order of its tasks and countries.

    Args:
        about: what its titles say beside task and aligner, such as ``aligned to Saudi Arabia``.
    """

    def __init__(self, rows: Iterable[Score], about: str = "") -> None:
        self.rows, self.about = tuple(rows), about

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Score]:
        return iter(self.rows)

    @overload
    def __getitem__(self, place: int) -> Score: ...

    @overload
    def __getitem__(self, place: slice) -> Scores: ...

    def __getitem__(self, place: int | slice) -> Score | Scores:
        return Scores(self.rows[place], self.about) if isinstance(place, slice) else self.rows[place]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scores) and self.rows == other.rows

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        tasks = ", ".join(dict.fromkeys(row.task for row in self.rows))
        return f"Scores({len(self.rows)} rows: {tasks})"

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one plain dictionary a score, as ``scores.json`` has them."""
        return [row.model_dump(mode="json") for row in self.rows]

    def to_frame(self) -> pd.DataFrame:
        """Return one row a score, with a column a field of ``Score``."""
        import pandas as pd

        return pd.DataFrame([row.model_dump() for row in self.rows], columns=list(Score.model_fields))

    def plot(self, metric: str | None = None) -> Any:
        """Draw the scores on new matplotlib axes and return these.

        Without a metric: the six indices beside the published ones, where the first task has them for one country.
        Otherwise one metric with its 95 % intervals: by split and read-out for one country, and by country for several,
        held out, the best first.

        Args:
            metric: the metric to draw [default: the headline of the first task].

        Raises:
            UsageError: no such score.
        """
        if not self.rows:
            raise UsageError("no scores to draw.")
        spec = spec_of(self.rows[0].task)
        mine = [row for row in self.rows if row.task == spec.name]
        codes = list(dict.fromkeys(row.country for row in mine))
        if metric is None and len(codes) == 1:
            readout = plots.pictured(mine)
            if plots.dimensions(mine, readout, "heldout"):
                axes = plots.new_axes(7, 3.6)
                plots.draw_dimensions(axes, mine, name_of(codes[0]))
                return axes
        name = metric or spec.metadata.headline.metric
        rows = [row for row in self.rows if row.metric == name] if metric else [r for r in mine if r.metric == name]
        if not rows:
            known = list(dict.fromkeys(row.metric for row in self.rows))
            raise UsageError(f"metric {name!r}: not among these scores.{did_you_mean(name, known)}")
        several = len({row.task for row in rows}) > 1
        if len(codes) > 1:
            column = tables.headline_of(spec)
            rows = [row for row in rows if (row.readout, row.split) == (column.readout, column.split)] or rows
            rows.sort(key=lambda row: -row.value if row.higher_is_better else row.value)
        labels = [
            ", ".join(
                [*([row.task] if several else []), name_of(row.country) if len(codes) > 1 else row.split, row.readout]
            )
            for row in rows
        ]
        axes = plots.new_axes(7, 1 + 0.22 * len(rows))
        who = f"{rows[0].aligner}, {self.about}" if self.about else rows[0].aligner
        estimates = [(row.value, row.low, row.high) for row in rows]
        plots.draw_estimates(axes, labels, estimates, name, f"{', '.join(dict.fromkeys(r.task for r in rows))}: {who}")
        return axes

    def tables(self, width: int) -> Iterator[Table]:
        """Yield a terminal table a task, of so many characters at most: a row a country, the best first."""
        for task in dict.fromkeys(row.task for row in self.rows):
            spec, mine = spec_of(task), [row for row in self.rows if row.task == task]
            by_country: dict[str, list[Score]] = {}
            for row in mine:
                by_country.setdefault(row.country, []).append(row)
            lines = [tables.Row(name_of(code), found, None) for code, found in by_country.items()]
            title = f"{task}: {mine[0].aligner}, {self.about}, scored against" if self.about else f"{task}: scores of"
            yield tables.table(tables.ranked(lines, spec), title, spec, width, first="country")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        yield from self.tables(options.max_width)

    def _repr_html_(self) -> str:
        """An HTML table for notebooks; whatever the rows say is escaped."""
        table = self.to_frame()[list(_SHOWN)]
        html: str = table.to_html(index=False, max_rows=_MOST_ROWS, na_rep="", border=0, escape=True)
        return html
