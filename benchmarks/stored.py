"""Submissions of a study: of its sweep, or as they were added to ``benchmarks/results``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from culteval.errors import InputError
from culteval.harness.runs.folder import SCORES, read_result
from culteval.harness.scoring.score import TaskCache
from culteval.harness.scoring.submission import Submission, load_submission
from culteval.leaderboards.entries import find


def submissions(folder: Path) -> Iterator[Submission]:
    """Yield every finished run or added submission of a folder, by name; files of a run are as they were then.

    They share one cache of tasks and measures.

    Raises:
        InputError: a submission cannot be read.
    """
    cache = TaskCache()
    for found in find(folder, _refuse):
        if (run := folder / found.name / SCORES).is_file():
            read_result(run.parent, reused=True)
        yield load_submission(found.folder, cache)


def _refuse(problem: str) -> None:
    raise InputError(problem)
