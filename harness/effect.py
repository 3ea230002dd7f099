"""Whether an alignment, or an adapter that was given, does anything at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RunError
from ..tasks.answers import Answers
from ..tasks.prompts import Prompts
from .goal import Goal

if TYPE_CHECKING:
    from .models import LanguageModel

LOOKED_AT = 4  # prompts
# How far apart log-probabilities of options may lie for rounding alone. Measured on SmolLM2 with adapters that move the
# weights by less than a rounding step, it makes up to 3e-5 in float32, 0.01 in float16 and 0.06 in bfloat16; a LoRA
# whose B has a deviation of 0.03 moves them by 0.17. Deeper models round more: this errs on the side of an effect.
ROUNDING = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
LEAST = 1e-30  # probabilities below are as good as none


def require_effect(aligned: Any, goal: Goal) -> None:
    """Raise RunError where an aligned model answers a few prompts as it does without alignment, but for rounding."""
    if aligned.soft is None and aligned.lora is None and not aligned.preamble:
        return
    some = _some(goal)
    if _same(aligned.answer(some), type(aligned)(aligned.model).answer(some), aligned.model.identity.dtype):
        raise RunError(
            "the alignment has no effect: answers are those of the model without it. Report how you got here."
        )


def require_effect_of_lora(adapted: LanguageModel, bare: LanguageModel, lora: Path, goal: Goal) -> None:
    """Raise RunError where a model that carries ``lora`` answers a few prompts as it does bare, but for rounding."""
    some = _some(goal)
    if _same(adapted.answer(some), bare.answer(some), bare.identity.dtype):
        raise RunError(
            f"--lora {lora}: it has no effect, as answers are those of the model without it. Give one that was trained."
        )


def _some(goal: Goal) -> Prompts:
    return goal.prompts.take(np.arange(min(LOOKED_AT, len(goal.prompts))))


def _same(one: Answers, other: Answers, dtype: str) -> bool:
    """Whether no option's log-probability differs by more than rounding explains.

    Logarithms, since a model that is sure of itself moves its probabilities by little whatever is done to it.
    """
    apart = np.log(np.maximum(one.probs, LEAST)) - np.log(np.maximum(other.probs, LEAST))
    return bool(np.abs(apart).max() <= ROUNDING.get(dtype, ROUNDING["float32"]))
