"""Options of the chat around every prompt: system message, chat template, date, thinking."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .schema import Strict

MOST_TEMPLATE = 200_000  # characters
DATE = "2025-01-01"  # the date given to a template, so that the same run has the same prompts on another day
THINKING_TOKENS = 512
Argument = Annotated[str, Field(max_length=4000)] | int | float | bool | None


class ChatOptions(Strict):
    """The options of the chat around every prompt; part of ``ModelInfo``.

    ``template`` is the text of a Jinja template in place of the model's own, empty for none; ``arguments`` are passed
    to the template; ``date`` (YYYY-MM-DD) is passed as today's date; ``thinking_tokens`` is the number of tokens that a
    reasoning model may write before its answer.
    """

    system: Annotated[str, Field(min_length=1, max_length=50_000)] | None = None
    template: Annotated[str, Field(max_length=MOST_TEMPLATE)] | None = None
    arguments: dict[Annotated[str, Field(max_length=200)], Argument] = Field({}, max_length=100)
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")] = DATE
    thinking_tokens: Annotated[int, Field(ge=1, le=100_000)] = THINKING_TOKENS


DEFAULT_CHAT = ChatOptions()
