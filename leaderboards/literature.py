"""Published figures that belong beside a board: marked as not run again, with their source, and never ranked."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field

from ..tasks.schema import Strict
from ..tasks.spec import parse, read_yaml

FILE = Path(__file__).with_name("reported.yaml")
TITLE = "reported elsewhere, not run again here"


class Reported(Strict):
    """Figures of one metric by method; ``differs`` says what keeps them from being compared with ours, if anything."""

    tasks: tuple[str, ...] = Field(min_length=1)
    model: str | None = None
    countries: tuple[str, ...] = ()
    metric: str
    higher_is_better: bool
    figures: dict[str, float] = Field(min_length=1)
    source: str
    differs: str | None = None

    @property
    def what(self) -> str:
        """Metric and model."""
        return self.metric + (f", {self.model}" if self.model else "")

    @property
    def values(self) -> str:
        """The figures by method, in a line."""
        return ", ".join(f"{method} {figure:,g}" for method, figure in self.figures.items())

    @property
    def mark(self) -> str:
        """How far the figures may be compared."""
        return f"other protocol: {self.differs}" if self.differs else "the board's own protocol"


class _File(Strict):
    rows: tuple[Reported, ...]


@cache
def reported() -> tuple[Reported, ...]:
    """All figures of ``reported.yaml``."""
    return parse(_File, read_yaml(FILE), FILE).rows


def reported_for(task: str) -> tuple[Reported, ...]:
    """The figures that belong beside a task's boards."""
    return tuple(row for row in reported() if task in row.tasks)


def reported_lines(task: str) -> list[str]:
    """The same for people: a heading, then figures and where they come from; nothing where there are none."""
    lines = [f"{task}: {TITLE}"]
    for row in reported_for(task):
        lines += [f"  {row.what}: {row.values}", f"    {row.mark}. {row.source}"]
    return lines if len(lines) > 1 else []
