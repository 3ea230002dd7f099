"""Convert prompts to token ids as stock lm-eval does: chat template, then context and continuation."""

from __future__ import annotations

from dataclasses import dataclass

from ...errors import UnavailableError
from ...tasks.prompts import Prompts
from .chat import Chat, closed


@dataclass(frozen=True, eq=False)
class Encoded:
    """Token ids of a set of prompts.

    ``contexts[p]`` are the tokens of prompt ``p`` before its answer, ``options[p][o]`` the tokens of its option ``o``.
    """

    contexts: list[list[int]]
    options: list[list[list[int]]]

    @property
    def longest(self) -> int:
        """Length in tokens of the longest context with its longest option."""
        return max(
            len(context) + max(map(len, options), default=0)
            for context, options in zip(self.contexts, self.options, strict=True)
        )


def encode(chat: Chat, prompts: Prompts, preamble: str = "") -> Encoded:
    """Tokenise prompts and options; ``preamble`` is put before the text of every prompt.

    Without a chat template the options are preceded by a space, as in lm-eval. An option's tokens are the tokens of the
    whole text after those of its context, which holds for options of several tokens too.

    Raises:
        UnavailableError: the template rejects a prompt, or the tokenizer cannot distinguish the options.
    """
    delimiter = "" if chat.template else " "
    contexts = [closed(chat.render_prompt(f"{preamble}{text}")) for text in prompts.texts]
    pairs = [
        context + delimiter + choice for context, row in zip(contexts, prompts.choices, strict=True) for choice in row
    ]
    # lm-eval moves trailing spaces of the context into the continuation before it splits.
    context_ids = chat.ids([context.rstrip(" ") for context in contexts])
    whole = iter(chat.ids(pairs))
    options = [[next(whole)[len(ids) :] for _ in row] for ids, row in zip(context_ids, prompts.choices, strict=True)]
    for row, choices in zip(options, prompts.choices, strict=True):
        if not all(row) or len(set(map(tuple, row))) < len(row):
            raise UnavailableError(
                f"`model` {chat.name}: its tokenizer writes the options {', '.join(choices[:5])} with the same tokens."
            )
    return Encoded(context_ids, options)
