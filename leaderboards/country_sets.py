"""Aligned sets: runs that differ in their country only, and how well they tell countries apart."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ..harness.analysis.between_countries import ALL, Centred, centred
from ..harness.scoring.baselines import CONTROL
from ..harness.scoring.score import Shelf
from ..tasks.metrics.reference import DIMENSIONS
from ..tasks.score import Score
from ..tasks.spec import TaskSpec
from .boards import key_of, settings_of
from .entries import Entry


@dataclass(frozen=True)
class AlignedSet:
    """Runs of one aligner, model, seed and budget, each aligned to another country; ``centred`` with six of them.

    ``title`` says what its sets have in common: task, model and how it was asked.
    """

    title: str
    task: str
    model: str
    readout: str
    aligner: str
    seed: int
    countries: tuple[str, ...]
    centred: Centred | None

    @property
    def name(self) -> str:
        """Aligner and seed."""
        return f"{self.aligner} s{self.seed}"


class _Shared(NamedTuple):
    """What the runs of a set have in common."""

    title: str
    task: str
    model: str
    constants: str
    aligner: str
    settings: str
    allowed: int
    seed: int


def rests_on(score: Score, spec: TaskSpec) -> bool:
    """Whether a set rests on a score: an index of a task of Hofstede's dimensions, or its error."""
    place = (spec.default_readout, "heldout")
    return score.metric.removesuffix("_error") in DIMENSIONS and (score.readout, score.split) == place


def aligned_sets(entries: Iterable[Entry], shelf: Shelf) -> list[AlignedSet]:
    """Runs that differ in their country only, of tasks of Hofstede's dimensions, the best explained variance first."""
    sets: dict[_Shared, dict[str, Entry]] = defaultdict(dict)
    for entry in entries:
        for task in entry.manifest.tasks:
            manifest, spec = entry.manifest, shelf.spec(task.name)
            if manifest.aligner.name == CONTROL or manifest.aligned_to != task.country:  # to nobody, or to another
                continue
            if spec.metadata.measure != "hofstede":
                continue
            key, model = key_of(task, spec), f"{manifest.model.name} {manifest.model.dtype}"
            asked = f", {key.asked}" if key.asked else ""
            title = f"{task.name} ({model}, edition {key.edition}{asked})"
            allowed, settings = manifest.budget.item_forwards_allowed, settings_of(entry)
            aligner, seed = manifest.aligner.name, manifest.seed
            shared = _Shared(title, task.name, manifest.model.name, key.constants, aligner, settings, allowed, seed)
            sets[shared].setdefault(task.country, entry)
    rows = []
    for shared, by_country in sets.items():
        scores = {code: entry.of(shared.task) for code, entry in by_country.items()}
        readout, countries = shelf.spec(shared.task).default_readout, tuple(sorted(by_country))
        who = (shared.title, shared.task, shared.model, readout, shared.aligner, shared.seed)
        rows.append(AlignedSet(*who, countries, centred(scores, readout)))
    return sorted(rows, key=lambda row: -row.centred.explained_variance[ALL] if row.centred else math.inf)
