"""Distances of submissions to every country of a task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import UsageError
from ...tasks.countries import name_of
from ...tasks.measure import MeasureOptions, countries_of, measure_of
from ...tasks.schema import Readout
from ...tasks.spec import TaskSpec
from ..registry import family, spec_of
from ..submissions.manifest import Manifest
from ..submissions.reader import read_submission
from .between_countries import Centred, centred
from .identification import Identification, distances, heldout, identification


@dataclass(frozen=True)
class Placed:
    """A submission and its distance to every country, the nearest first."""

    path: Path
    manifest: Manifest
    distances: dict[str, float]

    @property
    def own(self) -> str:
        """The country it is aligned to."""
        return self.manifest.aligned_to

    @property
    def rank(self) -> int | None:
        """The place of its own country among all; None where the reference lacks it."""
        return [*self.distances].index(self.own) + 1 if self.own in self.distances else None

    def shown(self, top: int) -> dict[str, float]:
        """The nearest countries, and its own where that is farther."""
        places = enumerate(self.distances.items())
        return dict(pair for place, pair in places if place < top or pair[0] == self.own)

    @property
    def name(self) -> str:
        """Aligner and seed."""
        return f"{self.manifest.aligner.name} s{self.manifest.seed}"


@dataclass(frozen=True)
class CountryDistances:
    """What was asked and what came of it.

    ``identified`` is there for an aligned set, else ``why`` not; ``between`` for six countries of Hofstede's indices.
    """

    spec: TaskSpec
    readout: Readout
    options: MeasureOptions
    placed: tuple[Placed, ...]
    why: str | None
    identified: Identification | None
    between: Centred | None

    @property
    def hofstede(self) -> bool:
        return self.spec.metadata.measure == "hofstede"

    @property
    def metric(self) -> str:
        """What distances are, in words."""
        headline = self.spec.metadata.headline.metric
        kind = "squared distance of the six indices" if self.hofstede else f"distance ({headline})"
        return f"{self.spec.name}, heldout, {self.readout}: {kind}"

    def number(self, value: float) -> str:
        """A distance as it is shown."""
        return f"{value:,.0f}" if self.hofstede else f"{value:.3f}"


def distances_to_countries(
    paths: Sequence[Path], task: str | None, readout: Readout | None, edition: str | None, seed: int
) -> CountryDistances:
    """Submissions against every country of the reference, all under the first one's edition and constants.

    Raises:
        UsageError: no task in common, or one without countries; a read-out or edition that it lacks.
        InputError: a bad submission.
    """
    read = [(path, *read_submission(path)) for path in paths]
    spec = _task([manifest for _, manifest, _ in read], task)
    if readout is not None and readout not in spec.metadata.readouts:
        raise UsageError(f"--readout {readout!r}: {spec.name} has {', '.join(spec.metadata.readouts)}.")
    readout = readout or spec.default_readout
    options = read[0][1].asked(spec.name).options
    options = options.model_copy(update={"edition": edition}) if edition else options
    placed, indices = [], {}
    for path, manifest, answers in read:
        own = manifest.aligned_to
        each = Placed(path, manifest, distances(spec, answers[spec.name], readout, options, own))
        placed.append(each)
        if each.rank and spec.metadata.measure == "hofstede":
            asked = heldout(spec, answers[spec.name])
            indices[own] = measure_of(spec, own, options).score(asked, "heldout", readout)
    if why := _no_set(placed):
        return CountryDistances(spec, readout, options, tuple(placed), why, None, None)
    found = identification({each.own: each.distances for each in placed}, np.random.default_rng(seed))
    between = centred(indices, readout) if indices else None
    return CountryDistances(spec, readout, options, tuple(placed), None, found, between)


def _task(manifests: Sequence[Manifest], name: str | None) -> TaskSpec:
    """The task that is compared: the named one, or the first that all share and that has countries."""
    answered = [[task.name for task in manifest.tasks] for manifest in manifests]
    shared = [task for task in answered[0] if all(task in tasks for tasks in answered)]
    if name is not None and (name := next((task for task in family(name) if task in shared), name)) not in shared:
        raise UsageError(f"--task {name!r}: not answered by all of them; they share {', '.join(shared) or 'none'}.")
    if not shared:
        tasks = ", ".join(dict.fromkeys(task for tasks in answered for task in tasks))
        raise UsageError(f"no task that all of the submissions answer (they answer {tasks}). Compare one at a time.")
    specs = [spec_of(task) for task in ([name] if name else shared)]
    known = [spec for spec in specs if countries_of(spec, None)]
    if not known:
        raise UsageError(f"{specs[0].name}: it has no countries to compare with; vsm13 and wvs, for two, do.")
    return known[0]


def _no_set(placed: Sequence[Placed]) -> str | None:
    """Why submissions are no aligned set, of which a matrix could be made; None where they are one."""
    if len(placed) < 2:
        return "that takes several submissions, each aligned to another country"
    if lost := [each.own for each in placed if each.rank is None]:
        return f"the reference has no {name_of(lost[0])}"
    kinds = {(each.manifest.aligner.name, each.manifest.model.name, each.manifest.model.dtype) for each in placed}
    if len(kinds) > 1:
        return "they are of more than one aligner or model"
    own = [each.own for each in placed]
    if twice := [code for code in own if own.count(code) > 1]:
        return f"more than one is aligned to {name_of(twice[0])}"
    return None
