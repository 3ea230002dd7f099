"""Read the settings of the forward pass from the configuration of a model, or of its text part if there are several."""

from __future__ import annotations

import re
from typing import Any

_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")  # the last three: GPT-2, MPT, BLOOM
_WINDOW = re.compile(r"^(?!sliding_window$|max_window_layers$).*(window(?!.*pattern)|attention_chunk)")


def text_config(model: Any) -> Any:
    """Return the configuration of the text part of a model."""
    return model.get_decoder().config.get_text_config()


def context_of(config: dict[str, Any]) -> int | None:
    """Return the context length in tokens of a configuration as in ``config.json``, None if not given."""
    text = config.get("text_config")
    known = {**config, **text} if isinstance(text, dict) else config
    length = next((known[name] for name in _CONTEXT if known.get(name) is not None), None)
    return length if type(length) is int and length > 0 else None


def sliding_window(config: Any) -> int | None:
    """Return the width in tokens of a model's sliding-window layers, None without such layers."""
    kinds = getattr(config, "layer_types", None)
    if kinds and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None) or None


def has_kinds(config: Any) -> bool:
    """Return whether a model takes one mask per kind of layer instead of one for all layers."""
    return "sliding_attention" in (getattr(config, "layer_types", None) or ())


def other_window(config: Any) -> str | None:
    """Return the name of a setting, other than the sliding window, that limits attention to a window or chunk."""
    for name, value in config.to_dict().items():
        if type(value) is int and value > 0 and _WINDOW.match(name):
            return name
    return None


def other_kind(config: Any) -> str | None:
    """Return a kind of layer that is neither full nor sliding attention, such as a recurrence, None without such."""
    kinds = getattr(config, "layer_types", None) or ()
    return next((kind for kind in kinds if kind not in ("full_attention", "sliding_attention")), None)


def logit_factor(config: Any) -> float:
    """Return the factor of the head's output: Granite divides the logits, Cohere multiplies them."""
    scale, scaling = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    if isinstance(scale, int | float):
        return float(scale)
    return 1 / scaling if isinstance(scaling, int | float) and scaling else 1.0


def reads_ids(config: Any) -> bool:
    """Return whether layers read token ids besides input embeddings (Gemma 3n, Gemma 4)."""
    given = config if isinstance(config, dict) else config.to_dict()
    text = given.get("text_config")
    return bool((text if isinstance(text, dict) else given).get("hidden_size_per_layer_input"))


def steady_length(config: Any) -> int | None:
    """Return the length in tokens up to which rotary positions do not depend on prompt length; None if they never do.

    LongRoPE (Ding et al. 2024, arXiv 2402.13753) and dynamic NTK scaling rescale all positions of longer prompts.
    """
    # transformers 4 has ``rope_scaling``, its type by either name, and LongRoPE's length beside it.
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    for part in (given, *given.values()):
        kind = str(part.get("rope_type", part.get("type"))) if isinstance(part, dict) else ""
        if kind == "longrope":
            beside = getattr(config, "original_max_position_embeddings", None)
            return part.get("original_max_position_embeddings") or beside or config.max_position_embeddings
        if "dynamic" in kind:
            return getattr(config, "max_position_embeddings", None)
    return None
