"""Select the metrics of a board and their decimal places; ``tasks/glossary.py`` defines the metrics."""

from __future__ import annotations

from ..harness.report.tables import columns_of
from ..tasks.metrics.reference import DIMENSIONS
from ..tasks.spec import TaskSpec


def board_metrics(spec: TaskSpec) -> list[str]:
    """Return the metrics of a task's board in order, the ranking metric first; indices are on the pages only."""
    headline = spec.metadata.headline.metric
    first = ["skill", headline] if spec.metadata.measure == "hofstede" else [headline]
    rest = [column.metric for column in columns_of(spec)]
    names = dict.fromkeys([*first, *rest, *spec.metrics, "loss_paraphrase_spread", "off_options", "unparsed"])
    return [name for name in names if name not in DIMENSIONS]


def usual_metrics(spec: TaskSpec) -> list[str]:
    """Return the metrics that are shown by default."""
    return [*board_metrics(spec)[:3], "off_options", "unparsed"]


def precision(metric: str) -> int:
    """Return the decimal places of a metric."""
    if metric in ("country_rank", "zone_hit"):
        return 0
    return 0 if metric.startswith("loss") or metric in DIMENSIONS else 2 if metric == "skill" else 3
