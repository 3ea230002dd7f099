"""Submissions on the cultural map: their points, the nearest countries and cultural zones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, UsageError
from ...tasks.measure import MeasureOptions, countries_of, measure_of
from ...tasks.metrics.cultural_map import caution_of
from ...tasks.metrics.map_editions import projection_of
from ...tasks.metrics.map_projection import Projection
from ...tasks.schema import Scoring
from ..registry import spec_of
from ..report.map_figure import SIZE, Mark, draw_map, located, write_map
from ..report.plots import new_axes
from ..report.results import html_table, rich_table
from ..scoring.baselines import CONTROL
from ..scoring.submission import Submission, as_submission
from ..submissions.manifest import AskedTask, Manifest
from .identification import heldout

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions
    from rich.table import Table

MEASURE = "cultural_map"
UNALIGNED = "naive"


@dataclass(frozen=True)
class MapPoint:
    """A submission on the map.

    ``point`` and ``deviation`` are its coordinates and their standard errors, ``distances`` those to every country, the
    nearest first, ``zone`` the nearest cultural zone, ``origin`` the point of the same model unaligned, if it is there.
    """

    path: Path
    manifest: Manifest
    task: AskedTask
    name: str
    point: tuple[float, float]
    deviation: tuple[float, float]
    distances: dict[str, float]
    zone: str
    origin: tuple[float, float] | None

    @property
    def aligned(self) -> bool:
        """Return whether it is aligned to a country: made neither by ``naive`` nor as a control."""
        return self.manifest.aligner.name not in (UNALIGNED, CONTROL)


@dataclass(frozen=True)
class CulturalMap:
    """Submissions on the cultural map, all under one edition of its projection and one answer scoring."""

    projection: Projection
    edition: str
    scoring: Scoring
    points: tuple[MapPoint, ...]

    def __repr__(self) -> str:
        return f"CulturalMap({self.scoring}, edition {self.edition}: {', '.join(each.name for each in self.points)})"

    def to_frame(self) -> pd.DataFrame:
        """Return one row a submission: its coordinates, their standard errors, zone, and the nearest countries.

        ``distance`` is that to the country it is aligned to, missing for a model that is not aligned.
        """
        import pandas as pd

        rows = []
        for each in self.points:
            own = each.manifest.aligned_to
            row: dict[str, Any] = {"submission": str(each.path), "name": each.name, "model": each.manifest.model.name}
            row |= {"aligner": each.manifest.aligner.name, "aligned_to": own if each.aligned else None}
            row |= dict(zip(("traditional_secular", "survival_selfexpression"), each.point, strict=True))
            row |= dict(zip(("traditional_secular_se", "survival_selfexpression_se"), each.deviation, strict=True))
            row |= {"distance": each.distances.get(own) if each.aligned else None, "zone": each.zone}
            rows.append(row | {"nearest": ", ".join(list(each.distances)[:3])})
        return pd.DataFrame(rows)

    @property
    def title(self) -> str:
        """Return the title of a figure."""
        models = list(dict.fromkeys(each.manifest.model.name for each in self.points))
        return f"Cultural map: {', '.join(models[:4])}{' and others' * (len(models) > 4)}"

    @property
    def note(self) -> str:
        """Describe answer scoring, ellipses and the error of the projection."""
        error = caution_of(self.projection)
        text = f"Edition {self.edition}, held-out answers, {self.scoring}. Hollow: unaligned model. "
        text += "Ellipse: 95 % region of personas and projection"
        if any(each.manifest.aligner.name == CONTROL for each in self.points):
            text += ", of random prefixes by their standard deviation"
        return f"{text};\n{error}" if error else text

    @property
    def marks(self) -> list[Mark]:
        """Return what a figure marks: the submissions, the unaligned models first, then the nulls.

        These are the mean of all countries and, by model, the mean and standard deviation of random prefixes.
        """
        shown = [each for each in self.points if each.manifest.aligner.name != CONTROL]
        made = [
            Mark(each.name, each.point, each.deviation, "aligned" if each.aligned else "unaligned", each.origin)
            for each in sorted(shown, key=lambda each: each.aligned)
        ]
        prefixes: dict[tuple[object, ...], list[tuple[float, float]]] = {}
        for each in self.points:
            if each.manifest.aligner.name == CONTROL:
                prefixes.setdefault(_asked(each), []).append(each.point)
        for asked, points in prefixes.items():
            name = f"random prefix ({len(points)})" + (f", {asked[0]}" if len(prefixes) > 1 else "")
            made.append(
                Mark(
                    name,
                    _pair(np.mean(points, axis=0)),
                    _pair(np.std(points, axis=0, ddof=1 if len(points) > 1 else 0)),
                    "null",
                )
            )
        return [*made, Mark("mean of all countries", _pair(self.projection.world), (0.0, 0.0), "null")]

    @property
    def own(self) -> list[str]:
        """Return the countries that submissions are aligned to."""
        return sorted({each.manifest.aligned_to for each in self.points if each.aligned})

    def plot(self) -> Any:
        """Draw the map and return the matplotlib axes."""
        axes = new_axes(*SIZE)
        draw_map(axes, self.projection, self.marks, self.title, self.note, self.own)
        return axes

    def write(self, path: Path) -> None:
        """Write the map as an SVG or, by its suffix, PNG."""
        write_map(path, self.projection, self.marks, self.title, self.note, self.own)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        yield rich_table(self._short())

    def _repr_html_(self) -> str:
        return html_table(self._short())

    def _short(self) -> pd.DataFrame:
        table = self.to_frame()
        return table[["name", "traditional_secular", "survival_selfexpression", "distance", "zone", "nearest"]]


def cultural_map(
    *submissions: Any, task: str | None = None, scoring: Scoring | None = None, edition: str | None = None
) -> CulturalMap:
    """Place submissions on the Inglehart-Welzel cultural map.

    Args:
        submissions: ``Submission``s, ``Run``s, or paths of either, which answered ``iw_map`` or a translation of it.
        task: which of the tasks of the map [default: all that they answered].
        scoring: the answer scoring [default: that of the first task].
        edition: of the projection [default: the first submission's].

    Raises:
        UsageError: no submission, or one without such a task; an answer scoring or edition that it lacks.
        InputError: a bad submission, or answers without a point.
    """
    read = list(map(as_submission, submissions))
    asked = [(each, one) for each in read for one in _tasks(each, task)]
    if not asked:
        raise UsageError("`map`: give a submission.")
    spec = spec_of(asked[0][1].name)
    scoring, edition = scoring or spec.default_scoring, edition or asked[0][1].edition
    name, projection = projection_of(spec, edition)
    names = _names([(each.manifest, one) for each, one in asked])
    points: list[MapPoint] = []
    for (each, one), label in zip(asked, names, strict=True):
        found = _point(each, one, label, scoring, name, projection)
        if not any(_same(found, other) for other in points):
            points.append(found)
    return CulturalMap(projection, name, scoring, tuple(_with_origin(each, points) for each in points))


def _tasks(submission: Submission, name: str | None) -> list[AskedTask]:
    """Return the tasks of the map that a submission answered."""
    tasks = [one for one in submission.manifest.tasks if spec_of(one.name).metadata.measure == MEASURE]
    kept = [one for one in tasks if name in (None, one.name)]
    if not kept:
        others = ", ".join(one.name for one in submission.manifest.tasks)
        raise UsageError(
            f"{submission.folder}: it answered {others}, not {name or 'iw_map'}. `culteval run --task iw_map` asks it."
        )
    return kept


def _point(
    submission: Submission, asked: AskedTask, label: str, scoring: Scoring, edition: str, projection: Projection
) -> MapPoint:
    spec = spec_of(asked.name)
    if scoring not in spec.metadata.scorings:
        raise UsageError(f"`scoring` {scoring!r}: {spec.name} has {', '.join(spec.metadata.scorings)}.")
    options = MeasureOptions(edition=edition)
    own, known = submission.manifest.aligned_to, countries_of(spec, edition)
    measure = measure_of(spec, own if own in known else known[0], options)
    where = located(measure.score(heldout(spec, submission.answers[spec.name]), "heldout", scoring), scoring, "heldout")
    if where is None:
        raise InputError(
            f"{submission.folder}: an item of {spec.name} has no answer by {scoring}, so there is no point."
        )
    point = np.array(where[0])
    placed = *where, projection.nearest(point), projection.zone(point), None
    return MapPoint(submission.folder, submission.manifest, asked, label, *placed)


def _pair(values: np.ndarray) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _same(one: MapPoint, other: MapPoint) -> bool:
    """Return whether two submissions have the same answers: an unaligned model answers alike for every country."""
    return (one.task.name, one.point, one.manifest.answers.sha256) == (
        other.task.name,
        other.point,
        other.manifest.answers.sha256,
    )


def _with_origin(point: MapPoint, points: Sequence[MapPoint]) -> MapPoint:
    """Add the point of the same model unaligned, asked the same task with as many personas."""
    if not point.aligned:
        return point
    unaligned = (each for each in points if each.manifest.aligner.name == UNALIGNED)
    bare = [each for each in unaligned if _asked(each) == _asked(point)]
    return replace(point, origin=bare[0].point) if bare else point


def _asked(point: MapPoint) -> tuple[object, ...]:
    model, task = point.manifest.model, point.task
    return model.name, model.dtype, task.name, task.personas, task.limit


def _names(asked: Sequence[tuple[Manifest, AskedTask]]) -> list[str]:
    """Return short names: aligner and country, and what else tells submissions apart: model, task, personas, seed."""
    several_models = len({manifest.model.name for manifest, _ in asked}) > 1
    several_tasks = len({task.name for _, task in asked}) > 1
    several_people = len({task.personas for _, task in asked}) > 1
    names = []
    for manifest, task in asked:
        aligner, model = manifest.aligner.name, manifest.model.name
        name = f"{model} unaligned" if aligner == UNALIGNED else f"{aligner} {manifest.aligned_to}"
        more = [model] if several_models and aligner != UNALIGNED else []
        more += [task.name] if several_tasks else []
        more += [f"{task.personas} personas"] if several_people and task.personas else []
        names.append(", ".join([name, *more]))
    twice = {name for name, times in Counter(names).items() if times > 1}
    return [
        f"{name} s{manifest.seed}" if name in twice and manifest.aligner.name != UNALIGNED else name
        for name, (manifest, _) in zip(names, asked, strict=True)
    ]
