"""Boards: submissions grouped by what is comparable and ranked by their held-out headline, with ties.

The rank is that of Chatbot Arena (Chiang et al. 2024): one more than the number of rows that are better beyond doubt,
those whose whole range lies on the better side of one's own range. Rows that ranges cannot separate share a rank.
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from ..harness.report import Column, Row
from ..harness.scoring import Shelf, options_of, score_constant
from ..harness.submission import AskedTask, asking
from ..tasks.answers import Answers
from ..tasks.countries import name_of
from ..tasks.prompts import protocol
from ..tasks.score import Score
from ..tasks.spec import TaskSpec
from .collect import Entry
from .suite import Suite

SEEDS = 3  # of one configuration from which their range stands for its noise


class Key(NamedTuple):
    """What the rows of a board have in common; ``asked`` is empty where a task was asked as it stands."""

    task: str
    country: str
    edition: str
    constants: str
    asked: str


@dataclass(frozen=True)
class Standing:
    """One row of a board.

    ``low`` and ``high`` bound the headline by its 95 % interval, or by the range of three seeds or more of the same
    configuration; ``basis`` says which, and without either nothing bounds it and its rank is one by value alone.
    ``gain`` is whether the row is better than what needs no alignment; None where that cannot be said.
    """

    entry: Entry
    row: Row
    rank: int | None
    basis: Literal["interval", "seeds"] | None
    low: float | None
    high: float | None
    gain: bool | None

    @property
    def place(self) -> str:
        """The rank as it is shown: in brackets where it rests on the value alone."""
        if self.rank is None:
            return "-"
        return str(self.rank) if self.basis else f"({self.rank})"


@dataclass(frozen=True)
class Board:
    """Rows that may be compared, the best first, and beside them rows that no aligner made."""

    key: Key
    variant: str  # edition, constants and how much was asked, in words
    spec: TaskSpec
    caution: str | None
    in_suite: bool
    standings: tuple[Standing, ...]
    trivial: tuple[Row, ...]

    @property
    def title(self) -> str:
        """Task, country and variant."""
        return f"{self.spec.name}, {name_of(self.key.country)} ({self.variant})"

    def rows(self) -> list[Row]:
        """All rows by value, the trivial ones among them, as the terminal shows them."""
        models = {standing.entry.manifest.model.name for standing in self.standings}
        named = [_with_rank(standing, len(models) > 1) for standing in self.standings]
        return sorted([*named, *self.trivial], key=lambda row: _place(row.scores, self.spec))


def headline_of(spec: TaskSpec) -> Column:
    """The column that a task is ranked by: its headline, held out, in its first read-out."""
    return Column("", spec.metadata.headline.metric, spec.default_readout, "heldout")


def key_of(task: AskedTask, spec: TaskSpec) -> Key:
    """The board that an answered task belongs to."""
    people = f"{task.respondents} respondents" if task.respondents else ""
    limit = f"limit {task.limit}" if task.limit else ""
    asked = ", ".join(part for part in (people, limit) if part)
    return Key(task.name, task.country, task.edition or spec.default_edition, task.constants, asked)


def configuration(entry: Entry) -> str:
    """A hash over everything that was chosen but the seed: runs that share it differ by chance alone."""
    manifest = entry.manifest
    parts = manifest.model_dump(mode="json", include={"tasks", "model", "fitted", "country"})
    parts |= {"aligner": manifest.aligner.name, "settings": manifest.aligner.settings}
    parts["budget"] = manifest.budget.item_forwards_allowed
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def boards(entries: Iterable[Entry], shelf: Shelf, suite: Suite) -> list[Board]:
    """All boards of some submissions, by task and country; those of the suite first."""
    groups: dict[Key, list[Entry]] = defaultdict(list)
    for entry in entries:
        for task in entry.manifest.tasks:
            groups[key_of(task, shelf.spec(task.name))].append(entry)
    made = [_board(key, members, shelf, suite) for key, members in groups.items()]
    return sorted(made, key=lambda board: (not board.in_suite, suite.place(board.key.task), board.key))


def _board(key: Key, members: Sequence[Entry], shelf: Shelf, suite: Suite) -> Board:
    spec, asked = shelf.spec(key.task), members[0].asked(key.task)
    trivial = trivial_rows_of(spec, asked, members[0].manifest.seed)
    kind = f", {key.constants} constants" if spec.metadata.measure == "hofstede" else ""
    more = f", {key.asked}" if key.asked else ""
    variant = f"edition {key.edition}{kind}{more}"
    usual = not key.asked and key.edition == spec.default_edition and key.constants == "world"
    caution = shelf.measure(spec, key.country, options_of(asked)).caution
    standings = _ranked(members, spec, trivial)
    return Board(key, variant, spec, caution, usual and suite.holds(spec), standings, tuple(trivial))


def trivial_rows_of(spec: TaskSpec, asked: AskedTask, seed: int) -> list[Row]:
    """What answers score that no model gave, to the same prompts."""
    layout = protocol(spec, asking(asked, seed)).layout
    nobody = Answers(layout, np.zeros((1, *layout.codes.shape)), np.zeros((1, len(layout))))
    return [Row("constant", score_constant(spec, nobody, asked.country, options_of(asked)), None)]


def _ranked(members: Sequence[Entry], spec: TaskSpec, trivial: Sequence[Row]) -> tuple[Standing, ...]:
    column, sign = headline_of(spec), 1 if spec.metadata.headline.higher_is_better else -1
    scores = {entry.name: column.find(entry.of(spec.name)) for entry in members}
    bounds = _bounds(members, scores)
    least = sorted(sign * bounds[name][0 if sign > 0 else 1] for name in bounds)  # the worst each may be, upwards
    beaten = max((sign * score.value for row in trivial if (score := column.find(row.scores))), default=None)
    standings = []
    for entry in members:
        row = Row(f"{entry.manifest.aligner.name} s{entry.manifest.seed}", entry.of(spec.name), entry.manifest.budget)
        if entry.name not in bounds:
            standings.append(Standing(entry, row, None, None, None, None, None))
            continue
        low, high, basis = bounds[entry.name]
        worst, best = sorted((sign * low, sign * high))
        rank = 1 + len(least) - bisect_left(least, np.nextafter(best, np.inf))
        gain = None if beaten is None else bool(worst > beaten)
        known = (low, high) if basis else (None, None)
        standings.append(Standing(entry, row, rank, basis, *known, gain))
    return tuple(sorted(standings, key=lambda one: (one.rank is None, _place(one.row.scores, spec), one.entry.name)))


def _bounds(
    members: Sequence[Entry], scores: dict[str, Score | None]
) -> dict[str, tuple[float, float, Literal["interval", "seeds"] | None]]:
    """Least and greatest value that each headline may have, and why; the value itself where nothing is known."""
    seeds: dict[str, dict[int, float]] = defaultdict(dict)
    for entry in members:
        if (score := scores[entry.name]) is not None:
            seeds[configuration(entry)][entry.manifest.seed] = score.value
    bounds = {}
    for entry in members:
        if (score := scores[entry.name]) is None:
            continue
        values = seeds[configuration(entry)].values()
        if score.low is not None and score.high is not None:
            bounds[entry.name] = (score.low, score.high, "interval")
        elif len(values) >= SEEDS:
            bounds[entry.name] = (min(values), max(values), "seeds")
        else:
            bounds[entry.name] = (score.value, score.value, None)
    return bounds


def _place(scores: Iterable[Score], spec: TaskSpec) -> float:
    found = headline_of(spec).find(scores)
    if found is None:
        return float("inf")
    return -found.value if spec.metadata.headline.higher_is_better else found.value


def _with_rank(standing: Standing, several_models: bool) -> Row:
    row = standing.row
    name = f"{row.aligner} {standing.entry.manifest.model.name}" if several_models else row.aligner
    return Row(name, row.scores, row.spent, standing.place)
