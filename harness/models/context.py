"""Check the length of all prompts of a run against the model's context length, before any budget is spent."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import UsageError
from ...tasks.prompts import Prompts
from ..engine.model_config import reads_ids
from .base import Model

LOOKED_AT = 512  # prompts of a set that are tokenised: those with most characters, which predict most tokens


def refuse_long(longest: int, virtual: int, context: int | None, preamble: bool = False, text: bool = False) -> None:
    """Raise UsageError if a prompt and its soft tokens are longer than the context.

    Args:
        longest: tokens of the longest prompt with its answer.
        virtual: soft tokens before it.
        context: context length in tokens, None if unknown.
        preamble: whether the prompt's tokens include a preamble.
        text: whether they include an answer in text.
    """
    if context is None or longest + virtual <= context:
        return
    if virtual and longest < context:
        remedy = f"Give `settings` tokens={context - longest} at most"
    else:
        remedy = "Use a shorter preamble, fewer demonstrations" if preamble else "Use shorter prompts"
    what = "the longest prompt with its answer in text" if text else "the longest prompt"
    raise UsageError(
        f"{what} has {longest} tokens and {virtual} soft tokens "
        f"before it, but the model's context is {context}. {remedy}, or a model with a longer context."
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


def require_room(model: Model, prompts: Prompts, virtual: int = 0, preamble: str = "", most: int = 0) -> None:
    """Raise UsageError unless prompts with soft tokens, preamble and answers fit the context, if its length is known.

    Args:
        most: tokens of an answer in text; 0 where option probabilities are computed.
    """
    if model.context_length is None:
        return
    if len(prompts) > LOOKED_AT:
        sizes = np.array([len(text) for text in prompts.texts])
        prompts = prompts.take(np.sort(np.argsort(-sizes, kind="stable")[:LOOKED_AT]))
    refuse_long(model.longest(prompts, preamble, most), virtual, model.context_length, bool(preamble), most > 0)
