"""Compute content hashes of model folders and of models in memory, independent of names and paths."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..util.atomic_io import sha256, write_json
from ..util.paths import cache_dir
from .converted import MANIFEST

_CACHE_FILE = "hashes.json"
_LARGE = 1 << 20  # bytes; smaller files are read again each time
_MOST = 1000  # cached hashes
_SETTLED = 2.0  # seconds after a change until a file's times distinguish the next change
_DECIDING = {".json", ".safetensors", ".bin", ".gguf", ".model", ".txt", ".jinja"}  # files that transformers reads


def folder_hash(folder: Path) -> str:
    """Compute the sha256, 64 hexadecimal digits, of weights, configuration, tokenizer and templates in a folder.

    Of a user's GGUF file that was converted, neither the file's name nor the number of transformers' version counts.

    Raises:
        OSError: a file cannot be read.
    """
    files = [path for path in sorted(folder.iterdir()) if path.suffix in _DECIDING and path.is_file()]
    if _of_gguf(folder / MANIFEST):
        hashes = [[path.name, _versionless_hash(path)] for path in files if path.name != MANIFEST]
    else:
        hashes = [[path.name, file_hash(path)] for path in files]
    return hashlib.sha256(json.dumps(hashes).encode()).hexdigest()


def _of_gguf(manifest: Path) -> bool:
    """Return whether a manifest is of a user's GGUF file; those of embedded models, which are published, stay whole."""
    try:
        given = json.loads(manifest.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(given, dict) and "gguf_sha256" in given and "distribution" not in given


def _versionless_hash(path: Path) -> str:
    """Compute the sha256 of a file, of a configuration without the version of transformers that wrote it."""
    if path.name not in ("config.json", "generation_config.json"):
        return file_hash(path)
    given = json.loads(path.read_bytes())
    given.pop("transformers_version", None)
    return hashlib.sha256(json.dumps(given, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str:
    """Compute the sha256 of a file; those of large files are cached by path, size, times and inode.

    Raises:
        OSError: the file cannot be read.
    """
    state = path.stat()
    if state.st_size < _LARGE:
        return sha256(path)
    place, mark = str(path.resolve()), [state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino]
    known = _load().get(place)
    if known and known[:-1] == mark:
        return known[-1]
    digest, settled = sha256(path), time.time() - max(state.st_mtime, state.st_ctime) > _SETTLED
    if settled:
        _store(place, [*mark, digest])
    return digest


def _load() -> dict[str, list[Any]]:
    """Read the cached hashes; empty if the file is missing or was altered."""
    try:
        given = json.loads((cache_dir() / _CACHE_FILE).read_bytes())
        return given["files"] if given["check"] == _check(given["files"]) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _check(files: dict[str, list[Any]]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _store(place: str, entry: list[Any]) -> None:
    """Add an entry to the cache, which keeps the latest; a cache that cannot be written is ignored."""
    from filelock import FileLock, Timeout

    path = cache_dir() / _CACHE_FILE
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
    """Compute the sha256, 64 hexadecimal digits, of configuration and weights of a transformers model in memory."""
    import torch

    given = model.config.to_dict()
    for name in (
        "_name_or_path",
        "transformers_version",
        "dtype",
        "torch_dtype",
    ):  # depend on the location, not on the model
        given.pop(name, None)
    digest = hashlib.sha256(json.dumps(given, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        if isinstance(tensor, torch.Tensor):
            digest.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def memory_hash(weights: str, tokenizer: Any, ends: Sequence[int]) -> str | None:
    """Compute the sha256 of a model in memory: a hash of its weights, its tokenizer, and the ids of its end tokens.

    It is None for a slow tokenizer, which cannot be serialised.
    """
    return _spoken_hash(weights, tokenizer, ends, tokenizer.backend_tokenizer.to_str()) if tokenizer.is_fast else None


def vocabulary_hash(weights: str, tokenizer: Any, ends: Sequence[int]) -> str:
    """Compute the same with a slow tokenizer's class and vocabulary, which tell less than all that it does.

    That is enough to name a run, but not to reuse answers.
    """
    return _spoken_hash(weights, tokenizer, ends, [type(tokenizer).__name__, tokenizer.get_vocab()])


def _spoken_hash(weights: str, tokenizer: Any, ends: Sequence[int], vocabulary: Any) -> str:
    parts = [weights, vocabulary, tokenizer.chat_template, tokenizer.special_tokens_map, list(ends)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
