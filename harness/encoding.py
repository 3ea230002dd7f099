"""From prompts to token ids, exactly as stock lm-eval encodes them: chat template, then context and continuation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..tasks.prompts import Prompts


@dataclass(frozen=True, eq=False)
class Encoded:
    """Token ids of a set of prompts.

    ``contexts[p]`` are the tokens before the answer of prompt ``p``; ``options[p][o]`` those of its option ``o``.
    """

    contexts: list[list[int]]
    options: list[list[list[int]]]

    @property
    def longest(self) -> int:
        """The longest context with its longest option, in tokens."""
        return max(
            len(context) + max(map(len, options), default=0)
            for context, options in zip(self.contexts, self.options, strict=True)
        )


def as_chat(tokenizer: Any, text: str) -> str:
    """The text as one user turn with the assistant's turn opened; unchanged where there is no chat template."""
    if not tokenizer.chat_template:
        return text
    turn = [{"role": "user", "content": text}]
    return tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    # A template that writes the start token itself must not get a second one (lm-eval has the same rule).
    has_start = bool(tokenizer.bos_token) and texts[0].startswith(tokenizer.bos_token)
    return tokenizer(texts, add_special_tokens=not has_start)["input_ids"]


def encode(tokenizer: Any, prompts: Prompts, preamble: str = "") -> Encoded:
    """Tokenise prompts and options; ``preamble`` is put in front of every prompt's text.

    Without a chat template the options are preceded by a space, as in lm-eval. An option's tokens are what the whole
    text has beyond the context's own tokens, so options of several tokens are right too.
    """
    delimiter = "" if tokenizer.chat_template else " "
    contexts = [as_chat(tokenizer, f"{preamble}{text}") for text in prompts.texts]
    pairs = [
        context + delimiter + choice for context, row in zip(contexts, prompts.choices, strict=True) for choice in row
    ]
    # lm-eval moves trailing spaces of the context into the continuation before it splits.
    context_ids = _ids(tokenizer, [context.rstrip(" ") for context in contexts])
    whole = iter(_ids(tokenizer, pairs) if pairs else [])  # open questions have no options
    options = [[next(whole)[len(ids) :] for _ in row] for ids, row in zip(context_ids, prompts.choices, strict=True)]
    return Encoded(context_ids, options)
