"""Checks of a run: whether its prompts fit the context of the model, and whether its adapter has an effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, RunError, UsageError
from ...tasks.answers import Answers
from ...tasks.prompts import Prompts, protocol
from ...tasks.reading import read_unmarked
from ..alignment.objective import Objective
from ..engine.model_config import context_of
from ..models.base import Model
from ..models.context import refuse_soft, require_room
from ..models.embedded import EMBEDDED, folder_of
from ..registry import spec_of, table
from .config import RunConfig


def require_context(model: str, soft_tokens: int) -> None:
    """Raise UsageError where a model's ``config.json`` says that it cannot take so many soft tokens.

    Nothing is loaded or fetched: of a hub's model, and of one that is not here yet, nothing is known.
    """
    if not soft_tokens:
        return
    if model in table("models") and model not in EMBEDDED:  # asking a plug-in for its folder may fetch one
        return
    config = _config(folder_of(model) if model in EMBEDDED else Path(model))
    refuse_soft(model, config)
    context = context_of(config)
    if context is not None and soft_tokens >= context:
        raise UsageError(f"`settings` tokens={soft_tokens}: the context of {model} is {context}, prompts included.")


def _config(folder: Path) -> dict[str, Any]:
    """A model's ``config.json``; empty where it cannot be read: whoever loads the model will tell."""
    try:
        given = json.loads(read_unmarked(folder / "config.json"))
    except (InputError, OSError, ValueError, RecursionError):
        return {}
    return given if isinstance(given, dict) else {}


def require_room_of_run(
    config: RunConfig,
    model: Model,
    objective: Objective,
    soft_tokens: int,
    preamble: str = "",
    *,
    fitted: bool = True,
) -> None:
    """Raise UsageError unless everything that a run asks fits the context: what is fitted, and each task's protocol.

    Args:
        fitted: whether the objective's prompts are asked too.
    """
    if fitted:
        require_room(model, objective.prompts, soft_tokens, preamble)
    for name in config.tasks:
        require_room(model, protocol(spec_of(name), config.asking()), soft_tokens, preamble)


LOOKED_AT = 4  # prompts


# How far apart log-probabilities of options may lie for rounding alone. Measured on SmolLM2 with adapters that move the
# weights by less than a rounding step, it makes up to 3e-5 in float32, 0.01 in float16 and 0.06 in bfloat16; a LoRA
# whose B has a deviation of 0.03 moves them by 0.17.
ROUNDING = {"float16": 0.02, "bfloat16": 0.1}


NIL = 1e-4  # what an adapter given by hand has to move; in float32, which rounds by less, what an alignment should


LEAST = 1e-30  # probabilities below are as good as none


def require_effect(aligned: Any, objective: Objective, say: Callable[[str], None]) -> None:
    """Raise RunError where an aligned model answers a few prompts as it does without alignment.

    Args:
        say: told where its answers differ by no more than rounding may make them differ.
    """
    if aligned.soft is None and aligned.lora is None and not aligned.preamble:
        return
    some, model = _some(objective), aligned.model
    _judge(aligned.answer(some), type(aligned)(model).answer(some), model.info.dtype, "the alignment", 0.0, say)


def require_effect_of_adapter(
    adapted: Model, bare: Model, adapter: Path, objective: Objective, say: Callable[[str], None]
) -> None:
    """As ``require_effect``, of a model that carries ``adapter`` beside the bare one."""
    some = _some(objective)
    _judge(adapted.answer(some), bare.answer(some), bare.info.dtype, f"`adapter` {adapter}", NIL, say)


def _some(objective: Objective) -> Prompts:
    return objective.prompts.take(np.arange(min(LOOKED_AT, len(objective.prompts))))


def _judge(one: Answers, other: Answers, dtype: str, what: str, nil: float, say: Callable[[str], None]) -> None:
    """Refuse or warn by the largest difference of an option's log-probability.

    Logarithms, since a model that is sure of itself moves its probabilities by little whatever is done to it.
    """
    apart = np.log(np.maximum(one.probs, LEAST)) - np.log(np.maximum(other.probs, LEAST))
    most = float(np.abs(apart).max())
    remedy = "Train longer or with a higher rate."
    if most <= nil:
        raise RunError(f"{what} has no effect: answers are those of the model without it. {remedy}")
    if most <= ROUNDING.get(dtype, NIL):
        name = what.replace("`", "")
        say(f"{name}: hardly any effect: answers differ by no more than rounding to {dtype} may make them. {remedy}")
