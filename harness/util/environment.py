"""Environment information for manifests: the processor, and the versions of packages that affect results."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("culteval", "torch", "transformers", "numpy", "cmaes", "peft")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results, by name."""
    installed = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:  # a model behind an endpoint needs no torch
            continue
    return installed


def processor() -> str:
    """Return the name of the processor as the operating system reports it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
