"""Generate text for many prompts at once: shared prefixes are read once, as a prefix tree, then one token per step.

For engines that run the layers themselves (``Engine.decoder``). Each layer has one preallocated KV cache with rows
aligned at their ends, so that a step reads keys and values in place, where transformers copies them.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ...errors import RunError
from .packed import Engine, Readings
from .prefix_tree import PrefixTree, build_trees
from .tokenize import Encoded
from .tree_attention import Heads, TreeAttention, attend

LEAST = (
    *map(math.log, (1e-3, 1e-4, 1e-5, 1e-6)),
    -math.inf,
)  # probability of the tokens that are searched for a nucleus, until they hold it
NOT_FINITE = "the model gave no finite probability for some token. Try `dtype` float32."
MOST_REMEMBERED = 3 << 29  # bytes of conversations; what is read beyond is read again
STRIDE = 64  # tokens; conversations that begin alike share what they read in pieces of this length


class Sampling(NamedTuple):
    """How continuations are drawn: at most ``most`` tokens, without the end token.

    ``top_p`` is the mass of the nucleus that tokens are drawn from (Holtzman et al. 2020); 0 takes the most probable
    token. ``ends`` are the end tokens. Greedy decoding ignores ``seed``. With ``no_repeat_ngram``, no n-gram of so many
    tokens is generated that occurs before in the prompt or the text.
    """

    most: int
    top_p: float = 0
    ends: Collection[int] = ()
    seed: int = 0
    no_repeat_ngram: int = 0


class Row(NamedTuple):
    """Token ids to continue; ``forced`` are the continuation's given first tokens, which are not returned.

    ``marks`` are the lengths of the beginnings that a memory remembers.
    """

    ids: list[int]
    marks: tuple[int, ...] = ()
    forced: tuple[int, ...] = ()


class _Part(NamedTuple):
    """Keys and values (tokens, 2 x key heads, width) per layer from a mark to the next, last hidden state (dim,)."""

    layers: list[torch.Tensor]
    hidden: torch.Tensor

    @property
    def size(self) -> int:
        return sum(layer.nbytes for layer in self.layers)


class ConversationMemory:
    """Keys and values of conversations that an engine with a ``decoder`` has read, so that a turn reads what is new.

    Each conversation is read alone, up to its first mark in pieces of ``STRIDE`` tokens and then from mark to mark,
    whether its beginning is remembered or not. What is computed is the same to the last bit, so that remembering,
    forgetting and resuming an interrupted run change no text.

    ``tokens`` is the number of tokens read so far; remembered ones are not read.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parts = dict[tuple[int, tuple[int, ...]], _Part]()  # by start, and all tokens up to the end
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
        hidden, marks = like.new_empty(0), [*(mark for mark in marks if mark < len(ids)), len(ids)]
        for end in [*range(STRIDE, marks[0], STRIDE), *marks]:
            place = start, tuple(ids[:end])
            part = self._parts.get(place)
            if part is None:
                part = self._read(ids, start, end, layers)
                if self._size + part.size <= MOST_REMEMBERED:
                    self._parts[place] = part
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
        self._end, self._mask = end, torch.full((end - start, end), -torch.inf).triu(start + 1)

    def __call__(self, queries: torch.Tensor, keys: torch.Tensor, heads: Heads) -> torch.Tensor:
        """Compute attended values (1, tokens, query heads x width), grouping the query heads that share a key head."""
        new = queries.shape[1]
        grouped = (
            queries[0].view(new, heads.keys, -1, heads.width).permute(1, 2, 0, 3).reshape(heads.keys, -1, heads.width)
        )
        # Contiguous, so that the products do not depend on the length of the array.
        k, v = keys[0, : self._end].transpose(0, 1).contiguous().chunk(2)
        mask = self._mask.to(queries.device).repeat(heads.queries // heads.keys, 1)
        seen = attend(grouped, k, v, mask, heads.scaling).view(heads.keys, -1, new, heads.width)
        return seen.permute(2, 0, 1, 3).reshape(1, new, -1)


@torch.no_grad()
def generate(
    engine: Engine, rows: Sequence[Row], sampling: Sampling, memory: ConversationMemory | None = None
) -> list[list[int]]:
    """Generate the continuation of each row.

    Args:
        engine: an engine with a ``decoder``.
        rows: those with a common prefix must be adjacent.
        memory: reads the rows, if given; otherwise all are read together.
    """
    cache = _KVCache.of(engine, rows, sampling)
    if memory is not None:
        hidden = _recall(memory, rows, cache)
    else:
        hidden, _ = _read(engine, Encoded([row.ids for row in rows], [[[0]]] * len(rows)), cache)
    return _continue(engine, rows, sampling, cache, hidden)


@torch.no_grad()
def generate_weighed(engine: Engine, encoded: Encoded, sampling: Sampling) -> tuple[list[list[int]], torch.Tensor]:
    """Generate the continuation of each context, and compute log-probabilities (contexts, options), in one reading.

    The log-probabilities are those of ``PackedForward``. Contexts with a common prefix must be adjacent.
    """
    rows = [Row(ids) for ids in encoded.contexts]
    cache = _KVCache.of(engine, rows, sampling)
    hidden, logs = _read(engine, encoded, cache, weigh=True)
    return _continue(engine, rows, sampling, cache, hidden), torch.cat(logs)


def _continue(
    engine: Engine, rows: Sequence[Row], sampling: Sampling, cache: _KVCache, hidden: torch.Tensor
) -> list[list[int]]:
    """Generate the continuations after hidden states (rows, dim)."""
    device, rng = engine.model.device, np.random.default_rng(sampling.seed)
    lengths = torch.tensor([len(row.ids) for row in rows], device=device)
    first = torch.zeros(1, dtype=torch.int64, device=device)
    generated: list[list[int]] = [[] for _ in rows]
    left, ended = np.arange(len(rows)), np.zeros(len(rows), dtype=bool)
    ngrams = [_NGrams(row, sampling.no_repeat_ngram) for row in rows] if sampling.no_repeat_ngram else None
    for step in range(_steps(rows, sampling)):
        logs = engine.log_softmax(hidden)
        if ngrams is not None:
            for at, row in enumerate(left.tolist()):
                if banned := ngrams[row].banned():
                    logs[at, banned] = -math.inf
                    logs[at] = logs[at].log_softmax(-1)
        tokens = _draw(logs, sampling.top_p, rng.random(len(rows))[left])
        for at in np.flatnonzero(~ended).tolist():
            row, text = rows[left[at]], generated[left[at]]
            if step < len(row.forced):
                tokens[at] = row.forced[step]
            elif tokens[at] in sampling.ends:
                ended[at] = True
            else:
                text.append(int(tokens[at]))
                if ngrams is not None:
                    ngrams[left[at]].add(text[-1])
                ended[at] = len(text) == sampling.most
        if ended.all():
            break
        if ended.sum() * 2 >= len(left):  # not earlier, since the cache of the others is copied
            kept = torch.from_numpy(np.flatnonzero(~ended)).to(device)
            cache.keep(kept)
            lengths, tokens, left, ended = lengths[kept], tokens[~ended], left[~ended], ended[~ended]
        embeds = engine.embed(torch.from_numpy(tokens).to(device))[:, None]
        hidden = engine.fused(embeds, (lengths + step)[:, None], cache, first)[:, 0]
    return generated


class _NGrams:
    """The n-grams of a row's prompt and text; those that its text begins after the prompt."""

    def __init__(self, row: Row, n: int) -> None:
        self._next: dict[tuple[int, ...], list[int]] = {}
        self._last: deque[int] = deque(maxlen=n - 1)
        for token in (*row.ids, *row.forced):
            self.add(token)
        self._last.clear()  # otherwise two texts with the same given beginning could not go on alike

    def add(self, token: int) -> None:
        """Add the next token."""
        if len(self._last) == self._last.maxlen:
            self._next.setdefault(tuple(self._last), []).append(token)
        self._last.append(token)

    def banned(self) -> list[int]:
        """Return the tokens that would complete an n-gram again."""
        return self._next.get(tuple(self._last), [])


def _steps(rows: Sequence[Row], sampling: Sampling) -> int:
    return sampling.most + max(len(row.forced) for row in rows)


def _recall(memory: ConversationMemory, rows: Sequence[Row], cache: _KVCache) -> torch.Tensor:
    """Compute last hidden states (rows, dim) and write keys and values to ``cache``, by a memory."""
    states = []
    for at, row in enumerate(rows):
        layers, hidden = memory.read(row.ids, row.marks)
        cache.fill(at, layers, torch.arange(len(row.ids), device=hidden.device))
        states.append(hidden)
    return torch.stack(states)


def _read(
    engine: Engine, encoded: Encoded, cache: _KVCache, weigh: bool = False
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Compute last hidden states (contexts, dim) and write keys and values to ``cache``.

    Returns:
        The hidden states; if ``weigh``, also log-probabilities (some contexts, options) of each tree.
    """
    device, done, logs = engine.model.device, [], []
    for tree in build_trees(encoded, engine.most_tokens()):
        memory = engine.fused.memory(1, len(tree), engine.embed.weight)
        embeds = engine.embed(torch.from_numpy(tree.tokens).to(device))[None]
        positions = torch.from_numpy(tree.depth).to(device)
        leaves, readings = Readings.of(tree, max(map(len, encoded.options)), device)
        hidden = engine.fused(embeds, positions, TreeAttention(tree.ancestors()), leaves, memory)
        contexts = range(tree.first, tree.first + tree.prompts)
        ends = tree.ends([len(encoded.contexts[row]) for row in contexts])
        done.append(hidden[0, torch.searchsorted(leaves, torch.from_numpy(ends).to(device))])
        if weigh:
            logs.append(readings(engine, hidden)[0][0])
        for row, end in zip(contexts, ends.tolist(), strict=True):
            cache.fill(row, memory, torch.from_numpy(_path(tree, end)).to(device))
    return torch.cat(done), logs


def _path(tree: PrefixTree, leaf: int) -> np.ndarray:
    """Return the nodes from a root down to ``leaf``."""
    nodes = [leaf]
    while (parent := int(tree.parent[nodes[-1]])) >= 0:
        nodes.append(parent)
    return np.array(nodes[::-1])


class _KVCache:
    """KV cache of growing rows, and the attention of each row's new token to that row.

    Each layer has keys, in float32 for ``attend``, and values, (rows x key heads, slots, width) each; a row's tokens
    end at slot ``stop``. It is called once per layer, in order, with the keys and values of the new token, and stores
    them. Free slots are read too, and masked: products of whole contiguous arrays cost a tenth of products of their
    parts.
    """

    @classmethod
    def of(cls, engine: Engine, rows: Sequence[Row], sampling: Sampling) -> _KVCache:
        """Make a cache for rows and their continuations."""
        lengths = torch.tensor([len(row.ids) for row in rows], device=engine.model.device)
        return cls(engine, lengths, _steps(rows, sampling))

    def __init__(self, engine: Engine, lengths: torch.Tensor, most: int) -> None:
        heads, like = engine.fused.heads, engine.embed.weight
        self.stop, self.layer, self.heads = int(lengths.max()), 0, heads.keys
        slots = torch.arange(self.stop + most, device=lengths.device)
        hidden = (slots < (self.stop - lengths)[:, None]) | (slots >= self.stop)
        mask = torch.zeros(hidden.shape, device=like.device).masked_fill(hidden, -torch.inf)
        self.mask = mask.repeat_interleave(heads.keys, 0)[:, None]
        shape = (len(lengths) * heads.keys, len(slots), heads.width)
        self.layers = [(like.new_zeros(shape, dtype=torch.float32), like.new_zeros(shape)) for _ in engine.fused.layers]

    def fill(self, row: int, memory: list[torch.Tensor], path: torch.Tensor) -> None:
        """Copy the keys and values of a row from the nodes ``path`` of a tree's KV cache."""
        start = self.stop - len(path)
        for cached, read in zip(self.layers, memory, strict=True):
            for part, own in zip(cached, read[0, path].transpose(0, 1).chunk(2), strict=True):
                part[row * len(own) : (row + 1) * len(own), start : self.stop] = own

    def keep(self, rows: torch.Tensor) -> None:
        """Forget all rows but some."""
        parts = (rows[:, None] * self.heads + torch.arange(self.heads, device=rows.device)).flatten()
        self.mask = self.mask[parts]
        self.layers = [(keys[parts], values[parts]) for keys, values in self.layers]

    def __call__(self, queries: torch.Tensor, keys: torch.Tensor, heads: Heads) -> torch.Tensor:
        """Compute attended values (rows, 1, query heads x width), grouping the query heads that share a key head."""
        rows = len(queries)
        if self.layer == 0:
            self.mask[:, :, self.stop] = 0
            self.stop += 1
        cached = self.layers[self.layer]
        self.layer = (self.layer + 1) % len(self.layers)
        for part, own in zip(cached, keys[:, 0].chunk(2, dim=1), strict=True):
            part[:, self.stop - 1] = own.reshape(-1, heads.width)
        k, v = cached
        grouped = queries.reshape(rows * heads.keys, -1, heads.width)
        mask = self.mask.expand(-1, grouped.shape[1], -1)
        return attend(grouped, k, v, mask, heads.scaling).view(rows, 1, -1)


def _draw(logs: torch.Tensor, top_p: float, parts: np.ndarray) -> np.ndarray:
    """Draw one token per row, (rows,), from log-probabilities (rows, vocabulary) by uniform numbers (rows,)."""
    if not top_p:
        return most_probable(logs).cpu().numpy()
    return np.array([_from_nucleus(row, top_p, part) for row, part in zip(logs.cpu().numpy(), parts, strict=True)])


def most_probable(logs: torch.Tensor) -> torch.Tensor:
    """Return the most probable token of each row, (rows,), by logits or log-probabilities (rows, vocabulary).

    Raises:
        RunError: a row has no finite one.
    """
    tokens = logs.argmax(-1)  # NaN counts as the largest
    if not logs.gather(-1, tokens[:, None]).isfinite().all():
        raise RunError(NOT_FINITE)
    return tokens


def _from_nucleus(logs: np.ndarray, top_p: float, part: float) -> int:
    """Return the token at ``part`` of the nucleus's mass, from log-probabilities (vocabulary,).

    Only tokens above a threshold are sorted, and only their values: NumPy sorts those ten times as fast as PyTorch.

    Raises:
        RunError: no finite log-probability.
    """
    for least in LEAST:
        tokens = np.flatnonzero(logs >= least)
        values = np.sort(logs[tokens])[::-1]
        mass = np.exp(values.astype(np.float64)).cumsum()
        if len(mass) and mass[-1] >= top_p:
            break
    if not len(mass):
        raise RunError(NOT_FINITE)
    last = min(int(np.searchsorted(mass, top_p)), len(mass) - 1)
    place = min(int(np.searchsorted(mass, part * mass[last], side="right")), last)
    equal = tokens[logs[tokens] == values[place]]
    return int(equal[place - np.searchsorted(-values, -values[place])])
