"""Collect aligned sets, runs that differ in their country only, and their between-country R2."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
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


def aligned_sets(entries: Iterable[Entry], shelf: TaskCache) -> list[AlignedSet]:
    """Return the aligned sets of tasks with indices, the best explained variance first."""
    sets: dict[tuple[str, str, Setup], dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        for task in entry.manifest.tasks:
            manifest, spec = entry.manifest, shelf.spec(task.name)
            if manifest.aligner.name == CONTROL or manifest.aligned_to != task.country:  # not aligned to it
                continue
            if not indices_of(spec):
                continue
            key, model = key_of(task, spec), f"{manifest.model.name} {manifest.model.dtype}"
            asked = f", {key.asked}" if key.asked else ""
            title = f"{task.name} ({model}, edition {key.edition}{asked})"
            shared = (title, task.name, setup_of(manifest, spec))
            sets[shared].setdefault(task.country, entry)
    rows = []
    for (title, task_name, setup), by_country in sets.items():
        scores = {code: entry.of(task_name) for code, entry in by_country.items()}
        spec = shelf.spec(task_name)
        scoring, countries, indices = spec.default_scoring, tuple(sorted(by_country)), indices_of(spec)
        who = (title, task_name, setup.model, scoring, setup.aligner, setup.seed)
        rows.append(AlignedSet(*who, countries, indices, centred(scores, scoring, indices)))
    return sorted(rows, key=lambda row: -row.centred.explained_variance[ALL] if row.centred else math.inf)
