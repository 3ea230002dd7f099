"""Finished runs of a reproduction and tables of their scores, for Markdown and JSON."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ...errors import on_one_line
from ...harness.report.tables import escape, markdown_table
from ...harness.runs.config import RunConfig
from ...harness.runs.folder import read_result
from ...harness.scoring.submission import Submission
from ...harness.sweeps.grid import Cell
from ...tasks.score import Place, Score, find

Value = str | int | float | None


@dataclass(frozen=True)
class Result:
    """A finished run: its configuration and its submission, whose scores are computed on first use."""

    config: RunConfig
    submission: Submission

    @cached_property
    def _scores(self) -> dict[str, list[Score]]:
        return {name: list(self.submission.score(task=name)) for name in self.config.tasks}

    def score(self, task: str, place: Place) -> Score | None:
        """Return a score by task, metric, answer scoring and split; None if there is none."""
        return find(self._scores.get(task, ()), place)


@dataclass(frozen=True)
class Results:
    """Some results, which ``where`` and ``of`` narrow down and ``mean`` averages over seeds."""

    runs: tuple[Result, ...]

    def where(self, test: Callable[[RunConfig], bool]) -> Results:
        """Return the results whose configuration passes a test."""
        return Results(tuple(run for run in self.runs if test(run.config)))

    def of(self, **fields: Any) -> Results:
        """Return the results whose configuration has these values."""
        return self.where(lambda config: all(getattr(config, name) == value for name, value in fields.items()))

    def mean(self, task: str, place: Place) -> float | None:
        """Compute the mean of a score; None if no run has it."""
        found = [score.value for run in self.runs if (score := run.score(task, place)) is not None]
        return statistics.fmean(found) if found else None


def read_results(cells: Iterable[Cell], root: Path) -> Results:
    """Read the finished runs among the cells of a sweep.

    Raises:
        InputError: a damaged run.
    """
    done = [cell for cell in cells if cell.state in ("done", "skipped")]
    return Results(tuple(Result(c.config, read_result(root / c.name, reused=True).submission) for c in done))


@dataclass(frozen=True)
class Table:
    """A table of a reproduction.

    ``rows`` have a value under each of ``headings``; fractions are shown in ``form``, None as a dash. ``notes`` are
    what follows from it, a line each; ``figures`` are paths from its folder.
    """

    name: str
    title: str
    headings: Sequence[str]
    rows: Sequence[dict[str, Value]]
    form: str = ".3f"
    notes: Sequence[str] = ()
    figures: Sequence[str] = ()

    def markdown(self) -> str:
        """Format heading, table, notes and figures in Markdown."""
        words = {at for at, name in enumerate(self.headings) if any(isinstance(row[name], str) for row in self.rows)}
        cells = [[self._cell(row[name]) for name in self.headings] for row in self.rows]
        parts = [f"## {self.title}\n", markdown_table([escape(name) for name in self.headings], cells, words)]
        if self.notes:
            parts.append("".join(f"- {note}\n" for note in self.notes))
        parts += [f"![{Path(path).stem}]({path})\n" for path in self.figures]
        return "\n".join(parts)

    def _cell(self, value: Value) -> str:
        if isinstance(value, str):
            return escape(on_one_line(value))
        return "-" if value is None else format(value, "," if isinstance(value, int) else self.form)

    def record(self) -> dict[str, Any]:
        """Return the table as JSON has it."""
        return {
            "table": self.name,
            "title": self.title,
            "rows": list(self.rows),
            "notes": list(self.notes),
            "figures": list(self.figures),
        }
