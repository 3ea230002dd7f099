"""Run the cells of a grid by the workers of an executor; failed runs are tried again, and their reasons kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from ...errors import InputError
from ..runs.folder import is_finished
from ..util import event_log as log
from ..util.atomic_io import write_json
from .executors.base import Executor, Job, Outcome, Resources
from .executors.local import LocalExecutor
from .grid import Cell
from .status import STATUS, read_rows


def run_cells(
    grid: Sequence[Cell],
    root: Path,
    executor: Executor,
    retries: int,
    tell: Callable[[Sequence[Cell]], None],
    cache: Path | None = None,
) -> None:
    """Run every cell that is not finished and keep ``sweep.json`` in ``root`` up to date.

    A worker that dies is replaced, and its run resumes from its checkpoint. A failed run is retried after the others.
    Attempts, seconds and errors of earlier calls stay in ``sweep.json``, also those of runs outside this grid.

    Args:
        executor: the executor of the runs.
        retries: retries of a failed run.
        tell: called with the cells after every change.
        cache: folder of cached answers; None to use no cache.

    Raises:
        InputError: a damaged ``sweep.json``.
    """
    stored = read_rows(root)
    for cell in grid:
        if cell.name in stored:
            cell.take(stored[cell.name])
        look(cell, root)

    def keep() -> None:
        _store(grid, root)
        tell(grid)

    waiting = [cell for cell in grid if cell.state == "waiting"]
    idle, running = list(range(executor.workers)), dict[int, Cell]()
    keep()
    while waiting or running:
        while waiting and idle:
            cell = running[worker := idle.pop(0)] = waiting.pop(0)
            cell.state, cell.tries, cell.attempts = "running", cell.tries + 1, cell.attempts + 1
            executor.start(worker, Job(cell.config, root, cache))
            keep()
        for worker, outcome in executor.finished(1.0):
            cell = running.pop(worker)
            idle.append(worker)
            if _settle(cell, outcome, retries):
                waiting.append(cell)
            keep()


def _store(grid: Sequence[Cell], root: Path) -> None:
    """Replace the rows of these cells in ``sweep.json``; those of other sweeps, which may be running, stay.

    Raises:
        InputError: a damaged ``sweep.json``.
    """
    from filelock import FileLock

    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / f".{STATUS}.lock"):
        own = {cell.name for cell in grid}
        others = [row.model_dump(mode="json") for name, row in read_rows(root).items() if name not in own]
        write_json(root / STATUS, [cell.record() for cell in grid] + others)


def look(cell: Cell, root: Path) -> None:
    """Mark a finished run as skipped, and a damaged one as failed, since a retry would not repair it."""
    try:
        if is_finished(root / cell.name):
            cell.state = "skipped"
    except (InputError, OSError) as error:
        cell.state = "failed"
        cell.blame(str(error))


def _settle(cell: Cell, outcome: Outcome, retries: int) -> bool:
    """Record an outcome in its cell and return whether to retry it."""
    cell.seconds, cell.cached = cell.seconds + outcome.seconds, outcome.cached
    if outcome.reason is None:
        cell.state = "done"
    else:
        cell.blame(outcome.reason)
        cell.state = "waiting" if cell.tries <= retries else "failed"
    log.tell(cell.name, cell.state, attempt=cell.attempts, seconds=round(outcome.seconds, 1), reason=outcome.reason)
    return cell.state == "waiting"


def default_workers() -> int:
    """Return one worker for every eight processors and at least one, since one run uses several processors."""
    return max(1, (os.cpu_count() or 1) // 8)


def executor_of(name: str, grid: Sequence[Cell], resources: Resources, workers: int | None, address: str) -> Executor:
    """Make the executor of a name, ``local`` or ``ray``, not yet entered; ``workers`` None takes its default."""
    if name == "local":
        return LocalExecutor(workers or default_workers(), resources)
    from .executors.ray import RayExecutor

    if resources.cpus is None:  # a worker needs as many processors as its run has threads
        resources = resources.model_copy(update={"cpus": float(max(cell.config.threads or 1 for cell in grid))})
    return RayExecutor(workers, resources, address, any(cell.config.device.startswith("cuda") for cell in grid))
