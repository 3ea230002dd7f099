"""Checks of the machine that models run on: packages, processors, memory, cache, disk, network, embedded model."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal
from urllib import request

from ..models.embedded import EMBEDDED, damaged
from ..util.environment import PACKAGES, processor
from ..util.paths import cache_dir
from .answer_cache import AnswerCache, answers_folder

LEAST_DISK = 2 << 30  # bytes, more than fetching the embedded model needs
LEAST_MEMORY = 2 << 30

State = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Check:
    """The result of one check: ``ok``, a ``note`` (something optional is missing) or ``bad``."""

    name: str
    state: State
    found: str
    remedy: str = ""


def examine(network: bool) -> Iterator[Check]:
    """Run every check; a request, to the model hub, is made with ``network`` only."""
    torch = (_threads, _card) if importlib.util.find_spec("torch") else (_no_torch,)
    for check in (_packages, _processor, *torch, _memory, _cache, _disk, _ray, _network if network else _offline):
        yield check()
    yield from _embedded()


def _no_torch() -> Check:
    return Check("torch", "note", "not installed", "Only running models here needs it: pip install culteval[local]")


def _packages() -> Check:
    """Check the installed versions against the requirements of this package."""
    from packaging.requirements import Requirement

    shown = ", ".join([f"python {platform.python_version()}", *(f"{name} {_version(name)}" for name in PACKAGES)])
    try:
        requirements = [Requirement(line) for line in requires("culteval") or ()]
    except PackageNotFoundError:
        return Check(
            "versions", "note", shown, "Install the package, so that its requirements are known: pip install ."
        )
    wrong = []
    for one in requirements:
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            installed = _version(one.name)
            if installed == "missing" or not one.specifier.contains(installed, prereleases=True):
                wrong.append(f"{one.name} {installed}, not {one.specifier}")
    if wrong:
        return Check(
            "versions", "bad", "; ".join(wrong), "pip install -c constraints.txt . installs the tested versions."
        )
    return Check("versions", "ok", shown)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _processor() -> Check:
    return Check("processor", "ok", f"{processor()}, {_cores()} of {os.cpu_count()} processors may be used")


def _cores() -> int:
    """Count the processors that this process may use, within the limits of a batch system or container."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads() -> Check:
    import torch

    threads = torch.get_num_threads()
    if threads > _cores():
        remedy = f"Set OMP_NUM_THREADS={_cores()}, or give runs --threads {_cores()}."
        return Check("threads", "bad", f"{threads}, more than the {_cores()} processors that may be used", remedy)
    return Check("threads", "ok", f"{threads} (OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')})")


def _card() -> Check:
    import torch

    if not torch.cuda.is_available():
        return Check("graphics card", "ok", "none that torch can use; --device cpu")
    cards = (torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count()))
    return Check("graphics card", "ok", ", ".join(f"{card.name}, {_bytes(card.total_memory)}" for card in cards))


def _memory() -> Check:
    """Check the memory that Linux reports as available; on other systems it is not known."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = 1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1])
    except (OSError, StopIteration, ValueError):
        return Check("memory", "ok", "not known on this system")
    state: State = "ok" if free >= LEAST_MEMORY else "bad"
    return Check("memory", state, f"{_bytes(free)} free", "" if state == "ok" else "End other work: 2 GB are needed.")


def _cache() -> Check:
    folder = cache_dir()
    there = _existing(folder)
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Check("cache", "bad", f"{folder}: cannot be written", "Set CULTEVAL_CACHE to a folder of yours.")
    cache = AnswerCache(answers_folder(), print)
    return Check("cache", "ok", f"{folder}: {len(cache.entries())} sets of answers, {_bytes(cache.size())}")


def _existing(folder: Path) -> Path:
    """Return the folder, or its nearest existing parent."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def _disk() -> Check:
    places = {"cache": cache_dir(), "here": Path.cwd()}
    free = {name: shutil.disk_usage(_existing(place)).free for name, place in places.items()}
    found = ", ".join(f"{name} {_bytes(size)} free" for name, size in free.items())
    if min(free.values()) < LEAST_DISK:
        return Check("disk", "bad", found, "Free 2 GB, or move: CULTEVAL_CACHE for the cache, --out for runs.")
    return Check("disk", "ok", found)


def _ray() -> Check:
    if importlib.util.find_spec("ray") is None:
        return Check("ray", "note", "not installed", "Only `sweep --executor ray` needs it: pip install culteval[ray]")
    return Check("ray", "ok", _version("ray"))


def _offline() -> Check:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    found = "HF_HUB_OFFLINE is set: the model hub is never asked" if offline else "not tried (--network tries it)"
    return Check("network", "ok", found)


def _network() -> Check:
    """Request the headers of the hub's address; proxies of the environment are used."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    try:
        with request.urlopen(request.Request(ENDPOINT, method="HEAD"), timeout=5) as answer:
            found = f"{ENDPOINT} answers ({answer.status})"
    except (OSError, ValueError) as error:
        remedy = "Set HF_HUB_OFFLINE=1 to save the waiting; the embedded model and folders need no network."
        return Check("network", "note", f"{ENDPOINT}: {getattr(error, 'reason', error)}", remedy)
    return Check("network", "ok", f"{found}, but HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else found)


def _embedded() -> Iterator[Check]:
    """Check the files of the embedded models that were fetched against their stored hashes; nothing is fetched."""
    for name, model in EMBEDDED.items():
        row, problem = f"model {name}", damaged(name)
        if problem is None:
            yield Check(row, "ok", f"{model.name}, weights as they were made")
        elif problem:
            yield Check(row, "bad", problem, f"`culteval cache drop {name}` removes it; the next run makes it anew.")
        else:
            size = f"{model.parts.size / 1e6:,.0f} MB"
            yield Check(row, "note", "not fetched yet", f"The first run with it fetches it ({size}), once.")


def _bytes(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:.1f} MiB"
