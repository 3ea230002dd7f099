"""SimBench's score: how much nearer than equal shares a model's answers are to those of groups of people.

``100 * mean over questions of (1 - TV / U)``, where TV is the total variation between model and people and U that
between equal shares and people, averaged over the questions of the same source: 0 is no better than equal shares, 100
is perfect, and it may be negative (Hu et al. 2025, arXiv 2510.17516, as ``calculate_simbench_score.py`` of the authors'
repository SimBench_release computes it: U of a source, not of the single question).
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import partial

import numpy as np

from ...errors import InputError
from ..answers import Answers, Layout
from ..items import Questions
from ..measure import MeasureOptions
from ..sample import Metric, Sample
from ..schema import Scoring, SplitName
from ..score import Score, ScoreFields
from ..spec import TaskSpec
from .common import spreads
from .shares import BIASED, Alike, Shares, by_item

PEOPLE = "ZZ"  # in place of a country: the people whom the question describes


class SimBench(Shares):
    """The measure of answers to questions that say themselves which people are meant; any country may be given."""

    def __init__(self, spec: TaskSpec, country: str, options: MeasureOptions) -> None:
        if not isinstance(spec.items, Questions) or not all(q.topic for q in spec.items.questions):
            raise InputError(f"{spec.path}: metadata.measure: simbench needs questions, each with its source as topic.")
        super().__init__(spec, PEOPLE, options)
        self.country = country
        self.sources = np.array([q.topic for q in spec.items.questions])
        self.equal = np.zeros(len(self.sources))  # total variation between people and equal shares, by item
        for item in self.items:
            self.equal[item] = abs(self.target[item] - 1 / len(self.target[item])).sum() / 2

    @staticmethod
    def countries(spec: TaskSpec, edition: str | None) -> tuple[str, ...]:
        """Return no country: the questions name their people."""
        return ()

    def baselines(self, layout: Layout) -> dict[str, Answers]:
        """Return none: no other people answered the same question; equal shares score 0."""
        return {}

    def score(self, answers: Answers, split: SplitName, scoring: Scoring) -> list[Score]:
        """Compute ``simbench``, also by source, and the distances of ``Shares``."""
        rows = super().score(answers, split, scoring)
        first = rows[-1].model_copy(update={"low": None, "high": None, "higher_is_better": True})
        found = self._scores(answers, scoring).items()
        scores = [first.model_copy(update={"metric": name, "value": value}) for name, value in found]
        fields = ScoreFields(first.task, first.country, first.edition, split, scoring, answers.layout, first.n)
        turned = spreads(fields, answers, "simbench", lambda part: self._scores(part, scoring).get("simbench", np.nan))
        return [*scores, *rows, *turned]

    def sample(self, answers: Answers, scoring: Scoring) -> Sample:
        """Return the sample of ``Shares`` with ``simbench``, also by source."""
        sample = super().sample(answers, scoring)
        width = answers.layout.codes.shape[1]
        asked = np.array([item for item in self.items if sample.counts[:, item * width].any()], dtype=int)
        metrics = dict(sample.metrics)
        for source in (None, *sorted(set(self.sources[asked]))):
            alike, cells = self.cells_of(asked if source is None else asked[self.sources[asked] == source], width)
            name = "simbench" if source is None else f"simbench_{re.sub('[^A-Za-z0-9]+', '_', source)}"
            if (norms := self._norms(alike)).any():
                metrics[name] = Metric(cells, partial(_mean, alike, norms), True, None, BIASED)
        return replace(sample, metrics=metrics)

    def _scores(self, answers: Answers, scoring: Scoring) -> dict[str, float]:
        sample = self.sample(answers, scoring)
        names = [name for name in sample.metrics if name.startswith("simbench")]
        return {name: value for name in names if np.isfinite(value := sample.value(name))}

    def _norms(self, alike: list[Alike]) -> np.ndarray:
        """Return each item's total variation between people and equal shares, averaged over its source (items,)."""
        items = np.concatenate([each.items for each in alike] or [np.zeros(0, dtype=int)])
        sources = self.sources[items]
        return np.array([self.equal[items[sources == source]].mean() for source in sources])


def _mean(alike: list[Alike], norms: np.ndarray, means: np.ndarray) -> np.ndarray:
    """Compute the score (...,) of the model's shares, without sources whose people all answer in equal shares."""
    varied = norms > 0
    values = np.concatenate(list(by_item(alike, "tv", means)), axis=-1)[..., varied]
    return 100 * (1 - values / norms[varied]).mean(-1)
