"""PEFT LoRA adapters as untrusted input: safetensors only, names and shapes checked against the model first."""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

from ..errors import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MOST_CONFIG, MOST_RANK, MOST_ALPHA = 1 << 20, 1024, 1_000_000
# What an adapter may say of itself. Anything else could run code or fetch files when peft reads it.
_KNOWN = {
    "r",
    "lora_alpha",
    "lora_dropout",
    "target_modules",
    "modules_to_save",
    "bias",
    "fan_in_fan_out",
    "use_rslora",
}
_FULL = ("lm_head", "embed_tokens")


def with_lora(model: Any, folder: Path) -> Any:
    """A transformers model with an adapter beside its weights, frozen.

    Raises:
        InputError: the adapter is damaged, has parts we do not load, or does not fit the model; names file and tensor.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load_file

    given = read_lora_config(folder)
    config = LoraConfig(task_type="CAUSAL_LM", inference_mode=True, **given)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the libraries, about one another
            # Without memory of its own until the file's shapes are known to be those that the configuration promises.
            tuned = get_peft_model(model, config, low_cpu_mem_usage=True)
    except ValueError as error:
        raise InputError(f"{folder / CONFIG}: {str(error).splitlines()[0][:200]}") from None
    _check_shapes(tuned, folder / WEIGHTS)
    set_peft_model_state_dict(tuned, load_file(folder / WEIGHTS), low_cpu_mem_usage=True)
    return tuned.get_base_model().eval().requires_grad_(False)


def read_config(path: Path) -> dict[str, Any]:
    """All that a LoRA adapter's configuration says.

    Raises:
        InputError: not the configuration of a LoRA adapter.
    """
    try:
        with path.open("rb") as file:
            given = json.loads(file.read(MOST_CONFIG))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({str(error)[:100]}).") from None
    if not isinstance(given, dict) or given.get("peft_type") != "LORA":
        raise InputError(f"{path}: not the configuration of a LoRA adapter (peft_type).")
    return given


def read_lora_config(folder: Path) -> dict[str, Any]:
    """The fields of an adapter's configuration that decide its numbers.

    Raises:
        InputError: not the configuration of a LoRA adapter, or values out of bounds.
    """
    path = folder / CONFIG
    given = read_config(path)
    found = {name: given[name] for name in _KNOWN if given.get(name) is not None}
    rank, alpha, modules = found.get("r"), found.get("lora_alpha"), found.get("target_modules")
    if type(rank) is not int or not 1 <= rank <= MOST_RANK:
        raise InputError(f"{path}: r: a whole number from 1 to {MOST_RANK}.")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not -MOST_ALPHA <= alpha <= MOST_ALPHA:
        raise InputError(f"{path}: lora_alpha: a number up to {MOST_ALPHA}.")
    if (
        not isinstance(modules, list)
        or not modules
        or not all(isinstance(m, str) and m.isidentifier() for m in modules)
    ):
        raise InputError(f"{path}: target_modules: a list of module names.")
    full = found.get("modules_to_save", [])
    if found.get("bias", "none") != "none" or not isinstance(full, list) or not all(name in _FULL for name in full):
        raise InputError(f"{path}: bias must be none, and modules_to_save among {', '.join(_FULL)}.")
    return found | {"lora_dropout": 0.0}


def _check_shapes(tuned: Any, path: Path) -> None:
    """Raise InputError unless a file holds exactly the tensors that the adapter of this model has, in their shapes."""
    from peft import get_peft_model_state_dict
    from safetensors import SafetensorError, safe_open

    wanted = {name: list(value.shape) for name, value in get_peft_model_state_dict(tuned).items()}
    try:
        with safe_open(path, framework="pt") as file:
            names = set(file.keys())
            if odd := sorted(names ^ set(wanted)):
                what = "is not in it" if odd[0] in wanted else "is no tensor of this model's adapter"
                raise InputError(f"{path}: {odd[0][:120]} {what}.")
            for name, shape in wanted.items():
                if (there := file.get_slice(name).get_shape()) != shape:
                    raise InputError(f"{path}: {name} has shape {there}; this model needs {shape}.")
            for name in wanted:
                if not file.get_tensor(name).isfinite().all():
                    raise InputError(f"{path}: {name} holds NaN or infinite numbers.")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors adapter ({error}).") from None


def lora_hash(folder: Path) -> bytes:
    """sha256 over what decides an adapter's numbers: its weights, and its configuration as we read it."""
    config = json.dumps(read_lora_config(folder), sort_keys=True).encode()
    return hashlib.sha256(config + b"\0" + (folder / WEIGHTS).read_bytes()).digest()
