"""What carries out a sweep's runs: workers, here or on a cluster, and what goes to them and comes back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from pydantic import Field, field_validator

from ....tasks.schema import Strict
from ...runs.config import RunConfig


class Resources(Strict):
    """What one worker takes: processors, which are its threads too, and graphics cards; parts of one are allowed."""

    cpus: float | None = Field(None, gt=0, le=4096)
    gpus: float | None = Field(None, ge=0, le=64)

    @field_validator("cpus", "gpus")
    @classmethod
    def _whole_above_one(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError("above 1 it is a whole number")
        return value

    @property
    def threads(self) -> int | None:
        """Threads of torch, where processors are given."""
        return None if self.cpus is None else max(1, int(self.cpus))


@dataclass(frozen=True)
class Job:
    """One run for a worker: its configuration, the folder that runs go to, and that of cached answers, if any."""

    config: RunConfig
    root: Path
    cache: Path | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a run: seconds it took, why it failed (None: it did not), tasks whose answers were cached."""

    seconds: float
    reason: str | None
    cached: tuple[str, ...] = ()


class Engine(Protocol):
    """Workers numbered from 0 to ``workers``, each of which does one run at a time and keeps its model for the next.

    Runs leave their results in their folders; only an ``Outcome`` comes back. On leaving the context the workers end,
    whatever they are doing: a run goes on from its checkpoint another time.
    """

    workers: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *failure: object) -> None: ...

    def start(self, worker: int, job: Job) -> None:
        """Give an idle worker a run. A worker that died before is replaced."""

    def finished(self, seconds: float) -> list[tuple[int, Outcome]]:
        """Workers that ended their run, well or not, since the last call; waits so long for one."""
