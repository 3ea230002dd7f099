"""Load a language model by its registered name, folder or hub id, or take one that is in memory already."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch

from ...errors import UsageError
from ...tasks.chat_options import DEFAULT_CHAT, ChatOptions
from ..engine.at_work import quiet, use_threads
from ..engine.chat import Chat
from ..engine.model_config import text_config
from ..model_info import MOST_NAME
from ..registry import find, table
from .fingerprint import memory_hash, weights_hash
from .local import LanguageModel
from .pretrained import load, source_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_BFLOAT16 = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # private: a later torch may lack them


def default_dtype(device: str, notify: Callable[[str], None]) -> str:
    """bfloat16 where the processor multiplies it natively, else float32, also where torch cannot tell."""
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    known = [getattr(torch.cpu, name) for name in _BFLOAT16 if hasattr(torch.cpu, name)]
    if len(known) < len(_BFLOAT16):
        notify(f"torch {torch.__version__} does not tell whether bfloat16 is native here; dtype='bfloat16' asks for it")
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
    """Load a registered model, a folder or a hub id.

    Args:
        name: such as ``smollm2``, the embedded model.
        dtype: float32, bfloat16, float16, or auto, which is bfloat16 where the processor multiplies it natively.
        device: as torch names it, such as cpu or cuda.
        revision: of a hub model; its latest commit where None.
        threads: of torch while the model works; as many as torch has now where None.
        chat: what is said around every prompt.
        notify: is told what is unusual about the model.

    Raises:
        UsageError: a device that is not there, an adapter in place of a model, or options of the chat that the
            model's template cannot follow.
        UnavailableError: no such model here, and none could be fetched.
    """
    _require_name(name)
    place = str(find("models", name)() if name in table("models") else name)
    chosen = DTYPES[default_dtype(device, notify) if dtype == "auto" else dtype]

    source = source_of(place, revision)
    tokenizer = load("AutoTokenizer", source)

    def again() -> Any:
        model = load("AutoModelForCausalLM", source, dtype=chosen)
        try:
            return model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"`device` {device!r}: {str(error).splitlines()[0]}") from None

    with use_threads(threads) if threads else nullcontext(), quiet():
        spoken = Chat(tokenizer, chat, name)
        model = again()
        if getattr(text_config(model), "_attn_implementation", None) == "eager":
            notify(f"{name} has no fused attention in transformers: eager attention, which is slower")
        return LanguageModel(model, spoken, name, source.revision, notify, again, source.content)


def wrap_model(
    model: Any,
    tokenizer: Any,
    *,
    name: str | None = None,
    threads: int | None = None,
    chat: ChatOptions = DEFAULT_CHAT,
    notify: Callable[[str], None] = lambda note: None,
) -> LanguageModel:
    """Make a ``LanguageModel`` of a causal language model of transformers and its tokenizer that are in memory.

    Both stay as they are: the result shares the memory of the weights, not the modules. Weights that are changed
    afterwards make its answers those of no model that it describes; wrap the model anew then. Its revision is a hash of
    configuration and weights.

    Args:
        name: what submissions call the model; the name that it was loaded by, or that of its class, where None.
        threads, chat, notify: as for ``load_model``.

    Raises:
        UsageError: no causal language model of transformers, or options of the chat that its template cannot follow.
    """
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    if not isinstance(model, PreTrainedModel) or not model.can_generate():
        kind = type(model).__name__
        raise UsageError(
            f"`model`: {kind} is no causal language model of transformers. Of a PEFT model give merge_and_unload()."
        )
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UsageError(f"`tokenizer`: {type(tokenizer).__name__} is no tokenizer of transformers.")
    name = name or model.name_or_path or type(model).__name__
    _require_name(name)
    revision = weights_hash(model)
    content = memory_hash(revision, tokenizer)

    def again() -> Any:
        return copy.deepcopy(model).eval().requires_grad_(True)

    with use_threads(threads) if threads else nullcontext(), quiet():
        spoken = Chat(copy.deepcopy(tokenizer), chat, name)
        return LanguageModel(_twin(model), spoken, name, revision[:16], notify, again, content)


def _twin(model: Any) -> Any:
    """A model of its own modules around the same weights, since what makes one fast replaces modules."""
    shared: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    for weight in model.parameters():
        if type(weight) is torch.nn.Parameter:  # others, of quantised layers, have more to them than numbers
            shared[id(weight)] = torch.nn.Parameter(weight.data, requires_grad=False)
    return copy.deepcopy(model, shared)


def _require_name(name: str) -> None:
    if len(name) > MOST_NAME or not name.isprintable():
        raise UsageError(f"`model`: a name of {MOST_NAME} printable characters at most; a link can give a folder one.")
