"""What agents and judges are played by: a model that goes on with many conversations at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ...harness.engine.chat import Message

if TYPE_CHECKING:
    from ...harness.models.local import LanguageModel


class Style(NamedTuple):
    """How text is drawn: at most ``most`` tokens a text; ``top_p`` of 0 takes the likeliest token every time."""

    most: int
    top_p: float


class Writer(Protocol):
    """Goes on with chats; ``name`` says who wrote, ``tokens`` how many tokens were written so far."""

    name: str
    tokens: int

    def write(
        self, chats: Sequence[Sequence[Message]], style: Style, seed: int, begun: Sequence[str] = ()
    ) -> list[str]:
        """One text a chat. The same chats, style and seed give the same texts.

        Args:
            begun: how each text begins, where that is given; part of the text.
        """


class LocalWriter:
    """The model at hand, ``batch`` chats at a time; a longer chat loses its oldest turns, never its first message."""

    def __init__(self, model: LanguageModel, batch: int = 40) -> None:
        self.model, self.batch, self.name, self.tokens = model, batch, model.info.name, 0

    def write(
        self, chats: Sequence[Sequence[Message]], style: Style, seed: int, begun: Sequence[str] = ()
    ) -> list[str]:
        """Chats that begin alike are put together; texts come back in the order of the chats."""
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
        """The same for models whose layers the engine does not run."""
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
    """Neighbouring messages of one role as one, since many templates want roles that alternate."""
    found: list[Message] = []
    for message in chat:
        if found and found[-1]["role"] == message["role"]:
            found[-1] = {**message, "content": f"{found[-1]['content']}\n{message['content']}"}
        else:
            found.append(message)
    return found


Tell = Callable[[str, int, int], None]
"""Told what is under way, how much of it is done, and how much there is."""
Heard = Callable[[int, int], None]
"""Told how much is done of how much there is."""
PART = 40  # chats that are told of together


def in_parts(writer: Writer, chats: Sequence[Sequence[Message]], style: Style, seed: int, heard: Heard) -> list[str]:
    """One text a chat, as ``Writer.write`` gives them, told of part by part; chats of like length go together."""
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
