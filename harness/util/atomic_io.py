"""Write files atomically: under a temporary name beside the target, then renamed to it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import RunError


@contextmanager
def replacing(path: Path, *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path that is renamed to ``path`` when the block succeeds and removed when it fails.

    The block may create a file or a folder; a folder replaces an existing one.

    Args:
        flush: write to disk before renaming, so that a power failure leaves either the old or the new files. Without
            it, only a failure of the process does; for many files that are flushed together later (``os.sync``).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # as ``remove_temporaries`` knows them
    try:
        yield temporary
        if flush:
            _to_disk(temporary)
        if temporary.is_dir() and path.exists():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, created if missing, against other processes while the block lasts.

    Raises:
        RunError: another process holds the lock.
    """
    from filelock import FileLock, Timeout

    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RunError(f"{folder}: another process works on this run. Wait for it, or change `out`.") from None
    try:
        yield
    finally:
        lock.release()


def _to_disk(path: Path) -> None:
    """Flush files to disk."""
    for file in path.rglob("*") if path.is_dir() else [path]:
        if file.is_file():
            descriptor = os.open(file, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def remove_temporaries(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder which no other process uses."""
    for path in sorted(folder.rglob(".*.tmp")):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def copy_into(folder: Path, files: Mapping[str, Path]) -> None:
    """Copy files into a folder, created if missing, under the given relative names."""
    for name, path in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, folder / name)


def sha256(path: Path) -> str:
    """Compute the sha256 of a file, 64 hexadecimal digits.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(1 << 16):  # hashlib.file_digest takes 256 KB even for a small file
            digest.update(block)
    return digest.hexdigest()


def write_text(path: Path, text: str, *, flush: bool = True) -> None:
    """Write a text file atomically, as UTF-8; ``flush`` as in ``replacing``."""
    with replacing(path, flush=flush) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, data: Any) -> None:
    """Write JSON atomically; raise ValueError for NaN and Infinity."""
    write_text(path, json_text(data))


def json_text(data: Any) -> str:
    """Return data as the JSON text that ``write_json`` writes."""
    return json.dumps(data, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
