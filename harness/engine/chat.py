"""From a prompt's text to the tokens that a model reads: chat template, system turn, pinned date, start tokens.

Templates come with models and are run by transformers in a sandbox. What they may change is what is said around a
prompt, never the prompt: each rendered chat is looked through for what was put into it.
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
from ...tasks.chat_options import DEFAULT_CHAT, THINKING_TOKENS, ChatOptions

Message = dict[str, str]
"""``role`` (system, user or assistant) and ``content``, as chat templates and APIs take them."""

# Variables by which templates turn thinking aloud on: Qwen 3, SmolLM 3 and GLM; DeepSeek and Granite.
_SWITCHES = ("enable_thinking", "thinking")
_CLOCK = "strftime_now"  # the function by which transformers tells templates the time


class Block(NamedTuple):
    """How a model that thinks aloud marks it: the beginning, the end, what a prompt ends in behind which it is to
    begin, and what stands there for no thoughts at all."""

    start: str
    stop: str
    opened: str
    empty: str

    @classmethod
    def of_tags(cls, start: str, stop: str) -> Block:
        """A block between two tags, opened by the prompt and closed empty as Qwen's template closes it."""
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
    """How one model's prompts are written and tokenised.

    Args:
        tokenizer: of transformers; takes on the template of ``options``.
        name: what messages call the model.

    Raises:
        UsageError: options that the model's template cannot follow.
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
        """The same options for another tokenizer, with its own template."""
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
    def recorded(self) -> ChatOptions | None:
        """What a submission says of the chat, where something is not at its default, or is pinned."""
        thinks = any(block.start in self.template for block in BLOCKS)
        said = self.options.model_copy(update={} if thinks else {"thinking_tokens": THINKING_TOKENS})
        return None if said == DEFAULT_CHAT and not self._reads(_CLOCK) and not thinks else said

    def render(self, chat: Sequence[Message], opened: bool = True) -> str:
        """A chat by the template; ``opened``: with the assistant's turn begun.

        A template without a system role, or one that leaves it out, has it in the first user's turn.

        Raises:
            UnavailableError: the template refuses the chat, or leaves out what is said in it.
        """
        if self.options.system:
            chat = _with_system(chat, self.options.system)
        reasons = []
        for turns, parts in itertools.product((chat, _without_system(chat)), (False, True)):
            try:
                text = self._apply(turns, opened, parts)
            except Exception as error:  # of the template's own making, or of jinja at it
                reasons.append((str(error).splitlines() or [type(error).__name__])[0][:160])
                continue
            if _holds(text, turns):
                return text
            reasons.append("it leaves out what is asked")
        raise UnavailableError(
            f"`model` {self.name}: its chat template refuses the chat ({reasons[0]}).\n"
            "Give `chat` system=TEXT if it asks for a system message, template=FILE, or template=none."
        )

    def _apply(self, chat: Sequence[Message], opened: bool, parts: bool) -> str:
        """``parts``: contents as lists of parts, as templates of models that take images read them."""
        turns: list[Any] = list(chat)
        if parts:
            turns = [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]
        options = {"tokenize": False, "add_generation_prompt": opened, **self.options.arguments}
        with _dated(self.options.date) if self._reads(_CLOCK) else nullcontext():
            return self.tokenizer.apply_chat_template(turns, **options)

    def asked(self, text: str) -> str:
        """A prompt as one user turn with the assistant's turn begun; unchanged where there is no chat template."""
        return self.render([{"role": "user", "content": text}]) if self.template else text

    @cached_property
    def _start(self) -> list[int]:
        """Tokens that the tokenizer puts before a text. What some put behind it would end it before it is answered."""
        bare, full = (self.tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
        return next((full[:at] for at in range(len(full)) if full[at : at + len(bare)] == bare), [])

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of texts behind the tokenizer's start tokens, which a template may have written already."""
        start = self._start
        rows = self.tokenizer(list(texts), add_special_tokens=False)["input_ids"] if texts else []
        return [row if row[: len(start)] == start else start + row for row in rows]

    def chat_ids(self, chat: Sequence[Message], opened: bool = True, thoughts: bool = True) -> list[int]:
        """Token ids of a chat; ``opened``: up to where the assistant goes on, behind an empty block of ``thoughts``
        where the template begins one.

        Without a template a chat is a transcript, put together message by message, so that a chat's ids begin with
        those of its beginning.
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
    """Have templates told a date, at midnight, for now. Transformers takes no such function from its callers."""
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
    """The block of thinking aloud that a rendered prompt ends in, if any."""
    return next((block for block in BLOCKS if text.rstrip().endswith(block.opened)), None)


def closed(text: str) -> str:
    """A rendered prompt whose block of thinking aloud is closed, empty."""
    block = opened_block(text)
    return f"{text.rstrip()}{block.empty}" if block else text


def _without_block(text: str) -> str:
    """A rendered prompt without the block of thinking aloud that it ends in, open or empty."""
    for block in BLOCKS:
        text = re.sub(rf"{re.escape(block.start)}\s*({re.escape(block.stop.strip())}\s*)?$", "", text)
    return text


def _words(text: str) -> str:
    return " ".join(text.split())  # templates trim


def _holds(rendered: str, chat: Sequence[Message]) -> bool:
    """Whether what people say in a chat is in what a template made of it."""
    whole = _words(rendered)
    return all(_words(turn["content"]) in whole for turn in chat if turn["role"] != "assistant")


def _with_system(chat: Sequence[Message], text: str) -> list[Message]:
    if chat and chat[0]["role"] == "system":
        return [{**chat[0], "content": f"{text}\n\n{chat[0]['content']}"}, *chat[1:]]
    return [{"role": "system", "content": text}, *chat]


def _without_system(chat: Sequence[Message]) -> list[Message]:
    """The same chat with what the system says at the head of the first user's turn."""
    rules = "\n".join(turn["content"] for turn in chat if turn["role"] == "system")
    rest = [turn for turn in chat if turn["role"] != "system"]
    if not rules:
        return rest
    first = {"role": "user", "content": f"{rules}\n\n{rest[0]['content']}" if rest else rules}
    return [first, *rest[1:]] if not rest or rest[0]["role"] == "user" else [{**first, "content": rules}, *rest]
