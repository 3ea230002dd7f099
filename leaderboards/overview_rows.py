"""The parts of an overview: columns, and rows of runs that differ in country and seed alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .pooling import Cell

R2 = "between_country_r2"


class Variant(NamedTuple):
    """The common properties of the boards of one column: all but the country."""

    task: str
    edition: str
    constants: str
    asked: str


class Configuration(NamedTuple):
    """The common properties of the runs of one row: all but country and seed. A baseline has no settings.

    ``build`` (revision, adapter and chat options of the model), ``settings``, and ``fitted`` (tasks and loss, and the
    country if not the board's) are JSON. A control has the model of its runs, other baselines have none.
    """

    aligner: str
    model: str = ""
    build: str = "{}"
    settings: str = "{}"
    allowed: int = 0
    fitted: str = "{}"


@dataclass(frozen=True)
class Column:
    """A score of one task: ``countries`` are those on which the rows are ranked (``usual_countries``).

    ``cautions`` describe the reference figures of these countries, such as estimates.
    """

    variant: Variant
    title: str
    metric: str
    higher_is_better: bool
    countries: tuple[str, ...]
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """The mean cost of a run's fitting: survey evaluations, seconds on the submitter's machine, tokens read."""

    survey_evaluations: float
    seconds: float
    tokens: float


@dataclass(frozen=True)
class Point:
    """The mean point of a row on the cultural map of a country's board: secular and self-expression coordinates.

    ``error`` are mean standard errors; ``start`` is the point of the unaligned model on the same board.
    """

    country: str
    edition: str
    at: tuple[float, float]
    error: tuple[float, float]
    start: tuple[float, float] | None


@dataclass(frozen=True)
class Row:
    """Runs of one configuration, or a baseline, with one cell for each column.

    ``detail`` names budget and settings that differ from other rows of the same model and aligner; ``name`` is short.
    ``submissions`` are their names by country; ``verified`` and ``differs`` count them. ``seeds`` are the rows that
    are folded into this one: one for each seed, without further ones.
    """

    configuration: Configuration
    name: str
    detail: str
    cells: tuple[Cell, ...]
    cost: Cost | None = None
    submissions: tuple[tuple[str, str], ...] = ()
    verified: int = 0
    differs: int = 0
    points: tuple[Point, ...] = ()
    seed: int | None = None
    seeds: tuple[Row, ...] = ()

    @property
    def countries(self) -> tuple[str, ...]:
        """Return the countries of its means."""
        return tuple(sorted({code for cell in self.cells for code in cell.countries}))

    @property
    def marks(self) -> tuple[str, ...]:
        """Return the marks of a row of runs: verified if all runs are, collapsed if any is."""
        if not self.submissions:
            return ()
        found = ["verified" if self.verified == len(self.submissions) else "self-reported"]
        found += ["collapsed"] if any(cell.collapsed for cell in self.cells) else []
        return (*found, *(["scores differ"] if self.differs else []))
