"""Workers on a cluster of Ray: actors that hold a model. Optional: ``pip install culteval[ray]``.

Runs write their folders themselves, so every node has to see the output folder under the same path. Ray's object store
carries configurations and outcomes of a kilobyte; weights are read from disk, where the nodes' page caches share them.
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

_STORE = 80 << 20  # bytes of the object store of a cluster of our own, about the least Ray takes
_PASSED = ("CULTEVAL_", "HF_", "TRANSFORMERS_")  # variables that a worker on another node needs too


class RayEngine:
    """Actors of a cluster.

    Args:
        workers: how many; None means as many as the cluster has room for.
        resources: of each; a processor and, where ``cuda`` is set, a card if nothing is said.
        address: of a running cluster (``auto`` or ``HOST:6379``), or ``local`` to start one here.
    """

    def __init__(self, workers: int | None, resources: Resources, address: str, cuda: bool) -> None:
        self._asked, self._address = workers, address
        self._cpus = 1.0 if resources.cpus is None else resources.cpus
        self._gpus = float(cuda) if resources.gpus is None else resources.gpus
        self.workers = 0
        self._actors: dict[int, Any] = {}
        self._running: dict[Any, int] = {}

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            # Ray tells of dead workers on standard output, which is ours for results; outcomes have the reason.
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
        """Workers asked for, or as many as fit.

        Raises:
            UsageError: more than fit. RunError: not even one fits.
        """
        fit = room((node["Resources"] for node in self._ray.nodes() if node["Alive"]), self._cpus, self._gpus)
        each = f"{self._cpus:g} processors and {self._gpus:g} cards each"
        remedy = "Give a worker less (`resources:` in the sweep file), or add nodes."
        if not fit:
            raise RunError(f"no node of the cluster has room for a worker ({each}). {remedy}")
        if self._asked and self._asked > fit:
            raise UsageError(f"`workers` {self._asked}: the cluster has room for {fit} ({each}). {remedy}")
        return self._asked or fit

    def start(self, worker: int, job: Job) -> None:
        """Give an idle worker a run; see ``Engine``."""
        if worker not in self._actors:
            environment = {name: value for name, value in os.environ.items() if name.startswith(_PASSED)}
            threads = str(max(1, int(self._cpus)))
            kind = self._ray.remote(num_cpus=self._cpus, num_gpus=self._gpus)(_Worker)
            self._actors[worker] = kind.remote(os.getcwd(), environment | {"OMP_NUM_THREADS": threads})
        self._running[self._actors[worker].work.remote(job)] = worker

    def finished(self, seconds: float) -> list[tuple[int, Outcome]]:
        """Workers that ended their run; see ``Engine``."""
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
    """An actor. It works where the sweep was started, since tasks of one's own are found from there."""

    def __init__(self, folder: str, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)  # before torch and the hub's client are imported
        self._folder = folder

    def work(self, job: Job) -> Outcome:
        """Carry out a run, if this node sees the folders."""
        for folder in (Path(self._folder), job.root):
            if not folder.is_dir():
                reason = f"{socket.gethostname()} has no {folder}: all nodes must share that folder. Move `out`."
                return Outcome(0.0, reason)
        os.chdir(self._folder)
        from .worker import work

        return work(job)


def room(nodes: Iterable[Mapping[str, float]], cpus: float, gpus: float) -> int:
    """How many workers fit into nodes of these resources; no worker spans two nodes."""
    wanted = {"CPU": cpus, "GPU": gpus}
    return sum(min(int(node.get(kind, 0) / size + 1e-9) for kind, size in wanted.items() if size) for node in nodes)


def _connected(address: str) -> Any:
    """The module ``ray``, connected.

    Raises:
        UnavailableError: Ray is not installed, or no cluster answers.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # no telemetry from a cluster that we start
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise UnavailableError("Ray is not installed. `pip install culteval[ray]`, or use `executor` local.") from None
    own: dict[str, Any] = {"object_store_memory": _STORE, "include_dashboard": False} if address == "local" else {}
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself asks for minutes
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
    except (RuntimeError, ValueError, OverflowError, OSError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        raise UnavailableError(
            f"`address` {address}: no cluster of Ray answers ({line}).\n"
            "Start one with `ray start --head`, or leave --address out for one on this machine."
        ) from None
    return ray
