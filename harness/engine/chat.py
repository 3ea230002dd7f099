"""Convert the text of a prompt to token ids: chat template, system turn, pinned date, start tokens.

Templates come with models, and transformers runs them in a sandbox. A template may add text around a prompt, but must
not change the prompt: every rendered chat is searched for the content of its messages.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, tzinfo
from functools import cached_property
from typing import Any, NamedTuple

from ...errors import UnavailableError, UsageError, did_you_mean
from ...tasks.chat_options import DEFAULT_CHAT, ChatOptions

Message = dict[str, str]
"""``role`` (system, user or assistant) and ``content``, as chat templates and endpoints read them."""

# Variables by which templates enable reasoning: Qwen 3, SmolLM 3 and GLM; DeepSeek and Granite.
_SWITCHES = ("enable_thinking", "thinking")
_CLOCK = "strftime_now"  # the function by which transformers gives templates the time


class Block(NamedTuple):
    """The text that delimits the reasoning block of a model.

    ``start`` and ``stop`` stand before and after the reasoning; a prompt that asks for reasoning ends in ``opened``,
    and ``empty`` is appended to it for an empty block.
    """

    start: str
    stop: str
    opened: str
    empty: str

    @classmethod
    def of_tags(cls, start: str, stop: str) -> Block:
        """Return a block between two tags, opened by the prompt and closed as in Qwen's template."""
        return cls(start, f"\n\n{stop}\n\n", start, f"\n\n{stop}\n\n")


BLOCKS = (
    Block.of_tags("<think>", "</think>"),
    Block.of_tags("[THINK]", "[/THINK]"),
    Block.of_tags("<|START_THINKING|>", "<|END_THINKING|>"),
    Block(  # gpt-oss: https://cookbook.openai.com/articles/openai-harmony
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
        "<|start|>assistant",
        "<|channel|>final<|message|>",
    ),
)


class Chat:
    """The chat template and tokenizer of one model with its chat options.

    Args:
        tokenizer: a tokenizer of transformers; its template is replaced by that of ``options``, if given.
        name: the name of the model in error messages.

    Raises:
        UsageError: the model's template does not support the options.
    """

    def __init__(self, tokenizer: Any, options: ChatOptions = DEFAULT_CHAT, name: str = "the model") -> None:
        self.tokenizer, self.name, self._given = tokenizer, name, options
        if options.template is not None:
            tokenizer.chat_template = options.template or None
        self.template: str = tokenizer.get_chat_template() if tokenizer.chat_template else ""
        self._refuse_unread(options)
        off = {key: False for key in _SWITCHES if self._reads(key)}
        self.options = options.model_copy(update={"arguments": off | options.arguments})

    def of(self, tokenizer: Any) -> Chat:
        """Return a chat with the same options for another tokenizer and its template."""
        return self if tokenizer is self.tokenizer else Chat(tokenizer, self._given, self.name)

    def _reads(self, variable: str) -> bool:
        return re.search(rf"\b{re.escape(variable)}\b", self.template) is not None

    def _refuse_unread(self, options: ChatOptions) -> None:
        if not self.template and (options.system or options.arguments):
            what = "system" if options.system else next(iter(options.arguments))
            remedy = "Leave it out, or give template=FILE"
            raise UsageError(f"`chat` {what}: {self.name} has no chat template to put it in. {remedy}.")
        for key in options.arguments:
            if not self._reads(key):
                hint = did_you_mean(key, re.findall(r"\b[a-z]+_[a-z_]+\b", self.template))
                raise UsageError(f"`chat` {key}: the chat template of {self.name} does not read it.{hint}")

    @property
    def _reasons(self) -> bool:
        """Whether the template has a block of reasoning."""
        return any(block.start in self.template for block in BLOCKS)

    @property
    def recorded(self) -> ChatOptions | None:
        """The options that a submission records; None if all are at their default and the date has no effect."""
        usual = self.options == DEFAULT_CHAT and not self._reads(_CLOCK) and not self._reasons
        return None if usual else self.options

    @cached_property
    def most_thoughts(self) -> int:
        """The most tokens of reasoning before an answer in text; 0 if the template has no block for it or closes it."""
        if not self._reasons:
            return 0
        end = self.render_prompt("a").rstrip()
        return 0 if any(end.endswith(block.stop.strip()) for block in BLOCKS) else self.options.thinking_tokens

    def render(self, chat: Sequence[Message], opened: bool = True) -> str:
        """Render a chat with the template; ``opened``: end with the start of the assistant's turn.

        If the template rejects or omits the system message, it is placed in the first user turn.

        Raises:
            UnavailableError: the template rejects the chat, or omits the content of a message.
        """
        if self.options.system:
            chat = _with_system(chat, self.options.system)
        reasons = []
        for turns, parts in itertools.product((chat, _without_system(chat)), (False, True)):
            try:
                text = self._apply(turns, opened, parts)
            except Exception as error:  # raised by the template itself, or by jinja
                reasons.append((str(error).splitlines() or [type(error).__name__])[0][:160])
                continue
            if _holds(text, turns):
                return text
            reasons.append("it omits the prompt")
        raise UnavailableError(
            f"`model` {self.name}: its chat template rejects the chat ({reasons[0]}).\n"
            "Set `chat` system=TEXT if it requires a system message, template=FILE, or template=none."
        )

    def _apply(self, chat: Sequence[Message], opened: bool, parts: bool) -> str:
        """Apply the template; ``parts``: pass contents as lists of parts, as templates of multimodal models need."""
        turns: list[Any] = list(chat)
        if parts:
            turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        options = {"tokenize": False, "add_generation_prompt": opened, **self.options.arguments}
        with _dated(self.options.date) if self._reads(_CLOCK) else nullcontext():
            return self.tokenizer.apply_chat_template(turns, **options)

    def render_prompt(self, text: str) -> str:
        """Render a prompt as one user turn and the start of the assistant's turn; unchanged without a chat template."""
        return self.render([{"role": "user", "content": text}]) if self.template else text

    @cached_property
    def _start(self) -> list[int]:
        """Tokens that the tokenizer puts before a text; end tokens would end the prompt before the answer."""
        bare, full = (self.tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        return next((full[:at] for at in range(len(full)) if full[at : at + len(bare)] == bare), [])

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return token ids of texts, each with the tokenizer's start tokens once, also if the template wrote them."""
        start = self._start
        rows = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        return [row if row[: len(start)] == start else start + row for row in rows]

    def chat_ids(self, chat: Sequence[Message], opened: bool = True, thoughts: bool = True) -> list[int]:
        """Return token ids of a chat.

        Without a template a chat is a transcript, tokenised message by message, so that the ids of a chat's first
        messages are a prefix of the ids of the chat.

        Args:
            opened: end with the start of the assistant's turn.
            thoughts: close a reasoning block that the template opens; otherwise remove it.
        """
        if self.template:
            text = self.render(chat, opened)
            return self.ids([(closed(text) if thoughts else _without_block(text)) if opened else text])[0]
        ids = list(self._start)
        for message in chat:
            for part in (f"{message['role']}:", f" {message['content']}\n"):
                ids += self.tokenizer(part, add_special_tokens=False)["input_ids"]
        return ids + (self.tokenizer("assistant:", add_special_tokens=False)["input_ids"] if opened else [])


@contextmanager
def _dated(date: str) -> Iterator[None]:
    """Give templates a fixed date, at midnight, inside the context. Transformers has no argument for it."""
    from transformers.utils import chat_template_utils as utils

    class Pinned(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Pinned:
            return cls.fromisoformat(date)

    usual = utils.datetime
    utils.datetime = Pinned
    try:
        yield
    finally:
        utils.datetime = usual


def opened_block(text: str) -> Block | None:
    """Return the reasoning block that a rendered prompt opens at its end, if any."""
    return next((block for block in BLOCKS if text.rstrip().endswith(block.opened)), None)


def closed(text: str) -> str:
    """Close the reasoning block that a rendered prompt opens at its end, leaving it empty."""
    block = opened_block(text)
    return f"{text.rstrip()}{block.empty}" if block else text


def _without_block(text: str) -> str:
    """Remove the open or empty reasoning block at the end of a rendered prompt."""
    for block in BLOCKS:
        text = re.sub(rf"{re.escape(block.start)}\s*({re.escape(block.stop.strip())}\s*)?$", "", text)
    return text


def _words(text: str) -> str:
    return " ".join(text.split())  # templates strip white space


def _holds(rendered: str, chat: Sequence[Message]) -> bool:
    """Return whether a rendered chat contains all messages but the assistant's."""
    whole = _words(rendered)
    return all(_words(turn["content"]) in whole for turn in chat if turn["role"] != "assistant")


def _with_system(chat: Sequence[Message], text: str) -> list[Message]:
    if chat and chat[0]["role"] == "system":
        return [{**chat[0], "content": f"{text}\n\n{chat[0]['content']}"}, *chat[1:]]
    return [{"role": "system", "content": text}, *chat]


def _without_system(chat: Sequence[Message]) -> list[Message]:
    """Move the system messages of a chat to the start of its first user turn."""
    rules = "\n".join(turn["content"] for turn in chat if turn["role"] == "system")
    rest = [turn for turn in chat if turn["role"] != "system"]
    if not rules:
        return rest
    first = {"role": "user", "content": f"{rules}\n\n{rest[0]['content']}" if rest else rules}
    return [first, *rest[1:]] if not rest or rest[0]["role"] == "user" else [{**first, "content": rules}, *rest]
