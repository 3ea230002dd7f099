"""The measure of the cultural map: the point of mean answers to ten items, and its distance to a country's point.

Ten items are asked as fourteen questions: post-materialism as a first and a second choice, autonomy as four qualities
of children. All ten are linear in the answer shares, so expected answers give a point. The distance is Euclidean, in
map units: the cultural distance of Tao et al. 2024 (PNAS Nexus 3(9), pgae346).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from ...errors import InputError, UsageError
from ..answers import Answers, Layout, chosen, item_means, read
from ..countries import name_of
from ..measure import MeasureOptions
from ..sample import Metric, Sample, quotient, tally
from ..schema import Scoring, SplitName
from ..score import COLLAPSED, Score, ScoreFields
from ..spec import TaskSpec
from .common import agreement, in_effect_one, middle_answers, spreads, unanswered, variance
from .map_editions import projection_of
from .map_projection import AXES, INDICATORS, Projection

QUALITIES = {"A029": -1, "A039": -1, "A040": 1, "A042": 1}  # Y003 counts the traditional two minus the other two
ITEMS = ("A008", "A165", "E018", "E025", "E003", "E004", "F063", "F118", "F120", "G006", *QUALITIES)
BIASED = "a distance: what varies only adds to it, so that resampling is biased upward near zero"
PRIOR = 0.02  # weight of the usual means in demonstrations, squared scale shares against squared map units


def value_of(item: str, code: int) -> float:
    """Return what an option counts in its item's mean: its code; 1 or 0 for trust, aims and qualities of children."""
    if item in ("E003", "E004"):
        return float(code in (2, 4))  # the post-materialist aims
    return float(code == 1) if item in ("A165", *QUALITIES) else float(code)


def combination() -> tuple[np.ndarray, np.ndarray]:
    """Return the matrix (10, 14) and the constant (10,) that make the ten means from those of the questions."""
    matrix, constant = np.zeros((len(INDICATORS), len(ITEMS))), np.zeros(len(INDICATORS))
    for row, name in enumerate(INDICATORS):
        parts = {"Y002": {"E003": 1, "E004": 1}, "Y003": QUALITIES}.get(name, {name: 1})
        matrix[row, [ITEMS.index(item) for item in parts]] = list(parts.values())
        constant[row] = name == "Y002"  # 1 without a post-materialist choice, 3 with both
    return matrix, constant


@dataclass(frozen=True)
class MapLoss:
    """Compute the distance (population,) of option probabilities (population, prompts, options); numpy or torch.

    ``values`` (prompts, options) are what options count, ``matrix`` (2, prompts) and ``offset`` (2,) give the
    difference of the coordinates from the country's. ``is_drawn``: answers are drawn from the probabilities, so that
    their variance counts.
    """

    values: np.ndarray
    matrix: np.ndarray
    offset: np.ndarray
    scoring: Scoring
    is_drawn: bool = False

    def __call__(self, probs: Any) -> Any:
        like = getattr(probs, "new_tensor", np.asarray)  # torch keeps its graph, dtype and device
        answers = read(probs, like(self.values), self.scoring)
        error = answers @ like(self.matrix.T) + like(self.offset)
        square = error**2
        if self.is_drawn:
            square = square + variance(probs, like(self.values)) @ like(self.matrix.T) ** 2
        return (square.sum(-1) + 1e-24) ** 0.5  # the root has a gradient at zero, too

    def of_drawn(self) -> MapLoss:
        """Return the loss to expect of drawn answers."""
        return replace(self, is_drawn=True)


class CulturalMap:
    """The measure of answers to the items of the map against one country's point."""

    def __init__(self, spec: TaskSpec, country: str, options: MeasureOptions) -> None:
        if spec.items.ids != ITEMS:
            raise InputError(f"{spec.path}: metadata.measure: cultural_map needs the items {', '.join(ITEMS)}.")
        self.spec, self.country, self.options = spec, country, options
        self.edition, self.projection = projection_of(spec, options.edition)
        if country not in self.projection.points:
            raise UsageError(
                f"country {country}: edition {self.edition!r} of {spec.name} has no point of {name_of(country)}. "
                "`culteval ls countries` lists those it has."
            )
        self.target = self.projection.points[country]
        matrix, constant = combination()
        self.slope = self.projection.slope @ matrix
        self.offset = self.projection.coordinates(constant)

    @property
    def caution(self) -> str | None:
        """Return the error of the projection, where it has one."""
        return caution_of(self.projection)

    @staticmethod
    def countries(spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
        """Return the codes of the countries that have a point."""
        return tuple(projection_of(spec, edition)[1].points)

    def loss_function(self, layout: Layout, scoring: Scoring) -> MapLoss:
        """Return the distance to the country's point of answers to these prompts.

        Raises:
            UsageError: an item is missing; a point needs all of them.
        """
        if len(np.unique(layout.item)) < len(ITEMS):
            raise UsageError(f"{self.spec.name}: its loss needs all its items; take a task of labels or pairs.")
        return MapLoss(
            _values(layout), self.slope @ item_means(layout)[: len(ITEMS)], self.offset - self.target, scoring
        )

    def demonstrations(self, layout: Layout) -> np.ndarray:
        """Return codes (prompts,): single answers whose point is near the country's and that are usual there."""
        return self._demonstrated[layout.item]

    @property
    def _demonstrated(self) -> np.ndarray:
        """Return a code for each item (items,), by coordinate descent from the country's means, rounded.

        Means that are not known are those of countries near its point.
        """
        known = self.projection.means.get(self.country)
        usual = _parts(self.projection.means_at(self.target) if known is None else known)
        options = [_demonstrable(item, self.spec.items.codes(item)) for item in ITEMS]
        width = np.array([max(by_value) - min(by_value) for by_value in options])
        best = np.array([min(by_value, key=lambda v: abs(v - u)) for by_value, u in zip(options, usual, strict=True)])

        def miss(values: np.ndarray) -> float:
            away = self.slope @ values + self.offset - self.target
            return float((away**2).sum() + PRIOR * (((values - usual) / width) ** 2).sum())

        before = np.inf
        while miss(best) < before - 1e-12:
            before = miss(best)
            for place, by_value in enumerate(options):
                trials = [np.where(np.arange(len(ITEMS)) == place, value, best) for value in by_value]
                best = min(trials, key=miss)
        return np.array([by_value[value] for by_value, value in zip(options, best.tolist(), strict=True)], dtype=int)

    def constant(self, layout: Layout) -> Answers:
        """Return the middle of the scale for all prompts."""
        return middle_answers(layout)

    def baselines(self, layout: Layout) -> dict[str, Answers]:
        """Return answers whose point is the mean of all countries; there are no data on majorities."""
        means = _parts(self.projection.means_at(self.projection.world))[layout.item]
        return {"world mean": Answers(layout, _spread(means, layout)[None], np.zeros((1, len(layout))))}

    def score(self, answers: Answers, split: SplitName, scoring: Scoring) -> list[Score]:
        """Compute all metrics of one split under one answer scoring.

        Paraphrases and option orders are averaged; the spread of the distance over each is a metric of its own.
        Unparsed texts are left out of the means and counted in ``unparsed``.
        """
        layout = answers.layout
        people = len(np.unique(layout.persona))
        fields = ScoreFields(self.spec.name, self.country, self.edition, split, scoring, layout, people)
        rows = unanswered(fields, answers)
        if scoring == "text" and (same := agreement(answers)):
            rows.append(fields.row("agreement", same[0], True))
        means = self.question_means(answers, scoring)
        if np.isnan(means).any():
            return rows  # an item without a single valid answer has no mean, so there is no point
        note = COLLAPSED if in_effect_one(answers, scoring) else None
        rows += self._placed(fields, means, self.sample(answers, scoring), note)
        return rows + list(spreads(fields, answers, "distance", partial(self._distance_of, scoring)))

    def _placed(self, fields: ScoreFields, means: np.ndarray, sample: Sample, note: str | None) -> Iterator[Score]:
        """Yield the scores of a point, with the intervals of its coordinates where they are valid."""
        matrix, constant = combination()
        point, by_country = self.coordinates(means), self.projection.nearest(self.coordinates(means))
        yield fields.row("distance", self._distance(means), False, note=note)
        yield fields.row("country_rank", 1 + list(by_country).index(self.country), False, note=note)
        if own := self.projection.zones.get(self.country):
            yield fields.row("zone_hit", self.projection.zone(point) == own, True, note=note)
        for axis, name in enumerate(AXES):
            low, high = sample.interval(name) or (None, None)
            yield fields.row(name, point[axis], None, low=low, high=high, note=note)
            yield fields.row(f"{name}_error", point[axis] - self.target[axis], None, note=note)
        error = self.projection.standard_error(matrix @ means + constant)
        yield fields.row("projection_error", np.sqrt((error**2).mean()), False, note=note)
        yield fields.row("collapsed", note is not None, False, note=note)

    def coordinates(self, means: np.ndarray) -> np.ndarray:
        """Compute coordinates (..., 2) from the mean answers to the questions (..., 14)."""
        located: np.ndarray = means @ self.slope.T + self.offset
        return located

    def question_means(self, answers: Answers, scoring: Scoring) -> np.ndarray:
        """Compute what the first candidate's answers to each question count on average, (14,); NaN without one."""
        _, sums, counts = tally(np.zeros(len(answers.layout), int), answers.layout.item, _counts(answers, scoring), 14)
        return quotient(sums, counts)[0]

    def _distance(self, means: np.ndarray) -> np.ndarray:
        return np.linalg.norm(self.coordinates(means) - self.target, axis=-1)

    def _distance_of(self, scoring: Scoring, answers: Answers) -> float:
        return float(self._distance(self.question_means(answers, scoring)))

    def sample(self, answers: Answers, scoring: Scoring) -> Sample:
        """Return the answers of every persona: ``distance`` and the two coordinates."""
        found = tally(answers.layout.persona, answers.layout.item, _counts(answers, scoring), len(ITEMS))
        cells = np.arange(len(ITEMS))
        metrics = {"distance": Metric(cells, self._distance, higher_is_better=False, biased=BIASED)}
        ends = np.array([_least(self.spec), _most(self.spec)])
        for axis, name in enumerate(AXES):
            reach = np.sort(self.slope[axis] * ends, axis=0).sum(1) + self.offset[axis]
            metrics[name] = Metric(cells, partial(self._coordinate, axis), bounds=(float(reach[0]), float(reach[1])))
        return Sample("personas", *found, metrics)

    def _coordinate(self, axis: int, means: np.ndarray) -> np.ndarray:
        coordinate: np.ndarray = self.coordinates(means)[..., axis]
        return coordinate


def caution_of(projection: Projection) -> str | None:
    """Describe the error of a projection; None for one without, fitted on respondents."""
    if projection.r2 is None:
        return None
    return (
        "a point is known to about {:.2f} (traditional to secular) and {:.2f} map units (survival to self-expression), "
        "the error of the projection for countries left out (R2 {:.2f}, {:.2f})"
    ).format(*projection.error, *projection.r2)


def _values(layout: Layout) -> np.ndarray:
    """Return what each option counts in its item's mean, (prompts, options)."""
    items, rows, place = np.unique(layout.item, return_index=True, return_inverse=True)
    counts = [
        [value_of(layout.items[i], int(code)) for code in layout.codes[row]] for i, row in zip(items, rows, strict=True)
    ]
    table = np.array(counts).reshape(len(items), layout.codes.shape[1])[place]
    return np.where(layout.inside, table, 0.0)


def _counts(answers: Answers, scoring: Scoring) -> np.ndarray:
    """Compute what each of the first candidate's answers counts in its item's mean, (prompts,); NaN if unanswered."""
    spread = chosen(answers, scoring)
    counted: np.ndarray = np.where(spread.any(-1), (spread * _values(answers.layout)).sum(-1), np.nan)
    return counted


def _least(spec: TaskSpec) -> np.ndarray:
    """Return the lowest mean of each question, (14,)."""
    return np.array([min(value_of(item, code) for code in spec.items.codes(item)) for item in ITEMS])


def _most(spec: TaskSpec) -> np.ndarray:
    """Return the highest mean of each question, (14,)."""
    return np.array([max(value_of(item, code) for code in spec.items.codes(item)) for item in ITEMS])


def _parts(means: np.ndarray) -> np.ndarray:
    """Compute the means of the questions (14,) from the ten means (10,).

    The two aims share theirs evenly, and so do the four qualities.
    """
    by_name = dict(zip(INDICATORS, means.tolist(), strict=True))
    aim, tradition = (by_name["Y002"] - 1) / 2, by_name["Y003"] / 4
    parts = {"E003": aim, "E004": aim} | {name: 0.5 + sign * tradition for name, sign in QUALITIES.items()}
    return np.array([parts.get(item, by_name.get(item)) for item in ITEMS], dtype=float)


def _demonstrable(item: str, codes: tuple[int, ...]) -> dict[float, int]:
    """Return an option's code by what it counts; of equal aims those that are not chosen twice."""
    by_value: dict[float, int] = {}
    for code in codes if item != "E004" else codes[::-1]:
        by_value.setdefault(value_of(item, code), code)
    return by_value


def _spread(means: np.ndarray, layout: Layout) -> np.ndarray:
    """Spread probability over options (prompts, options) so that the answers' means are the given ones (prompts,).

    It lies on the two values next to a mean, evenly over options of the same value; a mean off the scale is its end.
    """
    values, inside = _values(layout), layout.inside
    ends = np.where(inside, values, np.inf).min(1), np.where(inside, values, -np.inf).max(1)
    near = np.maximum(1 - abs(values - np.clip(means, *ends)[:, None]), 0) * inside
    alike = ((values[:, :, None] == values[:, None]) & inside[:, None]).sum(-1)
    return near / np.maximum(alike, 1)
