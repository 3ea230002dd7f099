"""Cache of answers between runs: the same prompts to the same model give the same bytes.

There is one file for each set of prompts, since the other prompts of a batch change the last digits of an answer. The
name of a file is a hash of everything that decides the answers; its first bytes are a hash of the name and of the other
bytes, so that a damaged or renamed file is never used. The search of an aligner is not cached: it is charged to the
budget and saved in the checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...tasks.answers import Answers, Layout
from ...tasks.prompts import Prompts
from ..util.atomic_io import replacing
from ..util.display import Done
from ..util.environment import processor, versions
from ..util.paths import cache_dir

if TYPE_CHECKING:
    from ..models.aligned import AlignedModel

DECIDING = (  # modules that decide answers
    "harness/engine/*.py",
    "harness/adapters/*.py",
    "harness/models/*.py",
    "harness/model_info.py",
    "tasks/answers.py",
    "tasks/chat_options.py",
    "tasks/cloze.py",
    "tasks/extraction.py",
    "tasks/prompts.py",
    "tasks/verbalized.py",
)
MOST_BYTES = 1 << 30
_SUFFIX, _DIGEST = ".answers", 32


@dataclass(frozen=True)
class AnswerCache:
    """A folder of cached answers, safe for concurrent processes.

    Args:
        notify: receives messages on problems of the cache, none of which stops a run.
        most: bytes; beyond them the least recently used answers are dropped.
    """

    folder: Path
    notify: Callable[[str], None]
    most: int = MOST_BYTES

    def answer(
        self,
        aligned: AlignedModel,
        adapter: str | None,
        prompts: Prompts,
        most_tokens: int,
        done: Done | None = None,
    ) -> tuple[Answers, bool]:
        """Return an aligned model's answers to prompts, and whether they came from the cache.

        Args:
            adapter: hash of the aligned model's preamble, soft prompt and LoRA; None for the bare model.
            most_tokens: tokens generated at most; 0 for option probabilities alone.
            done: is told of prompts as they are answered.
        """
        key = key_of(aligned, adapter, prompts, most_tokens)
        if key is None:
            return aligned.answer(prompts, most_tokens=most_tokens, done=done), False
        if cached := self.get(key, prompts.layout):
            return cached, True
        answers = aligned.answer(prompts, most_tokens=most_tokens, done=done)
        self.put(key, answers)
        return answers, False

    def get(self, key: str, layout: Layout) -> Answers | None:
        """Return the answers of a key, or None."""
        path = self.folder / f"{key}{_SUFFIX}"
        try:
            data = path.read_bytes()
            if not _whole(key, data):
                self.notify(f"{path}: damaged, so its prompts are answered anew")
                return None
            os.utime(path)  # the most recently used file is dropped last
        except FileNotFoundError:
            return None
        except OSError as error:
            self.notify(f"{path}: not used ({error.strerror})")
            return None
        return _unpacked(data[_DIGEST:], layout)

    def put(self, key: str, answers: Answers) -> None:
        """Store answers and drop old ones beyond the bound; notify where that fails."""
        from filelock import FileLock, Timeout

        data = _packed(answers)
        path = self.folder / f"{key}{_SUFFIX}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock", timeout=30):
                with replacing(path) as temporary:
                    temporary.write_bytes(_digest(key, data) + data)
                self._shrink()
        except (OSError, Timeout) as error:
            self.notify(f"{self.folder}: answers are not cached ({getattr(error, 'strerror', None) or error})")

    def entries(self) -> list[Path]:
        """Return the files of answers, the least recently used first."""
        files = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            try:
                files.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:  # dropped by another process
                continue
        return [path for _, path in sorted(files)]

    def size(self) -> int:
        """Return the bytes of all answers."""
        return sum(_size(path) for path in self.entries())

    def clear(self) -> int:
        """Delete all answers and return their number of files."""
        from filelock import FileLock

        if not self.folder.is_dir():
            return 0
        with FileLock(self.folder / ".lock"):
            entries = self.entries()
            for path in (*entries, *self.folder.glob(".*.tmp")):
                path.unlink(missing_ok=True)
        return len(entries)

    def _shrink(self) -> None:
        """Delete answers beyond the bound, and temporary files of killed processes; the caller holds the lock."""
        for stale in self.folder.glob(".*.tmp"):
            stale.unlink(missing_ok=True)
        entries = self.entries()
        total = sum(map(_size, entries))
        for path in entries:
            if total <= self.most:
                return
            total -= _size(path)
            path.unlink(missing_ok=True)


def answers_folder() -> Path:
    """Return the folder of cached answers, within ``CULTEVAL_CACHE`` or the user's cache folder."""
    return cache_dir() / "answers"


def key_of(aligned: AlignedModel, adapter: str | None, prompts: Prompts, most_tokens: int) -> str | None:
    """Compute the hash of everything that decides answers, or None where the content of the model is not known.

    That is: the model's files, dtype, device, threads, chat template and backend; the adapter; the prompts, in their
    order, with their options; how much text is generated; the processor or graphics card; the modules that decide
    answers, and the versions of packages.
    """
    info = aligned.model.info.model_dump()
    if info["content_sha256"] is None:
        return None
    del info["name"]  # a folder may be moved
    decides = {
        "model": info,
        "adapter": adapter,
        "prompts": _prompts_hash(prompts),
        "most_tokens": most_tokens,
        "machine": _machine(info["device"]),
        "software": software(),
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _prompts_hash(prompts: Prompts) -> str:
    digest = hashlib.sha256(json.dumps([prompts.cloze, prompts.verbalized]).encode())
    for row in zip(prompts.texts, prompts.choices, prompts.layout.codes.tolist(), strict=True):
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


@lru_cache
def _machine(device: str) -> list[str]:
    """Return the names of the processor or graphics card and its library, which decide rounding."""
    import torch

    if device.startswith("cuda"):
        return [torch.cuda.get_device_name(device), str(torch.version.cuda)]
    return [processor(), torch.backends.cpu.get_cpu_capability()]


@lru_cache
def software() -> tuple[dict[str, str], str]:
    """Return the versions of packages and the hash of the modules that decide answers, read on the first call.

    A run calls it when it begins: on disk both may change while the run works with what it has loaded.
    """
    return versions(), _code()


@lru_cache
def _code() -> str:
    """Hash the modules that decide answers, since different commits can have the same version number."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for part in DECIDING for path in root.glob(part)):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _packed(answers: Answers) -> bytes:
    """Serialise arrays and texts as safetensors bytes, without the layout, which follows from the prompts."""
    from safetensors.numpy import save

    arrays: dict[str, Any] = {"probs": answers.probs, "off_options": answers.off_options}
    if answers.texts is not None:
        arrays["texts"] = np.frombuffer(json.dumps(answers.texts).encode(), dtype=np.uint8)
        arrays["parsed"] = answers.parsed
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _unpacked(data: bytes, layout: Layout) -> Answers:
    from safetensors.numpy import load

    arrays = load(data)
    texts = tuple(json.loads(arrays["texts"].tobytes())) if "texts" in arrays else None
    return Answers(layout, arrays["probs"], arrays["off_options"], texts, arrays.get("parsed"))


def _digest(key: str, data: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + data).digest()


def _whole(key: str, data: bytes) -> bool:
    return len(data) > _DIGEST and _digest(key, data[_DIGEST:]) == data[:_DIGEST]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
