"""The writer of the agents and the judge: the trained model, another local one, or one behind an endpoint."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..lora.training import Tell
from .writer import LocalWriter, Message, Style, Writer

if TYPE_CHECKING:
    from ...harness.providers.model import ApiModel


class ApiWriter:
    """A model behind an endpoint; all chats of a call are sent concurrently, and each reply is saved on arrival."""

    def __init__(self, model: ApiModel) -> None:
        self.model, self.name, self.tokens, self.batch = model, model.info.name, 0, sys.maxsize

    def remembering(self) -> AbstractContextManager[None]:
        """Remember nothing: an endpoint receives whole chats."""
        return nullcontext()

    def write(
        self, chats: Sequence[Sequence[Message]], style: Style, seed: int, begun: Sequence[str] = ()
    ) -> list[str]:
        """Write one text per chat; saved replies are reused, whatever the endpoint would answer now."""
        from ...harness.providers.response_log import Ask

        starts = begun or ("",) * len(chats)
        asks = [
            Ask(tuple(chat), style.most, (), style.top_p, chat_seed(seed, number), start)
            for number, (chat, start) in enumerate(zip(chats, starts, strict=True))
        ]
        replies = self.model.ask(asks)
        self.tokens += sum(reply.tokens_out or 0 for reply in replies)
        return [reply.text.strip() for reply in replies]


def chat_seed(seed: int, number: int) -> int:
    """Return the seed of a chat by its number in a call, so that two chats with the same beginning can differ.

    It is far from the seeds of other calls, so that a call with the next seed does not reuse replies of this one.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


class Teacher:
    """A model that is loaded on first use, and again after ``release``, which lets its memory go."""

    def __init__(self, load: Callable[[], Any]) -> None:
        self._load, self._model = load, None

    def __call__(self) -> Any:
        """Return the model."""
        if self._model is None:
            self._model = self._load()
        return self._model

    def release(self) -> None:
        """Forget the model, and free its memory where nothing else holds it."""
        if self._model is None:
            return
        local, self._model = self._model.has_weights, None
        gc.collect()  # a model refers to itself
        if local:
            from ...harness.engine.onednn import trim

            trim()


def writer_of(model: Any, folder: Path, tell: Tell) -> Writer:
    """Build the writer of a model; one behind an endpoint keeps its replies in ``folder``."""
    if model.has_weights:
        return LocalWriter(model)
    return ApiWriter(model.at(folder, lambda done, total: tell("asking", done, total)))
