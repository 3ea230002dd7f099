"""Collect aligned sets, runs that differ in their country only, and their between-country R2."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..harness.analysis.between_countries import ALL, Centred, centred
from ..harness.analysis.country_set import Setup, setup_of
from ..harness.scoring.baselines import CONTROL
from ..harness.scoring.score import TaskCache
from ..tasks.measure import indices_of
from ..tasks.score import Score
from ..tasks.spec import TaskSpec
from .boards import key_of
from .entries import Entry


@dataclass(frozen=True)
class AlignedSet:
    """Runs of one aligner, model, seed and budget, each aligned to another country.

    ``centred`` needs six countries. ``title`` has the common properties of comparable sets: task, model, protocol.
    """

    title: str
    task: str
    model: str
    scoring: str
    aligner: str
    seed: int
    countries: tuple[str, ...]
    indices: tuple[str, ...]
    centred: Centred | None

    @property
    def name(self) -> str:
        """Format aligner and seed."""
        return f"{self.aligner} s{self.seed}"


def rests_on(score: Score, spec: TaskSpec) -> bool:
    """Return whether an aligned set uses a score: a held-out index or its error."""
    place = (spec.default_scoring, "heldout")
    return score.metric.removesuffix("_error") in indices_of(spec) and (score.scoring, score.split) == place


@dataclass(frozen=True)
class EntrySet:
    """The entries of an aligned set by country, with what they have in common."""

    title: str
    task: str
    setup: Setup
    by_country: Mapping[str, Entry]

    @property
    def name(self) -> str:
        """Format aligner and seed."""
        return f"{self.setup.aligner} s{self.setup.seed}"


def entry_sets(entries: Iterable[Entry], shelf: TaskCache) -> list[EntrySet]:
    """Group entries that differ in their country only, without controls, for every task that they answered."""
    sets: dict[tuple[str, str, Setup], dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        for task in entry.manifest.tasks:
            manifest, spec = entry.manifest, shelf.spec(task.name)
            if manifest.aligner.name == CONTROL or manifest.aligned_to != task.country:  # not aligned to it
                continue
            key, model = key_of(task, spec), f"{manifest.model.name} {manifest.model.dtype}"
            asked = f", {key.asked}" if key.asked else ""
            title = f"{task.name} ({model}, edition {key.edition}{asked})"
            sets[title, task.name, setup_of(manifest, spec)].setdefault(task.country, entry)
    return [EntrySet(*shared, by_country) for shared, by_country in sets.items()]


def aligned_sets(entries: Iterable[Entry], shelf: TaskCache) -> list[AlignedSet]:
    """Return the aligned sets of tasks with indices, the best explained variance first."""
    rows = []
    for one in entry_sets(entries, shelf):
        spec, setup = shelf.spec(one.task), one.setup
        if not (indices := indices_of(spec)):
            continue
        scores = {code: entry.of(one.task) for code, entry in one.by_country.items()}
        scoring, countries = spec.default_scoring, tuple(sorted(one.by_country))
        who = (one.title, one.task, setup.model, scoring, setup.aligner, setup.seed)
        rows.append(AlignedSet(*who, countries, indices, centred(scores, scoring, indices)))
    return sorted(rows, key=lambda row: -row.centred.explained_variance[ALL] if row.centred else math.inf)
