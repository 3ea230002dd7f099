"""Group comparable submissions into boards and rank them by their held-out headline, with ties.

The rank is that of Chatbot Arena (Chiang et al. 2024): 1 + the number of rows with a completely better range. Rows with
overlapping ranges share a rank.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Container, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeVar

import numpy as np

from ..harness.report.tables import Column, Row, badness, headline_of, ranked
from ..harness.scoring.baselines import CONTROL, PREFIXES, Baseline, baselines, is_improvement, random_prefix
from ..harness.scoring.score import TaskCache
from ..harness.submissions.manifest import AskedTask
from ..tasks.countries import name_of
from ..tasks.prompts import layout_of
from ..tasks.score import COLLAPSED, Score
from ..tasks.spec import OWN_EDITION, TaskSpec
from .answer_reader import AnswerReader
from .entries import Entry
from .metric_labels import board_metrics
from .row_names import Model, model_names, model_of
from .submission_page import visible
from .suite import Suite

SEEDS = 3  # of one configuration; from this number on, their range measures the noise
CEILING = "split-half"  # an upper limit, not a baseline to exceed

Basis = Literal["interval", "seeds"] | None
Name = TypeVar("Name", bound=Hashable)
Against = Callable[[Entry, "Key"], Sequence[Score]]
"""A function that scores the answers of an entry for the country, edition and constants of a board."""


class Key(NamedTuple):
    """The common properties of the rows of a board; ``asked`` is empty for the unchanged task."""

    task: str
    country: str
    edition: str
    constants: str
    asked: str


@dataclass(frozen=True)
class Standing:
    """One row of a board.

    ``low`` and ``high`` bound the headline: by its 95 % interval, or by the range of at least three seeds of the same
    configuration. ``basis`` names the kind; None means that the rank is a point estimate only. ``row.improvement``: the
    whole range is better than every baseline, the value is better than the random-prefix control of the model, and the
    row is not collapsed; None if only the control is missing.
    """

    entry: Entry
    row: Row
    rank: int | None
    basis: Basis
    low: float | None
    high: float | None

    @property
    def place(self) -> str:
        """Format the rank: in brackets if it is a point estimate only."""
        if self.rank is None:
            return "-"
        return str(self.rank) if self.basis else f"({self.rank})"


@dataclass(frozen=True)
class Board:
    """Comparable rows, the best first, and the baselines.

    ``variant`` describes edition, constants, personas and limit; ``trivial`` are the baselines without a model,
    ``controls`` the random-prefix controls of each model; ``notes`` name missing controls.
    """

    key: Key
    asked: AskedTask
    variant: str
    spec: TaskSpec
    caution: str | None
    in_suite: bool
    standings: tuple[Standing, ...]
    trivial: tuple[Baseline, ...]
    controls: Mapping[Model, Sequence[Baseline]]
    notes: tuple[str, ...]

    @property
    def baselines(self) -> tuple[Baseline, ...]:
        """Return all baselines, the controls last."""
        return (*self.trivial, *(row for rows in self.controls.values() for row in rows))

    @property
    def title(self) -> str:
        """Format task, country and variant; also the model if there is only one."""
        models = {f"{one.entry.manifest.model.name} {one.entry.manifest.model.dtype}, " for one in self.standings}
        model = models.pop() if len(models) == 1 else ""
        return f"{self.spec.name}, {name_of(self.key.country)} ({model}{self.variant})"

    def rows(self) -> list[Row]:
        """Return submissions and baselines ordered by value, for the terminal; (v) marks verified ones."""
        several = len({standing.entry.manifest.model.name for standing in self.standings}) > 1
        named = []
        for standing in self.standings:
            more = f" {standing.entry.manifest.model.name}" if several else ""
            more += " (v)" if standing.entry.verified else ""
            named.append(replace(standing.row, aligner=standing.row.aligner + more, rank=standing.place))
        others = [Row(row.name, row.scores, None, row.spread) for row in self.baselines]
        return ranked([*named, *others], self.spec)


def key_of(task: AskedTask, spec: TaskSpec) -> Key:
    """Return the key of the board of an answered task."""
    people = f"{task.personas} personas" if task.personas else ""
    limit = f"limit {task.limit}" if task.limit else ""
    asked = ", ".join(part for part in (people, limit) if part)
    return Key(task.name, task.country, task.edition or spec.default_edition, task.constants, asked)


def variant_of(key: Key, spec: TaskSpec) -> str:
    """Describe edition, constants, personas and limit of a board."""
    kind = f", {key.constants} constants" if spec.metadata.measure == "hofstede" else ""
    return f"edition {key.edition}{kind}" + (f", {key.asked}" if key.asked else "")


def is_usual(key: Key, spec: TaskSpec) -> bool:
    """Return whether a board is of the whole task in its default edition, with ``world`` constants."""
    return not key.asked and key.edition == spec.default_edition and key.constants == "world"


def settings_of(entry: Entry) -> str:
    """Return the settings of the aligner as canonical JSON."""
    return json.dumps(entry.manifest.aligner.settings, sort_keys=True)


def boards(
    entries: Iterable[Entry],
    shelf: TaskCache,
    suite: Suite,
    against: Against | None = None,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> list[Board]:
    """Return the boards of submissions by task and country, boards of the suite first.

    Args:
        against: scores the answers of a control for another country; default ``scored_anew``.
        advance: called with the number of finished boards and their total.
    """
    groups: dict[Key, list[Entry]] = defaultdict(list)
    for entry in entries:
        for task in entry.manifest.tasks:
            groups[key_of(task, shelf.spec(task.name))].append(entry)
    against = against or scored_anew(AnswerReader(shelf))
    made = []
    for number, (key, members) in enumerate(groups.items(), start=1):
        same = [entries for other, entries in groups.items() if (other.task, other.asked) == (key.task, key.asked)]
        control = [entry for entries in same for entry in entries if entry.manifest.aligner.name == CONTROL]
        made.append(_board(key, members, _controls(key, control, against), shelf, suite))
        advance(number, len(groups))
    return sorted(made, key=lambda board: (not board.in_suite, suite.place(board.key.task), board.key))


def scored_anew(answers: AnswerReader) -> Against:
    """Return a function that scores the answers of an entry for the key of any board.

    That function raises InputError if files of the entry are missing.
    """

    def against(entry: Entry, key: Key) -> Sequence[Score]:
        edition = None if key.edition == OWN_EDITION else key.edition
        submission = answers.submission(entry)
        return submission.score(key.country, task=key.task, edition=edition, constants=key.constants)

    return against


def _controls(key: Key, runs: Iterable[Entry], against: Against) -> dict[Model, list[Baseline]]:
    """Return the random-prefix controls by model, one row for each setting.

    A random prefix depends on no country: runs for all countries are scored for this one; each seed counts once. The
    order of settings and seeds, not of names, decides the order of sums, so that no last digit depends on a name.
    """
    sets: dict[Model, dict[str, dict[int, Entry]]] = defaultdict(lambda: defaultdict(dict))
    for entry in sorted(
        runs, key=lambda entry: (settings_of(entry), entry.manifest.seed, entry.manifest.country != key.country)
    ):
        sets[model_of(entry.manifest)][settings_of(entry)].setdefault(entry.manifest.seed, entry)
    names = model_names(sets)
    found: dict[Model, list[Baseline]] = defaultdict(list)
    for model, by_settings in sets.items():
        for settings, by_seed in by_settings.items():
            if len(by_seed) < 2:
                continue
            row = random_prefix([_as_one_of(entry, key, against) for entry in by_seed.values()])
            given = [f"{name} {value}" for name, value in json.loads(settings).items()] if len(by_settings) > 1 else []
            which = [names[model]] if len(sets) > 1 else []
            found[model].append(replace(row, name=", ".join([row.name, *which, *map(visible, given)])))
    return dict(found)


def _as_one_of(entry: Entry, key: Key, against: Against) -> Sequence[Score]:
    own = entry.manifest.task(key.task)
    same = (own.country, own.edition, own.constants) == (key.country, key.edition, key.constants)
    return entry.of(key.task) if same else against(entry, key)


def _board(
    key: Key,
    members: Sequence[Entry],
    controls: Mapping[Model, Sequence[Baseline]],
    shelf: TaskCache,
    suite: Suite,
) -> Board:
    spec, asked = shelf.spec(key.task), members[0].manifest.task(key.task)
    layout = layout_of(spec, asked.protocol(members[0].manifest.seed))
    trivial = baselines(spec, layout, key.country, asked.options)
    caution = shelf.measure(spec, key.country, asked.options).caution
    own = [
        entry for entry in members if entry.manifest.aligner.name != CONTROL or model_of(entry.manifest) not in controls
    ]
    rows = [*trivial, *(row for each in controls.values() for row in each)]
    notes = [f"{row.name}: {row.note}" for row in rows if row.note] + _lacking(members, controls)
    return Board(
        key,
        asked,
        variant_of(key, spec),
        spec,
        caution,
        is_usual(key, spec) and suite.holds(spec),
        _ranked(own, spec, trivial, controls),
        tuple(trivial),
        controls,
        tuple(notes),
    )


def _lacking(members: Iterable[Entry], controls: Mapping[Model, Sequence[Baseline]]) -> list[str]:
    """Return notes on missing controls: random search at the budget of each search, and random prefixes."""
    paid: dict[int, set[str]] = defaultdict(set)
    for entry in members:
        if allowed := entry.manifest.budget.item_forwards_allowed:
            paid[allowed].add(entry.manifest.aligner.name)
    notes = [
        f"no `random` at the budget of {', '.join(sorted(names))} ({allowed:,} item forwards)"
        for allowed, names in sorted(paid.items())
        if "random" not in names
    ]
    models = {model_of(entry.manifest) for entry in members}
    names, lacking = model_names(sorted({*models, *controls})), sorted(models - set(controls))
    which = ", ".join(names[model] for model in lacking)
    return [*notes, f"no random-prefix control of {which}: `{CONTROL}` with {PREFIXES} seeds"] if lacking else notes


def _ranked(
    members: Sequence[Entry],
    spec: TaskSpec,
    trivial: Sequence[Baseline],
    controls: Mapping[Model, Sequence[Baseline]],
) -> tuple[Standing, ...]:
    column, sign = headline_of(spec), 1 if spec.metadata.headline.higher_is_better else -1
    scores = {entry.name: column.find(entry.of(spec.name)) for entry in members}
    bounds = _bounds(members, scores, spec)
    ranks = ranks_of({name: (low, high) for name, (low, high, _) in bounds.items()}, sign > 0)
    beaten = max((sign * score.value for score in _references(trivial, column)), default=-np.inf)
    standings = []
    for entry in members:
        row = Row(f"{entry.manifest.aligner.name} s{entry.manifest.seed}", entry.of(spec.name), entry.manifest.budget)
        if (score := scores[entry.name]) is None:
            standings.append(Standing(entry, row, None, None, None, None))
            continue
        low, high, basis = bounds[entry.name]
        might = min(sign * low, sign * high) > beaten and score.note != COLLAPSED
        row = replace(row, improvement=_beyond(score, controls.get(model_of(entry.manifest), ())) if might else False)
        known: tuple[float | None, float | None] = (low, high) if basis else (None, None)
        standings.append(Standing(entry, row, ranks[entry.name], basis, *known))
    return tuple(sorted(standings, key=lambda one: (one.rank is None, badness(one.row.scores, spec), one.entry.name)))


def ranks_of(ranges: Mapping[Name, tuple[float, float]], higher_is_better: bool) -> dict[Name, int]:
    """Return the ranks of ranges (lower and upper bound): 1 + the number of ranges that are completely better."""
    sign = 1 if higher_is_better else -1
    ordered = {name: sorted((sign * low, sign * high)) for name, (low, high) in ranges.items()}
    least = sorted(worst for worst, _ in ordered.values())
    return {
        name: 1 + len(least) - bisect_left(least, np.nextafter(best, np.inf)) for name, (_, best) in ordered.items()
    }


def _references(trivial: Iterable[Baseline], column: Column) -> list[Score]:
    """Return the headline of each baseline that an improvement has to exceed."""
    found = [column.find(row.scores) for row in trivial if row.name != CEILING]
    return [score for score in found if score is not None]


def _beyond(score: Score, controls: Iterable[Baseline]) -> bool | None:
    known = [better for control in controls if (better := is_improvement(score, control)) is not None]
    return all(known) if known else None


def answered(scores: Iterable[Score], metrics: Container[str]) -> Hashable:
    """Return what tells apart answers to a task: all their scores in some metrics, those of a board.

    The hash of the answers file also differs by the order of its lines and by answers to other tasks.
    """
    return tuple(score.value for score in scores if score.metric in metrics)


def _bounds(
    members: Sequence[Entry], scores: dict[str, Score | None], spec: TaskSpec
) -> dict[str, tuple[float, float, Basis]]:
    """Return lower bound, upper bound and basis of each headline; the value itself if there is no basis."""
    seeds: dict[str, dict[int, float]] = defaultdict(dict)
    answers: dict[str, set[Hashable]] = defaultdict(set)  # equal answers of all seeds give no range
    which, metrics = {entry.name: entry.manifest.configuration for entry in members}, set(board_metrics(spec))
    for entry in members:
        if (score := scores[entry.name]) is not None:
            seeds[which[entry.name]][entry.manifest.seed] = score.value
            answers[which[entry.name]].add(answered(entry.of(spec.name), metrics))
    bounds: dict[str, tuple[float, float, Basis]] = {}
    for name, score in scores.items():
        if score is None:
            continue
        values = seeds[which[name]].values()
        if score.low is not None and score.high is not None:
            bounds[name] = (score.low, score.high, "interval")
        elif min(len(values), len(answers[which[name]])) >= SEEDS:
            bounds[name] = (min(values), max(values), "seeds")
        else:
            bounds[name] = (score.value, score.value, None)
    return bounds
