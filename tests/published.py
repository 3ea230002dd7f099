"""The published board as its code reads, scores and ranks it."""

from pathlib import Path
from typing import NamedTuple

from culteval.harness.scoring.score import TaskCache
from culteval.leaderboards.boards import Board, boards
from culteval.leaderboards.country_sets import AlignedSet, aligned_sets
from culteval.leaderboards.entries import Entry, entries
from culteval.leaderboards.suite import read_suite

RESULTS = Path(__file__).parents[1] / "leaderboards" / "results"


class Published(NamedTuple):
    """Its entries, boards and aligned sets, and the tasks as they were read for it."""

    shelf: TaskCache
    runs: list[Entry]
    boards: list[Board]
    sets: list[AlignedSet]


def read() -> Published:
    shelf, runs = TaskCache(), list(entries(RESULTS, print))
    return Published(shelf, runs, boards(runs, shelf, read_suite()), aligned_sets(runs, shelf))
