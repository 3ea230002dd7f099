"""A grid of runs by the workers of an engine: what is done is skipped, what fails is tried again, its reason kept."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from ..errors import CultevalError, InputError, did_you_mean
from ..tasks.schema import Strict
from ..tasks.spec import first_problem, parse, read_yaml
from . import log
from .config import RunConfig
from .engines.interface import Engine, Job, Outcome, Resources
from .engines.local import LocalEngine
from .files import write_json
from .planning import plan
from .run import SCORES

STATUS = "sweep.json"
_OWN = {"model", "tasks", "country", "seed", "budget", "aligner", "assignments", "config"}  # fields of the grid
State = Literal["waiting", "running", "done", "failed", "skipped"]


class Arm(Strict):
    """An aligner of a grid, with settings, a budget, countries and seeds of its own where they are given."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)
    budget: int | None = Field(None, ge=0)
    countries: tuple[str, ...] | None = None
    seeds: tuple[int, ...] | None = None


class Grid(Strict):
    """A sweep file: one run for every combination. ``tasks`` entries may be lists, answered by the same run.

    ``without`` names by country the tasks that its runs leave out, such as those that have no figures of it.
    ``options`` are further flags of ``culteval run`` by their parameter names (dtype, readout, respondents, fit ...);
    ``resources`` are those of one worker.
    """

    models: tuple[str, ...] = ("smollm2",)
    aligners: tuple[Arm, ...] = Field(min_length=1)
    tasks: tuple[tuple[str, ...], ...] = Field(min_length=1)
    countries: tuple[str | None, ...] = (None,)
    seeds: tuple[int, ...] = (0,)
    without: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    budget: int = Field(100, ge=0)
    options: dict[str, Any] = Field(default_factory=dict)
    resources: Resources = Resources()

    @field_validator("aligners", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return [{"name": arm} if isinstance(arm, str) else arm for arm in value] if isinstance(value, list) else value

    @field_validator("tasks", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [[task] if isinstance(task, str) else task for task in value] if isinstance(value, list) else value

    def combinations(self) -> Iterator[tuple[str, tuple[str, ...], str | None, int, Arm]]:
        """Model, tasks, country, seed and aligner of every run."""
        countries = dict.fromkeys(itertools.chain(self.countries, *(arm.countries or () for arm in self.aligners)))
        seeds = dict.fromkeys(itertools.chain(self.seeds, *(arm.seeds or () for arm in self.aligners)))
        for model, asked, country, seed, arm in itertools.product(
            self.models, self.tasks, countries, seeds, self.aligners
        ):
            tasks = tuple(task for task in asked if task not in self.without.get(country or "", ()))
            if tasks and country in (arm.countries or self.countries) and seed in (arm.seeds or self.seeds):
                yield model, tasks, country, seed, arm


@dataclass
class Cell:
    """One run of a grid, the name of its folder, and what became of it."""

    config: RunConfig
    name: str
    state: State = "waiting"
    attempts: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)
    cached: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """What ``sweep.json`` keeps."""
        kept = {name: getattr(self.config, name) for name in ("model", "aligner", "country", "seed", "budget")}
        told = {"state": self.state, "attempts": self.attempts, "seconds": round(self.seconds, 1)}
        told |= {"reasons": self.reasons, "cached": self.cached}
        return {"run": self.name, "tasks": self.config.tasks} | kept | told


def read_grid(path: Path) -> Grid:
    """A sweep file.

    Raises:
        InputError: malformed; names line, field and remedy.
    """
    return parse(Grid, read_yaml(path), path)


def cells(grid: Grid, defaults: Mapping[str, Any], source: Path) -> list[Cell]:
    """Every run of a grid, each configuration once, checked before anything is run.

    Args:
        defaults: the flags of ``culteval run`` and their default values.

    Raises:
        InputError: an option that ``run`` does not have, a task in ``without`` that the grid has not, or a combination
            that cannot be run.
    """
    if odd := sorted(set(grid.options) - (set(defaults) - _OWN)):
        raise InputError(f"{source}: options.{odd[0]}: not a flag of `culteval run`, or a field of the file itself.")
    known = set(itertools.chain(*grid.tasks))
    if missing := [name for name in itertools.chain(*grid.without.values()) if name not in known]:
        hint = did_you_mean(missing[0], known)
        raise InputError(f"{source}: without: {missing[0]!r} is no task of the grid.{hint}")
    found: dict[str, Cell] = {}
    for model, tasks, country, seed, arm in grid.combinations():
        budget = grid.budget if arm.budget is None else arm.budget
        flags = dict(defaults) | grid.options
        flags |= {"model": model, "tasks": tasks, "country": country, "seed": seed, "budget": budget}
        flags |= {"aligner": arm.name, "assignments": (), "config": None}
        try:
            config = plan(flags, arm.settings)
        except (CultevalError, ValidationError) as error:
            problem = first_problem(error) if isinstance(error, ValidationError) else error
            place = f"{arm.name}, {', '.join(tasks)}, {country or 'default country'}"
            raise InputError(f"{source}: {place}: {problem}") from None
        found.setdefault(name := config.folder_name(), Cell(config, name))
    return list(found.values())


def run_cells(
    grid: Sequence[Cell],
    root: Path,
    engine: Engine,
    retries: int,
    tell: Callable[[Sequence[Cell]], None],
    cache: Path | None = None,
) -> None:
    """Run every cell that is not done; ``sweep.json`` in ``root`` is kept up to date, and ``tell`` called on news.

    A worker that dies is replaced; its run goes on from its checkpoint. A run that fails is tried ``retries`` times
    more, after the others, and then left, with its reasons. ``cache`` is the folder of cached answers, if they are
    used.
    """
    for cell in grid:
        if (root / cell.name / SCORES).exists():
            cell.state = "skipped"
    waiting = [cell for cell in grid if cell.state == "waiting"]
    idle, running = list(range(engine.workers)), dict[int, Cell]()
    _keep(grid, root, tell)
    while waiting or running:
        while waiting and idle:
            cell = running[worker := idle.pop(0)] = waiting.pop(0)
            cell.state, cell.attempts = "running", cell.attempts + 1
            engine.start(worker, Job(cell.config, root, cache))
            _keep(grid, root, tell)
        for worker, outcome in engine.finished(1.0):
            cell = running.pop(worker)
            idle.append(worker)
            if _settle(cell, outcome, retries):
                waiting.append(cell)
            _keep(grid, root, tell)


def _settle(cell: Cell, outcome: Outcome, retries: int) -> bool:
    """Take an outcome into its cell; whether to try again."""
    cell.seconds, cell.cached = outcome.seconds, outcome.cached
    if outcome.reason is None:
        cell.state = "done"
    else:
        cell.reasons.append(outcome.reason[:2000])
        cell.state = "waiting" if cell.attempts <= retries else "failed"
    log.tell(cell.name, cell.state, attempt=cell.attempts, seconds=round(cell.seconds, 1), reason=outcome.reason)
    return cell.state == "waiting"


def _keep(grid: Sequence[Cell], root: Path, tell: Callable[[Sequence[Cell]], None]) -> None:
    write_json(root / STATUS, [cell.record() for cell in grid])
    tell(grid)


def default_workers() -> int:
    """One: a run uses all processors by itself. More pay on machines with many."""
    return max(1, (os.cpu_count() or 1) // 8)


def engine_of(name: str, grid: Sequence[Cell], resources: Resources, workers: int | None, address: str) -> Engine:
    """The engine of a name, ``local`` or ``ray``, not yet entered. ``workers``: None for the engine's own number."""
    if name == "local":
        return LocalEngine(workers or default_workers(), resources)
    from .engines.ray import RayEngine

    if resources.cpus is None:  # what a run was asked to use, its worker needs
        resources = resources.model_copy(update={"cpus": float(max(cell.config.threads or 1 for cell in grid))})
    return RayEngine(workers, resources, address, any(cell.config.device.startswith("cuda") for cell in grid))
