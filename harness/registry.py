"""Names to things: our own aligners, tasks and models enter as lazy "module:Name" strings, plug-ins as entry points."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from ..errors import UsageError, did_you_mean

Row = TypeVar("Row")

_OWN = {
    "aligners": {
        "naive": "culteval.optimizers.naive:Naive",
        "icl": "culteval.optimizers.icl:InContext",
        "random": "culteval.optimizers.random_search:RandomSearch",
        "de": "culteval.optimizers.de:DifferentialEvolutionPrompt",
    },
    "tasks": {"vsm13": "culteval.tasks.vsm13:vsm13.yaml", "vsm13_text": "culteval.tasks.vsm13:vsm13_text.yaml"},
    "models": {"smollm2": "culteval.harness.embedded:fetch"},
}


@cache
def table(kind: str) -> dict[str, str]:
    """Names of a kind (aligners, tasks, models) and where each lives; a plug-in cannot take a name of ours."""
    plugged = {point.name: point.value for point in entry_points(group=f"culteval.{kind}")}
    return _OWN[kind] | {name: value for name, value in plugged.items() if name not in _OWN[kind]}


def find(kind: str, name: str) -> Any:
    """The object a name stands for: an aligner class, or a function that returns a model's folder.

    Raises:
        UsageError: an unknown name (with the nearest known one), or a plug-in that cannot be imported.
    """
    known = table(kind)
    if name not in known:
        raise UsageError(f"{kind[:-1]} {name!r}: unknown.{did_you_mean(name, known)} `culteval ls {kind}` lists them.")
    module, _, attribute = known[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a stranger's plug-in may fail in any way
        raise UsageError(f"{kind[:-1]} {name!r}: cannot be loaded from {known[name]!r} ({error}).") from error


def listing(kind: str, describe: Callable[[str], Row]) -> list[Row]:
    """What ``describe`` says of every name of a kind; what is broken is warned about and skipped."""
    rows = []
    for name in table(kind):
        try:
            rows.append(describe(name))
        except Exception as error:  # a stranger's plug-in may fail in any way
            warnings.warn(f"skipped {name}: {error}", stacklevel=2)
    return rows


def spec_path(name: str) -> Path:
    """The YAML file of a registered task.

    Raises:
        UsageError: no such task, or a plug-in whose package is not there.
    """
    known = table("tasks")
    if name not in known:
        raise UsageError(f"task {name!r}: unknown.{did_you_mean(name, known)} `culteval ls tasks` lists them.")
    package, _, file = known[name].partition(":")
    try:
        return Path(str(files(package) / file))
    except Exception as error:  # a stranger's plug-in may fail in any way
        raise UsageError(f"task {name!r}: cannot be loaded from {known[name]!r} ({error}).") from error
