"""Who plays the agents and the judge: the model that learns, another one here, or one behind an API."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .writer import LocalWriter, Message, Style, Tell, Writer

if TYPE_CHECKING:
    from ...harness.providers.model import ApiModel


class ApiWriter:
    """A model behind an API; all chats of a call are asked side by side, and each reply is kept as it arrives."""

    def __init__(self, model: ApiModel) -> None:
        self.model, self.name, self.tokens = model, model.info.name, 0

    def write(
        self, chats: Sequence[Sequence[Message]], style: Style, seed: int, begun: Sequence[str] = ()
    ) -> list[str]:
        """One text a chat; kept replies are the same again, whatever the API would say now."""
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
    """The seed of a chat by its number among those of a call: two that begin alike need not go on alike.

    It is far from those of other calls: one whose seed is the next would else be given what is kept of this one.
    """
    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def writer_of(model: Any, folder: Path, tell: Tell) -> Writer:
    """The writer that a model makes; one behind an API keeps its replies in ``folder``."""
    if model.has_weights:
        return LocalWriter(model)
    return ApiWriter(model.at(folder, lambda done, total: tell("asking", done, total)))
