"""A model that carries a soft prompt made elsewhere: PEFT prompt tuning, given with ``--adapter``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import InputError, UsageError
from ...tasks.answers import Answers
from ...tasks.prompts import Prompts
from ..adapters.lora import tokenizer_for
from ..adapters.peft_files import CONFIG, WEIGHTS, carried_hash, read_config
from .aligned import read_soft_prompt

if TYPE_CHECKING:
    from .info import ModelIdentity
    from .local import LanguageModel


class PromptedModel:
    """Answers prompts as a ``LanguageModel`` does, behind the soft prompt of a folder.

    Its virtual tokens stand before the whole rendered prompt, first token included, as in peft. Nothing can be put
    before them, and there is nothing to train: aligners that work in words alone take such a model.

    Raises:
        InputError: the adapter is damaged or made for another model.
    """

    def __init__(self, model: LanguageModel, folder: Path) -> None:
        self._soft, told = read_soft_prompt(folder / WEIGHTS, model.dim), read_config(folder).get("num_virtual_tokens")
        if told not in (None, len(self._soft)):
            raise InputError(f"{folder / CONFIG}: {told} virtual tokens, but {WEIGHTS} holds {len(self._soft)}.")
        tokenizer = tokenizer_for(folder, model.model, model.tokenizer)
        self._model = model if tokenizer is model.tokenizer else model.speaking(tokenizer)
        self._adapter = carried_hash(folder)

    @property
    def identity(self) -> ModelIdentity:
        """That of the model, with the adapter."""
        return self._model.identity.model_copy(update={"adapter_sha256": self._adapter})

    @property
    def content(self) -> str | None:
        """As of the model."""
        return self._model.content

    @property
    def context(self) -> int:
        """As of the model: tokens that it reads at most, virtual ones included."""
        return self._model.context

    @property
    def tokens(self) -> int:
        """Tokens read so far."""
        return self._model.tokens

    @property
    def seconds(self) -> float:
        """Seconds that reading them took."""
        return self._model.seconds

    def fresh(self) -> Any:
        """Raise UsageError: there is nothing to train beside a soft prompt."""
        raise UsageError("--adapter: the model carries a soft prompt, and takes no second adapter.")

    def longest(self, prompts: Prompts, preamble: str = "") -> int:
        """Tokens of the longest prompt with its longest option, virtual ones included."""
        return self._model.longest(prompts, preamble) + len(self._soft)

    def answer(self, prompts: Prompts, soft: None = None, preamble: str = "") -> Answers:
        """As ``LanguageModel.answer``, without another soft prompt."""
        _refuse(soft)
        return self._model.answer(prompts, self._soft[None], preamble)

    def generate(self, prompts: Prompts, soft: None = None, preamble: str = "", most: int = 8) -> Answers:
        """As ``LanguageModel.generate``, without another soft prompt."""
        _refuse(soft)
        return self._model.generate(prompts, self._soft, preamble, most)


def _refuse(soft: Any) -> None:
    if soft is not None:
        raise UsageError("--adapter: the model carries a soft prompt, and takes no second one.")
