"""Aligned sets: runs that differ in their country only, and how well they tell countries apart."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ..harness.centred import ALL, Centred, centred
from ..harness.scoring import Shelf
from ..harness.trivial import CONTROL
from .collect import Entry
from .rank import key_of, settings_of


@dataclass(frozen=True)
class AlignedSet:
    """Runs of one aligner, model, seed and budget, each aligned to another country; ``centred`` with six of them."""

    title: str
    aligner: str
    countries: tuple[str, ...]
    centred: Centred | None


class _Shared(NamedTuple):
    """What the runs of a set have in common."""

    title: str
    task: str
    constants: str
    aligner: str
    settings: str
    allowed: int
    seed: int


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
            shared = _Shared(title, task.name, key.constants, manifest.aligner.name, settings, allowed, manifest.seed)
            sets[shared].setdefault(task.country, entry)
    rows = []
    for shared, by_country in sets.items():
        scores = {code: entry.of(shared.task) for code, entry in by_country.items()}
        value = centred(scores, shelf.spec(shared.task).default_readout)
        rows.append(AlignedSet(shared.title, f"{shared.aligner} s{shared.seed}", tuple(sorted(by_country)), value))
    return sorted(rows, key=lambda row: -row.centred.explained_variance[ALL] if row.centred else math.inf)
