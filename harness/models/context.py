"""Check the length of all prompts of a run against the model's context length, before any budget is spent."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UsageError
from ...tasks.prompts import Prompts
from ..engine.model_config import reads_ids
from .base import Model

LOOKED_AT = 512  # prompts of a set that are tokenised: those with most characters, which predict most tokens


def refuse_long(longest: int, virtual: int, context: int | None, preamble: bool = False) -> None:
    """Raise UsageError if a prompt and its soft tokens are longer than the context.

    Args:
        longest: tokens of the longest prompt.
        virtual: soft tokens before it.
        context: context length in tokens, None if unknown.
        preamble: whether the prompt's tokens include a preamble.
    """
    if context is None or longest + virtual <= context:
        return
    if virtual and longest < context:
        remedy = f"Give `settings` tokens={context - longest} at most"
    else:
        remedy = "Use a shorter preamble, fewer demonstrations" if preamble else "Use shorter prompts"
    raise UsageError(
        f"the longest prompt has {longest} tokens and {virtual} soft tokens before it, but the model's context is "
        f"{context}. {remedy}, or a model with a longer context."
    )


def refuse_soft(model: str, config: Any) -> None:
    """Raise UsageError if a model supports no soft prompts, because its layers read token ids besides embeddings.

    Args:
        config: its configuration, as an object or as in ``config.json``.
    """
    if reads_ids(config):
        raise UsageError(
            f"`model` {model}: its layers read the ids of tokens, and a soft prompt has no tokens. "
            "Use an aligner without soft prompts (naive, icl, clca), or another model."
        )


def require_room(model: Model, prompts: Prompts, virtual: int = 0, preamble: str = "") -> None:
    """Raise UsageError unless prompts with soft tokens and a preamble fit the context, if its length is known."""
    if model.context_length is None:
        return
    if len(prompts) > LOOKED_AT:
        sizes = np.array([len(text) for text in prompts.texts])
        prompts = prompts.take(np.sort(np.argsort(-sizes, kind="stable")[:LOOKED_AT]))
    refuse_long(model.longest(prompts, preamble), virtual, model.context_length, bool(preamble))
