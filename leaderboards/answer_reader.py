"""Read the submissions of a board's entries, each answer file once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..harness.scoring.score import TaskCache
from ..harness.scoring.submission import Submission, load_submission
from ..tasks.answers import Answers
from .entries import Entry

MOST_HELD = 1 << 29  # bytes of answers kept in memory; files of further entries are read again


class AnswerReader:
    """A reader of entries that keeps submissions in memory up to a number of bytes of answers."""

    def __init__(self, shelf: TaskCache, most: int = MOST_HELD) -> None:
        self.shelf = shelf
        self._held: dict[Path, Submission] = {}
        self._left = most

    def hold(self, submission: Submission) -> None:
        """Keep a submission with its answers, up to the limit of bytes."""
        self._left -= sum(map(_bytes, submission.answers.values()))
        if self._left >= 0:
            self._held[submission.folder] = submission

    def submission(self, entry: Entry) -> Submission:
        """Return the submission of an entry with its answers.

        Raises:
            InputError: the files are missing or were changed.
        """
        if entry.folder not in self._held:
            submission = load_submission(entry.folder, self.shelf)
            self.hold(submission)
            return submission
        return self._held[entry.folder]

    def __call__(self, entry: Entry) -> Mapping[str, Answers]:
        """Return the answers of an entry by task; errors as in ``submission``."""
        return self.submission(entry).answers


def _bytes(answers: Answers) -> int:
    return 2 * answers.probs.nbytes + sum(map(len, answers.texts or ()))  # the layout's codes are as many numbers
