"""What files hold, as hashes: a model is what is in its folder, not what the folder is called."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Any

from ..util.atomic_io import sha256, write_json
from .embedded import cache_dir

_REMEMBERED = "hashes.json"
_LARGE = 1 << 20  # bytes; smaller files are read again each time
_MOST = 1000  # files remembered
_SETTLED = 2.0  # seconds after a change before a file's times can tell the next change from it
_DECIDING = {".json", ".safetensors", ".bin", ".gguf", ".model", ".txt", ".jinja"}  # what transformers reads


def folder_hash(folder: Path) -> str:
    """sha256, 64 hexadecimal digits, over weights, configuration, tokenizer and templates of a model's folder.

    Raises:
        OSError: a file cannot be read.
    """
    files = [path for path in sorted(folder.iterdir()) if path.suffix in _DECIDING and path.is_file()]
    return hashlib.sha256(json.dumps([[path.name, file_hash(path)] for path in files]).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file. A large file's is remembered by its place, size, times and inode: gigabytes are read once.

    Raises:
        OSError: it cannot be read.
    """
    state = path.stat()
    if state.st_size < _LARGE:
        return sha256(path)
    place, mark = str(path.resolve()), [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    known = _load().get(place)
    if known and known[:-1] == mark:
        return known[-1]
    found, settled = sha256(path), time.time() - max(state.st_mtime, state.st_ctime) > _SETTLED
    if settled:
        _remember(place, [*mark, found])
    return found


def _load() -> dict[str, list[Any]]:
    """What is remembered; nothing where the file is not there or not as it was written."""
    try:
        given = json.loads((cache_dir() / _REMEMBERED).read_bytes())
        return given["files"] if given["check"] == _check(given["files"]) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _check(files: dict[str, list[Any]]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _remember(place: str, entry: list[Any]) -> None:
    """Keep an entry among the last ones; a cache that cannot be written costs time only."""
    from filelock import FileLock, Timeout

    path = cache_dir() / _REMEMBERED
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=5):
            files = _load()
            files.pop(place, None)
            files = dict(list(files.items())[1 - _MOST :]) | {place: entry}
            write_json(path, {"check": _check(files), "files": files})
    except (OSError, Timeout):
        return


def weights_hash(model: Any) -> str:
    """sha256, 64 hexadecimal digits, over configuration and weights of a transformers model in memory."""
    import torch

    given = model.config.to_dict()
    for name in ("_name_or_path", "transformers_version", "dtype", "torch_dtype"):  # of the place, not of the model
        given.pop(name, None)
    digest = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def memory_hash(weights: str, tokenizer: Any) -> str | None:
    """sha256 over a hash of weights and all of a tokenizer in memory; None where it does not say what it holds."""
    if not tokenizer.is_fast:
        return None
    told = [weights, tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template, tokenizer.special_tokens_map]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
