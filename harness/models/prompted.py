"""A model that carries a soft prompt made elsewhere: PEFT prompt tuning, given as ``adapter``."""

from __future__ import annotations

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
    from .local import LanguageModel


class PromptedModel:
    """Answers prompts as a ``LanguageModel`` does, behind the soft prompt of a folder.

    Its virtual tokens stand before the whole rendered prompt, first token included, as in peft. Nothing can be put
    before them, and there is nothing to train: aligners that work in words alone take such a model.

    Raises:
        InputError: the adapter is damaged or made for another model.
    """

    has_weights = True

    def __init__(self, model: LanguageModel, folder: Path) -> None:
        self._soft, told = read_soft_prompt(folder / WEIGHTS, model.dim), read_config(folder).get("num_virtual_tokens")
        if told not in (None, self._soft.shape[1]):
            raise InputError(f"{folder / CONFIG}: {told} virtual tokens, but {WEIGHTS} holds {self._soft.shape[1]}.")
        tokenizer = tokenizer_for(folder, model.model, model.tokenizer)
        self._model = model if tokenizer is model.tokenizer else model.speaking(tokenizer)
        self._adapter = carried_hash(folder)

    @property
    def info(self) -> ModelInfo:
        """That of the model, with the adapter."""
        return self._model.info.model_copy(update={"adapter_sha256": self._adapter})

    @property
    def context_length(self) -> int | None:
        """As of the model: tokens that it reads at most, virtual ones included."""
        return self._model.context_length

    @property
    def tokens(self) -> int:
        """Tokens read so far."""
        return self._model.tokens

    def fresh(self) -> Any:
        """Raise UsageError: there is nothing to train beside a soft prompt."""
        raise UsageError("`adapter`: the model carries a soft prompt, and takes no second adapter.")

    def longest(self, prompts: Prompts, preamble: str = "") -> int:
        """Tokens of the longest prompt with its longest option, virtual ones included."""
        return self._model.longest(prompts, preamble) + self._soft.shape[1]

    def answer(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "") -> Answers:
        """As ``LanguageModel.answer``, without another soft prompt."""
        _refuse(soft)
        return self._model.answer(prompts, self._soft, preamble)

    def generate(self, prompts: Prompts, soft: np.ndarray | None = None, preamble: str = "", most: int = 8) -> Answers:
        """As ``LanguageModel.generate``, without another soft prompt."""
        _refuse(soft)
        return self._model.generate(prompts, self._soft, preamble, most)


def _refuse(soft: np.ndarray | None) -> None:
    if soft is not None:
        raise UsageError("`adapter`: the model carries a soft prompt, and takes no second one.")
