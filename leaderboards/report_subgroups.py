"""Subgroups in the report on one model: personas against the people of their subgroup, and the gaps between groups."""

from __future__ import annotations

from typing import Any

from ..errors import UsageError
from ..harness.analysis.subgroups import subgroups
from ..harness.scoring.submission import Submission
from ..harness.submissions.manifest import AskedTask


def subgroup_tables(submission: Submission, asked: AskedTask) -> dict[str, Any] | None:
    """Return the groups of a task's personas and the gaps between them.

    None where it was answered without personas, or no people of the country are imported by subgroup.
    """
    if not asked.personas or submission.cache.spec(asked.name).metadata.measure != "shares":
        return None
    try:
        found = subgroups(submission, asked.name)
    except UsageError:
        return None
    groups = [
        {
            "attribute": row.attribute,
            "group": row.group,
            "personas": row.personas,
            "error": _value(row.error, row.error_low, row.error_high),
            "accuracy": _value(row.accuracy, row.accuracy_low, row.accuracy_high),
            "majority": f"{row.error_majority:.3f}",
        }
        for row in found
    ]
    gaps = [
        {"attribute": gap.attribute, "best": gap.best, "worst": gap.worst, "gap": _value(gap.gap, gap.low, gap.high)}
        for gap in found.gaps
        if gap.metric == "error"
    ]
    return {"groups": groups, "gaps": gaps}


def _value(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.3f}" + ("" if low is None or high is None else f" ({low:.3f} to {high:.3f})")
