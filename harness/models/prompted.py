"""A model with a fixed soft prompt: a PEFT prompt-tuning adapter, given as ``adapter``."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError, UsageError
from ...tasks.answers import Answers
from ...tasks.prompts import Prompts
from ..adapters.lora import tokenizer_for
from ..adapters.peft_files import CONFIG, WEIGHTS, carried_hash, read_config
from ..adapters.soft_prompt import read_soft_prompt

if TYPE_CHECKING:
    from ..model_info import ModelInfo
    from ..util.display import Done
    from .local import LanguageModel


class PromptedModel:
    """A ``LanguageModel`` with the soft prompt of a folder before every prompt.

    Its virtual tokens stand before the whole rendered prompt, first token included, as in peft. It takes no other soft
    prompt and cannot be trained: only aligners that work with text support it.

    Raises:
        InputError: the adapter is damaged or made for another model.
    """

    has_weights = True

    def __init__(self, model: LanguageModel, folder: Path) -> None:
        self._soft = read_soft_prompt(folder / WEIGHTS, model.dim)
        declared = read_config(folder).get("num_virtual_tokens")
        if declared not in (None, self._soft.shape[1]):
            raise InputError(
                f"{folder / CONFIG}: {declared} virtual tokens, but {WEIGHTS} holds {self._soft.shape[1]}."
            )
        tokenizer = tokenizer_for(folder, model.model, model.tokenizer)
        self._model = model if tokenizer is model.tokenizer else model.speaking(tokenizer)
        self._adapter = carried_hash(folder)

    @property
    def info(self) -> ModelInfo:
        """Metadata of the model with the adapter."""
        return self._model.info.model_copy(update={"adapter_sha256": self._adapter})

    @property
    def context_length(self) -> int | None:
        """Context length of the model in tokens, virtual tokens included."""
        return self._model.context_length

    @property
    def tokens(self) -> int:
        """Number of tokens read so far."""
        return self._model.tokens

    def fresh(self) -> Any:
        """Raise UsageError: a model with a soft prompt takes no second adapter."""
        raise UsageError("`adapter`: the model has a soft prompt, and takes no second adapter.")

    def longest(self, prompts: Prompts, preamble: str = "", most: int = 0) -> int:
        """Return the tokens of the longest prompt and its longest answer, virtual tokens included; see ``Model``."""
        return self._model.longest(prompts, preamble, most) + self._soft.shape[1]

    def watched(self, done: Done | None) -> AbstractContextManager[None]:
        """Tell ``done`` of prompts as they are answered inside the context."""
        return self._model.watched(done)

    def answer(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "") -> Answers:
        """Compute option probabilities as ``LanguageModel.answer``; raise UsageError for another soft prompt."""
        _refuse(soft)
        return self._model.answer(prompts, self._soft, preamble)

    def generate(
        self,
        prompts: Prompts,
        soft: np.ndarray | None = None,
        preamble: str = "",
        most: int = 8,
        *,
        weighed: bool = True,
    ) -> Answers:
        """Generate text as ``LanguageModel.generate``; raise UsageError for another soft prompt."""
        _refuse(soft)
        return self._model.generate(prompts, self._soft, preamble, most, weighed=weighed)


def _refuse(soft: np.ndarray | None) -> None:
    if soft is not None:
        raise UsageError("`adapter`: the model has a soft prompt, and takes no second one.")
