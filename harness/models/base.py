"""What a run asks of a model, whether it is in memory or behind an endpoint."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from ...tasks.answers import Answers
from ...tasks.prompts import Prompts
from ..model_info import ModelInfo

PASSES = 3  # forward passes that one forward and backward pass count as, in tokens and in item forwards


class Model(Protocol):
    """A model that answers prompts.

    ``LanguageModel`` is one in memory, ``PromptedModel`` one that carries a soft prompt, ``ApiModel`` one behind an
    endpoint. Whatever a soft prompt, LoRA or a gradient is fitted to is a ``LanguageModel``.
    """

    @property
    def info(self) -> ModelInfo:
        """What decides its answers."""

    @property
    def tokens(self) -> int:
        """Tokens read so far."""

    @property
    def has_weights(self) -> bool:
        """Whether its weights are in memory; False behind an endpoint."""

    @property
    def context_length(self) -> int | None:
        """Tokens that it reads at most; None where that is not known."""

    def longest(self, prompts: Prompts, preamble: str = "") -> int:
        """Tokens of the longest prompt with its longest option; asked only where ``context_length`` is known."""

    def answer(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "") -> Answers:
        """Option probabilities of all prompts.

        Args:
            soft: a population of soft prompts (n, T, dim) float32, or None for the bare model (population 1).
            preamble: text put before every prompt.

        Raises:
            UsageError: the model takes no soft prompts.
        """

    def generate(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "", most: int = 8) -> Answers:
        """The same, with greedily generated text of at most ``most`` tokens (population 1)."""
