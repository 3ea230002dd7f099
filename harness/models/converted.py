"""Folders of models that were converted from GGUF files, in the cache: made once, found by the hash of the file."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ...errors import InputError, UnavailableError, UsageError, did_you_mean
from ..util.atomic_io import sha256, write_json
from ..util.paths import cache_dir
from .fetch_parts import child, reason, sizes_below
from .gguf import read_header, require_supported

if TYPE_CHECKING:
    from rich.console import Console

CONVERTER: Final = 1  # incremented when the output of convert.py changes, so that older folders are rebuilt
MANIFEST: Final = "culteval.json"
# float32 keeps the values of the file, and is mapped without a copy where models run in it. Of larger models it would
# take more disk than laptops have: their weights are rounded to bfloat16.
MOST_FLOAT32: Final = 8 << 30  # bytes
TOKENIZER: Final = 64 << 20  # bytes, more than configuration and tokenizer take


def models_dir() -> Path:
    """Return the folder of the cache that holds models."""
    return cache_dir() / "models"


def weight_bytes(parameters: int) -> int:
    """Return the bytes of a number of weights on disk."""
    return parameters * (4 if 4 * parameters <= MOST_FLOAT32 else 2)


def complete(folder: Path, digest: str) -> bool:
    """Return whether ``folder`` is complete: its manifest names this GGUF file and converter, and all sizes match.

    Sizes instead of hashes: hashing weights takes longer than loading them.
    """
    try:
        manifest = _manifest(folder)
        current = (manifest["gguf_sha256"], manifest["converter"]) == (digest, CONVERTER)
        return current and all((folder / file).stat().st_size == size for file, size in manifest["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def damaged(folder: Path, digest: str) -> str | None:
    """Return what is wrong with a folder: None if nothing, "" if there is none. Reads and hashes the weights."""
    if not folder.exists():
        return ""
    if not complete(folder, digest):
        return f"{folder} is incomplete"
    for file, known in _manifest(folder)["weights_sha256"].items():
        if sha256(folder / file) != known:
            return f"{folder / file} has changed"
    return None


def _manifest(folder: Path) -> Any:
    return json.loads((folder / MANIFEST).read_bytes())


@contextlib.contextmanager
def only_one(target: Path, console: Console) -> Iterator[None]:
    """Hold the lock of ``target`` inside the context; a second process waits until the first has made it.

    Raises:
        UnavailableError: the disk is full or cannot be written to.
    """
    from filelock import FileLock, Timeout

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            console.print(f"Another process is making {target.name}; waiting for it.", soft_wrap=True)
            held = lock.acquire()
        with held:
            yield
    except OSError as error:
        raise UnavailableError(
            f"The model cannot be written to {target.parent}: {error.strerror or error}.\n"
            "Make that folder writable and free disk, or set CULTEVAL_CACHE to another one; what was fetched is kept."
        ) from error


def require_disk(needed: int, what: str) -> None:
    """Raise UnavailableError unless the cache has so many free bytes."""
    free = shutil.disk_usage(models_dir()).free
    if free < needed:
        raise UnavailableError(
            f"{what} needs {needed / 1e9:.1f} GB of disk in {models_dir()}, where {free / 1e9:.1f} GB are free.\n"
            "Free some (`culteval cache info` shows models, `culteval cache drop NAME` deletes one), or set "
            "CULTEVAL_CACHE to another folder."
        )


def make(target: Path, gguf: Path, digest: str, origin: Mapping[str, Any], console: Console) -> None:
    """Convert a GGUF file and move the finished folder into place. The caller holds the lock of ``target``.

    Args:
        digest: the sha256 of the file.
        origin: what the manifest says besides.

    Raises:
        InputError: the file cannot be answered with exactly. UnavailableError: a package, memory or disk lacks.
    """
    prefix = f".{target.name}.tmp-"
    for stale in target.parent.glob(f"{prefix}*"):  # the lock is held, so the processes that made these have ended
        shutil.rmtree(stale, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent, ignore_cleanup_errors=True) as folder:
        (finished := Path(folder) / "finished").mkdir()
        convert(gguf, finished, str(origin["name"]), console)
        write_manifest(finished, digest, origin)
        if target.exists():  # damaged, or from another converter; os.replace replaces empty folders only
            shutil.rmtree(target)
        os.replace(finished, target)


def convert(gguf: Path, out: Path, name: str, console: Console) -> None:
    """Run ``convert.py`` in a separate process, with a spinner on a terminal; raises as ``make``.

    Separate because libraries draw random numbers, print progress bars that cannot be disabled, and take memory.
    """
    paths = os.pathsep.join(path for path in sys.path if path)  # the same import path as this process
    environment = {"PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    log, module = out.with_name("convert.log"), f"{__package__}.convert"
    spinner = console.status(f"Converting {name} (once)") if console.is_terminal else None
    with spinner or contextlib.nullcontext(), child([module, str(gguf), str(out)], environment, log) as process:
        process.wait()
    if process.returncode == InputError.exit_code:
        raise InputError(log.read_text(encoding="utf-8", errors="replace").strip())
    if process.returncode:
        raise UnavailableError(
            f"{name} could not be converted: {reason(log, process.returncode)}.\n"
            "Install the missing package, or free memory and disk (CULTEVAL_CACHE moves the folder), and try again."
        )


def write_manifest(folder: Path, digest: str, origin: Mapping[str, Any]) -> None:
    """Write the manifest: origin, hashes, and the sizes that ``complete`` compares."""
    weights = sorted(folder.glob("*.safetensors"))
    mode = (folder / "config.json").stat().st_mode
    for path in weights:
        path.chmod(mode)  # safetensors writes 0600; a shared cache must be readable
    sizes = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
    hashes = {path.name: sha256(path) for path in weights}
    made = {"gguf_sha256": digest, "converter": CONVERTER, "weights_sha256": hashes, "files": sizes}
    write_json(folder / MANIFEST, dict(origin) | made)


def folder_of_file(path: Path, digest: str, console: Console | None = None) -> Path:
    """Return the folder that a user's GGUF file is converted into, made if needed.

    Args:
        digest: the sha256 of the file, by which the folder is found: a file may be moved or renamed.

    Raises:
        InputError: the file is damaged or cannot be answered with exactly. UnavailableError: as ``make``.
    """
    target = models_dir() / f"gguf-{digest[:16]}"
    if complete(target, digest):
        return target
    header = read_header(path)
    require_supported(header)
    console = console or stderr()
    with only_one(target, console):
        if not complete(target, digest):
            size = weight_bytes(header.parameters)
            require_disk(size + TOKENIZER, f"Converting {path.name}")
            console.print(
                f"Converting {path.name} ({size / 1e9:.1f} GB on disk, once)", highlight=False, soft_wrap=True
            )
            before = _state(path)
            make(target, path, digest, {"name": path.name, "parameters": header.parameters}, console)
            if _state(path) != before:
                shutil.rmtree(target)
                raise InputError(f"`model` {path}: the file changed while it was converted. Try again.")
    return target


def _state(path: Path) -> tuple[int, ...]:
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ino


def stderr() -> Console:
    """Return a console on standard error."""
    from rich.console import Console

    return Console(stderr=True)


@dataclass(frozen=True)
class CachedModel:
    """A model in the cache: the name of its folder, what it was made of, and the bytes of its files."""

    folder: Path
    origin: str
    size: int

    @property
    def name(self) -> str:
        """The name of the folder, for ``drop``."""
        return self.folder.name.removeprefix(".").removesuffix(".partial")


def cached_models() -> list[CachedModel]:
    """List the models in the cache, and fetches that were not finished."""
    result = []
    for folder in sorted(models_dir().glob("*")):
        unfinished = folder.name.startswith(".") and folder.name.endswith(".partial")
        if not folder.is_dir() or (folder.name.startswith(".") and not unfinished):
            continue
        try:
            origin = "not fetched whole yet" if unfinished else str(_manifest(folder)["name"])
        except (OSError, ValueError, KeyError, TypeError):
            origin = "unknown"
        size = sum(size for _, size in sizes_below(folder))
        result.append(CachedModel(folder, origin, size))
    return result


def drop(name: str) -> int:
    """Delete a model of the cache, by its folder's name, and what was fetched for it; return the bytes freed.

    Raises:
        UsageError: no such model. UnavailableError: it cannot be deleted.
    """
    known = cached_models()
    chosen = [model for model in known if name in (model.name, model.origin)]
    if not chosen:
        names = [model.name for model in known]
        raise UsageError(
            f"{name!r}: no such model in {models_dir()}.{did_you_mean(name, names)} See `culteval cache info`."
        )
    for model in chosen:
        with only_one(model.folder, stderr()):
            shutil.rmtree(model.folder)
    return sum(model.size for model in chosen)
