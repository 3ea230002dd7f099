"""Writers of agents and judges: models that continue many conversations at once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ...harness.engine.chat import Message

if TYPE_CHECKING:
    from ...harness.engine.generate import ConversationMemory, Row
    from ...harness.models.local import LanguageModel


class Style(NamedTuple):
    """Sampling of text: at most ``most`` tokens per text; with ``top_p`` 0 always the most probable token.

    With ``no_repeat_ngram``, a local model writes no n-gram of so many tokens that the chat or the text has already.
    """

    most: int
    top_p: float
    no_repeat_ngram: int = 0


class Writer(Protocol):
    """The interface of a writer of chats; ``name`` identifies it, ``tokens`` counts the tokens written so far.

    ``batch`` is the number of chats that are best written together. ``model`` is the model that writes, whose own
    ``tokens`` are those read and written.
    """

    model: Any
    name: str
    tokens: int
    batch: int

    def remembering(self) -> AbstractContextManager[None]:
        """Return a context in which the beginnings of chats are remembered, so that a further turn costs less.

        It changes no text of a chat that is continued again after an interruption.
        """

    def write(
        self, chats: Sequence[Sequence[Message]], style: Style, seed: int, begun: Sequence[str] = ()
    ) -> list[str]:
        """Write one text per chat. The same chats, style and seed give the same texts.

        Args:
            begun: the given beginning of each text, if any; part of the text.
        """


class LocalWriter:
    """The local model, ``batch`` chats at a time; a longer chat loses its oldest turns, never its first message."""

    def __init__(self, model: LanguageModel, batch: int = 40) -> None:
        self.model, self.batch, self.name, self.tokens = model, batch, model.info.name, 0
        self._memory: ConversationMemory | None = None

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Remember what is read of chats, for models whose layers the engine supports."""
        from ...harness.engine.generate import ConversationMemory

        engine = self.model.engine
        self._memory = ConversationMemory(engine) if engine is not None and engine.decoder is not None else None
        try:
            yield
        finally:
            self._memory = None

    def write(
        self, chats: Sequence[Sequence[Message]], style: Style, seed: int, begun: Sequence[str] = ()
    ) -> list[str]:
        """Write the texts.

        Chats with common beginnings are batched, and texts are returned in the order of the chats.
        """
        begun = begun or ("",) * len(chats)
        encoded = [self._encode(chat, style.most, start) for chat, start in zip(chats, begun, strict=True)]
        order = sorted(range(len(chats)), key=lambda i: encoded[i])
        texts = [""] * len(chats)
        for start in range(0, len(order), self.batch):
            rows = order[start : start + self.batch]
            for row, text in zip(rows, self._batch([encoded[i] for i in rows], style, seed + start), strict=True):
                texts[row] = f"{begun[row]} {text}" if begun[row] else text
        return texts

    def _encode(self, chat: Sequence[Message], most: int, start: str = "") -> Row:
        from ...harness.engine.generate import Row

        opened = self.model.tokenizer(start, add_special_tokens=False)["input_ids"] if start else []
        context = self.model.context_length or 1 << 30
        room = context - most - len(opened)

        def cut(pairs: int) -> list[Message]:
            return [*chat[:1], *chat[1 + 2 * pairs :]]

        kept, ids = list(chat), self.model.chat.chat_ids(chat)
        if len(ids) > room:
            pairs = range(1, (len(chat) + 1) // 2)
            fewest = bisect_left(pairs, True, key=lambda pairs: len(self.model.chat.chat_ids(cut(pairs))) <= room) + 1
            kept = cut(min(fewest, len(pairs)))
            ids = self.model.chat.chat_ids(kept)
        if self._memory is None or len(ids) > room:
            return Row((ids + opened)[-(context - most) :])
        return Row(ids, self._marks(kept, ids), tuple(opened))

    def _marks(self, chat: Sequence[Message], ids: list[int]) -> tuple[int, ...]:
        """Return the lengths of the beginnings of ``ids`` that end with one of the user's messages."""
        ends = [at for at, message in enumerate(chat, start=1) if message["role"] == "user"]
        beginnings = [self.model.chat.chat_ids(chat[:end]) for end in ends]
        return tuple(len(one) for one in beginnings if ids[: len(one)] == one)

    def _batch(self, rows: Sequence[Row], style: Style, seed: int) -> list[str]:
        from ...harness.engine.generate import Sampling, generate

        engine, tokenizer, memory = self.model.engine, self.model.tokenizer, self._memory
        read = memory.tokens if memory else 0
        with self.model.at_work():
            if engine is not None and engine.decoder is not None:
                sampling = Sampling(style.most, style.top_p, self.model.ends, seed, style.no_repeat_ngram)
                new = generate(engine, rows, sampling, memory)
            else:
                new = self._by_transformers([row.ids for row in rows], style, seed)
        self.tokens += sum(map(len, new))
        self.model.tokens += memory.tokens - read if memory else sum(len(row.ids) for row in rows)
        self.model.tokens += sum(map(len, new))
        return [tokenizer.decode(row, skip_special_tokens=True).strip() for row in new]

    def _by_transformers(self, rows: Sequence[Sequence[int]], style: Style, seed: int) -> list[list[int]]:
        """Write with transformers, for models whose layers the engine does not support."""
        import torch

        model, pad = self.model.model, self.model.ends[0]
        width = max(map(len, rows))
        ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
        drawn: dict[str, Any] = {"do_sample": False}
        if style.top_p:
            drawn = {"do_sample": True, "top_p": style.top_p, "top_k": 0, "temperature": 1.0}
        with torch.no_grad(), torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            torch.manual_seed(seed)
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=style.most,
                pad_token_id=pad,
                eos_token_id=list(self.model.ends),
                no_repeat_ngram_size=style.no_repeat_ngram,
                **drawn,
            )
        return [list(takewhile(lambda token: token not in self.model.ends, row)) for row in out[:, width:].tolist()]


def merged(chat: Iterable[Message]) -> list[Message]:
    """Merge neighbouring messages of one role, because many templates require alternating roles."""
    found: list[Message] = []
    for message in chat:
        if found and found[-1]["role"] == message["role"]:
            found[-1] = {**message, "content": f"{found[-1]['content']}\n{message['content']}"}
        else:
            found.append(message)
    return found


Heard = Callable[[int, int], None]
"""Called with the number done and the total."""
PART = 40  # chats per progress report


def in_parts(writer: Writer, chats: Sequence[Sequence[Message]], style: Style, seed: int, heard: Heard) -> list[str]:
    """Write one text per chat, as ``Writer.write``, with progress reports.

    Chats that begin alike are batched: their beginning is read once.
    """
    order = sorted(range(len(chats)), key=lambda i: [message["content"] for message in chats[i]])
    texts = [""] * len(chats)
    for start in range(0, len(chats), PART):
        rows = order[start : start + PART]
        heard(start, len(chats))
        for row, text in zip(rows, writer.write([chats[i] for i in rows], style, seed + start), strict=True):
            texts[row] = text
    if chats:
        heard(len(chats), len(chats))
    return texts
