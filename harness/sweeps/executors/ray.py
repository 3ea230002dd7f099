"""Executor on a cluster of Ray, with actors that keep a model. Optional: ``pip install culteval[ray]``.

Runs write their own folders, so every node must see the output folder under the same path. Ray's object store has
configurations and outcomes of about a kilobyte only; each worker reads the weights from disk.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

from ....errors import RunError, UnavailableError, UsageError
from .base import Job, Outcome, Resources

_STORE = 80 << 20  # bytes of the object store of a cluster started here, about the least that Ray accepts
_PASSED = ("CULTEVAL_", "HF_", "TRANSFORMERS_")  # prefixes of the variables that workers on other nodes need


class RayExecutor:
    """Executor with actors of a cluster.

    Args:
        workers: their number; None for as many as the cluster has slots for.
        resources: of each worker; by default one processor and, if ``cuda``, one card.
        address: of a running cluster (``auto`` or ``HOST:6379``), or ``local`` to start one here.
    """

    def __init__(self, workers: int | None, resources: Resources, address: str, cuda: bool) -> None:
        self._requested, self._address = workers, address
        self._cpus = 1.0 if resources.cpus is None else resources.cpus
        self._gpus = float(cuda) if resources.gpus is None else resources.gpus
        self.workers = 0
        self._actors: dict[int, Any] = {}
        self._running: dict[Any, int] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Ray reports dead workers on standard output, which must have results only; outcomes have the reason.
            silence = stack.enter_context(Path(os.devnull).open("w"))
            stack.enter_context(contextlib.redirect_stdout(silence))
            self._ray = _connected(self._address)
            stack.callback(self._ray.shutdown)  # ends the actors of this sweep, and a cluster that it started
            self.workers = self._fitting()
            self._open = stack.pop_all()
        return self

    def __exit__(self, *failure: object) -> None:
        self._open.close()
        self._actors.clear()
        self._running.clear()

    def _fitting(self) -> int:
        """Return the requested number of workers, or the number of slots.

        Raises:
            UsageError: fewer slots than requested workers. RunError: no slot.
        """
        slots = room((node["Resources"] for node in self._ray.nodes() if node["Alive"]), self._cpus, self._gpus)
        needs = f"{self._cpus:g} processors and {self._gpus:g} cards each"
        remedy = "Give a worker less (`resources:` in the sweep file), or add nodes."
        if not slots:
            raise RunError(f"no node of the cluster has room for a worker ({needs}). {remedy}")
        if self._requested and self._requested > slots:
            raise UsageError(f"`workers` {self._requested}: the cluster has room for {slots} ({needs}). {remedy}")
        return self._requested or slots

    def start(self, worker: int, job: Job) -> None:
        """Start a run on an idle worker; see ``Executor``."""
        if worker not in self._actors:
            environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
            threads = str(max(1, int(self._cpus)))
            kind = self._ray.remote(num_cpus=self._cpus, num_gpus=self._gpus)(_Worker)
            self._actors[worker] = kind.remote(os.getcwd(), environment | {"OMP_NUM_THREADS": threads})
        self._running[self._actors[worker].work.remote(job)] = worker

    def finished(self, seconds: float) -> list[tuple[int, Outcome]]:
        """Return the workers whose runs ended; see ``Executor``."""
        self._ray.wait(list(self._running), timeout=seconds)
        done, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        return [self._outcome(reference) for reference in done]

    def _outcome(self, reference: Any) -> tuple[int, Outcome]:
        worker = self._running.pop(reference)
        try:
            return worker, self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._actors.pop(worker)
            last = str(error).strip().splitlines()[-1][:300]
            return worker, Outcome(0.0, f"its worker died ({type(error).__name__}: {last})")


class _Worker:
    """Actor that executes runs in the working folder of the sweep, where the user's own tasks are found."""

    def __init__(self, folder: str, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)  # before torch and the hub's client are imported
        self._folder = folder

    def work(self, job: Job) -> Outcome:
        """Execute a run if this node has the folders; otherwise return a failure."""
        for folder in (Path(self._folder), job.root):
            if not folder.is_dir():
                reason = f"{socket.gethostname()} has no {folder}: all nodes must share that folder. Move `out`."
                return Outcome(0.0, reason)
        os.chdir(self._folder)
        from .worker import work

        return work(job)


def room(nodes: Iterable[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """Compute the slots of workers on nodes of these resources; no worker spans two nodes."""
    wanted = {"CPU": cpus, "GPU": gpus}
    return sum(min(int(node.get(kind, 0) / size + 1e-9) for kind, size in wanted.items() if size) for node in nodes)


def _connected(address: str) -> Any:
    """Connect to a cluster and return the module ``ray``.

    Raises:
        UnavailableError: Ray is not installed, or no cluster answers.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry from a cluster started here
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UnavailableError("Ray is not installed. `pip install culteval[ray]`, or use `executor` local.") from None
    own: dict[str, Any] = {"object_store_memory": _STORE, "include_dashboard": False} if address == "local" else {}
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself waits for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (RuntimeError, ValueError, OverflowError, OSError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UnavailableError(
            f"`address` {address}: no cluster of Ray answers ({line}).\n"
            "Start one with `ray start --head`, or leave --address out for one on this machine."
        ) from None
    return ray
