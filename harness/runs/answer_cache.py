"""Answers kept from one run to the next: whoever asks the same model the same prompts gets the same bytes back.

One file a set of prompts, since what else is asked in a pass moves the last digits of an answer. Its name is a hash of
everything that decides the answers; its first bytes are a hash of that name and of the rest, so that a damaged or
renamed file is never believed. Search is not cached: what an aligner asks is paid from its budget, and kept in its
checkpoint.
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
from ..models.embedded import cache_dir
from ..util.atomic_io import replacing
from ..util.environment import processor, versions

if TYPE_CHECKING:
    from ..models.aligned import AlignedModel

DECIDING = (  # of answers
    "harness/engine/*.py",
    "harness/adapters/*.py",
    "harness/models/*.py",
    "harness/model_info.py",
    "tasks/chat_options.py",
    "tasks/extraction.py",
)
MOST_BYTES = 1 << 30
_SUFFIX, _DIGEST = ".answers", 32


@dataclass(frozen=True)
class AnswerCache:
    """A folder of answers, which any number of processes may use at once.

    Args:
        notify: is told what is wrong with the cache; nothing of it stops a run.
        most: bytes; beyond them the answers that were not used for longest are dropped.
    """

    folder: Path
    notify: Callable[[str], None]
    most: int = MOST_BYTES

    def answer(
        self, aligned: AlignedModel, adapter: str | None, prompts: Prompts, most_tokens: int
    ) -> tuple[Answers, bool]:
        """What an aligned model answers to prompts, and whether that was known before.

        Args:
            adapter: hash of what stands before the prompts and beside the weights; None for the bare model.
            most_tokens: tokens generated at most; 0 for option probabilities alone.
        """
        key = key_of(aligned, adapter, prompts, most_tokens)
        if key is None:
            return aligned.answer(prompts, most_tokens=most_tokens), False
        if found := self.get(key, prompts.layout):
            return found, True
        answers = aligned.answer(prompts, most_tokens=most_tokens)
        self.put(key, answers)
        return answers, False

    def get(self, key: str, layout: Layout) -> Answers | None:
        """The answers of a key, or None."""
        path = self.folder / f"{key}{_SUFFIX}"
        try:
            data = path.read_bytes()
            if not _whole(key, data):
                self.notify(f"{path}: damaged, so it is answered anew")
                return None
            os.utime(path)  # what was used last goes last
        except FileNotFoundError:
            return None
        except OSError as error:
            self.notify(f"{path}: not used ({error.strerror})")
            return None
        return _unpacked(data[_DIGEST:], layout)

    def put(self, key: str, answers: Answers) -> None:
        """Keep answers, and drop old ones beyond the bound. What cannot be written is not kept."""
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
            self.notify(f"{self.folder}: answers are not kept there ({getattr(error, 'strerror', None) or error})")

    def entries(self) -> list[Path]:
        """Files of answers, the one not used for longest first."""
        found = []
        for path in self.folder.glob(f"*{_SUFFIX}"):
            try:
                found.append((path.stat().st_mtime_ns, path))
            except FileNotFoundError:  # dropped by another process
                continue
        return [path for _, path in sorted(found)]

    def size(self) -> int:
        """Bytes of all answers."""
        return sum(_size(path) for path in self.entries())

    def clear(self) -> int:
        """Drop all answers; how many there were."""
        from filelock import FileLock

        if not self.folder.is_dir():
            return 0
        with FileLock(self.folder / ".lock"):
            entries = self.entries()
            for path in (*entries, *self.folder.glob(".*.tmp")):
                path.unlink(missing_ok=True)
        return len(entries)

    def _shrink(self) -> None:
        """Drop what is over the bound, and what killed processes left: who has the lock is the only one who writes."""
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
    """Where answers are cached: in the folder of ``CULTEVAL_CACHE``, or the user's cache folder."""
    return cache_dir() / "answers"


def key_of(aligned: AlignedModel, adapter: str | None, prompts: Prompts, most_tokens: int) -> str | None:
    """A hash of all that decides answers, or None where nobody knows what the model holds.

    That is: the model's files, dtype, device, threads, chat template and forward pass; what was put before the prompts
    and beside the weights; the prompts, in their order, with their options; how much text is generated; the processor
    or card; our own code and the versions of what it stands on.
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
        "software": [versions(), _code()],
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def _prompts_hash(prompts: Prompts) -> str:
    digest = hashlib.sha256()
    for row in zip(prompts.texts, prompts.choices, prompts.layout.codes.tolist(), strict=True):
        digest.update(json.dumps(row).encode() + b"\n")
    return digest.hexdigest()


@lru_cache
def _machine(device: str) -> list[str]:
    """What multiplies: other processors round otherwise."""
    import torch

    if device.startswith("cuda"):
        return [torch.cuda.get_device_name(device), str(torch.version.cuda)]
    return [processor(), torch.backends.cpu.get_cpu_capability()]


@lru_cache
def _code() -> str:
    """Hash the modules that decide answers: a version number does not tell one commit from the next."""
    root = Path(__file__).parents[2]
    digest = hashlib.sha256()
    for path in sorted(path for part in DECIDING for path in root.glob(part)):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _packed(answers: Answers) -> bytes:
    """Arrays and texts as safetensors bytes; the layout is the asker's."""
    from safetensors.numpy import save

    arrays: dict[str, Any] = {"probs": answers.probs, "outside": answers.outside}
    if answers.texts is not None:
        arrays["texts"] = np.frombuffer(json.dumps(answers.texts).encode(), dtype=np.uint8)
        arrays["parsed"] = answers.parsed
    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def _unpacked(data: bytes, layout: Layout) -> Answers:
    from safetensors.numpy import load

    arrays = load(data)
    texts = tuple(json.loads(arrays["texts"].tobytes())) if "texts" in arrays else None
    return Answers(layout, arrays["probs"], arrays["outside"], texts, arrays.get("parsed"))


def _digest(key: str, data: bytes) -> bytes:
    return hashlib.sha256(key.encode() + b"\0" + data).digest()


def _whole(key: str, data: bytes) -> bool:
    return len(data) > _DIGEST and _digest(key, data[_DIGEST:]) == data[:_DIGEST]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
