"""Load models and tokenizers with transformers, from a folder or the hub, and identify their files."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ...errors import UnavailableError, UsageError, is_memory
from ..adapters.peft_files import refuse_as_model
from ..util.at_work import quiet
from .converted import MANIFEST, folder_of_file
from .fingerprint import file_hash, folder_hash
from .gguf import is_gguf

if TYPE_CHECKING:
    import torch

_REMEDY = (
    "Use `model` smollm2 (embedded), a GGUF file, or a folder with config.json, *.safetensors and tokenizer files."
)
_PACKAGES = {  # packages of quantisation methods
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
    """The location and revision of a model's files.

    ``place`` and ``where`` are the arguments for transformers, ``folder`` holds the files; ``revision`` is the hub's
    commit or, for a folder, a hash of configuration and weights, or the sha256 of a GGUF file.
    """

    place: str
    where: Mapping[str, Any]
    folder: Path
    revision: str

    @property
    def content(self) -> str:
        """The sha256 of all files that determine the answers; the files must have been fetched."""
        return folder_hash(self.folder)


def source_of(place: str, revision: str | None) -> Source:
    """Locate a model's files; for a hub model resolve the commit, from which everything is then loaded.

    Raises:
        UsageError: the model is an adapter, or a folder given with a revision.
        UnavailableError: the model is not on this machine and could not be fetched.
    """
    path = Path(place)
    if revision and path.exists():
        kind = "folder" if path.is_dir() else "file"
        raise UsageError(f"`revision` {revision}: {place} is a {kind}, and has no revisions. Omit it.")
    if is_gguf(place):
        folder = folder_of_file(path, digest := file_hash(path))
        return Source(str(folder), {}, folder, digest)
    if path.is_file():
        raise UnavailableError(f"`model` {place}: {_kind_of(path)}")
    if path.is_dir():
        refuse_as_model(place, {})
        return Source(place, {}, path, _revision(path))
    from transformers.utils import cached_file

    arguments = {"revision": revision, "local_files_only": not _hub_answers()}
    refuse_as_model(place, arguments)
    try:
        config = cached_file(place, "config.json", **arguments)
    except (OSError, ValueError) as error:
        raise _unavailable(place, error) from None
    folder = Path(config).parent  # .../snapshots/COMMIT
    return Source(place, {**arguments, "revision": folder.name}, folder, folder.name)


def load(kind: str, source: Source, **given: Any) -> Any:
    """Load a model's files with a class of transformers, named ``kind``.

    Raises:
        UnavailableError: the class cannot load them.
    """
    import transformers

    return _loaded(source, lambda: getattr(transformers, kind).from_pretrained(source.place, **source.where, **given))


def load_weights(source: Source, dtype: torch.dtype) -> Any:
    """Load a causal language model in a dtype; raises as ``load``.

    Large models that were converted from GGUF are read into another dtype one tensor at a time: transformers maps all
    files until the last tensor is read, so that 1.8 billion weights in float32 and bfloat16 would take 11 GB.
    """
    import transformers

    index, rounds = source.folder / "model.safetensors.index.json", int(transformers.__version__.split(".")[0]) >= 5
    config = load("AutoConfig", source) if rounds and index.is_file() and (source.folder / MANIFEST).is_file() else None
    if config is None or config.dtype == dtype:
        return load("AutoModelForCausalLM", source, dtype=dtype)
    names = json.loads(index.read_bytes())["weight_map"]
    weights = {name: _Weight(source.folder / file, name, dtype) for name, file in names.items()}

    def read() -> Any:
        kind = getattr(transformers, config.architectures[0])
        model = kind.from_pretrained(None, config=config, state_dict=weights, dtype=dtype)
        model.generation_config = transformers.GenerationConfig.from_pretrained(source.place)
        model.config.name_or_path = source.place
        return model

    return _loaded(source, read)


@dataclass(frozen=True)
class _Weight:
    """A tensor of a safetensors file that is read when it is indexed, as transformers does once."""

    file: Path
    name: str
    dtype: torch.dtype

    def __getitem__(self, index: Any) -> torch.Tensor:
        from safetensors import safe_open

        with safe_open(self.file, "pt") as file:
            return file.get_tensor(self.name).to(self.dtype)[index]


def _loaded(source: Source, read: Callable[[], Any]) -> Any:
    """Load files quietly; raises UnavailableError if they cannot be."""
    try:
        with quiet():
            return read()
    except Exception as error:  # untrusted files can fail in any way
        if is_memory(error):
            raise
        raise _unavailable(source.place, error) from None


def _unavailable(place: str, error: Exception) -> UnavailableError:
    here = Path(place).exists()
    what = "folder holds no usable model" if here else "neither a local folder nor available from the hub"
    reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
    if isinstance(error, ImportError):
        method = _quantisation(Path(place)) if here else None
        package = _PACKAGES.get(method or "", method)
        what = f"is quantised by {method}" if method else "needs a package that is not installed"
        remedy = f"pip install {package}" if package else "Install the package that it names"
        return UnavailableError(
            f"`model` {place}: {what} ({reason}).\n{remedy}, or use a model in bfloat16 or float32."
        )
    return UnavailableError(f"`model` {place}: {what} ({reason}).\n{_REMEDY}")


def _quantisation(folder: Path) -> str | None:
    try:
        method = json.loads((folder / "config.json").read_bytes()).get("quantization_config", {}).get("quant_method")
    except (OSError, ValueError, AttributeError):
        return None
    return str(method)[:40] if method else None


def _kind_of(path: Path) -> str:
    """Describe a file that was given instead of a model's folder, and the remedy."""
    if path.name == "config.json" or path.suffix in (".safetensors", ".bin", ".json"):
        return f"a file of a model.\nGive its folder: `model` {path.parent}"
    return f"a file, not a model's folder.\n{_REMEDY}"


def _revision(folder: Path) -> str:
    """Compute the sha256, 16 hexadecimal digits, of a folder's configuration and weights."""
    weights = [*folder.glob("*.safetensors")] or [*folder.glob("*.bin")]
    digest = hashlib.sha256()
    for path in sorted([path for path in (folder / "config.json", *weights) if path.is_file()]):
        digest.update(path.name.encode() + bytes.fromhex(file_hash(path)))
    return digest.hexdigest()[:16]


def _hub_answers() -> bool:
    """Return whether the hub can be reached; a request without a network takes half a minute of retries."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE or os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return not HF_HUB_OFFLINE
    address = urlsplit(ENDPOINT)
    try:
        with socket.create_connection((address.hostname, address.port or 443), timeout=5):
            return True
    except OSError:
        return False
