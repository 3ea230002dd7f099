"""Block-sparse attention over a prefix tree, in which each token attends to its ancestors only.

A dense mask over a survey's tree is about 90 per cent masked. Here ``BLOCK`` neighbouring queries gather the union of
their ancestors, a twelfth of all keys, and blocks with similar numbers of keys share one batched product.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

BLOCK = 24  # queries
GROUPS = 4  # batched products per layer: more need less padding, fewer need less launch time


@dataclass(frozen=True)
class Heads:
    """Number of query heads and of key-value heads, their width and the factor of the scores."""

    queries: int
    keys: int
    width: int
    scaling: float


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, scaling: float
) -> torch.Tensor:
    """Compute attended values (products, queries, width) of (products, queries or keys, width) arrays.

    ``mask`` (products, queries, keys) is in float32, and so are the scores: those of
    Qwen2.5-Coder-1.5B reach 12,000, where neighbouring bfloat16 numbers are 64 apart. On a CPU that is no slower.
    """
    scores = torch.baddbmm(mask, queries.float(), keys.float().transpose(1, 2), alpha=scaling)
    return torch.bmm(scores.softmax(-1).to(values.dtype), values)


class Attention(Protocol):
    """Function of queries, and keys with values, to attended values (population, rows, query heads x width)."""

    def __call__(self, queries: torch.Tensor, keys: torch.Tensor, heads: Heads) -> torch.Tensor: ...


@dataclass(frozen=True, eq=False)
class _Group:
    """Blocks of one padded size: positions of their queries (blocks, BLOCK) and of the visible keys (blocks, most).

    ``allowed`` is boolean (blocks, BLOCK, most).
    """

    queries: np.ndarray
    keys: np.ndarray
    allowed: np.ndarray


class TreeAttention:
    """Block-sparse attention of some rows of a tree to all rows so far.

    Args:
        allowed: boolean (rows, keys): whether a row attends to a key; every row attends to at least one.
    """

    def __init__(self, allowed: np.ndarray) -> None:
        self.rows, self.keys = allowed.shape
        blocks = [(start, allowed[start : start + BLOCK]) for start in range(0, self.rows, BLOCK)]
        blocks.sort(key=lambda block: int(block[1].any(0).sum()))
        parts = np.array_split(np.arange(len(blocks)), min(GROUPS, len(blocks)))
        self._groups = [_group([blocks[i] for i in part]) for part in parts]
        self._plans: dict[tuple[Any, ...], _Plan] = {}

    def __call__(self, queries: torch.Tensor, keys: torch.Tensor, heads: Heads) -> torch.Tensor:
        """Compute attended values (population, rows, query heads x width).

        Args:
            queries: (population, rows, query heads, width).
            keys: (population, at least ``keys`` rows, 2 x key heads, width): keys, then values.
        """
        return self._plan(queries, keys, heads)(queries, keys)

    def _plan(self, queries: torch.Tensor, keys: torch.Tensor, heads: Heads) -> _Plan:
        key = (*queries.shape, keys.shape[1], queries.dtype, queries.device, heads)
        if key not in self._plans:
            self._plans[key] = _Plan(self._groups, queries, keys.shape[1], heads)
        return self._plans[key]


def _group(blocks: list[tuple[int, np.ndarray]]) -> _Group:
    seen = [np.flatnonzero(allowed.any(0)) for _, allowed in blocks]
    most = max(map(len, seen))
    queries = np.zeros((len(blocks), BLOCK), dtype=np.int64)
    keys = np.zeros((len(blocks), most), dtype=np.int64)
    allowed = np.zeros((len(blocks), BLOCK, most), dtype=bool)
    for row, ((start, may), columns) in enumerate(zip(blocks, seen, strict=True)):
        rows = np.minimum(np.arange(BLOCK), len(may) - 1)  # a short block repeats its last query
        queries[row] = start + rows
        keys[row, : len(columns)] = columns
        allowed[row, :, : len(columns)] = may[rows][:, columns]
    return _Group(queries, keys, allowed)


@dataclass(frozen=True, eq=False)
class _Part:
    """One batched product: indices of rows, (products x rows,) each, and mask (products, queries, keys)."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor


class _Plan:
    """Index tensors for one shape of queries and keys; each gather selects rows of ``width`` numbers."""

    def __init__(self, groups: list[_Group], queries: torch.Tensor, key_rows: int, heads: Heads) -> None:
        population, many, _, _ = queries.shape
        self.heads, self.shape = heads, (population, many, heads.queries * heads.width)
        place = torch.zeros(population, many, heads.queries, dtype=torch.int64)
        self.parts, done = [], 0
        # Axes: block, candidate, key head, query heads that share it, row. A product is one of the first three.
        candidate = torch.arange(population).view(1, -1, 1, 1, 1)
        key_head = torch.arange(heads.keys).view(1, 1, -1, 1, 1)
        head = torch.arange(heads.queries).view(1, 1, heads.keys, -1, 1)
        for group in groups:
            at = torch.from_numpy(group.queries)[:, None, None, None]
            seen = torch.from_numpy(group.keys)[:, None, None, None]
            query = (candidate * many + at) * heads.queries + head
            key = ((candidate * key_rows + seen) * 2 * heads.keys + key_head).flatten()
            place[candidate, at, head] = torch.arange(done, done + query.numel()).view(query.shape)
            done += query.numel()
            allowed = torch.from_numpy(group.allowed).to(queries.device)
            mask = torch.zeros(allowed.shape, device=queries.device).masked_fill(~allowed, -torch.inf)
            mask = mask[:, None, None].expand(-1, population, heads.keys, -1, -1).flatten(0, 2)
            mask = mask.repeat(1, heads.queries // heads.keys, 1)
            query, key = query.flatten().to(queries.device), key.to(queries.device)
            self.parts.append(_Part(query, key, key + heads.keys, mask))
        self.place = place.flatten().to(queries.device)

    def __call__(self, queries: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
        q, kv = queries.reshape(-1, self.heads.width), keys.reshape(-1, self.heads.width)
        done = [self._attend(q, kv, part) for part in self.parts]
        return torch.cat(done).index_select(0, self.place).view(self.shape)

    def _attend(self, queries: torch.Tensor, keys: torch.Tensor, part: _Part) -> torch.Tensor:
        products, many, most = part.mask.shape
        q = queries.index_select(0, part.query).view(products, many, -1)
        k = keys.index_select(0, part.key).view(products, most, -1)
        v = keys.index_select(0, part.value).view(products, most, -1)
        return attend(q, k, v, part.mask, self.heads.scaling).view(-1, self.heads.width)
