"""Local executor: workers are spawned processes of this machine, connected by pipes."""

from __future__ import annotations

import multiprocessing
import os
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Self

from .base import Job, Outcome, Resources


@dataclass
class _Worker:
    """A process, the parent's end of its pipe, and whether it executes a run."""

    process: SpawnProcess
    pipe: Connection
    busy: bool = False

    def end(self) -> None:
        """End the process: an idle one ends when the pipe closes, a busy one is killed."""
        self.pipe.close()
        if self.busy:
            self.process.kill()
        self.process.join()


class LocalExecutor:
    """Executor with processes of this machine; ``resources.cpus`` are the threads of a worker, cards are ignored."""

    def __init__(self, workers: int, resources: Resources) -> None:
        self.workers, self._threads = workers, resources.threads
        self._context = multiprocessing.get_context("spawn")
        self._at: dict[int, _Worker] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        for worker in self._at.values():
            worker.end()
        self._at.clear()

    def start(self, worker: int, job: Job) -> None:
        """Start a run on an idle worker; see ``Executor``."""
        if worker in self._at and not self._at[worker].process.is_alive():  # it died while idle
            self._at.pop(worker).end()
        if worker not in self._at:
            self._at[worker] = self._spawn()
        self._at[worker].pipe.send(job)
        self._at[worker].busy = True

    def _spawn(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_serve, args=(theirs, self._threads))
        process.start()
        theirs.close()  # so that the parent reads the end of file when the process has ended
        return _Worker(process, ours)

    def finished(self, seconds: float) -> list[tuple[int, Outcome]]:
        """Return the workers whose runs ended; see ``Executor``."""
        pipes = {number: worker.pipe for number, worker in self._at.items() if worker.busy}
        ready = wait(list(pipes.values()), seconds)
        return [(number, self._outcome(number)) for number, pipe in pipes.items() if pipe in ready]

    def _outcome(self, number: int) -> Outcome:
        worker = self._at[number]
        try:
            outcome = worker.pipe.recv()
        except (EOFError, ConnectionResetError):
            self._at.pop(number).end()
            return Outcome(0.0, f"its worker died (exit code {worker.process.exitcode})")
        worker.busy = False
        return outcome


def _serve(pipe: Connection, threads: int | None) -> None:
    """Execute the runs that come through the pipe until it closes."""
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from .worker import work

    try:
        while True:
            pipe.send(work(pipe.recv()))
    except (EOFError, KeyboardInterrupt, OSError):
        return


def _end_with_parent() -> None:
    """End this process when the sweep's process ends, so that it frees its model and the lock of its run."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers are started by a sweep"
    parent.join()
    os._exit(1)
