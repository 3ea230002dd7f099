"""Scores of one submission: a sequence of rows with tables and figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ...errors import UsageError, did_you_mean
from ...tasks.countries import name_of
from ...tasks.score import Score
from ..registry import spec_of
from ..report import plots, tables
from ..report.results import Results

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.table import Table


class Scores(Results[Score]):
    """Scores in the order of a submission's tasks and countries.

    Args:
        about: text in titles after task and aligner, such as ``aligned to Saudi Arabia``.
    """

    shown = ("task", "country", "metric", "scoring", "split", "value", "low", "high", "n", "note")

    def __init__(self, rows: Iterable[Score], about: str = "") -> None:
        super().__init__(rows)
        self.about = about

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary a score, with the fields of ``Score``."""
        return [row.model_dump() for row in self.rows]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return one dictionary of JSON values a score, as stored in ``scores.json``."""
        return [row.model_dump(mode="json") for row in self.rows]

    def plot(self, metric: str | None = None) -> Any:
        """Draw the scores on new matplotlib axes and return the axes.

        Without a metric, draw the six indices of the first task beside the published ones, where it has them for one
        country. Otherwise draw one metric with its 95 % intervals: by split and answer scoring for one country; by
        country for several, held out, the best at the top.

        Args:
            metric: the metric to draw [default: the headline of the first task].

        Raises:
            UsageError: no such score.
        """
        if not self.rows:
            raise UsageError("no scores to draw.")
        spec = spec_of(self.rows[0].task)
        first = [row for row in self.rows if row.task == spec.name]
        countries = {row.country for row in self.rows}
        if metric is None and len(countries) == 1 and plots.dimensions(first, plots.pictured(first), "heldout"):
            axes = plots.new_axes(7, 3.6)
            plots.draw_dimensions(axes, first, name_of(first[0].country))
            return axes
        name = metric or spec.metadata.headline.metric
        rows = [row for row in (self.rows if metric else first) if row.metric == name]
        if not rows:
            known = list(dict.fromkeys(row.metric for row in self.rows))
            raise UsageError(f"metric {name!r}: not among these scores.{did_you_mean(name, known)}")
        if len(countries) > 1:
            rows = _by_country(rows)
        axes = plots.new_axes(7, 1 + 0.22 * len(rows))
        estimates = {_label(row, len(countries) > 1): (row.value, row.low, row.high) for row in rows}
        who = ", ".join(filter(None, (rows[0].aligner, self.about)))
        plots.draw_estimates(axes, estimates, name, f"{', '.join(dict.fromkeys(r.task for r in rows))}: {who}")
        return axes

    def tables(self, width: int) -> Iterator[Table]:
        """Yield a terminal table for each task, at most ``width`` characters wide: a row a country, the best first."""
        for task in dict.fromkeys(row.task for row in self.rows):
            spec, by_country = spec_of(task), dict[str, list[Score]]()
            for row in self.rows:
                if row.task == task:
                    by_country.setdefault(row.country, []).append(row)
            lines = [tables.Row(name_of(code), scores, None) for code, scores in by_country.items()]
            who = ", ".join(filter(None, (lines[0].scores[0].aligner, self.about)))
            title = f"{task}: {who}, scored against"
            yield tables.table(tables.ranked(lines, spec), title, spec, width, first="country")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        yield from self.tables(options.max_width)


def _by_country(rows: list[Score]) -> list[Score]:
    """Return the held-out rows by each task's first answer scoring, the best first."""
    columns = {task: tables.headline_of(spec_of(task)) for task in {row.task for row in rows}}
    kept = [row for row in rows if (row.scoring, row.split) == (columns[row.task].scoring, columns[row.task].split)]
    return sorted(kept, key=lambda row: -row.value if row.higher_is_better else row.value)


def _label(row: Score, by_country: bool) -> str:
    return f"{row.task}, {name_of(row.country)}" if by_country else f"{row.task}, {row.split}, {row.scoring}"
