"""What is said around every prompt: system message, chat template, date, thinking."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .schema import Strict

MOST_TEMPLATE = 200_000  # characters
DATE = "2025-01-01"  # what a template is told for today, so that the same run asks the same on another day
THINKING_TOKENS = 512
Argument = Annotated[str, Field(max_length=4000)] | int | float | bool | None


class ChatOptions(Strict):
    """What is said around every prompt; part of ``ModelInfo``.

    ``template`` is the text of a Jinja template in place of the model's own, empty for none; ``arguments`` are handed
    to the template; ``date`` (YYYY-MM-DD) is what it is told for today; ``thinking_tokens`` may be written by a model
    that thinks aloud before its answer.
    """

    system: Annotated[str, Field(min_length=1, max_length=50_000)] | None = None
    template: Annotated[str, Field(max_length=MOST_TEMPLATE)] | None = None
    arguments: dict[Annotated[str, Field(max_length=200)], Argument] = Field({}, max_length=100)
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")] = DATE
    thinking_tokens: Annotated[int, Field(ge=1, le=100_000)] = THINKING_TOKENS


DEFAULT_CHAT = ChatOptions()
