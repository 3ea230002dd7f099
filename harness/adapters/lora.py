"""Load LoRA adapters with peft, after their names, shapes and patterns are checked against the model."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import InputError
from ...tasks.reading import read_text
from .peft_files import CONFIG, TEMPLATE, WEIGHTS, own_tokenizer_files, patterns, read_lora_config

SECONDS = 3.0  # limit for matching a configuration's patterns with all names of a model; usual: milliseconds
_MATCH = """
import json, re, sys
patterns, names = json.load(sys.stdin)
for pattern in patterns:
    list(map(re.compile(pattern).fullmatch, names))
"""
_PREFIX = "base_model.model."  # prefix of the model's own names in peft's files
# Errors that peft raises for a configuration that does not fit a model.
_REFUSALS = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError, NotImplementedError)


def with_lora(model: Any, folder: Path) -> Any:
    """Return a frozen transformers model with an unmerged adapter, loaded by ``PeftModel.from_pretrained``.

    Embeddings are resized to the rows of embeddings that the adapter holds, if any.

    Raises:
        InputError: the adapter is damaged, has unsupported parts or does not fit the model; names file and tensor.
    """
    from peft import PeftModel

    given = read_lora_config(folder)
    _require_quick(given, model, folder / CONFIG)
    shapes = _shapes(folder / WEIGHTS)
    added = _resize(model, shapes)
    _require_tokens(given, model, folder / CONFIG)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # warnings of the libraries about each other
        _check_names(_skeleton(model, given, folder / CONFIG), shapes, folder / WEIGHTS)
        try:
            loaded = PeftModel.from_pretrained(model, folder, config=_config(given), torch_device=str(model.device))
        except (ValueError, TypeError) as error:  # such as PiSSA on quantised weights
            raise _refusal(folder / CONFIG, error) from None
    tuned: Any = loaded.get_base_model().eval().requires_grad_(False)
    if added:
        _require_read(tuned, folder / WEIGHTS)
    return tuned


def tokenizer_for(folder: Path, model: Any, usual: Any) -> Any:
    """Return the tokenizer of a model with an adapter: the one in the adapter's folder, else ``usual``.

    Raises:
        InputError: the tokenizer cannot be read, or has tokens without embeddings in the model.
    """
    files = own_tokenizer_files(folder)
    if not files:
        return usual
    if files == [TEMPLATE]:
        usual = copy.deepcopy(usual)
        usual.chat_template = read_text(folder / TEMPLATE)
        return usual
    from transformers import AutoTokenizer

    remedy = f"Remove {', '.join(files)} to use the model's own tokenizer."
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, *_REFUSALS) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(f"{folder}: its tokenizer cannot be read ({reason}).\n{remedy}") from None
    saved = "Save the adapter with its embeddings (save_embedding_layers=True)."
    require_rows(model, tokenizer, folder, f"{saved} {remedy}")
    return tokenizer


def require_rows(model: Any, tokenizer: Any, folder: Path, remedy: str) -> None:
    """Raise InputError if a tokenizer has more tokens than a model with a folder's adapter has embeddings."""
    if len(tokenizer) > (rows := model.get_input_embeddings().weight.shape[0]):
        sizes = f"the tokenizer has {len(tokenizer)} tokens, but the embeddings have {rows} rows"
        raise InputError(f"{folder}: {sizes} with this adapter.\n{remedy}")


def _config(given: Mapping[str, Any]) -> Any:
    from peft import LoraConfig

    # A new object each time: peft modifies it.
    return LoraConfig(task_type="CAUSAL_LM", inference_mode=True, **copy.deepcopy(dict(given)))


def _refusal(path: Path, error: Exception) -> InputError:
    return InputError(f"{path}: {(str(error) or repr(error)).splitlines()[0][:200]}")


def _require_quick(given: Mapping[str, Any], model: Any, path: Path) -> None:
    """Raise InputError for patterns that match too slowly, such as ``(.*.*)*x``; tested in another process."""
    if not (tried := patterns(given)):
        return
    names = [name for name, _ in model.named_modules()]
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-c", _MATCH],
            input=json.dumps([tried, names]),
            text=True,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"{path}: its patterns take too long to match ({tried[0][:100]!r}).") from None
    if done.returncode:
        raise InputError(f"{path}: not regular expressions ({tried[0][:100]!r}).")


def _shapes(path: Path) -> dict[str, list[int]]:
    """Read the shapes of all tensors of a file; raise InputError unless all hold finite floating-point numbers."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  not a mapping
                tensor = file.get_tensor(name)
                if not tensor.is_floating_point():
                    raise InputError(f"{path}: {name} holds {tensor.dtype} instead of floating-point numbers.")
                if not tensor.float().isfinite().all():
                    raise InputError(f"{path}: {name} holds NaN or infinite numbers.")
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors adapter ({error}).") from None


def _require_tokens(given: Mapping[str, Any], model: Any, path: Path) -> None:
    """Raise InputError for trainable tokens beyond the model's embeddings."""
    tokens = given.get("trainable_token_indices") or []
    rows = model.get_input_embeddings().weight.shape[0]
    most = max((one for ids in (tokens.values() if isinstance(tokens, dict) else [tokens]) for one in ids), default=0)
    if most >= rows:
        raise InputError(f"{path}: trainable_token_indices: {most}, but the model's embeddings have {rows} rows.")


def _skeleton(model: Any, given: Mapping[str, Any], path: Path) -> Any:
    """Build the model that peft makes of a model and an untrusted configuration, without allocating weights.

    Raises:
        InputError: peft rejects the configuration.
    """
    from peft import get_peft_model

    def bare(tensor: torch.Tensor) -> torch.Tensor:
        shadow = tensor.to("meta")
        return torch.nn.Parameter(shadow, requires_grad=False) if type(tensor) is torch.nn.Parameter else shadow

    kinds = (torch.nn.Parameter, torch.Tensor)  # others, of quantised models, are copied as they are
    tensors = [one for one in (*model.parameters(), *model.buffers()) if type(one) in kinds]
    with torch.device("meta"):
        twin = copy.deepcopy(model, {id(tensor): bare(tensor) for tensor in tensors})
        try:
            return get_peft_model(twin, _config({**given, "init_lora_weights": True}))
        except _REFUSALS as error:
            raise _refusal(path, error) from None


def _check_names(skeleton: Any, shapes: Mapping[str, list[int]], path: Path) -> None:
    """Raise InputError unless a file holds exactly the tensors of the model's adapter, in their shapes.

    The file may also hold the model's embeddings, as peft saves them.
    """
    from peft import get_peft_model_state_dict
    from peft.import_utils import is_transformers_ge_v5

    wanted = get_peft_model_state_dict(skeleton, save_embedding_layers=False)
    allowed = wanted | get_peft_model_state_dict(skeleton, save_embedding_layers=True)
    held = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    if is_transformers_ge_v5:  # which merges layers of experts that adapters hold separately
        from peft.utils.transformers_weight_conversion import convert_peft_adapter_state_dict_for_transformers

        held = convert_peft_adapter_state_dict_for_transformers(skeleton, skeleton.active_peft_config, held)
    if wrong := sorted((set(held) - set(allowed)) | (set(wanted) - set(held))):
        problem = "is missing" if wrong[0] in wanted else "is not a tensor of this model's adapter"
        raise InputError(f"{path}: {wrong[0][:120]} {problem}.")
    for name, tensor in held.items():
        if tensor.shape != allowed[name].shape:
            shape = f"has shape {list(tensor.shape)}; this model needs {list(allowed[name].shape)}"
            raise InputError(f"{path}: {name} {shape}.")


def _resize(model: Any, shapes: Mapping[str, list[int]]) -> bool:
    """Resize a model's embeddings to those that an adapter holds; return whether rows were added.

    Added rows are NaN until they are read from the file.
    """
    embedding = model.get_input_embeddings()
    heads = [one for one in (embedding, model.get_output_embeddings()) if one is not None]
    names = [name for name, module in model.named_modules() if any(module is one for one in heads)]
    rows, dim = embedding.weight.shape
    held = {
        shape[0]
        for name, shape in shapes.items()
        for own in names
        if name.startswith(f"{_PREFIX}{own}.") and name.endswith(".weight") and "lora_" not in name
        if len(shape) == 2 and shape[1] == dim
    }
    if len(held) != 1 or (new := held.pop()) == rows:
        return False
    model.resize_token_embeddings(new, mean_resizing=False)
    for one in {model.get_input_embeddings(), model.get_output_embeddings()} - {None}:
        one.weight.data[rows:] = torch.nan
    return new > rows


def _require_read(tuned: Any, path: Path) -> None:
    """Raise InputError if rows added to the embeddings were not read from the adapter."""
    for one in (tuned.get_input_embeddings(), tuned.get_output_embeddings()):
        if one is not None and not one.weight.isfinite().all():
            raise InputError(
                f"{path}: holds embeddings of added tokens, but not all of them.\n"
                "Save the adapter with save_embedding_layers=True."
            )
