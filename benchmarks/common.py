"""Common parts of all benchmarks: settings, rows, paired timings, the model's folder, memory of a separate process."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from culteval.errors import CultevalError
from culteval.harness.registry import find, table
from pydantic import BaseModel, ConfigDict


class Command(click.Command):
    """A command that prints an error of culteval in a line, with its exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and convert culteval's errors to click's."""
        try:
            return super().invoke(ctx)
        except CultevalError as error:
            shown = click.ClickException(str(error))
            shown.exit_code = error.exit_code
            raise shown from None


@dataclass(frozen=True)
class Settings:
    """The settings from the command line: ``llama`` is a Python with llama-cpp-python, ``gguf`` the model's file."""

    model: str = "smollm2"
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    repeats: int = 5
    threads: int | None = None
    device: str = "cpu"
    out: Path | None = None
    minutes: float = 7
    llama: Path | None = None
    gguf: Path | None = None


class Row(BaseModel):
    """One measurement; null where a figure does not apply.

    ``ratio`` is the median of the peer's seconds over ours, pair by pair; ``floor_share`` the floor's seconds over
    ours; ``max_abs_diff`` the largest absolute difference of an option's log-likelihood.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    dtype: str | None = None
    seconds: float | None = None
    seconds_peer: float | None = None
    ratio: float | None = None
    floor_share: float | None = None
    max_abs_diff: float | None = None
    note: str = ""


def say(text: str) -> None:
    """Print progress on standard error."""
    click.echo(text, err=True)


def wall(work: Callable[[], Any]) -> float:
    """Measure wall-clock seconds, with the accelerator's queue emptied before and after."""
    _synchronise()
    start = time.perf_counter()
    work()
    _synchronise()
    return time.perf_counter() - start


def _synchronise() -> None:
    if torch := _torch_on_cuda():
        torch.cuda.synchronize()


def _torch_on_cuda() -> Any:
    """Return the torch module if it is loaded and has used an accelerator."""
    torch = sys.modules.get("torch")
    return torch if torch and torch.cuda.is_initialized() else None


def alternate(
    works: Mapping[str, Callable[[], Any]],
    repeats: int,
    timer: Callable[[Callable[[], Any]], float] = wall,
    seconds: float = math.inf,
) -> dict[str, list[float]]:
    """Measure the seconds of each work in rounds A B C, A B C, ..., so that drift affects all equally.

    A round before the first is the warm-up. There are ``repeats`` rounds, fewer if another one would not end within
    ``seconds``, and always one.
    """
    start = time.perf_counter()
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for done in range(repeats):
        spent = time.perf_counter() - start
        if done and spent * (done + 2) / (done + 1) > seconds:
            break
        for name, work in works.items():
            times[name].append(timer(work))
    return times


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Compute the median of pairwise ratios of two alternating series."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def source_of(model: str) -> str:
    """Return the folder of a registered model; any other name unchanged."""
    return str(find("models", model)()) if model in table("models") else model


def peak_of(function: Callable[..., Any], *arguments: Any) -> int:
    """Measure the peak memory in bytes of a call in a separate process, including loading.

    The device's, else resident.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_here, function, arguments).result()


def _peak_here(function: Callable[..., Any], arguments: Sequence[Any]) -> int:
    function(*arguments)
    if torch := _torch_on_cuda():
        return torch.cuda.max_memory_allocated()
    # Not getrusage: ru_maxrss of a new process starts at what its parent held.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])
