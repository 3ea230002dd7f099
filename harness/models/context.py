"""Whether all that a run will ask fits the model's context, looked at before anything is spent."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UsageError
from ...tasks.prompts import Prompts
from ..engine.model_config import reads_ids
from .base import Model

LOOKED_AT = 512  # prompts of a set that are tokenised: the longest by their characters, which tokens follow closely


def refuse_long(longest: int, virtual: int, context: int | None, preamble: bool = False) -> None:
    """Raise UsageError where so many tokens of a prompt, and soft tokens before them, are more than a context holds.

    Args:
        preamble: whether the prompt's tokens are those of a preamble too.
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
    """Raise UsageError where a model takes no soft prompts: its layers look up every token's id in tables of their own.

    Args:
        config: its configuration, also as it stands in ``config.json``.
    """
    if reads_ids(config):
        raise UsageError(
            f"`model` {model}: its layers have embeddings of their own for every token, and a soft prompt has no "
            "tokens. Use an aligner without soft prompts (naive, icl, clca), or another model."
        )


def require_room(model: Model, prompts: Prompts, virtual: int = 0, preamble: str = "") -> None:
    """Raise UsageError unless prompts fit the context, where it is known, behind soft tokens and a preamble."""
    if model.context_length is None:
        return
    if len(prompts) > LOOKED_AT:
        sizes = np.array([len(text) for text in prompts.texts])
        prompts = prompts.take(np.sort(np.argsort(-sizes, kind="stable")[:LOOKED_AT]))
    refuse_long(model.longest(prompts, preamble), virtual, model.context_length, bool(preamble))
