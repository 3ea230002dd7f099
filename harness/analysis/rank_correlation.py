"""Do a model's indices rank countries as the published ones do? One submission a country, ten countries or more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ...errors import UsageError
from ...tasks.metrics.reference import DIMENSIONS, scores_of
from ...tasks.score import Score, find
from ..registry import spec_of
from ..scoring.score import score_answers
from .compare import Side
from .significance import Association, associations, holm


@dataclass(frozen=True)
class Correlation:
    """One index in one read-out, held out, against the published one; ``adjusted`` is Holm's over all rows."""

    metric: str
    readout: str
    association: Association
    adjusted: float | None = None


def correlate(sides: Sequence[Side]) -> list[Correlation]:
    """Kendall's tau and Spearman's rho of each index over the countries that the sides are aligned to.

    Raises:
        UsageError: fewer than ten countries, a country twice, several models, aligners or tasks, or no such indices.
    """
    shared = [
        t for t in sides[0].answers if spec_of(t).metadata.measure == "hofstede" and all(t in s.answers for s in sides)
    ]
    if not shared:
        raise UsageError("correlate: no task with Hofstede's indices that all of them answered.")
    kinds = Counter((s.manifest.model.name, s.manifest.aligner.name) for s in sides)
    if len(kinds) > 1:
        raise UsageError("correlate: several models or aligners; give the submissions of one of each.")
    codes = Counter(side.manifest.asked(shared[0]).country for side in sides)
    if twice := [code for code, times in codes.items() if times > 1]:
        raise UsageError(f"correlate: {twice[0]} is there twice; give one submission a country.")
    spec = spec_of(shared[0])
    published, scores = [], []
    for side in sides:
        asked = side.manifest.asked(spec.name)
        options = asked.options
        published.append(scores_of(spec, options.edition).target(asked.country))
        scores.append(score_answers(spec, side.answers[spec.name], asked.country, options, ""))
    found = []
    for readout in spec.metadata.readouts:
        for place, name in enumerate(DIMENSIONS):
            values = [_value(rows, name, readout) for rows in scores]
            if None not in values:
                both = associations(np.array(values), np.array(published)[:, place])
                found += [Correlation(name, readout, one) for one in both]
    adjusted = holm([row.association.p for row in found])
    return [replace(row, adjusted=p) for row, p in zip(found, adjusted, strict=True)]


def _value(rows: Sequence[Score], metric: str, readout: str) -> float | None:
    found = find(rows, (metric, readout, "heldout"))
    return found.value if found else None
