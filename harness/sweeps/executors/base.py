"""Interface of executors, whose workers execute the runs of a sweep, with their jobs and outcomes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from pydantic import Field, field_validator

from ....tasks.schema import Strict
from ...runs.config import RunConfig


class Resources(Strict):
    """The resources of one worker: processors, which are its threads too, and graphics cards, also in fractions."""

    cpus: float | None = Field(None, gt=0, le=4096)
    gpus: float | None = Field(None, ge=0, le=64)

    @field_validator("cpus", "gpus")
    @classmethod
    def _whole_above_one(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError("a number above 1 must be whole")
        return value

    @property
    def threads(self) -> int | None:
        """Return the threads of torch; None where no processors are given."""
        return None if self.cpus is None else max(1, int(self.cpus))


@dataclass(frozen=True)
class Job:
    """One run for a worker: its configuration, the folder of runs, and the folder of cached answers, if used."""

    config: RunConfig
    root: Path
    cache: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """The outcome of a run: its seconds, the reason of a failure (None on success), tasks with cached answers."""

    seconds: float
    reason: str | None
    cached: tuple[str, ...] = ()


class Executor(Protocol):
    """Executor with workers 0 to ``workers`` - 1, each of which executes one run at a time and keeps its model.

    Runs write their results to their folders; only an ``Outcome`` is returned. Leaving the context ends all workers at
    once; an interrupted run can resume from its checkpoint.
    """

    workers: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: object) -> None: ...

    def start(self, worker: int, job: Job) -> None:
        """Start a run on an idle worker; a worker that has died is replaced."""

    def finished(self, seconds: float) -> list[tuple[int, Outcome]]:
        """Return the workers whose runs ended, with or without success; wait up to ``seconds`` for one."""
