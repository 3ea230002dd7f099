"""A survey with one right answer per item: the answers that correspond to the country's published scores.

Labels come from inverse modelling (``hofstede.inverse``): each index has four items of its own, so that the best
integer answers are found by trying all 5^4; among equals those nearest to the middle of the scale are taken.
"""

from __future__ import annotations

import numpy as np

from ...errors import InputError, UsageError, did_you_mean
from ..answers import Answers, Layout, chosen
from ..items import Survey
from ..measure import MeasureOptions
from ..sample import SHARE, Metric, Sample, average, tally
from ..schema import Scoring, SplitName
from ..score import Score, ScoreFields
from ..spec import TaskSpec
from .common import certain_answers, middle_answers, unanswered
from .hofstede import CONSTANTS, ITEMS, inverse
from .poles import LEAST, ChosenLoss
from .reference import DIMENSIONS, scores_of


class LabelledSurvey:
    """The cross-entropy and accuracy of paraphrased items against labels.

    The training objective of gradient baselines.
    """

    caution = None

    def __init__(self, spec: TaskSpec, country: str, options: MeasureOptions) -> None:
        groups = [key.group for key in spec.items.items.values()] if isinstance(spec.items, Survey) else [None]
        if not set(groups) <= set(ITEMS):
            raise InputError(f"{spec.path}: metadata.measure: labelled needs items with a group from m01 to m24.")
        if options.constants not in CONSTANTS:
            hint = did_you_mean(options.constants, CONSTANTS)
            raise UsageError(f"`constants` {options.constants!r}: not one of {', '.join(CONSTANTS)}.{hint}")
        self.spec, self.country, self.constants = spec, country, options.constants
        self.scores = scores_of(spec, options.edition)
        self.shift = self.scores.world if options.constants == "world" else np.zeros(len(DIMENSIONS))
        self.places = [ITEMS.index(group) for group in groups]
        self.labels = self._labels(self.scores.target(country))

    def _labels(self, target: np.ndarray) -> np.ndarray:
        """Return the answers (items,) that correspond to these six scores."""
        return inverse(target, self.shift)[self.places]

    @staticmethod
    def countries(spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
        """Return the codes of the countries with all six scores in an edition."""
        return scores_of(spec, edition).complete

    def loss_function(self, layout: Layout, scoring: Scoring) -> ChosenLoss:
        """Return the mean -log probability of the labels; for ``argmax`` the share of answers that differ from them."""
        return ChosenLoss(self.labels[layout.item] - 1, scoring)

    def demonstrations(self, layout: Layout) -> np.ndarray:
        """Return the labels (prompts,)."""
        return self.labels[layout.item]

    def constant(self, layout: Layout) -> Answers:
        """Return the middle of the scale for all prompts."""
        return middle_answers(layout)

    def baselines(self, layout: Layout) -> dict[str, Answers]:
        """Return the labels of the world mean, and the modal label over the other countries (the lowest of equals)."""
        others = [self._labels(self.scores.target(code)) for code in self.scores.complete if code != self.country]
        labels = {"world mean": self._labels(self.scores.world)}
        if others:
            labels["majority"] = np.array([np.bincount(column).argmax() for column in np.stack(others, axis=1)])
        return {name: certain_answers(layout, each[layout.item]) for name, each in labels.items()}

    def score(self, answers: Answers, split: SplitName, scoring: Scoring) -> list[Score]:
        """Compute ``accuracy`` against the labels, and ``loss``; intervals over the items' groups are not valid.

        The paraphrases of an item are dependent and the items of a questionnaire are fixed, so the sampled units are
        its personas.
        """
        edition = self.scores.edition
        sample = self.sample(answers, scoring)
        fields = ScoreFields(self.spec.name, self.country, edition, split, scoring, answers.layout, len(sample))
        rows = [unanswered(fields, answers)]
        for name, metric in sample.metrics.items():
            low, high = sample.interval(name) or (None, None)
            more = {"low": low, "high": high, "constants": self.constants}
            rows.append(fields.row(name, sample.value(name), metric.higher_is_better, **more))
        return rows

    def sample(self, answers: Answers, scoring: Scoring) -> Sample:
        """Return the share of each persona's answers that is on the labels, and its -log."""
        layout = answers.layout
        hit = chosen(answers, scoring)[np.arange(len(layout)), self.labels[layout.item] - 1]
        found = {"accuracy": hit} | ({"loss": -np.log(hit + LEAST)} if scoring == "expected" else {})
        columns = [tally(layout.persona, np.zeros_like(layout.item), values, 1) for values in found.values()]
        sums, counts = (np.concatenate(each, axis=1) for each in list(zip(*columns, strict=True))[1:])
        accuracy = Metric(np.array([0]), average, True, SHARE)
        metrics = {"accuracy": accuracy, "loss": Metric(np.array([1]), average, False)}
        return Sample("personas", columns[0][0], sums, counts, {name: metrics[name] for name in found})
