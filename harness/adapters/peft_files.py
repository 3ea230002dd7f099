"""Read and validate the files of a PEFT adapter as untrusted input: kind, configuration, hash.

This module does not need torch. ``lora.py`` loads a LoRA adapter, ``prompted.py`` a soft prompt.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator

from ...errors import InputError, UsageError
from ...tasks.reading import read_bytes
from ...tasks.spec import first_problem

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PICKLED = "adapter_model.bin"
LORA, PROMPT_TUNING = "LORA", "PROMPT_TUNING"
MOST_CONFIG, MOST_RANK, MOST_ALPHA = 1 << 20, 1024, 1_000_000
MOST_NAMES, MOST_PATTERN, MOST_LAYERS, MOST_TOKEN = 10_000, 5_000, 1024, 1 << 24
TEMPLATE = "chat_template.jinja"
TOKENIZER = (  # files of a tokenizer that transformers writes
    "tokenizer.json",
    "tokenizer_config.json",
    TEMPLATE,
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
)

# Fields without influence on the numbers of a saved adapter, though some would run code or fetch files.
_NEUTRAL = {
    "peft_type",
    "task_type",
    "peft_version",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
}
_NEUTRAL_LORA = _NEUTRAL | {
    "runtime_config",
    "lora_dropout",
    "megatron_core",
    "qalora_group_size",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
}
_NEUTRAL_PROMPT = _NEUTRAL | {
    "token_dim",
    "num_attention_heads",
    "num_layers",
    "prompt_tuning_init",
    "prompt_tuning_init_text",
    "tokenizer_name_or_path",
    "tokenizer_kwargs",
}
# Initialisations of A and B that leave the base model unchanged.
_BEGINNINGS = (True, False, "gaussian", "eva", "orthogonal", "mica")
# Initialisations that subtract a part of the base model, which is reproducible.
_TAKEN_OUT = ("pissa", "olora")

_PLAIN = re.compile(r"(?:[\w.^$-]|\\[.d])*")  # patterns that need no backtracking and are well-formed

_Name = Annotated[
    str, StringConstraints(pattern=r"^[\w.]{1,200}$")
]  # without other characters, which peft would read as a pattern
_Pattern = Annotated[str, StringConstraints(max_length=MOST_PATTERN)]
_Names = Annotated[list[_Name], Field(max_length=MOST_NAMES)]
_Rank = Annotated[int, Field(ge=1, le=MOST_RANK)]
_Alpha = Annotated[float, Field(ge=-MOST_ALPHA, le=MOST_ALPHA, allow_inf_nan=False)]
_Layer = Annotated[int, Field(ge=0, le=MOST_LAYERS)]
_Tokens = Annotated[list[Annotated[int, Field(ge=0, lt=MOST_TOKEN)]], Field(max_length=MOST_TOKEN)]


# Built on first use: most commands read no adapter.
_FIELDS = ConfigDict(extra="ignore", frozen=True, strict=True, defer_build=True)


class _LoraFields(BaseModel):
    """The fields of peft's ``LoraConfig`` that determine an adapter's numbers, with their bounds."""

    model_config = _FIELDS

    r: _Rank
    lora_alpha: _Alpha
    target_modules: _Names | _Pattern | None = None
    exclude_modules: _Names | _Pattern | None = None
    target_parameters: _Names | None = None
    modules_to_save: _Names | None = None
    layers_to_transform: list[_Layer] | _Layer | None = None
    layers_pattern: _Names | _Name | None = None
    layer_replication: list[Annotated[list[_Layer], Field(min_length=2, max_length=2)]] | None = None
    rank_pattern: Annotated[dict[_Pattern, _Rank], Field(max_length=MOST_NAMES)] | None = None
    alpha_pattern: Annotated[dict[_Pattern, _Alpha], Field(max_length=MOST_NAMES)] | None = None
    trainable_token_indices: _Tokens | dict[_Name, _Tokens] | None = None
    bias: Literal["none", "all", "lora_only"] | None = None
    fan_in_fan_out: bool | None = None
    use_rslora: bool | None = None
    use_dora: bool | None = None
    lora_bias: bool | None = None
    ensure_weight_tying: bool | None = None
    init_lora_weights: bool | str | None = None

    @field_validator("layer_replication")
    @classmethod
    def _bounded(cls, given: list[list[int]] | None) -> list[list[int]] | None:
        if given is not None and sum(max(0, end - start) for start, end in given) > MOST_LAYERS:
            raise ValueError(f"more than {MOST_LAYERS} layers")
        return given

    @field_validator("init_lora_weights")
    @classmethod
    def _repeatable(cls, given: bool | str | None) -> bool | str | None:
        if given is not None and _begun(given) not in (*_BEGINNINGS, *_TAKEN_OUT):
            raise ValueError(
                f"{str(given)[:40]!r} changed the base model in a way that is not reproducible. Where it was "
                "trained, save it as plain LoRA: save_pretrained(..., path_initial_model_for_weight_conversion=...)"
            )
        return given


# Part of an adapter's hash whenever given: the hashes of adapters published so far cover exactly these.
_HASHED = {"r", "lora_alpha", "target_modules", "modules_to_save", "bias", "fan_in_fan_out", "use_rslora"}


class _PromptFields(BaseModel):
    """The fields of peft's ``PromptTuningConfig`` that must have valid values in a saved soft prompt."""

    model_config = _FIELDS

    num_virtual_tokens: Annotated[int, Field(ge=1)] | None = None
    num_transformer_submodules: Literal[1] | None = None


def read_config(folder: Path) -> dict[str, Any]:
    """Read an adapter's configuration.

    Raises:
        InputError: the folder holds no adapter of a supported kind.
    """
    path = folder / CONFIG
    if not folder.is_dir():
        fetch = "hf download NAME --local-dir FOLDER"
        raise InputError(f"{path}: no such folder. Fetch an adapter from the hub first: {fetch}.")
    try:
        given = json.loads(read_bytes(path, MOST_CONFIG))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({str(error)[:100]}).") from None
    kind = given.get("peft_type") if isinstance(given, dict) else None
    if kind not in (LORA, PROMPT_TUNING):
        what = f"peft_type is {str(kind)[:40]!r}" if kind else "not the configuration of an adapter (peft_type)"
        raise InputError(f"{path}: {what}; {LORA} and {PROMPT_TUNING} are supported.")
    if given.get("task_type") not in (None, "CAUSAL_LM"):
        raise InputError(f"{path}: task_type is {str(given['task_type'])[:40]!r}; an adapter for CAUSAL_LM is needed.")
    if not (folder / WEIGHTS).is_file() and (folder / PICKLED).is_file():
        raise InputError(
            f"{folder}: holds {PICKLED}, not a safetensors adapter; such files can run code and are not read.\n"
            "If you trust it, load it with peft and save it again: save_pretrained writes safetensors."
        )
    return given


def read_lora_config(folder: Path) -> dict[str, Any]:
    """Read the fields of a LoRA configuration that determine its numbers, without those at their default.

    Raises:
        InputError: not a LoRA configuration, a value out of bounds, or an unsupported field.
    """
    path, given = folder / CONFIG, read_config(folder)
    if given["peft_type"] != LORA:
        raise InputError(f"{path}: peft_type is {given['peft_type']}; a LoRA adapter is needed.")
    _validate(_LoraFields, _NEUTRAL_LORA, given, path)
    known = _LoraFields.model_fields
    if _begun(given.get("init_lora_weights")) not in _TAKEN_OUT:
        given.pop("init_lora_weights", None)
    config = {name: given[name] for name in known if name in _HASHED and given.get(name) is not None}
    config |= {name: given[name] for name in known if name not in _HASHED and not _empty(given.get(name))}
    return config | {"lora_dropout": 0.0}


def _begun(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _empty(value: Any) -> bool:
    return value is None or value is False or value in ("", [], {})


def _validate(fields: type[BaseModel], neutral: set[str], given: Mapping[str, Any], path: Path) -> None:
    """Raise InputError for an unsupported field that is set, and for a value out of bounds."""
    for name, value in given.items():
        if name not in fields.model_fields and name not in neutral and not _empty(value):
            raise InputError(f"{path}: {ascii(name)[1:-1][:100]} is set; adapters with it are not supported.")
    try:
        fields.model_validate(given)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}.") from None


def patterns(config: Mapping[str, Any]) -> list[str]:
    """Return the strings of a LoRA configuration that peft reads as regular expressions, except plain names."""
    whole = [config.get(name) for name in ("target_modules", "exclude_modules")]
    texts = [one for one in whole if isinstance(one, str) and one.lower() != "all-linear"]
    keys = [key for name in ("rank_pattern", "alpha_pattern") for key in config.get(name, ())]
    return [
        *(one for one in texts if not _PLAIN.fullmatch(one)),
        *(f"(.*\\.)?({key})$" for key in keys if not _PLAIN.fullmatch(key)),  # as peft matches them
    ]


def lora_hash(folder: Path) -> bytes:
    """Compute the sha256 of a LoRA adapter's weights and of the configuration of ``read_lora_config``."""
    config = json.dumps(read_lora_config(folder), sort_keys=True).encode()
    return hashlib.sha256(config + b"\0" + _weights(folder)).digest()


def peft_hash(folder: Path) -> bytes:
    """Compute the sha256 of a soft prompt or LoRA adapter, without a tokenizer in its folder.

    Raises:
        InputError: the adapter is not supported.
    """
    if is_soft_prompt(folder):
        return hashlib.sha256(PROMPT_TUNING.encode() + b"\0" + _weights(folder)).digest()
    return lora_hash(folder)


def carried_hash(folder: Path) -> str:
    """Compute the sha256, in hexadecimal digits, of all that ``adapter`` uses of a folder, tokenizer included.

    Raises:
        InputError: the adapter is not supported.
    """
    digest = peft_hash(folder)
    files = [[name, hashlib.sha256((folder / name).read_bytes()).hexdigest()] for name in own_tokenizer_files(folder)]
    return hashlib.sha256(digest + json.dumps(files).encode()).hexdigest() if files else digest.hex()


def _weights(folder: Path) -> bytes:
    try:
        return (folder / WEIGHTS).read_bytes()
    except OSError as error:
        raise InputError(f"{folder / WEIGHTS}: not a safetensors adapter ({error}).") from None


def own_tokenizer_files(folder: Path) -> list[str]:
    """Return the names of tokenizer and chat template files in an adapter's folder."""
    return [name for name in TOKENIZER if (folder / name).is_file()]


def is_soft_prompt(folder: Path) -> bool:
    """Return whether an adapter is a soft prompt (prompt tuning) instead of LoRA.

    Raises:
        InputError: it is neither, or a soft prompt with other parts.
    """
    given = read_config(folder)
    if given["peft_type"] != PROMPT_TUNING:
        return False
    _validate(_PromptFields, _NEUTRAL_PROMPT, given, folder / CONFIG)
    parts = [folder / "preamble.txt", folder / "lora" / CONFIG]
    if other := next((part for part in parts if part.is_file() and part.stat().st_size), None):
        raise InputError(
            f"{folder}: {other.relative_to(folder)} belongs to this soft prompt, and only one of them is supported."
        )
    return True


def refuse_as_model(name: str, where: Mapping[str, Any]) -> None:
    """Raise UsageError if a model is an adapter: transformers would fetch its base model, and load both.

    Args:
        name: a folder or a hub id.
        where: further arguments with which transformers finds its files.
    """
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        path = find_adapter_config_file(name, **where)
        given = json.loads(read_bytes(Path(path), MOST_CONFIG)) if path else None
    except (OSError, ValueError, RecursionError, InputError):
        given = None  # loading it reports the problem
    if given is None:
        return
    made_for = given.get("base_model_name_or_path") if isinstance(given, dict) else None
    base = made_for if isinstance(made_for, str) and made_for else "BASE"
    fetched = name if Path(name).exists() else f"FOLDER (hf download {name} --local-dir FOLDER)"
    raise UsageError(
        f"`model` {name}: a PEFT adapter ({CONFIG}) made for {base[:200]}, not a model.\n"
        f"Use `model` {base[:200]} `adapter` {fetched}; if it was merged, take {CONFIG} out of the folder."
    )
