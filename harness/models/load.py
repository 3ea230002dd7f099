"""Load a language model by registered name, folder or hub id, or wrap a model that is already in memory."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch

from ...errors import UsageError
from ...tasks.chat_options import DEFAULT_CHAT, ChatOptions
from ..engine.chat import Chat
from ..engine.int8 import largest_weight, quantise_linears
from ..engine.model_config import text_config
from ..engine.onednn import mark_shared
from ..engine.select import hooked_module
from ..model_info import MOST_NAME
from ..registry import find, table
from ..util.at_work import quiet, use_threads
from .fingerprint import memory_hash, weights_hash
from .gguf import is_gguf
from .greedy import end_tokens
from .local import LanguageModel
from .pretrained import load, load_weights, source_of

DTYPES = {  # the dtype of what is not multiplied in int8 is float32
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.float32,
}
_BFLOAT16 = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private: later versions of torch may lack them


def default_dtype(device: str, notify: Callable[[str], None]) -> str:
    """Return bfloat16 if the processor supports it natively, else float32, also if torch cannot determine it."""
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    known = [getattr(torch.cpu, name) for name in _BFLOAT16 if hasattr(torch.cpu, name)]
    if len(known) < len(_BFLOAT16):
        notify(f"torch {torch.__version__} cannot determine whether bfloat16 is native; set dtype='bfloat16' to use it")
    return "bfloat16" if any(supported() for supported in known) else "float32"


def load_model(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    revision: str | None = None,
    threads: int | None = None,
    chat: ChatOptions = DEFAULT_CHAT,
    notify: Callable[[str], None] = lambda note: None,
) -> LanguageModel:
    """Load a registered model, a GGUF file, a folder or a hub id.

    Args:
        name: such as ``smollm2``, the smallest embedded model. Of a GGUF file the model is named without its folder.
        dtype: float32, bfloat16, float16, int8 (approximate, on a CPU), or auto: bfloat16 if the processor supports it
            natively, else float32.
        device: a device of torch, such as cpu or cuda.
        revision: revision of a hub model; None: its latest commit.
        threads: number of torch threads while the model runs; None: the current number.
        chat: options of the chat around every prompt.
        notify: called with a note for each unusual property of the model.

    Raises:
        UsageError: the device does not exist, the model is an adapter or cannot run in int8, or its chat template does
            not support the options.
        UnavailableError: the model is not on this machine and could not be fetched.
    """
    place = str(find("models", name)() if name in table("models") else name)
    if name not in table("models") and is_gguf(name):
        name = Path(name).name
    _require_name(name)
    chosen = DTYPES[default_dtype(device, notify) if dtype == "auto" else dtype]

    source = source_of(place, revision)
    tokenizer = load("AutoTokenizer", source)

    def load_again() -> Any:
        model = load_weights(source, chosen)
        try:
            return model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"`device` {device!r}: {str(error).splitlines()[0]}") from None

    with use_threads(threads) if threads else nullcontext(), quiet():
        model_chat = Chat(tokenizer, chat, name)
        model = load_again().requires_grad_(False)
        if dtype == "int8":
            quantise_linears(model)
            if largest_weight() < 127:
                notify(
                    "this processor has no instructions for int8: weights have seven bits, which changes answers more"
                )
        if getattr(text_config(model), "_attn_implementation", None) == "eager":
            notify(f"{name} has no fused attention in transformers; using eager attention, which is slower")
        return LanguageModel(model, model_chat, name, source.revision, notify, load_again, source.content)


def wrap_model(
    model: Any,
    tokenizer: Any,
    *,
    name: str | None = None,
    threads: int | None = None,
    chat: ChatOptions = DEFAULT_CHAT,
    notify: Callable[[str], None] = lambda note: None,
) -> LanguageModel:
    """Wrap a causal language model of transformers and its tokenizer, both in memory, as a ``LanguageModel``.

    Model and tokenizer are not modified: the result shares the memory of the weights, not the modules. If the weights
    change later, wrap the model again: the recorded metadata would not describe them. The revision is a hash of
    configuration and weights. Layers of a PEFT adapter are refused: which adapter is active is in neither. Nor are
    hooks, such as those of steering.

    Args:
        name: the model's name in submissions; None: the name it was loaded by, or the name of its class.
        threads: as for ``load_model``.
        chat: as for ``load_model``.
        notify: as for ``load_model``.

    Raises:
        UsageError: not a causal language model of transformers, one with an adapter or hooks, or its chat template does
            not support the options.
    """
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    if not isinstance(model, PreTrainedModel) or not model.can_generate():
        kind = type(model).__name__
        raise UsageError(
            f"`model`: {kind} is not a causal language model of transformers. For a PEFT model pass merge_and_unload()."
        )
    if _has_adapter(model):
        kind = type(model).__name__
        raise UsageError(f"`model`: {kind} has layers of a PEFT adapter. Pass merge_and_unload() of the PEFT model.")
    if hooked := hooked_module(model):
        raise UsageError(
            f"`model`: {hooked} has a hook or a `forward` of its own, of which no revision would tell.\n"
            "Remove it, or save it as a PEFT adapter (`lora_bias` adds a vector) and give its base and `adapter`."
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UsageError(f"`tokenizer`: {type(tokenizer).__name__} is not a tokenizer of transformers.")
    name = name or model.name_or_path or type(model).__name__
    _require_name(name)
    revision = weights_hash(model)
    content = memory_hash(revision, tokenizer, end_tokens(model, tokenizer))

    def load_again() -> Any:
        return copy.deepcopy(model).eval().requires_grad_(True)

    with use_threads(threads) if threads else nullcontext(), quiet():
        model_chat = Chat(copy.deepcopy(tokenizer), chat, name)
        return LanguageModel(
            _twin(model).requires_grad_(False), model_chat, name, revision[:16], notify, load_again, content
        )


def _has_adapter(model: Any) -> bool:
    peft = sys.modules.get("peft.tuners.tuners_utils")  # there are such layers only where peft was imported
    return peft is not None and any(isinstance(module, peft.BaseTunerLayer) for module in model.modules())


def _twin(model: Any) -> Any:
    """Copy the modules of a model around the same weights, marked as shared, since packing replaces modules."""
    shared: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    for weight in model.parameters():
        if type(weight) is torch.nn.Parameter:  # others, of quantised layers, hold more than numbers
            shared[id(weight)] = torch.nn.Parameter(weight.data, requires_grad=False)
    twin = copy.deepcopy(model, shared)
    mark_shared(twin)
    return twin


def _require_name(name: str) -> None:
    if len(name) > MOST_NAME or not name.isprintable():
        raise UsageError(f"`model`: use a name of {MOST_NAME} printable characters at most; for a folder, use a link.")
