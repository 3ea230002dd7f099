"""What decides a forward pass, read from the configuration of a model, or of its text where it has several parts."""

from __future__ import annotations

import re
from typing import Any

_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length")  # the last three: GPT-2, MPT, BLOOM
_WINDOW = re.compile(r"^(?!sliding_window$|max_window_layers$).*(window(?!.*pattern)|attention_chunk)")


def text_config(model: Any) -> Any:
    """The configuration of the part of a model that reads and writes text."""
    return model.get_decoder().config.get_text_config()


def context_of(config: dict[str, Any]) -> int | None:
    """Tokens that a configuration, as it stands in ``config.json``, allows; None where it does not say so."""
    text = config.get("text_config")
    known = {**config, **text} if isinstance(text, dict) else config
    found = next((known[name] for name in _CONTEXT if known.get(name) is not None), None)
    return found if type(found) is int and found > 0 else None


def sliding_window(config: Any) -> int | None:
    """The width of a model's sliding-window layers, None where it has none."""
    kinds = getattr(config, "layer_types", None)
    if kinds and "sliding_attention" not in kinds:
        return None
    return getattr(config, "sliding_window", None) or None


def has_kinds(config: Any) -> bool:
    """Whether a model takes one mask a kind of layer, and not one for all."""
    return "sliding_attention" in (getattr(config, "layer_types", None) or ())


def other_window(config: Any) -> str | None:
    """The name of a window or chunk other than the sliding one, by which tokens are hidden from one another."""
    for name, value in config.to_dict().items():
        if type(value) is int and value > 0 and _WINDOW.match(name):
            return name
    return None


def logit_factor(config: Any) -> float:
    """What the head's output is multiplied by: Granite divides it, Cohere multiplies it."""
    scale, scaling = getattr(config, "logit_scale", None), getattr(config, "logits_scaling", None)
    if isinstance(scale, int | float):
        return float(scale)
    return 1 / scaling if isinstance(scaling, int | float) and scaling else 1.0


def reads_ids(config: Any) -> bool:
    """Whether layers look at token ids, too, and not at input embeddings alone (Gemma 3n, Gemma 4)."""
    given = config if isinstance(config, dict) else config.to_dict()
    text = given.get("text_config")
    return bool((text if isinstance(text, dict) else given).get("hidden_size_per_layer_input"))


def steady_length(config: Any) -> int | None:
    """Tokens up to which rotary positions are the same whatever a prompt's length; None where they always are.

    LongRoPE (Ding et al. 2024, arXiv 2402.13753) stretches them all once a prompt is longer.
    """
    given = getattr(config, "rope_parameters", None) or {}
    for part in (given, *given.values()):
        if isinstance(part, dict) and part.get("rope_type") == "longrope":
            return part.get("original_max_position_embeddings")
    return None
