"""Text from many prompts at once: what they share is read once, as a prefix tree; then every row a token a step.

For engines that run the layers themselves (``Engine.decoder``). Keys and values stand in one room a layer, rows aligned
at their ends, so that a step reads them once where transformers copies them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch

from .packed import Engine
from .prefix_tree import PrefixTree, build_trees
from .tokenize import Encoded
from .tree_attention import Heads, TreeAttention

NUCLEUS = 256  # most probable tokens among which a nucleus is looked for first


def generate(
    engine: Engine, rows: Sequence[Sequence[int]], most: int, top_p: float, ends: Collection[int], seed: int
) -> list[list[int]]:
    """What follows each row of token ids: at most so many tokens, up to the first of ``ends``, which is left out.

    Args:
        engine: one with a ``decoder``.
        rows: in an order in which those that share a beginning stand together.
        top_p: mass of the nucleus that tokens are drawn from (Holtzman et al. 2020); 0 takes the most probable one.
        seed: of the draws; greedy text needs none.
    """
    device, luck = engine.model.device, np.random.default_rng(seed)
    lengths = torch.tensor([len(row) for row in rows], device=device)
    first = torch.zeros(1, dtype=torch.int64, device=device)
    found: list[list[int]] = [[] for _ in rows]
    ended = np.zeros(len(rows), dtype=bool)
    with torch.no_grad():
        room = _Room(engine, lengths, most)
        hidden = _read(engine, rows, room)
        for step in range(most):
            tokens = _draw(engine.log_softmax(hidden), top_p, luck)
            ended |= np.isin(tokens, list(ends))
            for row in np.flatnonzero(~ended).tolist():
                found[row].append(int(tokens[row]))
            if ended.all() or step + 1 == most:
                break
            embeds = engine.embed(torch.from_numpy(tokens).to(device))[:, None]
            hidden = engine.fused(embeds, (lengths + step)[:, None], room, first)[:, 0]
    return found


def _read(engine: Engine, rows: Sequence[Sequence[int]], room: _Room) -> torch.Tensor:
    """Last hidden states (rows, dim); keys and values go into ``room``."""
    device, done = engine.model.device, []
    encoded = Encoded([list(row) for row in rows], [[[0]]] * len(rows))
    for tree in build_trees(encoded, engine.most_tokens()):
        memory = engine.fused.memory(1, len(tree), engine.embed.weight)
        embeds = engine.embed(torch.from_numpy(tree.tokens).to(device))[None]
        positions = torch.from_numpy(tree.depth).to(device)
        leaves, place = np.unique(tree.read_node, return_inverse=True)
        sight = TreeAttention(tree.ancestors())
        hidden = engine.fused(embeds, positions, sight, torch.from_numpy(leaves).to(device), memory)
        done.append(hidden[0, torch.from_numpy(place).to(device)])
        for row, leaf in enumerate(tree.read_node.tolist(), start=tree.first):
            room.fill(row, memory, torch.from_numpy(_path(tree, leaf)).to(device))
    return torch.cat(done)


def _path(tree: PrefixTree, leaf: int) -> np.ndarray:
    """The nodes from a root down to ``leaf``."""
    nodes = [leaf]
    while (parent := int(tree.parent[nodes[-1]])) >= 0:
        nodes.append(parent)
    return np.array(nodes[::-1])


class _Room:
    """Keys and values of rows that are written on, and the attention of each row's new token to its own.

    A layer has keys and values (rows x key heads, slots, width) each; a row's tokens end at slot ``stop``. As an
    attention it is called once a layer, in order, with the new token's keys and values, which it keeps. Free slots are
    looked at, too, and masked: products of whole contiguous arrays cost a tenth of those of their parts.
    """

    def __init__(self, engine: Engine, lengths: torch.Tensor, most: int) -> None:
        heads, like = engine.fused.heads, engine.embed.weight
        self.stop, self.layer = int(lengths.max()), 0
        slots = torch.arange(self.stop + most, device=lengths.device)
        hidden = (slots < (self.stop - lengths)[:, None]) | (slots >= self.stop)
        mask = like.new_zeros(hidden.shape).masked_fill(hidden, -torch.inf)
        self.mask = mask.repeat_interleave(heads.keys, 0)[:, None]
        shape = (len(lengths) * heads.keys, len(slots), heads.width)
        self.layers = [(like.new_zeros(shape), like.new_zeros(shape)) for _ in engine.fused.layers]

    def fill(self, row: int, memory: list[torch.Tensor], path: torch.Tensor) -> None:
        """Take over a row's keys and values from the nodes ``path`` of a tree's memory."""
        start = self.stop - len(path)
        for kept, read in zip(self.layers, memory, strict=True):
            for part, own in zip(kept, read[0, path].transpose(0, 1).chunk(2), strict=True):
                part[row * len(own) : (row + 1) * len(own), start : self.stop] = own

    def __call__(self, queries: torch.Tensor, keys: torch.Tensor, heads: Heads) -> torch.Tensor:
        """Attended values (rows, 1, query heads x width); the query heads that share a key head go together."""
        rows = len(queries)
        if self.layer == 0:
            self.mask[:, :, self.stop] = 0
            self.stop += 1
        kept = self.layers[self.layer]
        self.layer = (self.layer + 1) % len(self.layers)
        for part, own in zip(kept, keys[:, 0].chunk(2, dim=1), strict=True):
            part[:, self.stop - 1] = own.reshape(-1, heads.width)
        k, v = kept
        grouped = queries.reshape(rows * heads.keys, -1, heads.width)
        mask = self.mask.expand(-1, grouped.shape[1], -1)
        scores = torch.baddbmm(mask, grouped, k.transpose(1, 2), alpha=heads.scaling)
        return torch.bmm(scores.softmax(-1), v).view(rows, 1, -1)


def _draw(logs: torch.Tensor, top_p: float, luck: np.random.Generator) -> np.ndarray:
    """One token a row (rows,) of log-probabilities (rows, vocabulary)."""
    if not top_p:
        return logs.argmax(-1).cpu().numpy()
    most, vocabulary = NUCLEUS, logs.shape[-1]
    best, tokens = logs.topk(min(most, vocabulary))
    while most < vocabulary and (best.exp().sum(-1) < top_p).any():
        most *= 8
        best, tokens = logs.topk(min(most, vocabulary))
    mass = best.double().exp().cumsum(-1)
    size = (mass < top_p).sum(-1, keepdim=True).clamp(max=mass.shape[-1] - 1)  # place of the nucleus' last token
    wanted = torch.from_numpy(luck.random((len(logs), 1))).to(mass) * mass.gather(1, size)
    place = torch.searchsorted(mass, wanted, right=True).minimum(size)
    return tokens.gather(1, place)[:, 0].cpu().numpy()
