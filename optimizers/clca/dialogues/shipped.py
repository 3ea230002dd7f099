"""Dialogues that come with culteval (``shipped/``, CC-BY-4.0), so that training needs no simulation."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ....errors import UsageError
from ....harness.util.atomic_io import sha256
from ....tasks.countries import name_of

SHIPPED = "shipped"
FOLDER = Path(__file__).with_name(SHIPPED)
SUFFIX = ".jsonl.zst"


def file_of(source: str, country: str) -> Path:
    """Return the file of dialogues that a setting names: the country's own for ``shipped``, else the user's path.

    Raises:
        UsageError: no dialogues of the country are shipped.
    """
    if source != SHIPPED:
        return Path(source)
    path = FOLDER / f"{country}{SUFFIX}"
    if not path.is_file():
        known = ", ".join(each.name.removesuffix(SUFFIX) for each in shipped_files()) or "none yet"
        raise UsageError(
            f"`dialogues=shipped`: no dialogues of {name_of(country)} ({country}) are shipped; there are {known}. "
            "Leave out `dialogues` to simulate them."
        )
    return path


def shipped_files() -> list[Path]:
    """List the shipped files, by country code."""
    return sorted(FOLDER.glob(f"*{SUFFIX}"))


def hash_of(source: str) -> str | None:
    """Return the SHA-256 of a user's file, or one over those of all shipped files; None if there is no file."""
    if source != SHIPPED:
        path = Path(source)
        return sha256(path) if path.is_file() else None
    paths = shipped_files()
    return hashlib.sha256("".join(map(sha256, paths)).encode()).hexdigest() if paths else None
