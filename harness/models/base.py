"""The interface of models, in memory or behind an endpoint."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

import numpy as np

from ...tasks.answers import Answers
from ...tasks.prompts import Prompts
from ..model_info import ModelInfo
from ..util.display import Done

PASSES = 3  # cost of one forward and backward pass, in forward passes; for tokens and item forwards


class Model(Protocol):
    """A model that answers prompts.

    ``LanguageModel`` is a model in memory, ``PromptedModel`` a model with a fixed soft prompt, ``ApiModel`` a model
    behind an endpoint. Soft prompts, LoRA and gradients require a ``LanguageModel``.
    """

    @property
    def info(self) -> ModelInfo:
        """Metadata of everything that determines the answers."""

    @property
    def tokens(self) -> int:
        """Number of tokens read so far."""

    @property
    def has_weights(self) -> bool:
        """Whether its weights are in memory; False behind an endpoint."""

    @property
    def context_length(self) -> int | None:
        """Context length in tokens; None if unknown."""

    def longest(self, prompts: Prompts, preamble: str = "", most: int = 0) -> int:
        """Return the tokens of the longest prompt and its longest answer; called only if ``context_length`` is known.

        An answer is an option or, if ``most`` is above 0, a text of up to ``most`` tokens after its reasoning.
        """

    def watched(self, done: Done) -> AbstractContextManager[None]:
        """Return a context inside which ``done`` is told of prompts as they are answered."""

    def answer(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "") -> Answers:
        """Compute option probabilities of all prompts.

        Args:
            soft: a population of soft prompts (n, T, dim) float32, or None for the bare model (population 1).
            preamble: text put before every prompt.

        Raises:
            UsageError: the model takes no soft prompts.
        """

    def generate(
        self,
        prompts: Prompts,
        soft: np.ndarray | None = None,
        preamble: str = "",
        most: int = 8,
        *,
        weighed: bool = True,
    ) -> Answers:
        """Compute the same and generate text greedily, at most ``most`` tokens per prompt (population 1).

        Args:
            weighed: whether option probabilities are computed; without them, ``probs`` are those of ``unweighed``.
        """
