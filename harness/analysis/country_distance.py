"""Distances of submissions to every country of a task's reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UsageError
from ...tasks.countries import name_of
from ...tasks.measure import MeasureOptions, countries_of, indices_of, measure_of
from ...tasks.schema import Scoring
from ...tasks.spec import TaskSpec
from ..registry import family, spec_of
from ..report import plots
from ..report.results import html_table, rich_table
from ..scoring.submission import Submission, as_submission, load_submission
from ..submissions.manifest import Manifest
from .between_countries import Centred, centred
from .country_set import why_no_set
from .identification import Identification, distances, heldout, identification

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions
    from rich.table import Table


@dataclass(frozen=True)
class Placed:
    """A submission and its distance to every country, the nearest first."""

    path: Path
    manifest: Manifest
    distances: dict[str, float]

    @property
    def own(self) -> str:
        """Return the country that the submission is aligned to."""
        return self.manifest.aligned_to

    @property
    def rank(self) -> int | None:
        """Return the place of its own country among all; None where the reference lacks it."""
        return [*self.distances].index(self.own) + 1 if self.own in self.distances else None

    def shown(self, top: int) -> dict[str, float]:
        """Return the nearest countries, and its own where that is farther."""
        places = enumerate(self.distances.items())
        return dict(pair for place, pair in places if place < top or pair[0] == self.own)

    @property
    def name(self) -> str:
        """Return the aligner and the seed, as a name."""
        return f"{self.manifest.aligner.name} s{self.manifest.seed}"


@dataclass(frozen=True)
class CountryDistances:
    """Distances of submissions to every country, and the identification ranks of an aligned set.

    ``identified`` is None, and ``why`` the reason, for submissions that are no aligned set; ``between`` is None for
    fewer than six countries, and for tasks without indices.
    """

    spec: TaskSpec
    scoring: Scoring
    options: MeasureOptions
    placed: tuple[Placed, ...]
    why: str | None
    identified: Identification | None
    between: Centred | None

    def __repr__(self) -> str:
        return f"CountryDistances({self.spec.name}, {self.scoring}: {', '.join(each.name for each in self.placed)})"

    @property
    def hofstede(self) -> bool:
        """Return whether the distances are those of Hofstede's indices."""
        return self.spec.metadata.measure == "hofstede"

    @property
    def metric(self) -> str:
        """Describe the distance in words."""
        headline = self.spec.metadata.headline.metric
        kind = "squared distance of the six indices" if self.hofstede else f"distance ({headline})"
        return f"{self.spec.name}, heldout, {self.scoring}: {kind}"

    def number(self, value: float) -> str:
        """Format a distance."""
        return f"{value:,.0f}" if self.hofstede else f"{value:.3f}"

    def to_frame(self) -> pd.DataFrame:
        """Return one row a submission and country, the nearest first.

        ``place`` is the country's place among all, ``own`` whether the submission is aligned to it, and ``centred`` the
        double-centred distance, missing unless the submissions are an aligned set that the country belongs to.
        """
        import pandas as pd

        rows = []
        for each in self.placed:
            about = {"submission": each.path.name, "aligner": each.manifest.aligner.name, "seed": each.manifest.seed}
            for place, (code, value) in enumerate(each.distances.items(), start=1):
                row = about | {"aligned_to": each.own, "country": code, "distance": value, "place": place}
                rows.append(row | {"own": code == each.own, "centred": self._centred(each.own, code)})
        return pd.DataFrame(rows)

    def _centred(self, own: str, country: str) -> float | None:
        aligned_set = self.identified
        if aligned_set is None or country not in aligned_set.countries:
            return None
        return float(aligned_set.centred[aligned_set.countries.index(own), aligned_set.countries.index(country)])

    def plot(self, top: int = 12) -> Any:
        """Draw the distances and return the matplotlib axes.

        An aligned set is drawn as its double-centred matrix, one submission as bars of its nearest countries.

        Args:
            top: number of countries to show of one submission.

        Raises:
            UsageError: several submissions that are no aligned set.
        """
        self.require_picture()
        if self.identified:
            countries = self.identified.countries
            axes = plots.new_axes(*plots.matrix_size(countries))
            plots.draw_matrix(axes, countries, self.identified.centred, self.title)
            return axes
        shown = self.placed[0].shown(top)
        axes = plots.new_axes(7, plots.distances_height(shown))
        plots.draw_distances(axes, shown, self.placed[0].own, self.title, self.metric)
        return axes

    @property
    def title(self) -> str:
        """Return the title of a figure."""
        first = self.placed[0]
        if self.identified:
            about = f"{self.spec.name}: {first.manifest.aligner.name}, {len(self.placed)} countries"
            return f"{about}, mean rank {self.identified.mean_rank:.2f}"
        return f"{first.name} ({first.manifest.model.name}), aligned to {name_of(first.own)}"

    def require_picture(self) -> None:
        """Raise UsageError for several submissions that are no aligned set, for which there is no figure."""
        if not self.identified and len(self.placed) > 1:
            raise UsageError(f"no figure of these: {self.why}. Give one submission, or an aligned set.")

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        yield rich_table(self._nearest())

    def _repr_html_(self) -> str:
        return html_table(self._nearest())

    def _nearest(self) -> pd.DataFrame:
        """Return the rows of the three nearest countries of each submission, and of its own."""
        table = self.to_frame()
        return table[(table["place"] <= 3) | table["own"]]


def identify(
    *submissions: Any,
    task: str | None = None,
    scoring: Scoring | None = None,
    edition: str | None = None,
    seed: int = 0,
) -> CountryDistances:
    """Compute the distances of submissions to every country, nearest first, and identification ranks of a set.

    Args:
        submissions: ``Submission``s, ``Run``s, or paths of either.
        task: which of their tasks [default: the first with countries that all share].
        scoring: the answer scoring [default: the task's first].
        edition: of the reference [default: the first submission's].
        seed: of permutations drawn at random.

    Raises:
        UsageError: no submission, no task in common, or a task without countries. InputError: a bad submission.
    """
    if not submissions:
        raise UsageError("identify: give a submission.")
    return distances_to_countries(list(map(as_submission, submissions)), task, scoring, edition, seed)


def distances_to_countries(
    submissions: Sequence[Submission | str | Path],
    task: str | None = None,
    scoring: Scoring | None = None,
    edition: str | None = None,
    seed: int = 0,
) -> CountryDistances:
    """Score submissions against every country of the reference, all under the first one's edition and constants.

    Args:
        submissions: submissions, or the paths of their folders or runs.
        task: which of their tasks [default: the first with countries that all share].
        scoring: the answer scoring [default: the task's first].
        edition: of the reference [default: the first submission's].
        seed: of permutations drawn at random.

    Raises:
        UsageError: no task in common, or a task without countries; an answer scoring or edition that it lacks.
        InputError: a bad submission.
    """
    read = [each if isinstance(each, Submission) else load_submission(each) for each in submissions]
    spec = _task([each.manifest for each in read], task)
    if scoring is not None and scoring not in spec.metadata.scorings:
        raise UsageError(f"`scoring` {scoring!r}: {spec.name} has {', '.join(spec.metadata.scorings)}.")
    scoring = scoring or spec.default_scoring
    options = read[0].manifest.task(spec.name).options
    options = options.model_copy(update={"edition": edition}) if edition else options
    placed, indices = [], {}
    for submission in read:
        manifest, answers = submission.manifest, submission.answers[spec.name]
        own = manifest.aligned_to
        placed.append(Placed(submission.folder, manifest, distances(spec, answers, scoring, options, own)))
        if placed[-1].rank and indices_of(spec):
            indices[own] = measure_of(spec, own, options).score(heldout(spec, answers), "heldout", scoring)
    why = _no_set(placed, spec)
    identified: Identification | None = None
    between: Centred | None = None
    if why is None:
        try:
            identified = identification({each.own: each.distances for each in placed}, np.random.default_rng(seed))
            between = centred(indices, scoring, indices_of(spec)) if indices else None
        except UsageError as error:
            why = str(error).rstrip(".")
    return CountryDistances(spec, scoring, options, tuple(placed), why, identified, between)


def _task(manifests: Sequence[Manifest], name: str | None) -> TaskSpec:
    """Choose the task to compare: the named one, or the first that all share and that has countries."""
    answered = [[task.name for task in manifest.tasks] for manifest in manifests]
    shared = [task for task in answered[0] if all(task in tasks for tasks in answered)]
    if name is not None and (name := next((task for task in family(name) if task in shared), name)) not in shared:
        raise UsageError(f"`task` {name!r}: not answered by all of them; they share {', '.join(shared) or 'none'}.")
    if not shared:
        tasks = ", ".join(dict.fromkeys(task for tasks in answered for task in tasks))
        raise UsageError(f"no task that all of the submissions answer (they answer {tasks}). Compare one at a time.")
    specs = [spec_of(task) for task in ([name] if name else shared)]
    known = [spec for spec in specs if countries_of(spec, None)]
    if not known:
        raise UsageError(f"{specs[0].name}: it has no countries to compare with. Tasks like vsm13 and wvs have some.")
    return known[0]


def _no_set(placed: Sequence[Placed], spec: TaskSpec) -> str | None:
    """Return the reason why submissions are no aligned set; None where they are one."""
    if missing := [each.own for each in placed if each.rank is None and len(placed) > 1]:
        return f"the reference has no {name_of(missing[0])}"
    return why_no_set([each.manifest for each in placed], spec)
