"""Rank the submissions of a folder by task and country: ``culteval.leaderboard``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError, did_you_mean
from ..harness.registry import family
from ..harness.report.results import Results, html_table
from ..harness.scoring.score import TaskCache
from ..tasks.countries import country as resolve
from .answer_reader import AnswerReader
from .boards import Board, boards, scored_anew
from .country_sets import AlignedSet, aligned_sets
from .entries import Entry, entries
from .overview import Overview, latex, markdown_section
from .overview_builder import overview
from .suite import read_suite

Advance = Callable[[str, int, int], None]


class Leaderboard(Results[Board]):
    """The boards of a folder, one for each task and country, in the order of the tasks.

    ``entries`` are the submissions; ``sets`` are runs of one aligner over several countries.
    """

    def __init__(self, found: Sequence[Board], runs: Sequence[Entry], answers: AnswerReader, suite: str) -> None:
        super().__init__(found)
        self.entries, self.answers, self.suite = tuple(runs), answers, suite

    @property
    def sets(self) -> list[AlignedSet]:
        """Return the aligned sets of the selected tasks."""
        tasks = {board.key.task for board in self}
        return [each for each in aligned_sets(self.entries, self.answers.shelf) if each.task in tasks]

    def select(self, task: str | None = None, country: str | None = None) -> Leaderboard:
        """Keep the boards of a task or family of tasks, and of a country by name or code.

        Raises:
            UsageError: no such board.
        """
        found, known = list(self), {board.key.task for board in self}
        if task is not None:
            if not (members := known.intersection(family(task))):
                hint = did_you_mean(task, known)
                raise UsageError(f"`task` {task!r}: no board of it here.{hint} There are {_list(known)}.")
            found = [board for board in found if board.key.task in members]
        if country is not None:
            countries = {board.key.country for board in found}
            if (code := resolve(country, countries).code) not in countries:
                raise UsageError(f"`country` {country!r}: no board of it here. There are {_list(countries)}.")
            found = [board for board in found if board.key.country == code]
        return Leaderboard(found, self.entries, self.answers, self.suite)

    def overview(self) -> Overview:
        """Pool the headlines over countries and seeds: a row for each model and aligner, a column for each task."""
        return overview(self.rows, self.answers.shelf)

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each row and value, with baselines and reported figures."""
        from .render.records import records

        return records(self.rows, self.sets, self.suite)

    def to_latex(self) -> str:
        """Return the overview and the tables as LaTeX; bold: better than every other row in paired tests."""
        from .render import tables

        return self._text(latex, tables.latex, tables.latex_beside)

    def to_markdown(self) -> str:
        """Return the overview and the tables as Markdown; bold as in ``to_latex``."""
        from .render import tables

        return self._text(markdown_section, tables.markdown, tables.markdown_beside)

    def _text(
        self, first: Callable[[Overview], str], write: Callable[..., str], beside: Callable[..., list[str]]
    ) -> str:
        import numpy as np

        from .significance import proven

        parts = [write(board, proven(board, self.answers, np.random.default_rng(0))) for board in self]
        return "\n".join([first(self.overview()), *parts, *beside([board.key.task for board in self], self.sets)])

    def plot(self) -> Any:
        """Draw one board on new matplotlib axes: a dot for each row, its interval or seed range, and baselines.

        Raises:
            UsageError: not exactly one board; ``select`` one.
        """
        from ..harness.report.plots import new_axes
        from .render import figure

        if len(self) != 1:
            raise UsageError(f"plot: {len(self)} boards; select one by task and country.")
        axes = new_axes(*figure.size(self[0]))
        figure.draw(axes, self[0])
        return axes

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        from .render import terminal

        yield self.overview()
        yield ""
        yield from terminal.shown(self.rows, self.sets, options.max_width)

    def _repr_html_(self) -> str:
        return html_table(self.overview().to_frame())


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def leaderboard(
    folder: str | Path,
    *,
    warn: Callable[[str], None] | None = None,
    advance: Advance = lambda what, done, total: None,
) -> Leaderboard:
    """Rank the finished runs or submissions of a folder; scores are computed from the answers.

    Args:
        folder: a folder of runs or submissions, or a published board.
        warn: called with a line for each refused submission [default: the logger ``culteval``].
        advance: called with "submissions" or "boards", the number done and their total.

    Raises:
        InputError: the folder has no valid submission.
    """
    warn = warn or logging.getLogger("culteval").warning
    answers, suite = AnswerReader(TaskCache()), read_suite()
    runs = list(entries(Path(folder), warn, lambda *done: advance("submissions", *done), answers.hold))
    found = boards(runs, answers.shelf, suite, scored_anew(answers), lambda *done: advance("boards", *done))
    return Leaderboard(found, runs, answers, suite.version)
