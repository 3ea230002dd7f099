"""Whether an alignment, or an adapter that was given, does anything at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RunError
from ..tasks.answers import Answers
from ..tasks.prompts import Prompts
from .goal import Goal

if TYPE_CHECKING:
    from .models import LanguageModel
    from .prompted import PromptedModel

LOOKED_AT = 4  # prompts
# How far apart log-probabilities of options may lie for rounding alone. Measured on SmolLM2 with adapters that move the
# weights by less than a rounding step, it makes up to 3e-5 in float32, 0.01 in float16 and 0.06 in bfloat16; a LoRA
# whose B has a deviation of 0.03 moves them by 0.17.
ROUNDING = {"float16": 0.02, "bfloat16": 0.1}
NIL = 1e-4  # what an adapter given by hand has to move; in float32, which rounds by less, what an alignment should
LEAST = 1e-30  # probabilities below are as good as none


def require_effect(aligned: Any, goal: Goal, say: Callable[[str], None]) -> None:
    """Raise RunError where an aligned model answers a few prompts as it does without alignment.

    Args:
        say: told where its answers differ by no more than rounding may make them differ.
    """
    if aligned.soft is None and aligned.lora is None and not aligned.preamble:
        return
    some, model = _some(goal), aligned.model
    _judge(aligned.answer(some), type(aligned)(model).answer(some), model.identity.dtype, "the alignment", 0.0, say)


def require_effect_of_adapter(
    adapted: LanguageModel | PromptedModel, bare: LanguageModel, adapter: Path, goal: Goal, say: Callable[[str], None]
) -> None:
    """As ``require_effect``, of a model that carries ``adapter`` beside the bare one."""
    some = _some(goal)
    _judge(adapted.answer(some), bare.answer(some), bare.identity.dtype, f"--adapter {adapter}", NIL, say)


def _some(goal: Goal) -> Prompts:
    return goal.prompts.take(np.arange(min(LOOKED_AT, len(goal.prompts))))


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
        say(f"{what}: hardly any effect: answers differ by no more than rounding to {dtype} may make them. {remedy}")
