"""Checks of a run: whether its prompts fit the context of the model, and whether its adapter has an effect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError, RunError, UsageError
from ...tasks.answers import Answers
from ...tasks.prompts import Prompts, render_protocol
from ...tasks.reading import read_unmarked
from ...tasks.spec import TaskSpec
from ..alignment.objective import Objective
from ..engine.model_config import context_of
from ..models.base import Model
from ..models.context import refuse_soft, require_room
from ..models.embedded import EMBEDDED, folder_of
from ..registry import spec_of, table
from .config import RunConfig


def require_context(model: str, soft_tokens: int) -> None:
    """Raise UsageError where a model's ``config.json`` does not allow so many soft tokens.

    No model is loaded or fetched: a hub model, or one that is not fetched yet, is not checked here.
    """
    if not soft_tokens:
        return
    if model in table("models") and model not in EMBEDDED:  # a plug-in may fetch its model to return a folder
        return
    config = _config(folder_of(model) if model in EMBEDDED else Path(model))
    refuse_soft(model, config)
    context = context_of(config)
    if context is not None and soft_tokens >= context:
        raise UsageError(f"`settings` tokens={soft_tokens}: the context of {model} is {context}, prompts included.")


def _config(folder: Path) -> dict[str, Any]:
    """Read a model's ``config.json``; return an empty mapping where that fails, as loading will report the error."""
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
    """Raise UsageError unless all prompts of a run fit the context: the objective's and each task's, with answers.

    Args:
        fitted: whether the prompts of the objective are checked.
    """
    if fitted:
        require_room(model, objective.prompts, soft_tokens, preamble, objective.most_tokens)
    for spec in map(spec_of, config.tasks):
        require_room(model, render_protocol(spec, config.protocol()), soft_tokens, preamble, text_tokens(spec))


def text_tokens(spec: TaskSpec) -> int:
    """Return the largest number of tokens of an answer in text; 0 for a task of option probabilities alone."""
    return spec.most_tokens if spec.output_type == "generate_until" else 0


LOOKED_AT = 4  # prompts


# Bounds on the differences of option log-probabilities due to rounding. On SmolLM2, adapters that change the weights by
# less than a rounding step gave differences up to 3e-5 in float32, 0.01 in float16 and 0.06 in bfloat16; a LoRA whose B
# has a standard deviation of 0.03 gave 0.17.
ROUNDING = {"float16": 0.02, "bfloat16": 0.1, "int8": 0.1}


NIL = 1e-4  # least effect of an adapter given by the user, and of an alignment in float32


LEAST = 1e-30  # probabilities below are treated as equal


def require_effect(aligned: Any, objective: Objective, say: Callable[[str], None]) -> None:
    """Raise RunError where an aligned model answers a few prompts exactly as without alignment.

    Args:
        say: receives a warning where the answers differ by no more than rounding.
    """
    if aligned.soft is None and aligned.lora is None and not aligned.preamble:
        return
    some, model = _some(objective), aligned.model
    _judge(aligned.answer(some), type(aligned)(model).answer(some), model.info.dtype, "the alignment", 0.0, say)


def require_effect_of_adapter(
    adapted: Model, bare: Model, adapter: Path, objective: Objective, say: Callable[[str], None]
) -> None:
    """Raise RunError where a model with ``adapter`` answers a few prompts as without it; see ``require_effect``."""
    some = _some(objective)
    _judge(adapted.answer(some), bare.answer(some), bare.info.dtype, f"`adapter` {adapter}", NIL, say)


def _some(objective: Objective) -> Prompts:
    return objective.prompts.take(np.arange(min(LOOKED_AT, len(objective.prompts))))


def _judge(one: Answers, other: Answers, dtype: str, what: str, nil: float, say: Callable[[str], None]) -> None:
    """Raise RunError or warn by the largest difference of an option's log-probability.

    Logarithms are compared, since the probabilities of a confident model hardly change.
    """
    apart = np.log(np.maximum(one.probs, LEAST)) - np.log(np.maximum(other.probs, LEAST))
    most = float(np.abs(apart).max())
    remedy = "Train longer or with a higher rate."
    if most <= nil:
        raise RunError(f"{what} has no effect: the answers are the same without it. {remedy}")
    if most <= ROUNDING.get(dtype, NIL):
        name = what.replace("`", "")
        say(f"{name}: hardly any effect: answers differ by no more than rounding to {dtype}. {remedy}")
