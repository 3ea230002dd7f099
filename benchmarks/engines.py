"""The same sweep on two executors: two local workers, and two actors of a local Ray, including start and end."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from culteval.harness.submissions.manifest import SUBMISSION
from culteval.harness.sweeps.executors.base import Resources
from culteval.harness.sweeps.grid import Arm, Grid, cells
from culteval.harness.sweeps.scheduler import executor_of, run_cells

from .common import Row, Settings, ratio, say

WORKERS = 2
ENGINES = ("local", "ray")


def measure(settings: Settings, budget: int = 20, countries: tuple[str, ...] = ("SA", "US", "CN", "IN")) -> list[Row]:
    """Measure rows of each dtype, in wall-clock and processor time; ``seconds`` is Ray's, ``seconds_peer`` local's."""
    return [row for dtype in settings.dtypes for row in _measure(settings, dtype, budget, countries)]


@dataclass(frozen=True)
class _Taken:
    """One sweep: wall-clock seconds and processor seconds of all its processes.

    ``idle`` seconds are before and after runs.
    """

    clock: float
    worked: float
    idle: float
    answers: dict[str, bytes]


def _measure(settings: Settings, dtype: str, budget: int, countries: tuple[str, ...]) -> list[Row]:
    options = {"dtype": dtype, "threads": settings.threads or 1}
    arms = (Arm(name="naive"), Arm(name="random"))
    grid = Grid(
        models=(settings.model,),
        aligners=arms,
        tasks=(("vsm13",),),
        countries=countries,
        budget=budget,
        options=options,
    )
    taken: dict[str, list[_Taken]] = {name: [] for name in ENGINES}
    for turn in range(settings.repeats):
        for name in ENGINES:
            say(f"engines, {dtype}: {name}, {turn + 1} of {settings.repeats}")
            taken[name].append(_sweep(name, grid))
    same = all(one.answers == taken["local"][0].answers for rounds in taken.values() for one in rounds)
    runs = f"{len(taken['local'][0].answers)} runs, {WORKERS} workers; answers {'equal' if same else 'DIFFER'}"
    rows = []
    for name, field in (("clock", "clock"), ("processors", "worked")):
        local, ray = ([getattr(one, field) for one in taken[executor]] for executor in ENGINES)
        note = runs if field == "worked" else _starts(taken)
        seconds = {"seconds": statistics.median(ray), "seconds_peer": statistics.median(local)}
        rows.append(Row(name=name, dtype=dtype, ratio=ratio(local, ray), note=note, **seconds))
    return rows


def _sweep(name: str, grid: Grid) -> _Taken:
    planned = cells(grid, Path("engines"))
    with TemporaryDirectory() as temporary:
        root, started = Path(temporary), time.perf_counter()
        with executor_of(name, planned, Resources(), WORKERS, "local") as executor:
            entered = time.perf_counter()
            run_cells(planned, root, executor, 0, lambda now: None)
            ended, worked = time.perf_counter(), _worked()
        left = time.perf_counter()
        if broken := [cell for cell in planned if cell.state != "done"]:
            raise RuntimeError(f"{name}: {broken[0].name}: {broken[0].reasons}")
        answers = {cell.name: (root / cell.name / SUBMISSION / "answers.jsonl.zst").read_bytes() for cell in planned}
    return _Taken(left - started, worked, entered - started + left - ended, answers)


def _worked() -> float:
    """Sum the processor seconds of all running child processes."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return sum(one.user + one.system for one in times)


def _starts(taken: dict[str, list[_Taken]]) -> str:
    return "; ".join(
        f"{name} starts and ends in {statistics.median(one.idle for one in rounds):.1f} s"
        for name, rounds in taken.items()
    )
