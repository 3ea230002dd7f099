"""Test whether the first row of a board is significantly better than all others: printed bold in papers."""

from __future__ import annotations

import numpy as np

from ..harness.analysis.significance import differences, holm
from ..harness.report.tables import headline_of
from .answer_reader import AnswerReader
from .boards import Board
from .entries import Entry

LEVEL = 0.05
MOST = 50  # rows that the first is compared with, the next ones


def proven(board: Board, answers: AnswerReader, rng: np.random.Generator) -> tuple[int, ...]:
    """Return (0,) if the first row is better than every other in paired tests of the headline, else ().

    Holm's correction covers the compared rows. Without a valid test (such as for one answer per item) the result is ().

    Raises:
        InputError: the answers are missing or were changed.
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
    """Return p of the paired test between two rows, and whether the first is better."""
    column, task = headline_of(board.spec), board.key.task
    a, b = (answers(entry)[task] for entry in (best, other))
    same_personas = not board.asked.personas or best.manifest.seed == other.manifest.seed
    options = board.asked.options
    scorings = (column.scoring,)
    rows = differences(board.spec, a, b, board.key.country, options, rng, scorings=scorings, paired=same_personas)
    row = next((row for row in rows if row.metric == column.metric), None)
    if row is None:
        return None, False
    return row.p, (row.difference > 0) == board.spec.metadata.headline.higher_is_better and row.difference != 0
