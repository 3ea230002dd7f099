"""Submissions of a board's entries, each answer file read once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..harness.scoring.score import TaskCache
from ..harness.scoring.submission import Submission, load_submission
from ..tasks.answers import Answers
from .entries import Entry

MOST_HELD = 1 << 29  # bytes of answers that are held; of more entries the files are read again


class AnswerReader:
    """Gives the submissions of entries, and holds those whose answers were read up to so many bytes."""

    def __init__(self, shelf: TaskCache, most: int = MOST_HELD) -> None:
        self.shelf = shelf
        self._held: dict[Path, Submission] = {}
        self._left = most

    def hold(self, submission: Submission) -> None:
        """Take up a submission whose answers were read, while there is memory for them."""
        self._left -= sum(map(_bytes, submission.answers.values()))
        if self._left >= 0:
            self._held[submission.folder] = submission

    def submission(self, entry: Entry) -> Submission:
        """Return the submission of an entry, its answers read.

        Raises:
            InputError: its files are no longer there, or were changed.
        """
        if entry.folder not in self._held:
            submission = load_submission(entry.folder, self.shelf)
            self.hold(submission)
            return submission
        return self._held[entry.folder]

    def __call__(self, entry: Entry) -> Mapping[str, Answers]:
        """Return the answers of an entry by task; raises as ``submission``."""
        return self.submission(entry).answers


def _bytes(answers: Answers) -> int:
    return 2 * answers.probs.nbytes + sum(map(len, answers.texts or ()))  # the layout's codes are as many numbers
