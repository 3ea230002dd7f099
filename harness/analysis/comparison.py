"""Result types of a comparison of submissions: differences of metrics, changes of answers, ranges over seeds."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...errors import UsageError, did_you_mean
from ..registry import spec_of
from ..report import plots
from ..report.results import Results
from .significance import Difference, Points

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class ItemChange:
    """The answers of two sides to one held-out item, averaged over paraphrases, option orders and personas.

    ``likely_a`` and ``likely_b`` are the most likely options. For a survey ``mean_a`` and ``mean_b`` are mean codes and
    ``change`` is their difference; for a question it is the total variation between the two distributions. ``p``
    is None where the personas cannot be paired, and for a question, which is one unit; ``adjusted`` is Holm's over the
    items. ``text_a`` and ``text_b`` are the first generated texts, where both sides have texts.
    """

    item: str
    question: str
    likely_a: str
    likely_b: str
    mean_a: float | None
    mean_b: float | None
    change: float
    p: float | None = None
    adjusted: float | None = None
    text_a: str | None = None
    text_b: str | None = None


@dataclass(frozen=True)
class TaskComparison:
    """Side ``a`` minus side ``b``, the baseline, in one task; ``cautions`` are further differences between them."""

    task: str
    country: str
    a: str
    b: str
    scoring: str
    cautions: tuple[str, ...]
    answers: int
    differences: tuple[Difference, ...]
    changes: tuple[ItemChange, ...]


@dataclass(frozen=True)
class SeedRange:
    """The held-out headline of submissions that differ in their seed alone, by seed."""

    task: str
    name: str
    metric: str
    scoring: str
    seeds: tuple[int, ...]
    points: Points


class Comparison(Results[TaskComparison]):
    """Submissions compared with the first of them, the baseline: one ``TaskComparison`` a submission and task."""

    shown = ("a", "b", "task", "metric", "scoring", "difference", "low", "high", "adjusted", "n")

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary a metric and answer scoring.

        It has the names of the submissions (``a``, and ``b`` the baseline), the fields of ``Difference``, and the two
        values as ``value_a`` and ``value_b``.
        """
        return [
            {"a": each.a, "b": each.b} | {_VALUES.get(name, name): value for name, value in asdict(row).items()}
            for each in self.rows
            for row in each.differences
        ]

    def item_frame(self) -> pd.DataFrame:
        """Return one row an item and compared submission, with the fields of ``ItemChange``."""
        import pandas as pd

        return pd.DataFrame(
            [{"task": each.task, "a": each.a, "b": each.b} | asdict(row) for each in self.rows for row in each.changes]
        )

    def plot(self, metric: str | None = None) -> Any:
        """Draw the differences in one metric with their 95 % intervals and return the matplotlib axes.

        Args:
            metric: the metric to draw [default: the headline of the first task].

        Raises:
            UsageError: a metric that was not compared.
        """
        name = metric or spec_of(self.rows[0].task).metadata.headline.metric
        estimates = {
            f"{each.a}: {each.task}, {row.scoring}": (row.difference, row.low, row.high)
            for each in self.rows
            for row in each.differences
            if row.metric == name
        }
        if not estimates:
            known = list(dict.fromkeys(row.metric for each in self.rows for row in each.differences))
            raise UsageError(f"metric {name!r}: not among these differences.{did_you_mean(name, known)}")
        axes = plots.new_axes(7, 1 + 0.22 * len(estimates))
        plots.draw_estimates(axes, estimates, f"difference in {name}", f"difference from {self.rows[0].b}", zero=True)
        return axes


_VALUES = {"a": "value_a", "b": "value_b"}  # fields of a difference whose names are taken by the submissions
