"""Answers of a board's entries, read from each file once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..harness.scoring.score import Shelf
from ..harness.submissions.reader import read_submission
from ..tasks.answers import Answers
from .entries import Entry

MOST_HELD = 1 << 29  # bytes of answers that are held; of more entries the files are read again


class AnswerReader:
    """Gives the answers of entries by task, and holds those that were read up to so many bytes."""

    def __init__(self, shelf: Shelf, most: int = MOST_HELD) -> None:
        self.shelf = shelf
        self._held: dict[Path, Mapping[str, Answers]] = {}
        self._left = most

    def hold(self, folder: Path, answers: Mapping[str, Answers]) -> None:
        """Take up the answers that were read from a folder, while there is memory for them."""
        self._left -= sum(map(_bytes, answers.values()))
        if self._left >= 0:
            self._held[folder] = answers

    def __call__(self, entry: Entry) -> Mapping[str, Answers]:
        """The answers of an entry by task.

        Raises:
            InputError: its files are no longer there, or were changed.
        """
        if entry.folder in self._held:
            return self._held[entry.folder]
        _, answers = read_submission(entry.folder, self.shelf.spec)
        self.hold(entry.folder, answers)
        return answers


def _bytes(answers: Answers) -> int:
    return 2 * answers.probs.nbytes + sum(map(len, answers.texts or ()))  # the layout's codes are as many numbers
