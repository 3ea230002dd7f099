"""Boards from run folders: collect, group by what is comparable, rank, with the rows that every board has."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ..errors import CultevalError, InputError, UsageError
from ..harness.centred import ALL, Centred, centred
from ..harness.registry import spec_of
from ..harness.report import Row, headline_of, ranked
from ..harness.run import SCORES, SUBMISSION, RunResult, read_result
from ..harness.scoring import options_of, score_answers
from ..harness.submission import AskedTask, Manifest, read
from ..harness.trivial import CONTROL, TrivialRow, is_gain, random_prefix, trivial_rows
from ..tasks.answers import Answers
from ..tasks.countries import name_of
from ..tasks.measure import measure_of
from ..tasks.score import Score
from ..tasks.spec import TaskSpec


@dataclass(frozen=True)
class Board:
    """Rows that may be compared: one task, country, model, edition and kind of constants; ``notes`` on some of them."""

    title: str
    spec: TaskSpec
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class AlignedSet:
    """Runs of one aligner, model, seed and budget, each aligned to another country; ``centred`` with six of them."""

    title: str
    aligner: str
    countries: tuple[str, ...]
    centred: Centred | None


class Group(NamedTuple):
    """What rows must share to stand on one board."""

    task: str
    country: str
    model: str
    dtype: str
    edition: str
    constants: str
    asked: str


@dataclass(frozen=True, eq=False)
class Entry:
    """One task of a finished run."""

    result: RunResult
    task: AskedTask

    @property
    def manifest(self) -> Manifest:
        return self.result.manifest

    @property
    def scores(self) -> list[Score]:
        """The run's scores of this task."""
        return [row for row in self.result.scores if row.task == self.task.name]

    @cached_property
    def answers(self) -> Answers:
        """The answers, read from the submission."""
        return read(self.result.folder / SUBMISSION)[1][self.task.name]

    @property
    def settings(self) -> str:
        """The aligner's settings, as a key."""
        return json.dumps(self.manifest.aligner.settings, sort_keys=True)

    @cached_property
    def group(self) -> Group:
        """The board it belongs on."""
        edition = self.task.edition or spec_of(self.task.name).default_edition
        model = self.manifest.model
        asked = _asked(self.task)
        return Group(self.task.name, self.task.country, model.name, model.dtype, edition, self.task.constants, asked)


def entries(folder: Path, warn: Callable[[str], None] = lambda text: None) -> list[Entry]:
    """Every task of every finished run under a folder.

    Raises:
        InputError: no finished run there, or none but damaged ones; with others, those are warned about and left out.
    """
    found: list[Entry] = []
    problems: list[CultevalError] = []
    for path in sorted(folder.glob(f"*/{SCORES}")):
        try:
            result = read_result(path.parent, reused=True)
            for task in result.manifest.tasks:  # its country and edition are there, or it could not be scored again
                measure_of(spec_of(task.name), task.country, options_of(task))
        except (InputError, UsageError) as error:  # one outdated run must not take the board down
            problems.append(error)
            continue
        found += [Entry(result, task) for task in result.manifest.tasks]
    if problems and not found:
        raise problems[0]
    for problem in problems:
        warn(f"left out: {problem}")
    if not found:
        raise InputError(f"{folder}: no finished runs. `culteval run` makes some; give its --out folder.")
    return found


def boards(found: Sequence[Entry]) -> list[Board]:
    """A board for each group of entries, the best held-out headline first, trivial rows among the others."""
    groups: dict[Group, list[Entry]] = defaultdict(list)
    for entry in found:
        groups[entry.group].append(entry)
    return [_board(group, mine, _controls(group, found)) for group, mine in groups.items()]


def _board(group: Group, mine: Sequence[Entry], controls: Sequence[TrivialRow]) -> Board:
    spec = spec_of(group.task)
    task = mine[0].task
    trivial = trivial_rows(spec, mine[0].answers, group.country, options_of(task))
    own = [entry for entry in mine if not (controls and entry.manifest.aligner.name == CONTROL)]
    rows = [Row(f"{e.manifest.aligner.name} s{e.manifest.seed}", e.scores, e.manifest.budget) for e in own]
    rows += [Row(row.name, row.scores, None) for row in trivial]
    rows = [replace(row, gain=_gain(row, spec, controls)) for row in rows]
    rows += [Row(row.name, row.scores, None, row.spread) for row in controls]
    kind = f", {group.constants} constants" if spec.metadata.measure == "hofstede" else ""
    what = f"{group.model} {group.dtype}, edition {group.edition}{kind}{group.asked}"
    notes = [f"{row.name}: {row.note}" for row in (*trivial, *controls) if row.note]
    notes += _missing(mine, controls)
    title = f"{spec.name}, {name_of(group.country)} ({what})"
    return Board(title, spec, tuple(ranked(rows, spec)), tuple(notes))


def _gain(row: Row, spec: TaskSpec, controls: Iterable[TrivialRow]) -> bool | None:
    """Whether a row's headline is a gain over every control; None where there is nothing to compare."""
    found = headline_of(spec).find(row.scores)
    each = [is_gain(found, control) for control in controls] if found else []
    known = [gain for gain in each if gain is not None]
    return all(known) if known else None


def _controls(group: Group, found: Iterable[Entry]) -> list[TrivialRow]:
    """The random-prefix control, one row for each setting of it.

    Such a prompt looks at no country, so runs of any country serve, scored against this one; a seed counts once.
    """
    runs: dict[str, dict[int, Entry]] = defaultdict(dict)
    for entry in found:
        like = entry.group._replace(country=group.country, edition=group.edition, constants=group.constants)
        if entry.manifest.aligner.name == CONTROL and like == group:
            runs[entry.settings].setdefault(entry.manifest.seed, entry)
    rows = []
    for settings, by_seed in runs.items():
        if len(by_seed) < 2:
            continue
        row = random_prefix([_against(entry, group) for entry in by_seed.values()])
        told = ", ".join(f"{key} {value}" for key, value in json.loads(settings).items())
        rows.append(replace(row, name=f"{row.name}, {told}") if len(runs) > 1 else row)
    return rows


def _against(entry: Entry, group: Group) -> list[Score]:
    """The scores of an entry as one of this group."""
    if entry.group == group:
        return entry.scores
    spec = spec_of(group.task)
    options = options_of(entry.task.model_copy(update={"edition": group.edition, "constants": group.constants}))
    return score_answers(spec, entry.answers, group.country, options, CONTROL)


def _missing(mine: Iterable[Entry], controls: Sequence[TrivialRow]) -> list[str]:
    """What a board still owes: random search at the budget of each search, and the random-prefix control."""
    paid: dict[int, set[str]] = defaultdict(set)
    for entry in mine:
        if allowed := entry.manifest.budget.item_forwards_allowed:
            paid[allowed].add(entry.manifest.aligner.name)
    notes = [
        f"no `random` at the budget of {', '.join(sorted(names))} ({allowed:,} item forwards)"
        for allowed, names in sorted(paid.items())
        if "random" not in names
    ]
    return notes if controls else [*notes, f"no random-prefix control: `{CONTROL}` with 24 seeds (docs/boards.md)"]


def aligned_sets(found: Iterable[Entry]) -> list[AlignedSet]:
    """Runs that differ in their country only, of tasks of Hofstede's dimensions, the best explained variance first."""
    sets: dict[tuple[Group, str, str, int, int], dict[str, Entry]] = defaultdict(dict)
    for entry in found:
        manifest, country = entry.manifest, entry.task.country
        if manifest.aligner.name == CONTROL or manifest.aligned_to != country:  # aligned to nobody, or to another
            continue
        if spec_of(entry.task.name).metadata.measure != "hofstede":
            continue
        group, allowed = entry.group._replace(country=""), manifest.budget.item_forwards_allowed
        key = (group, manifest.aligner.name, entry.settings, allowed, manifest.seed)
        sets[key].setdefault(country, entry)
    rows = []
    for (group, aligner, _, _, seed), by_country in sets.items():
        title = f"{group.task} ({group.model} {group.dtype}, edition {group.edition}{group.asked})"
        scores = {code: entry.scores for code, entry in by_country.items()}
        value = centred(scores, spec_of(group.task).default_readout)
        rows.append(AlignedSet(title, f"{aligner} s{seed}", tuple(sorted(by_country)), value))
    return sorted(rows, key=lambda row: -row.centred.explained_variance[ALL] if row.centred else math.inf)


def _asked(task: AskedTask) -> str:
    """How much was asked, where it is not the default: such rows stand on boards of their own."""
    people = f", {task.respondents} respondents" if task.respondents else ""
    return people + (f", limit {task.limit}" if task.limit else "")
