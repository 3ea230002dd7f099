"""Whether all that a run will ask fits the model's context, looked at before anything is spent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InputError, UsageError
from ..tasks.prompts import Prompts, protocol
from ..tasks.reading import read_unmarked
from .config import RunConfig
from .embedded import EMBEDDED, folder_of
from .goal import Goal
from .model_config import context_of, reads_ids
from .registry import spec_of, table

if TYPE_CHECKING:
    from .models import LanguageModel

LOOKED_AT = 512  # prompts of a set that are tokenised: the longest by their characters, which tokens follow closely


def refuse_long(longest: int, virtual: int, context: int, preamble: bool = False) -> None:
    """Raise UsageError where so many tokens of a prompt, and soft tokens before them, are more than a context holds.

    Args:
        preamble: whether the prompt's tokens are those of a preamble too.
    """
    if longest + virtual <= context:
        return
    if virtual and longest < context:
        remedy = f"Give --set tokens={context - longest} at most"
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
            f"--model {model}: its layers have embeddings of their own for every token, and a soft prompt has no "
            "tokens. Use an aligner without soft prompts (naive, icl, clca), or another model."
        )


def soft_tokens(settings: Any) -> int:
    """Soft tokens that an aligner of these settings puts before every prompt; 0 where it has no ``tokens``."""
    return int(getattr(settings, "tokens", 0))


def require_context(model: str, settings: Any) -> None:
    """Raise UsageError where a model's ``config.json`` says that it cannot take an aligner's soft tokens.

    Nothing is loaded or fetched: of a hub's model, and of one that is not here yet, nothing is known.
    """
    if not (tokens := soft_tokens(settings)):
        return
    if model in table("models") and model not in EMBEDDED:  # asking a plug-in for its folder may fetch one
        return
    config = _config(folder_of(model) if model in EMBEDDED else Path(model))
    refuse_soft(model, config)
    context = context_of(config)
    if context is not None and tokens >= context:
        raise UsageError(f"--set tokens={tokens}: the context of --model {model} is {context}, prompts included.")


def _config(folder: Path) -> dict[str, Any]:
    """A model's ``config.json``; empty where it cannot be read: whoever loads the model will tell."""
    try:
        given = json.loads(read_unmarked(folder / "config.json"))
    except (InputError, OSError, ValueError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}


def require_room(model: LanguageModel, prompts: Prompts, virtual: int = 0, preamble: str = "") -> None:
    """Raise UsageError unless prompts fit the context behind soft tokens and a preamble.

    A plug-in's model need not tell; one that does not is asked as it is.
    """
    if not hasattr(model, "longest"):
        return
    if len(prompts) > LOOKED_AT:
        sizes = np.array([len(text) for text in prompts.texts])
        prompts = prompts.take(np.sort(np.argsort(-sizes, kind="stable")[:LOOKED_AT]))
    refuse_long(model.longest(prompts, preamble), virtual, model.context, bool(preamble))


def require_room_of_run(
    config: RunConfig, model: LanguageModel, goal: Goal, virtual: int, preamble: str = "", *, fitted: bool = True
) -> None:
    """Raise UsageError unless everything that a run asks fits the context: what is fitted, and each task's protocol.

    Args:
        fitted: whether the goal's prompts are asked too.
    """
    if fitted:
        require_room(model, goal.prompts, virtual, preamble)
    for name in config.tasks:
        require_room(model, protocol(spec_of(name), config.asking()), virtual, preamble)
