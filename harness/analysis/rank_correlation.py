"""Rank correlations of a model's indices with the published ones over ten or more countries, one submission each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ...errors import UsageError
from ...tasks.metrics.reference import DIMENSIONS, scores_of
from ...tasks.score import Score, find
from ..registry import spec_of
from ..report import plots
from ..report.results import Results
from .compare import Side
from .country_set import why_no_set
from .significance import Association, associations, holm


@dataclass(frozen=True)
class RankCorrelation:
    """The rank correlation of one held-out index by one answer scoring; ``adjusted`` is Holm's p over all rows."""

    metric: str
    scoring: str
    association: Association
    adjusted: float | None = None


class RankCorrelations(Results[RankCorrelation]):
    """Kendall's tau and Spearman's rho of every index."""

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary an index, answer scoring and statistic, with value, interval, p, adjusted p and n."""
        return [
            {"metric": row.metric, "scoring": row.scoring} | asdict(row.association) | {"adjusted": row.adjusted}
            for row in self.rows
        ]

    def plot(self, statistic: str = "kendall") -> Any:
        """Draw one statistic, ``kendall`` or ``spearman``, with its intervals and return the matplotlib axes."""
        estimates = {
            f"{row.metric}, {row.scoring}": (one.value, one.low, one.high)
            for row in self.rows
            if (one := row.association).statistic == statistic
        }
        axes = plots.new_axes(7, 1 + 0.22 * len(estimates))
        title = "Indices of the model against the published ones, over countries"
        plots.draw_estimates(axes, estimates, f"rank correlation ({statistic})", title, zero=True)
        return axes


def correlate(sides: Sequence[Side]) -> RankCorrelations:
    """Compute rank correlations of each index over the countries that the sides are aligned to.

    Raises:
        UsageError: fewer than ten countries, no aligned set, or no task with Hofstede's indices that all answered.
    """
    shared = [
        t for t in sides[0].answers if spec_of(t).metadata.measure == "hofstede" and all(t in s.answers for s in sides)
    ]
    if not shared:
        raise UsageError("rank correlation: no task with Hofstede's indices is answered by all of them.")
    spec = spec_of(shared[0])
    if why := why_no_set([side.manifest for side in sides], spec):
        raise UsageError(f"rank correlation: {why}. Give one submission a country.")
    reference = scores_of(spec, sides[0].manifest.task(spec.name).options.edition)
    countries = [side.manifest.aligned_to for side in sides]
    published = np.array([reference.target(code) for code in countries])
    scores = [side.submission.score(code, task=spec.name) for side, code in zip(sides, countries, strict=True)]
    rows = []
    for scoring in spec.metadata.scorings:
        for place, name in enumerate(DIMENSIONS):
            values = [_value(of_country, name, scoring) for of_country in scores]
            if None not in values:
                both = associations(np.array(values), published[:, place])
                rows += [RankCorrelation(name, scoring, one) for one in both]
    adjusted = holm([row.association.p for row in rows])
    return RankCorrelations(replace(row, adjusted=p) for row, p in zip(rows, adjusted, strict=True))


def _value(rows: Sequence[Score], metric: str, scoring: str) -> float | None:
    score = find(rows, (metric, scoring, "heldout"))
    return score.value if score else None
