"""Read published figures that are shown beside a board: marked as not run again, with source, never ranked."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from pydantic import Field

from ..tasks.schema import Strict
from ..tasks.spec import parse, read_yaml

FILE = Path(__file__).with_name("reported.yaml")
TITLE = "reported elsewhere, not run again here"


class Reported(Strict):
    """Figures of one metric by method; ``differs`` names differences in protocol, None for the board's protocol."""

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
        """Format metric and model."""
        return self.metric + (f", {self.model}" if self.model else "")

    @property
    def values(self) -> str:
        """Format the figures by method in one line."""
        return ", ".join(f"{method} {figure:,g}" for method, figure in self.figures.items())

    @property
    def mark(self) -> str:
        """Describe how far the figures are comparable."""
        return f"other protocol: {self.differs}" if self.differs else "the board's own protocol"


class _File(Strict):
    rows: tuple[Reported, ...]


@cache
def reported() -> tuple[Reported, ...]:
    """Read all figures of ``reported.yaml``."""
    return parse(_File, read_yaml(FILE), FILE).rows


def reported_for(task: str) -> tuple[Reported, ...]:
    """Return the figures reported for a task."""
    return tuple(row for row in reported() if task in row.tasks)


def reported_lines(task: str) -> list[str]:
    """Format the figures reported for a task: heading, figures, sources; an empty list if there are none."""
    lines = [f"{task}: {TITLE}"]
    for row in reported_for(task):
        lines += [f"  {row.what}: {row.values}", f"    {row.mark}. {row.source}"]
    return lines if len(lines) > 1 else []
