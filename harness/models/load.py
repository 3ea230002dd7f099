"""Load a language model by its registered name, folder or hub id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...errors import UsageError
from ..engine.chat import USUAL, Chat, ChatOptions
from ..engine.model_config import text_config
from ..registry import find, table
from .info import MOST_NAME
from .local import LanguageModel
from .pretrained import load, source_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def default_dtype(device: str) -> str:
    """bfloat16 where the processor multiplies it natively, else float32."""
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    return "bfloat16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "float32"


def load_model(
    name: str,
    dtype: str,
    device: str,
    revision: str | None,
    threads: int | None,
    notify: Callable[[str], None],
    chat: ChatOptions = USUAL,
) -> LanguageModel:
    """Load a registered model, a folder or a hub id.

    Raises:
        UsageError: a device that is not there, an adapter in place of a model, or options of the chat that the
            model's template cannot follow.
        UnavailableError: no such model here, and none could be fetched.
    """
    if threads:
        torch.set_num_threads(threads)
    if len(name) > MOST_NAME or not name.isprintable():
        raise UsageError(f"--model: a name of {MOST_NAME} printable characters at most; a link can give a folder one.")
    place = str(find("models", name)() if name in table("models") else name)
    chosen = DTYPES[default_dtype(device) if dtype == "auto" else dtype]

    source = source_of(place, revision)
    tokenizer = load("AutoTokenizer", source)

    def again() -> Any:
        model = load("AutoModelForCausalLM", source, dtype=chosen)
        try:
            return model.to(device)
        except (RuntimeError, AssertionError) as error:
            raise UsageError(f"--device {device!r}: {str(error).splitlines()[0]}") from None

    spoken = Chat(tokenizer, chat, name)
    model = again()
    attention = getattr(text_config(model), "_attn_implementation", None)
    if attention == "eager":
        notify(f"{name} has no fused attention in transformers: eager attention, which is slower")
    return LanguageModel(model, spoken, name, source.revision, notify, again, source.content)
