"""What transformers loads: a model and its tokenizer from a folder or the hub, and what exactly that was."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ...errors import UnavailableError, UsageError, is_memory
from ..adapters.peft_files import refuse_as_model
from ..engine.at_work import quiet
from .fingerprint import file_hash, folder_hash

_REMEDY = "Use `model` smollm2 (embedded), or a folder with config.json, *.safetensors and tokenizer files."
_PACKAGES = {  # of quantisation methods
    "aqlm": "aqlm",
    "awq": "gptqmodel",
    "bitsandbytes": "bitsandbytes",
    "compressed-tensors": "compressed-tensors",
    "eetq": "eetq",
    "fp_quant": "fp_quant",
    "gptq": "gptqmodel",
    "hqq": "hqq",
    "quanto": "optimum-quanto",
    "torchao": "torchao",
}


@dataclass(frozen=True)
class Source:
    """Where a model's files lie, and which they are.

    ``place`` and ``where`` are what transformers is asked for, ``folder`` is where it finds or puts the files;
    ``revision`` is the hub's commit, or of a folder a hash of configuration and weights.
    """

    place: str
    where: Mapping[str, Any]
    folder: Path
    revision: str

    @property
    def content(self) -> str:
        """The sha256 of all files that decide what the model answers, once they are here."""
        return folder_hash(self.folder)


def source_of(place: str, revision: str | None) -> Source:
    """Find a model's files; of a hub model the commit, which is all that is loaded from then on.

    Raises:
        UsageError: it is an adapter, or a folder with a revision.
        UnavailableError: no such model here, and none could be fetched.
    """
    path = Path(place)
    if path.is_file():
        raise UnavailableError(f"`model` {place}: {_kind_of(path)}")
    if path.is_dir():
        if revision:
            raise UsageError(f"`revision` {revision}: {place} is a folder, and has no revisions. Leave it out.")
        refuse_as_model(place, {})
        return Source(place, {}, path, _revision(path))
    from transformers.utils import cached_file

    asked = {"revision": revision, "local_files_only": not _hub_answers()}
    refuse_as_model(place, asked)
    try:
        found = cached_file(place, "config.json", **asked)
    except (OSError, ValueError) as error:
        raise _unavailable(place, error) from None
    folder = Path(found).parent  # .../snapshots/COMMIT
    return Source(place, {**asked, "revision": folder.name}, folder, folder.name)


def load(kind: str, source: Source, **given: Any) -> Any:
    """What one of transformers' classes makes of a model's files.

    Raises:
        UnavailableError: nothing that it can load.
    """
    import transformers

    try:
        with quiet():
            return getattr(transformers, kind).from_pretrained(source.place, **source.where, **given)
    except Exception as error:  # files that anybody wrote fail in any way
        if is_memory(error):
            raise
        raise _unavailable(source.place, error) from None


def _unavailable(place: str, error: Exception) -> UnavailableError:
    here = Path(place).exists()
    what = "folder holds no usable model" if here else "neither a folder here nor to be had from the hub"
    reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
    if isinstance(error, ImportError):
        method = _quantisation(Path(place)) if here else None
        package = _PACKAGES.get(method or "", method)
        what = f"is quantised by {method}" if method else "needs a package that is not here"
        remedy = f"pip install {package}" if package else "Install the package that it names"
        return UnavailableError(
            f"`model` {place}: {what} ({reason}).\n{remedy}, or use a model in bfloat16 or float32."
        )
    return UnavailableError(f"`model` {place}: {what} ({reason}).\n{_REMEDY}")


def _quantisation(folder: Path) -> str | None:
    import json

    try:
        found = json.loads((folder / "config.json").read_bytes()).get("quantization_config", {}).get("quant_method")
    except (OSError, ValueError, AttributeError):
        return None
    return str(found)[:40] if found else None


def _kind_of(path: Path) -> str:
    """What a file is that was given for a model's folder, and what to do with it."""
    with path.open("rb") as file:
        begin = file.read(4)
    if begin == b"GGUF":
        return (
            "a GGUF file, the format of llama.cpp.\n"
            f"Serve it (llama-server -m {path.name} --port 8080) and give `model` openai:{path.stem} "
            "`base_url` http://localhost:8080/v1."
        )
    if path.name == "config.json" or path.suffix in (".safetensors", ".bin", ".json"):
        return f"a file of a model.\nGive the folder that it lies in: `model` {path.parent}"
    return f"a file, not a model's folder.\n{_REMEDY}"


def _revision(folder: Path) -> str:
    """The sha256, in 16 hexadecimal digits, of a folder's configuration and weights."""
    weights = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    digest = hashlib.sha256()
    for path in sorted([path for path in (folder / "config.json", *weights) if path.is_file()]):
        digest.update(path.name.encode() + bytes.fromhex(file_hash(path)))
    return digest.hexdigest()[:16]


def _hub_answers() -> bool:
    """Whether the hub can be reached at all; asking it without a network costs half a minute of retries."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE or os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return not HF_HUB_OFFLINE
    address = urlsplit(ENDPOINT)
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=5):
            return True
    except OSError:
        return False
