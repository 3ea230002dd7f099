"""Which row of a board is best beyond chance: what a paper may print bold."""

from __future__ import annotations

import numpy as np

from ..harness.analysis.significance import differences, holm
from ..harness.report.tables import headline_of
from .answer_reader import AnswerReader
from .boards import Board
from .entries import Entry

LEVEL = 0.05
MOST = 50  # rows that the best is compared with, the nearest ones


def proven(board: Board, answers: AnswerReader, rng: np.random.Generator) -> tuple[int, ...]:
    """The number of the first row (0), if it is better than every other in paired tests of the headline; else nothing.

    Holm's correction is over the rows compared. Where no test is valid, such as for one answer an item, none is proven.

    Raises:
        InputError: the answers are no longer where they were read.
    """
    rated = [standing.entry for standing in board.standings if standing.rank is not None]
    if len(rated) < 2:
        return ()
    found = [_test(board, rated[0], other, answers, rng) for other in rated[1 : MOST + 1]]
    adjusted = holm([p for p, _ in found])
    ahead = all(better for _, better in found)
    return (0,) if ahead and all(p is not None and p <= LEVEL for p in adjusted) else ()


def _test(
    board: Board, best: Entry, other: Entry, answers: AnswerReader, rng: np.random.Generator
) -> tuple[float | None, bool]:
    """p of the paired test between two rows, and whether the first is on the better side."""
    column, task = headline_of(board.spec), board.key.task
    a, b = (answers(entry)[task] for entry in (best, other))
    same_people = not board.asked.respondents or best.manifest.seed == other.manifest.seed
    options = board.asked.options
    readouts = (column.readout,)
    rows = differences(board.spec, a, b, board.key.country, options, rng, readouts=readouts, paired=same_people)
    row = next((row for row in rows if row.metric == column.metric), None)
    if row is None:
        return None, False
    return row.p, (row.difference > 0) == board.spec.metadata.headline.higher_is_better and row.difference != 0
