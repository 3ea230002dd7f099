"""Prefix trees of the tokens of prompts, which hold shared prefixes once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .tokenize import Encoded


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """Prefix tree of prompts in depth-first order, with the readings of the options' log-probabilities.

    ``tokens``, ``depth``, ``parent`` have shape (nodes,); a parent precedes its children, the parent of a root is -1.
    Reading ``r`` adds the log-probability of token ``read_token[r]`` after node ``read_node[r]`` to option
    ``read_option[r]`` of prompt ``read_prompt[r]``, prompts counted from ``first``.
    """

    first: int
    prompts: int
    tokens: np.ndarray
    depth: np.ndarray
    parent: np.ndarray
    read_node: np.ndarray
    read_token: np.ndarray
    read_prompt: np.ndarray
    read_option: np.ndarray

    def __len__(self) -> int:
        return len(self.tokens)

    def ancestors(self) -> np.ndarray:
        """Compute a boolean matrix (nodes, nodes): row i is true at i and at its ancestors."""
        seen = np.eye(len(self), dtype=bool)
        for node, parent in enumerate(self.parent):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen

    def ends(self, lengths: Sequence[int]) -> np.ndarray:
        """Return the last node (prompts,) of each prompt's own tokens, of which there are ``lengths``."""
        found = np.zeros(self.prompts, dtype=np.int64)
        own = self.depth[self.read_node] == np.asarray(lengths)[self.read_prompt] - 1
        found[self.read_prompt[own]] = self.read_node[own]
        return found


def build_trees(encoded: Encoded, most_nodes: int) -> list[PrefixTree]:
    """Build prefix trees over consecutive prompts, each of at most ``most_nodes`` nodes (one prompt may exceed it).

    Nodes are divided evenly: if two trees are needed, each gets about half of the nodes.
    """
    whole = _Trie(encoded, 0, None)
    if len(whole.edges) <= most_nodes:
        return [whole.tree()]
    most = min(most_nodes, len(whole.edges) // -(-len(whole.edges) // most_nodes))
    fewest = len(_cut(encoded, most_nodes))
    while len(tries := _cut(encoded, most)) > fewest and most < most_nodes:
        most = min(most_nodes, most + most // 16 + 1)
    return [trie.tree() for trie in tries]


def _cut(encoded: Encoded, most: int) -> list[_Trie]:
    tries: list[_Trie] = []
    start = 0
    while start < len(encoded.contexts):
        tries.append(_Trie(encoded, start, most))
        start = tries[-1].stop
    return tries


class _Trie:
    """Trie of prompts ``start`` to ``stop``, as many as fit ``most`` nodes; ``edges`` maps (node, token) to a node."""

    def __init__(self, encoded: Encoded, start: int, most: int | None) -> None:
        self.start, self.stop = start, start
        self.edges: dict[tuple[int, int], int] = {}
        self.reads: list[tuple[int, int, int, int]] = []
        for context, options in zip(encoded.contexts[start:], encoded.options[start:], strict=True):
            if most is not None and self.stop > start and len(self.edges) + self._new(context, options) > most:
                break
            self._add(context, options)
            self.stop += 1

    def _new(self, context: list[int], options: list[list[int]]) -> int:
        """Return an upper bound of the nodes that a prompt would add."""
        node, shared = -1, 0
        while shared < len(context) and (node, context[shared]) in self.edges:
            node, shared = self.edges[node, context[shared]], shared + 1
        return len(context) - shared + sum(len(ids) - 1 for ids in options)

    def _add(self, context: list[int], options: list[list[int]]) -> None:
        if not context:
            raise ValueError("a prompt has no tokens: its options need at least one token before them")
        leaf = self._descend(-1, context)
        for option, ids in enumerate(options):
            node = leaf
            for i, token in enumerate(ids):
                self.reads.append((node, token, self.stop - self.start, option))
                if i + 1 < len(ids):
                    node = self._descend(node, [token])

    def _descend(self, node: int, tokens: list[int]) -> int:
        for token in tokens:
            node = self.edges.setdefault((node, token), len(self.edges))
        return node

    def tree(self) -> PrefixTree:
        """Return the tree with nodes in depth-first order, so that neighbouring nodes share ancestors."""
        parents, tokens = np.array(list(self.edges), dtype=np.int64).reshape(-1, 2).T
        children: list[list[int]] = [[] for _ in range(len(parents) + 1)]  # the last: the roots, whose parent is -1
        for node, parent in enumerate(parents):
            children[parent].append(node)
        order, waiting = [], children[-1][::-1]
        while waiting:
            order.append(waiting.pop())
            waiting += children[order[-1]][::-1]
        place = np.full(len(order) + 1, -1)
        place[order] = np.arange(len(order))
        parents = place[parents[order]]
        depth = np.zeros(len(order), dtype=np.int64)
        for node, parent in enumerate(parents):
            depth[node] = depth[parent] + 1 if parent >= 0 else 0
        node, *rest = np.array(self.reads, dtype=np.int64).T
        return PrefixTree(self.start, self.stop - self.start, tokens[order], depth, parents, place[node], *rest)
