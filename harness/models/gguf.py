"""Read and check the header of a GGUF file, the format of llama.cpp, which is untrusted input; torch is not needed.

Layout of the file: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. What transformers would load with other
numbers than llama.cpp is refused: a setting, a tensor or a tokenizer that is not known here is never ignored.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

from ...errors import InputError, UnavailableError

MAGIC: Final = b"GGUF"
MOST_HEADER: Final = 1 << 28  # bytes; a vocabulary of 262,144 tokens with its merges takes 20 MB
MOST_KEYS: Final = 1 << 12
MOST_TENSORS: Final = 1 << 16
MOST_STRING: Final = 1 << 20  # bytes, of which a chat template takes a few thousand
MOST_ITEMS: Final = 1 << 22  # of an array
MOST_DIMENSION: Final = 1 << 31
KEPT_ITEMS: Final = 1024  # longer arrays are represented by their length

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

# Settings of an architecture that decide its numbers, by key after "ARCHITECTURE."; all others are refused.
_KEYS = frozenset(
    {
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "attention.layer_norm_rms_epsilon",
        "attention.value_length",
        "block_count",
        "context_length",
        "embedding_length",
        "feed_forward_length",
        "rope.dimension_count",
        "rope.freq_base",
        "rope.scaling.factor",
        "rope.scaling.finetuned",
        "rope.scaling.original_context_length",
        "rope.scaling.type",
        "vocab_size",
    }
)
_SOFTCAPS = frozenset({"attn_logit_softcapping", "final_logit_softcapping"})
ARCHITECTURES: Final[Mapping[str, frozenset[str]]] = {
    "llama": _KEYS | {"attention.sliding_window"},  # Mistral, too
    "qwen2": _KEYS,
    "qwen3": _KEYS,
    "gemma2": _KEYS | _SOFTCAPS | {"attention.sliding_window"},
    "gemma3": _KEYS | _SOFTCAPS | {"attention.sliding_window", "rope.freq_base_swa"},
    "phi3": _KEYS | {"attention.sliding_window"},
}
PRE_TOKENIZERS: Final = ("smollm", "gpt-2", "qwen2", "deepseek-r1-qwen", "llama3", "llama-v3", "llama-bpe", "dbrx")
_REMEDY = "Serve it with llama.cpp (llama-server -m FILE) and use `model` openai:NAME, or use a folder of safetensors."


@dataclass(frozen=True)
class Tensor:
    """A tensor of the file: ``shape`` in torch's order, ``kind`` as GGML numbers types, and the place of its bytes."""

    name: str
    shape: tuple[int, ...]
    kind: int
    start: int
    size: int


@dataclass(frozen=True)
class Header:
    """The settings and the tensors of a GGUF file.

    ``values`` has scalars, strings and arrays of up to ``KEPT_ITEMS`` numbers; of other arrays the length.
    """

    path: Path
    values: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    @property
    def architecture(self) -> str:
        """The architecture as llama.cpp names it, such as ``qwen2``."""
        return str(self.values.get("general.architecture"))

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    def setting(self, key: str, default: Any = None) -> Any:
        """Return the value of ``ARCHITECTURE.key``."""
        return self.values.get(f"{self.architecture}.{key}", default)


def is_gguf(place: str) -> bool:
    """Return whether ``place`` is a file that begins as a GGUF file."""
    try:
        if not os.path.isfile(place):  # a pipe would wait
            return False
        with open(place, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except (OSError, ValueError):
        return False


def read_header(path: Path) -> Header:
    """Read the header of a GGUF file, with bounds on everything that it counts, and check where its tensors lie.

    Raises:
        InputError: the file is damaged, truncated or out of bounds. UnavailableError: the package gguf is missing.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            values, entries, begin = _Reader(file, min(size, MOST_HEADER)).header()
        except (struct.error, EOFError, UnicodeDecodeError, ValueError) as error:
            raise InputError(f"{path}: not a GGUF file that can be read: {error or 'it is truncated'}.") from None
    tensors = {}
    for name, shape, kind, offset in entries:
        tensors[name] = Tensor(name, shape, kind, begin + offset, _bytes_of(path, name, shape, kind))
        if (end := begin + offset + tensors[name].size) > size:
            raise InputError(f"{path}: truncated: {name} ends at byte {end:,} of {size:,}. Fetch the file again.")
    return Header(path, values, tensors)


class _Reader:
    """Reads numbers and strings of little-endian files; ``most`` bytes in all."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._left = file, most

    def take(self, count: int) -> bytes:
        if count > self._left or len(data := self._file.read(count)) < count:
            raise EOFError("the file is truncated, or its header too long")
        self._left -= count
        return data

    def number(self, code: str, most: int | None = None) -> Any:
        (value,) = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))
        if most is not None and value > most:
            raise ValueError(f"a count of {value:,}, of at most {most:,}")
        return value

    def text(self) -> str:
        return self.take(self.number("Q", MOST_STRING)).decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind == _STRING:
            return self.text()
        if kind != _ARRAY:
            raise ValueError(f"a value of unknown type {kind}")
        item, count = self.number("I"), self.number("Q", MOST_ITEMS)
        if item == _STRING:
            for _ in range(count):
                self.text()
            return count
        if item not in _SCALARS:
            raise ValueError(f"an array of type {item}")
        code = f"{count}{_SCALARS[item]}"
        data = self.take(struct.calcsize(f"<{code}"))
        return list(struct.unpack(f"<{code}", data)) if count <= KEPT_ITEMS else count

    def header(self) -> tuple[dict[str, Any], list[tuple[str, tuple[int, ...], int, int]], int]:
        """Return the values, the tensors (name, shape, kind, offset) and where their data begin."""
        if self.take(len(MAGIC)) != MAGIC:
            raise ValueError("it does not begin with GGUF")
        if (version := self.number("I")) not in (2, 3):
            raise ValueError(f"version {version}, of which 2 and 3 are read (little-endian)")
        tensors, keys = self.number("Q", MOST_TENSORS), self.number("Q", MOST_KEYS)
        before = self._left + 24
        values: dict[str, Any] = {}
        for _ in range(keys):
            key = self.text()
            if key in values:
                raise ValueError(f"two values of {key}")
            values[key] = self.value(self.number("I"))
        entries: dict[str, tuple[str, tuple[int, ...], int, int]] = {}
        for _ in range(tensors):
            name, rank = self.text(), self.number("I", 4)
            shape = tuple(self.number("Q", MOST_DIMENSION) for _ in range(rank))[::-1]
            if name in entries or not shape or not prod(shape):
                raise ValueError(f"tensor {name} is empty or there twice")
            entries[name] = (name, shape, self.number("I"), self.number("Q", 1 << 50))
        align = values.get("general.alignment", 32)
        if type(align) is not int or not 0 < align <= 1 << 20 or align & (align - 1):
            raise ValueError(f"alignment {align!r}")
        read = before - self._left
        return values, list(entries.values()), -(-read // align) * align


def _bytes_of(path: Path, name: str, shape: tuple[int, ...], kind: int) -> int:
    """Return the bytes of a tensor.

    Raises:
        InputError: the type is unknown here or does not divide the rows. UnavailableError: no package gguf.
    """
    try:
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
    except ImportError:
        raise UnavailableError(f"`model` {path}: reading GGUF needs a package.\npip install culteval[local]") from None
    try:
        block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
    except (KeyError, ValueError):
        raise InputError(f"{path}: {name} is quantised by a type unknown to gguf (number {kind}).\n{_REMEDY}") from None
    if shape[-1] % block:
        raise InputError(f"{path}: {name} has rows of {shape[-1]}, not a multiple of {block}. Fetch the file again.")
    return prod(shape) // block * size


def require_supported(header: Header) -> None:
    """Raise InputError, in a line and a remedy, for a file that cannot be answered with exactly."""
    values, tensors = header.values, header.tensors

    def refuse(reason: str, remedy: str = _REMEDY) -> None:
        raise InputError(f"`model` {header.path}: {reason}.\n{remedy}")

    if (parts := values.get("split.count", 1)) != 1:
        refuse(f"one of {parts} parts of a split model", "Join them: llama-gguf-split --merge FIRST.gguf WHOLE.gguf")
    architecture = header.architecture
    if architecture not in ARCHITECTURES:
        refuse(f"its architecture {architecture!r} is not one of {', '.join(ARCHITECTURES)}")
    if (kind := values.get("general.type", "model")) != "model":
        refuse(f"it holds no model but {kind!r}", "Give the file of the model.")
    if {"rope_factors_long.weight", "rope_factors_short.weight"} & set(tensors):
        refuse("its positions are scaled by LongRoPE, which is not read from GGUF")
    known = {f"{architecture}.{key}" for key in ARCHITECTURES[architecture]}
    if unknown := sorted(key for key in values if key.startswith(f"{architecture}.") and key not in known):
        refuse(f"its setting {unknown[0]} is not known here")
    if (scaling := header.setting("rope.scaling.type", "none")) not in ("none", "linear"):
        refuse(f"its positions are scaled by {scaling!r}, of which none and linear are read")
    if header.setting("rope.freq_base_swa", 1e4) != 1e4:
        refuse("the base of its local positions is not 10,000")
    _require_sizes(header, refuse)
    _require_kinds(header, refuse)
    _require_tokenizer(header, refuse)


def _require_sizes(header: Header, refuse: Callable[..., None]) -> None:
    """Check the counts of which a configuration is made, and that positions turn whole heads."""
    required = ("block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count")
    for key in (
        *required,
        *(key for key in ("attention.head_count_kv", "attention.key_length") if header.setting(key)),
    ):
        value = header.setting(key)
        if type(value) is not int or not 0 < value < MOST_DIMENSION:
            refuse(f"its setting {header.architecture}.{key} is {value!r}, not one count for all layers")
    if header.setting("block_count") > len(header.tensors):
        refuse("it has fewer tensors than layers", "Fetch the file again.")
    head = head_size(header)
    for key in ("attention.value_length", "rope.dimension_count"):
        if header.setting(key, head) != head:
            refuse(f"its {key} of {header.setting(key)} is not the size of its heads, {head}")
    if "token_embd.weight" not in header.tensors:
        refuse("it has no embeddings (token_embd.weight)", "Give the file of the model.")


def head_size(header: Header) -> int:
    """Return the size of an attention head."""
    derived = header.setting("embedding_length") // header.setting("attention.head_count")
    return int(header.setting("attention.key_length", derived))


def _require_kinds(header: Header, refuse: Callable[..., None]) -> None:
    """Check that the package gguf can de-quantise every tensor: a block of zeros of each type is tried."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    for number in sorted({tensor.kind for tensor in header.tensors.values()}):
        kind = GGMLQuantizationType(number)
        try:
            dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
        except NotImplementedError:
            refuse(f"it is quantised by {kind.name}, which the package gguf does not read")


def _require_tokenizer(header: Header, refuse: Callable[..., None]) -> None:
    """Check that the tokenizer is one of which the splits are known, and that special tokens are tokens."""
    values, prefix = header.values, "tokenizer.ggml."
    kind, pre = values.get(f"{prefix}model"), values.get(f"{prefix}pre", "default")
    tokens = values.get(f"{prefix}tokens", 0)
    if not isinstance(tokens, int) or not 0 < tokens <= header.tensors["token_embd.weight"].shape[0]:
        refuse("it has no vocabulary, or one larger than its embeddings", "Give the file of the model.")
    if kind not in ("gpt2", "llama"):
        refuse(f"its tokenizer {kind!r} is not one of gpt2 and llama")
    if kind == "gpt2" and pre not in PRE_TOKENIZERS:
        refuse(f"its tokenizer splits text by {pre!r}, not by one of {', '.join(PRE_TOKENIZERS)}")
    spaced = header.architecture.startswith("gemma") or values.get(f"{prefix}add_space_prefix", True)
    if kind == "llama" and not spaced:
        refuse("its tokenizer puts no space before a text, which is not read from GGUF")
    for name in ("bos", "eos", "eot", "unknown", "padding"):
        number = values.get(f"{prefix}{name}_token_id", 0)
        if type(number) is not int or not 0 <= number < tokens:
            refuse(f"its {name} token {number!r} is not in its vocabulary", "Fetch the file again.")
