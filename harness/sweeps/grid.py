"""The grid of a sweep file: every combination of models, aligners, settings, tasks, countries and seeds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from ...errors import CultevalError, InputError, UsageError, did_you_mean
from ...tasks.countries import country as country_of
from ...tasks.prompts import count_answers
from ...tasks.schema import Strict
from ...tasks.spec import parse, read_yaml
from ..registry import spec_of
from ..runs.config import DEFAULT_BUDGET, DEFAULT_MODEL, RunConfig, budget_of
from ..runs.plan import RunRequest, plan
from .executors.base import Resources
from .status import MOST_REASONS, Row, State

_OWN = {"model", "tasks", "country", "seed", "budget", "aligner", "settings", "config"}  # fields of the grid
MOST_VARIANTS = 10_000  # of all aligners together
Values = Annotated[tuple[Any, ...], Field(min_length=1)]
Tasks = tuple[str, ...]  # answered by one run


def _lists(value: Any) -> Any:
    """Make a list of each task that stands alone."""
    return [[task] if isinstance(task, str) else task for task in value] if isinstance(value, list) else value


class Arm(Strict):
    """An aligner of a grid, with its settings; budget, tasks, countries, seeds and options override those of the grid.

    The values in ``grid`` are used in all combinations, each with every one of ``budgets``.
    """

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Values] = Field(default_factory=dict)
    budget: int | None = Field(None, ge=0)
    budgets: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(None, min_length=1)
    tasks: tuple[Tasks, ...] | None = None
    countries: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("tasks", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _lists(value)

    @model_validator(mode="after")
    def _once(self) -> Arm:
        if twice := sorted(set(self.grid) & set(self.settings)):
            raise ValueError(f"{twice[0]!r} is in settings and in grid; a setting belongs to one of them")
        if self.budget is not None and self.budgets is not None:
            raise ValueError("budget and budgets exclude each other")
        return self

    @property
    def size(self) -> int:
        """Return the number of variants."""
        return math.prod(map(len, self.grid.values())) * len(self.budgets or (None,))

    def variants(self) -> Iterator[tuple[int | None, dict[str, Any]]]:
        """Yield every budget (None: that of the file) with every combination of settings in ``grid``."""
        for values in itertools.product(*self.grid.values()):
            for budget in self.budgets or (self.budget,):
                yield budget, dict(zip(self.grid, values, strict=True))


@dataclass(frozen=True)
class Combination:
    """The choices of a grid for one run; ``varied`` are the settings chosen from the aligner's own grid."""

    model: str
    tasks: tuple[str, ...]
    country: str | None
    seed: int
    budget: int
    arm: Arm
    varied: dict[str, Any]


class Grid(Strict):
    """A sweep file: one run for every combination. ``tasks`` entries may be lists, answered by the same run.

    ``without`` has by country the tasks that its runs leave out, such as tasks whose reference lacks the country.
    ``options`` are further arguments of ``culteval.run`` (dtype, scoring, personas, fit ...);
    ``resources`` are those of one worker.
    """

    models: tuple[str, ...] = (DEFAULT_MODEL,)
    aligners: tuple[Arm, ...] = Field(min_length=1)
    tasks: tuple[Tasks, ...] = Field(min_length=1)
    countries: tuple[str | None, ...] = (None,)
    seeds: tuple[int, ...] = (0,)
    without: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    budget: int = Field(DEFAULT_BUDGET, ge=0)
    options: dict[str, Any] = Field(default_factory=dict)
    resources: Resources = Resources()

    @field_validator("aligners", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return [{"name": arm} if isinstance(arm, str) else arm for arm in value] if isinstance(value, list) else value

    @field_validator("tasks", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return _lists(value)

    @model_validator(mode="after")
    def _bounded(self) -> Grid:
        if sum(arm.size for arm in self.aligners) > MOST_VARIANTS:
            raise ValueError(f"aligners: more than {MOST_VARIANTS:,} combinations of their settings and budgets")
        return self

    def combinations(self) -> Iterator[Combination]:
        """Yield every run, in the order of the file."""
        countries = dict.fromkeys(itertools.chain(self.countries, *(arm.countries or () for arm in self.aligners)))
        seeds = dict.fromkeys(itertools.chain(self.seeds, *(arm.seeds or () for arm in self.aligners)))
        together = dict.fromkeys(itertools.chain(self.tasks, *(arm.tasks or () for arm in self.aligners)))
        arms = [(arm, *variant) for arm in self.aligners for variant in arm.variants()]
        left_out = {_code(name): tasks for name, tasks in self.without.items()}
        for model, listed, country, seed, (arm, budget, varied) in itertools.product(
            self.models, together, countries, seeds, arms
        ):
            tasks = tuple(task for task in listed if task not in left_out.get(_code(country), ()))
            wanted = listed in (arm.tasks or self.tasks) and country in (arm.countries or self.countries)
            if tasks and wanted and seed in (arm.seeds or self.seeds):
                own = self.budget if budget is None else budget
                yield Combination(model, tasks, country, seed, own, arm, varied)


@dataclass
class Cell:
    """One run of a grid, the name of its folder, and its state; ``tries`` are the attempts of this call."""

    config: RunConfig
    name: str
    varied: dict[str, Any] = field(default_factory=dict)
    state: State = "waiting"
    tries: int = 0
    attempts: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)
    cached: tuple[str, ...] = ()

    @cached_property
    def item_forwards(self) -> int:
        """Return the item forwards that the run is allowed to fit, and one for each of its answers."""
        protocol = self.config.protocol()
        return budget_of(self.config).total + sum(count_answers(spec_of(name), protocol) for name in self.config.tasks)

    def take(self, row: Row) -> None:
        """Take over attempts, seconds, errors and cached tasks of earlier calls; the state is read from its folder."""
        self.attempts, self.seconds, self.cached = row.attempts, row.seconds, row.cached
        self.reasons = list(row.reasons)

    def blame(self, reason: str) -> None:
        """Record the reason of a failure."""
        self.reasons = [*self.reasons, reason[:2000]][-MOST_REASONS:]

    def record(self) -> dict[str, Any]:
        """Return the entry of ``sweep.json``."""
        of_config = ("tasks", "model", "aligner", "country", "seed", "budget")
        fields = {name: getattr(self.config, name) for name in of_config}
        fields |= {name: getattr(self, name) for name in ("varied", "state", "attempts", "reasons", "cached")}
        return Row(run=self.name, seconds=round(self.seconds, 1), **fields).model_dump(mode="json")


def read_grid(path: Path) -> Grid:
    """Read and validate a sweep file.

    Raises:
        InputError: malformed; names line, field and remedy.
    """
    return parse(Grid, read_yaml(path), path)


def cells(grid: Grid, source: Path) -> list[Cell]:
    """List the runs of a grid, each configuration once, after all of them are checked.

    Raises:
        InputError: an option that ``culteval.run`` does not have, a task or country in ``without`` that is not in the
            grid, or a combination that cannot be run.
    """
    options = set(RunRequest.model_fields) - _OWN
    given = set(grid.options).union(*(arm.options for arm in grid.aligners))
    if unknown := sorted(given - options):
        hint = did_you_mean(unknown[0], options)
        raise InputError(f"{source}: options.{unknown[0]}: no argument of a run, or a field of the file itself.{hint}")
    known = set(itertools.chain(*grid.tasks, *(each for arm in grid.aligners for each in arm.tasks or ())))
    if missing := [name for name in itertools.chain(*grid.without.values()) if name not in known]:
        hint = did_you_mean(missing[0], known)
        raise InputError(f"{source}: without: {missing[0]!r} is no task of the grid.{hint}")
    _check_countries(grid, source)
    by_name: dict[str, Cell] = {}
    for one in grid.combinations():
        chosen = {name: getattr(one, name) for name in ("model", "tasks", "country", "seed", "budget")}
        chosen |= {"aligner": one.arm.name, "settings": one.arm.settings | one.varied}
        try:
            config = plan(RunRequest.of(**grid.options | one.arm.options | chosen))
        except CultevalError as error:
            place = f"{one.arm.name}, {', '.join(one.tasks)}, {one.country or 'default country'}"
            raise InputError(f"{source}: {place}: {error}") from None
        varied = {key: config.settings.get(key, value) for key, value in one.varied.items()}  # icl leaves out a default
        by_name.setdefault(name := config.folder_name(), Cell(config, name, varied))
    return list(by_name.values())


def _check_countries(grid: Grid, source: Path) -> None:
    """Raise InputError where ``without`` names a country that the grid lacks."""
    of_arms = itertools.chain(*(arm.countries or () for arm in grid.aligners))
    own = {_code(name) for name in itertools.chain(grid.countries, of_arms)}
    if missing := [name for name in grid.without if _code(name) not in own]:
        raise InputError(f"{source}: without: {missing[0]!r} is no country of the grid. Correct or drop it.")


def _code(name: str | None) -> str | None:
    """Return a country's code, and a name that is no country's as it is: planning its run refuses it."""
    try:
        return country_of(name).code if name else None
    except UsageError:
        return name
