"""Writers of agents and judges: models that continue many conversations at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ...harness.engine.chat import Message

if TYPE_CHECKING:
    from ...harness.models.local import LanguageModel


class Style(NamedTuple):
    """Sampling of text: at most ``most`` tokens per text; with ``top_p`` 0 always the most probable token."""

    most: int
    top_p: float


class Writer(Protocol):
    """The interface of a writer of chats; ``name`` identifies it, ``tokens`` counts the tokens written so far.

    ``model`` is the model that writes, whose own ``tokens`` are those read and written.
    """

    model: Any
    name: str
    tokens: int

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

    def _encode(self, chat: Sequence[Message], most: int, start: str = "") -> list[int]:
        kept = list(chat)
        opened = self.model.tokenizer(start, add_special_tokens=False)["input_ids"] if start else []
        while True:
            ids = self.model.chat.chat_ids(kept) + opened
            context = self.model.context_length or 1 << 30
            if len(ids) + most <= context or len(kept) <= 2:
                return ids[-(context - most) :]
            del kept[1:3]

    def _batch(self, rows: Sequence[Sequence[int]], style: Style, seed: int) -> list[str]:
        from ...harness.engine.generate import generate

        engine, tokenizer = self.model.engine, self.model.tokenizer
        with self.model.at_work():
            if engine is not None and engine.decoder is not None:
                new = generate(engine, rows, style.most, style.top_p, self.model.ends, seed)
            else:
                new = self._by_transformers(rows, style, seed)
        self.tokens += sum(map(len, new))
        self.model.tokens += sum(map(len, [*rows, *new]))
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
    """Write one text per chat, as ``Writer.write``, with progress reports; chats of similar length are batched."""
    order = sorted(range(len(chats)), key=lambda i: sum(len(message["content"]) for message in chats[i]))
    texts = [""] * len(chats)
    for start in range(0, len(chats), PART):
        rows = order[start : start + PART]
        heard(start, len(chats))
        for row, text in zip(rows, writer.write([chats[i] for i in rows], style, seed + start), strict=True):
            texts[row] = text
    if chats:
        heard(len(chats), len(chats))
    return texts
