"""Metadata of a model, as recorded in submissions. This module does not need torch."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from ..tasks.chat_options import ChatOptions
from ..tasks.schema import Strict


def _printable(text: str) -> str:
    if not text.isprintable():  # control characters, line separators, bidirectional marks
        raise ValueError("holds a character that cannot be shown")
    return text


MOST_NAME = 200  # characters

Name = Annotated[str, Field(min_length=1, max_length=MOST_NAME), AfterValidator(_printable)]
Count = Annotated[int, Field(ge=0, le=1 << 62)]
COMMIT = re.compile(r"[0-9a-f]{40}")  # a hub's revision; folders have another hash
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ModelInfo(Strict):
    """Metadata of everything that determines a model's answers, of which an endpoint reveals only a part.

    ``revision`` is a hub's commit, or a hash of configuration and weights; ``content_sha256`` is the hash of all files
    that determine the answers, tokenizer and template included; ``adapter_sha256`` the hash of the model's adapter.
    ``chat`` holds the chat options if not at their default, and ``generation_ignored`` the published generation
    settings that greedy decoding ignores.
    """

    name: Name
    revision: Name
    dtype: Name
    device: Name
    threads: Count
    chat_template: Name | None
    forward: Name
    adapter_sha256: Sha256 | None = None
    content_sha256: Sha256 | None = None
    chat: ChatOptions | None = None
    generation_ignored: dict[Name, Name] = Field({}, max_length=50)
