"""Which metrics a board offers and shows, with how many decimal places; ``tasks/glossary.py`` defines them."""

from __future__ import annotations

from ..harness.report.tables import columns_of
from ..tasks.metrics.reference import DIMENSIONS
from ..tasks.spec import TaskSpec


def board_metrics(spec: TaskSpec) -> list[str]:
    """The metrics that a task's board offers, in order: the number that decides first; indices are on the pages."""
    headline = spec.metadata.headline.metric
    first = ["skill", headline] if spec.metadata.measure == "hofstede" else [headline]
    rest = [column.metric for column in columns_of(spec)]
    names = dict.fromkeys([*first, *rest, *spec.metrics, "loss_wording_spread", "outside_mass", "unparsed"])
    return [name for name in names if name not in DIMENSIONS]


def usual_metrics(spec: TaskSpec) -> list[str]:
    """The few that are shown before a reader chooses."""
    return [*board_metrics(spec)[:3], "outside_mass", "unparsed"]


def precision(metric: str) -> int:
    """Decimal places that a metric is shown with."""
    return 0 if metric.startswith("loss") or metric in DIMENSIONS else 2 if metric == "skill" else 3
