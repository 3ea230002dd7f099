"""What decides a model's answers, as a submission records it. Nothing here needs torch."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from ..tasks.chat_options import ChatOptions
from ..tasks.schema import Strict


def _printable(text: str) -> str:
    if not text.isprintable():  # control characters, line separators, marks that turn the reading direction
        raise ValueError("holds a character that cannot be shown")
    return text


MOST_NAME = 200  # characters

Name = Annotated[str, Field(min_length=1, max_length=MOST_NAME), AfterValidator(_printable)]
Count = Annotated[int, Field(ge=0, le=1 << 62)]
COMMIT = re.compile(r"[0-9a-f]{40}")  # what a hub calls a revision; folders of files go by another hash
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ModelInfo(Strict):
    """What decides a model's answers. Of a model behind an API not all is known.

    ``revision`` is a hub's commit, or a hash of configuration and weights; ``content_sha256`` is of all files that
    decide the answers, tokenizer and template included; ``adapter_sha256`` of a LoRA adapter that the model carries.
    ``chat`` is what was said around every prompt, where that is not the default, and ``generation_ignored`` what the
    model's publisher set for generation and greedy text does without.
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
