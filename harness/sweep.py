"""A grid of runs by local workers: what is done is skipped, what fails is tried again and its reason kept."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from ..errors import CultevalError, InputError
from ..tasks.schema import Strict
from ..tasks.spec import parse, read_yaml
from .config import RunConfig
from .files import write_json
from .planning import plan
from .run import SCORES, execute

STATUS = "sweep.json"
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
    """One run of a grid and what became of it."""

    config: RunConfig
    state: State = "waiting"
    attempts: int = 0
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """What ``sweep.json`` keeps."""
        kept = {name: getattr(self.config, name) for name in ("model", "aligner", "country", "seed", "budget")}
        told = {"state": self.state, "attempts": self.attempts, "seconds": round(self.seconds, 1)}
        return {"run": self.config.folder_name(), "tasks": self.config.tasks} | kept | told | {"reasons": self.reasons}


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
    if odd := sorted(set(grid.options) - set(defaults)):
        raise InputError(f"{source}: options.{odd[0]}: not a flag of `culteval run`.")
    found: dict[str, Cell] = {}
    axes = itertools.product(grid.models, grid.tasks, grid.countries, grid.seeds, grid.aligners)
    for model, tasks, country, seed, arm in axes:
        budget = grid.budget if arm.budget is None else arm.budget
        flags = dict(defaults) | grid.options
        flags |= {"model": model, "tasks": tasks, "country": country, "seed": seed, "budget": budget}
        flags |= {"aligner": arm.name, "assignments": (), "config": None}
        try:
            config = plan(flags, arm.settings)
        except CultevalError as error:
            raise InputError(
                f"{source}: {arm.name}, {', '.join(tasks)}, {country or 'default country'}: {error}"
            ) from None
        found.setdefault(config.folder_name(), Cell(config))
    return list(found.values())


class _Quiet:
    """The display of a worker: it says nothing, since the table of the sweep does."""

    def say(self, text: str) -> None:
        """Nothing."""

    def advance(self, label: str, spent: float, allowed: float, best: float | None) -> None:
        """Nothing."""


@lru_cache(maxsize=1)
def _model(name: str, dtype: str, device: str, revision: str | None, threads: int | None) -> Any:
    """One model a worker, kept for its next run."""
    import contextlib
    import io

    from .models import load_model

    with contextlib.redirect_stdout(io.StringIO()):
        return load_model(name, dtype, device, revision, threads, lambda text: None)


def _work(config: RunConfig, root: Path) -> float:
    """One run in a worker; seconds it took."""
    started = time.monotonic()
    place = (config.model, config.dtype, config.device, config.revision, config.threads)
    execute(config, root, lambda: _model(*place), _Quiet())
    return time.monotonic() - started


def run_cells(
    grid: Sequence[Cell], root: Path, workers: int, retries: int, tell: Callable[[Sequence[Cell]], None]
) -> None:
    """Run every cell that is not done; ``sweep.json`` in ``root`` is kept up to date, and ``tell`` called on news.

    A worker that dies is replaced; its run goes on from its checkpoint. A run that fails is tried ``retries`` times
    more and then left, with its reasons.
    """
    for cell in grid:
        if (root / cell.config.folder_name() / SCORES).exists():
            cell.state = "skipped"
    waiting = [cell for cell in grid if cell.state == "waiting"]
    root.mkdir(parents=True, exist_ok=True)
    while waiting:
        waiting = list(_round(waiting, grid, root, workers, retries, tell))
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
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        jobs: dict[Future[float], Cell] = {}
        queue = list(waiting)
        try:
            while queue or jobs:
                while queue and len(jobs) < workers:
                    job = pool.submit(_work, queue[0].config, root)  # raises where the pool is broken: nothing is lost
                    cell = jobs[job] = queue.pop(0)
                    cell.state, cell.attempts = "running", cell.attempts + 1
                _tell(grid, root, tell)
                done, _ = wait(jobs, timeout=1, return_when=FIRST_COMPLETED)
                for job in done:
                    cell = jobs.pop(job)
                    if _settle(cell, job, retries):
                        again.append(cell)
        except BrokenProcessPool:
            pass
        for job, cell in jobs.items():  # a worker died: nobody knows which run it was, so all of them are tried again
            if _settle(cell, job, retries):
                again.append(cell)
        again += queue
    yield from again


def _settle(cell: Cell, job: Future[float], retries: int) -> bool:
    """Take a job's outcome into its cell; whether to try again."""
    try:
        cell.seconds, cell.state = job.result(timeout=0), "done"
        return False
    except (BrokenProcessPool, TimeoutError):
        reason = "its worker died"
    except CultevalError as error:
        reason = str(error)
    except Exception as error:  # whatever a run dies of is kept, and the sweep goes on
        reason = "".join(traceback.format_exception_only(error)).strip()
    cell.reasons.append(reason[:2000])
    cell.state = "waiting" if cell.attempts <= retries else "failed"
    return cell.state == "waiting"


def _tell(grid: Sequence[Cell], root: Path, tell: Callable[[Sequence[Cell]], None]) -> None:
    write_json(root / STATUS, [cell.record() for cell in grid])
    tell(grid)


def default_workers() -> int:
    """One: a run uses all processors by itself. More pay on machines with many."""
    return max(1, (os.cpu_count() or 1) // 8)
