"""Identify the country of every submission of a board's aligned sets, with one correction for all tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError
from ..harness.analysis.identification import (
    LEAST_COUNTRIES,
    MEASURES,
    Identification,
    distances,
    identification,
)
from ..harness.analysis.significance import holm
from .answer_reader import AnswerReader
from .country_sets import EntrySet, entry_sets

if TYPE_CHECKING:
    from .leaderboard import Leaderboard

HEADINGS = ("aligner", "seed", "task", "model", "countries", "mean rank", "by chance", "p", "p after Holm")
WORDS = (0, 2, 3)  # columns of text
SPARE = (6, 4, 3)  # left out of narrow terminals, in this order
NOTE = (
    "mean rank: of the submissions' own countries among those of the set, 1 where every country is identified; p: "
    "share of permuted labels with a mean rank as low; Holm's correction covers the rows"
)


@dataclass(frozen=True)
class Identified:
    """The identification ranks of an aligned set, and their p corrected for all sets of the board."""

    of: EntrySet
    found: Identification
    adjusted: float

    @property
    def cells(self) -> list[str]:
        """Format the cells of ``HEADINGS``."""
        setup, count = self.of.setup, len(self.found.countries)
        who = [setup.aligner, str(setup.seed), self.of.task, f"{setup.model} {setup.dtype}", str(count)]
        return [
            *who,
            f"{self.found.mean_rank:.2f}",
            f"{(count + 1) / 2:.1f}",
            f"{self.found.p:.4f}",
            f"{self.adjusted:.3f}",
        ]

    @property
    def record(self) -> dict[str, Any]:
        """Return the row as plain data."""
        setup, found = self.of.setup, self.found
        who = {"task": self.of.task, "model": setup.model, "dtype": setup.dtype, "aligner": setup.aligner}
        ranks = dict(zip(found.countries, found.ranks.tolist(), strict=True))
        tests = {
            "mean_rank": found.mean_rank,
            "p": found.p,
            "p_holm": self.adjusted,
            "permutations": found.permutations,
        }
        return who | {"seed": setup.seed, "budget": setup.budget, "ranks": ranks} | tests


def identified(board: Leaderboard, rng: np.random.Generator) -> list[Identified]:
    """Identify the countries of all aligned sets of six countries or more, the lowest mean rank first.

    Sets that give the same answers in every country, such as those of ``naive``, are left out: there is nothing to
    identify.

    Args:
        board: a folder's, or a selection of it by task.
        rng: draws the permutations of sets with too many countries to enumerate them.

    Raises:
        InputError: the answers of an entry are missing or were changed.
    """
    answers, tasks = board.answers, {one.key.task for one in board}
    sets = list(_tested([one for one in entry_sets(board.entries, answers.shelf) if one.task in tasks], answers, rng))
    adjusted = holm([found.p for _, found in sets])
    rows = [Identified(one, found, p) for (one, found), p in zip(sets, adjusted, strict=True) if p is not None]
    return sorted(rows, key=lambda row: (row.of.task, row.found.mean_rank, row.found.p))


def _tested(
    sets: Sequence[EntrySet], answers: AnswerReader, rng: np.random.Generator
) -> Iterator[tuple[EntrySet, Identification]]:
    """Yield the sets that can be tested, with their ranks."""
    for one in sets:
        spec = answers.shelf.spec(one.task)
        if spec.metadata.measure not in MEASURES or len(one.by_country) < LEAST_COUNTRIES:
            continue
        rows = {
            code: distances(
                spec,
                answers(entry)[one.task],
                spec.default_scoring,
                entry.manifest.task(one.task).options,
                code,
            )
            for code, entry in one.by_country.items()
        }
        try:
            found = identification(rows, rng)
        except UsageError:  # countries that were asked other questions
            continue
        if np.ptp(found.centred) > 1e-9:
            yield one, found
