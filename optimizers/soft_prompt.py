"""What all searches over soft prompts share: where they start, what a candidate costs, how a batch is judged."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RunError, UsageError
from ..harness.alignment.budget import Budget
from ..harness.alignment.objective import Goal

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


def evaluate(model: LanguageModel, goal: Goal, soft: np.ndarray, budget: Budget) -> np.ndarray:
    """Losses (n,) float64 of soft prompts (n, T, dim), paid from the budget.

    Raises:
        RunError: too little budget, or a loss that is not a number.
    """
    budget.spend(len(soft) * goal.cost)
    started, tokens = time.perf_counter(), model.tokens
    losses = goal.objective(model.answer(goal.prompts, soft).probs)
    budget.record(model.tokens - tokens, started)
    if np.isnan(losses).any():
        raise RunError("a candidate's loss is not a number. Try --dtype float32.")
    return losses


def draw_prompts(model: LanguageModel, rng: np.random.Generator, count: int, tokens: int) -> np.ndarray:
    """``count`` soft prompts (count, tokens, dim) float32 made of the embeddings of random ordinary tokens."""
    return model.token_vectors(rng.choice(model.ordinary_tokens(), (count, tokens)))


def text_prompt(model: LanguageModel, text: str, tokens: int) -> np.ndarray:
    """A text as a soft prompt (tokens, dim) float32, repeated or cut to the length asked for."""
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return model.token_vectors(np.resize(ids, tokens))


def require_candidate(goal: Goal, budget: Budget) -> None:
    """Raise UsageError unless the budget pays for at least one candidate."""
    if budget.affordable(goal.cost) < 1 and budget.spent == 0:
        least = -(-goal.cost // budget.per_survey)
        raise UsageError(f"--budget: one candidate costs {least} survey evaluations here. Give at least {least}.")
