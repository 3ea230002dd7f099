"""Submissions of a study: of its sweep, or as they were added to ``benchmarks/results``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from culteval.errors import InputError
from culteval.harness.runs.folder import SCORES, Checksums
from culteval.harness.scoring.score import TaskCache
from culteval.harness.scoring.submission import Submission, load_submission
from culteval.harness.submissions.manifest import SUBMISSION
from culteval.leaderboards.entries import find
from culteval.tasks.prompts import ProtocolOptions, split_items
from culteval.tasks.score import Score
from culteval.tasks.score import find as find_score

UNALIGNED = "naive"


def submissions(folder: Path) -> Iterator[Submission]:
    """Yield every finished run or added submission of a folder, by name; files of a run are as they were then.

    They share one cache of tasks and measures.

    Raises:
        InputError: a submission cannot be read.
    """
    cache = TaskCache()
    for found in find(folder, _refuse):
        if (run := folder / found.name / SCORES).is_file():
            Checksums(run.parent).finished(SUBMISSION)
        yield load_submission(found.folder, cache)


def value(scores: Iterable[Score], metric: str, scoring: str, split: str) -> float:
    """Return a score, NaN if there is none."""
    found = find_score(scores, (metric, scoring, split))
    return float("nan") if found is None else found.value


def evaluations_allowed(submission: Submission) -> int:
    """Return the survey evaluations that a run's budget allowed, 0 if it fitted nothing."""
    fitted = submission.manifest.fitted
    specs = [submission.cache.spec(name) for name in fitted.tasks] if fitted else []
    items = sum(len(split_items(spec, "fit", ProtocolOptions())) for spec in specs)
    return round(submission.manifest.budget.item_forwards_allowed / items) if items else 0


def require_unaligned(countries: Iterable[str], known: Iterable[str]) -> None:
    """Raise InputError where a country of a study is not among those with a run of the unaligned model."""
    if missing := sorted(set(countries) - set(known)):
        raise InputError(f"no run of {UNALIGNED} for {', '.join(missing)} in this study. Run its sweep to the end.")


def records(path: Path, content: str) -> list[dict[str, Any]]:
    """Read the JSON lines of a run's file, which submissions added to a board do not have.

    Raises:
        InputError: the file is not there; the message says what ``content`` it has.
    """
    if not path.is_file():
        raise InputError(f"{path}: not found; it has {content}. Give the folder of the sweep.")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _refuse(problem: str) -> None:
    raise InputError(problem)
