"""Keys and values of conversations read so far, so that a further turn reads what is new.

Each conversation is read alone, from mark to mark, whether its beginning is remembered or not. What is computed is the
same to the last bit, so that remembering, forgetting and resuming an interrupted run change no text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from .packed import Engine
from .tree_attention import Heads

MOST_REMEMBERED = 3 << 29  # bytes; what is read beyond is read again


class _Part(NamedTuple):
    """Keys and values (tokens, 2 x key heads, width) per layer of the tokens up to a mark, last hidden state (dim,)."""

    layers: list[torch.Tensor]
    hidden: torch.Tensor

    @property
    def size(self) -> int:
        return sum(layer.nbytes for layer in self.layers)


class ConversationMemory:
    """What an engine with a ``decoder`` has read of conversations.

    ``tokens`` is the number of tokens read so far; remembered ones are not read.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self._parts = engine, dict[tuple[int, ...], _Part]()
        self._size = self.tokens = 0

    def read(self, ids: Sequence[int], marks: Sequence[int]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Read a conversation up to its end, and remember it up to each mark.

        Args:
            ids: token ids.
            marks: lengths of beginnings at which later conversations may differ, ascending.

        Returns:
            Keys and values (1, tokens, 2 x key heads, width) per layer, and the last hidden state (dim,).
        """
        like = self._engine.embed.weight
        layers, start = self._engine.fused.memory(1, len(ids), like), 0
        hidden = like.new_empty(0)
        for end in [*(mark for mark in marks if mark < len(ids)), len(ids)]:
            beginning = tuple(ids[:end])
            part = self._parts.get(beginning)
            if part is None:
                part = self._read(ids, start, end, layers)
                if self._size + part.size <= MOST_REMEMBERED:
                    self._parts[beginning] = part
                    self._size += part.size
            for layer, own in zip(layers, part.layers, strict=True):
                layer[0, start:end] = own
            start, hidden = end, part.hidden
        return layers, hidden

    def _read(self, ids: Sequence[int], start: int, end: int, layers: list[torch.Tensor]) -> _Part:
        device, last = layers[0].device, torch.tensor([end - start - 1])
        embeds = self._engine.embed(torch.tensor(ids[start:end], device=device))[None]
        positions = torch.arange(start, end, device=device)
        hidden = self._engine.fused(embeds, positions, _Causal(start, end), last.to(device), layers, start)
        self.tokens += end - start
        return _Part([layer[0, start:end].clone() for layer in layers], hidden[0, 0])


class _Causal:
    """Attention of the tokens from ``start`` to ``end`` to themselves and all before."""

    def __init__(self, start: int, end: int) -> None:
        self._end, self._hidden = end, torch.ones(end - start, end, dtype=torch.bool).triu(start + 1)

    def __call__(self, queries: torch.Tensor, keys: torch.Tensor, heads: Heads) -> torch.Tensor:
        """Compute attended values (1, tokens, query heads x width), grouping the query heads that share a key head."""
        new = queries.shape[1]
        grouped = (
            queries[0].view(new, heads.keys, -1, heads.width).permute(1, 2, 0, 3).reshape(heads.keys, -1, heads.width)
        )
        # Contiguous, so that the products do not depend on the length of the array.
        k, v = keys[0, : self._end].transpose(0, 1).contiguous().chunk(2)
        mask = queries.new_zeros(self._hidden.shape).masked_fill(self._hidden.to(queries.device), -torch.inf)
        mask = mask.repeat(heads.queries // heads.keys, 1)
        scores = torch.baddbmm(mask, grouped, k.transpose(1, 2), alpha=heads.scaling)
        seen = torch.bmm(scores.softmax(-1), v).view(heads.keys, -1, new, heads.width)
        return seen.permute(2, 0, 1, 3).reshape(1, new, -1)
