"""A grid of runs by local workers: what is done is skipped, what fails is tried again and its reason kept."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from ..errors import CultevalError, InputError
from ..tasks.schema import Strict
from ..tasks.spec import first_problem, parse, read_yaml
from .config import RunConfig
from .files import write_json
from .loading import load
from .planning import plan
from .run import SCORES, execute

STATUS = "sweep.json"
_OWN = {"model", "tasks", "country", "seed", "budget", "aligner", "assignments", "config"}  # fields of the grid
State = Literal["waiting", "running", "done", "failed", "skipped"]


class Arm(Strict):
    """An aligner of a grid, with settings and a budget of its own where they are given."""

    name: str
    settings: dict[str, Any] = Field(default_factory=dict)
    budget: int | None = Field(None, ge=0)


class Grid(Strict):
    """A sweep file: one run for every combination. ``tasks`` entries may be lists, answered by the same run.

    ``options`` are further flags of ``culteval run`` by their parameter names (dtype, readout, respondents, fit ...).
    """

    models: tuple[str, ...] = ("smollm2",)
    aligners: tuple[Arm, ...] = Field(min_length=1)
    tasks: tuple[tuple[str, ...], ...] = Field(min_length=1)
    countries: tuple[str | None, ...] = (None,)
    seeds: tuple[int, ...] = (0,)
    budget: int = Field(100, ge=0)
    options: dict[str, Any] = Field(default_factory=dict)

    @field_validator("aligners", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        return [{"name": arm} if isinstance(arm, str) else arm for arm in value] if isinstance(value, list) else value

    @field_validator("tasks", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return [[task] if isinstance(task, str) else task for task in value] if isinstance(value, list) else value


@dataclass
class Cell:
    """One run of a grid, the name of its folder, and what became of it."""

    config: RunConfig
    name: str
    state: State = "waiting"
    attempts: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """What ``sweep.json`` keeps."""
        kept = {name: getattr(self.config, name) for name in ("model", "aligner", "country", "seed", "budget")}
        told = {"state": self.state, "attempts": self.attempts, "seconds": round(self.seconds, 1)}
        return {"run": self.name, "tasks": self.config.tasks} | kept | told | {"reasons": self.reasons}


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
        InputError: an option that ``run`` does not have, or a combination that cannot be run.
    """
    if odd := sorted(set(grid.options) - (set(defaults) - _OWN)):
        raise InputError(f"{source}: options.{odd[0]}: not a flag of `culteval run`, or a field of the file itself.")
    found: dict[str, Cell] = {}
    axes = itertools.product(grid.models, grid.tasks, grid.countries, grid.seeds, grid.aligners)
    for model, tasks, country, seed, arm in axes:
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


class _Quiet:
    """The display of a worker: it says nothing, since the table of the sweep does."""

    def say(self, text: str) -> None:
        """Nothing."""

    def advance(self, label: str, spent: float, allowed: float, best: float | None) -> None:
        """Nothing."""


def _end_with_parent() -> None:
    """In a worker: end at once where the sweep is gone, rather than hold a model and a run's lock for nobody."""

    def watch() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


_held: dict[tuple[Any, ...], Any] = {}  # of a worker process: the one model it keeps for its next run


def _model(config: RunConfig) -> Any:
    """One model a worker; another one is loaded only after it was let go."""
    import gc

    place = (config.model, config.dtype, config.device, config.revision, config.threads, config.api)
    if place not in _held:
        _held.clear()
        gc.collect()
        _held[place] = load(config, lambda text: None)
    return _held[place]


def _work(config: RunConfig, root: Path) -> tuple[float, str | None]:
    """One run in a worker: seconds it took, and why it failed, as text, since not every exception can travel."""
    started, reason = time.monotonic(), None
    try:
        execute(config, root, lambda: _model(config), _Quiet())
    except CultevalError as error:
        reason = str(error)
    except BaseException as error:  # whatever a run dies of is kept, and the sweep goes on
        reason = "".join(traceback.format_exception_only(error)).strip()
    return time.monotonic() - started, reason


def run_cells(
    grid: Sequence[Cell], root: Path, workers: int, retries: int, tell: Callable[[Sequence[Cell]], None]
) -> None:
    """Run every cell that is not done; ``sweep.json`` in ``root`` is kept up to date, and ``tell`` called on news.

    A worker that dies is replaced; its run goes on from its checkpoint. A run that fails is tried ``retries`` times
    more and then left, with its reasons.
    """
    for cell in grid:
        if (root / cell.name / SCORES).exists():
            cell.state = "skipped"
    waiting = [cell for cell in grid if cell.state == "waiting"]
    root.mkdir(parents=True, exist_ok=True)
    while waiting:
        # After a death among several, one at a time: then it is plain whose run kills workers.
        suspected = any("beside it" in reason for cell in waiting for reason in cell.reasons[-1:])
        waiting = list(_round(waiting, grid, root, 1 if suspected else workers, retries, tell))
    _tell(grid, root, tell)


def _round(
    waiting: list[Cell],
    grid: Sequence[Cell],
    root: Path,
    workers: int,
    retries: int,
    tell: Callable[[Sequence[Cell]], None],
) -> Iterator[Cell]:
    """One pool's life: until all is done or a worker dies; yields what is to be tried again."""
    again: list[Cell] = []
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
        jobs: dict[Future[tuple[float, str | None]], Cell] = {}
        queue, changed = list(waiting), True
        try:
            while queue or jobs:
                while queue and len(jobs) < workers:
                    job = pool.submit(_work, queue[0].config, root)  # raises where the pool is broken: nothing is lost
                    cell = jobs[job] = queue.pop(0)
                    cell.state, cell.attempts = "running", cell.attempts + 1
                if changed:
                    _tell(grid, root, tell)
                done, _ = wait(jobs, timeout=1, return_when=FIRST_COMPLETED)
                changed = bool(done)
                alone = len(jobs) == 1
                for job in done:
                    cell = jobs.pop(job)
                    if _settle(cell, job, retries, alone):
                        again.append(cell)
        except BrokenProcessPool:
            pass
        for job, cell in jobs.items():  # a worker died: what was under way is tried again
            if _settle(cell, job, retries, len(jobs) == 1):
                again.append(cell)
        again += queue
    yield from again


def _settle(cell: Cell, job: Future[tuple[float, str | None]], retries: int, alone: bool) -> bool:
    """Take a job's outcome into its cell; whether to try again. ``alone``: no other run was under way."""
    try:
        cell.seconds, reason = job.result(timeout=0)
    except (BrokenProcessPool, TimeoutError, CancelledError):
        reason = "its worker died" if alone else "a worker died beside it"
        cell.attempts -= 0 if alone else 1  # nobody knows whose fault it was
    if reason is None:
        cell.state = "done"
        return False
    cell.reasons.append(reason[:2000])
    cell.state = "waiting" if cell.attempts <= retries else "failed"
    return cell.state == "waiting"


def _tell(grid: Sequence[Cell], root: Path, tell: Callable[[Sequence[Cell]], None]) -> None:
    write_json(root / STATUS, [cell.record() for cell in grid])
    tell(grid)


def default_workers() -> int:
    """One: a run uses all processors by itself. More pay on machines with many."""
    return max(1, (os.cpu_count() or 1) // 8)
