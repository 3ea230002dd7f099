"""Many prompts in one forward pass: a prefix tree of their tokens, each token seeing its ancestors only.

A survey's prompts share most of their text. As one sequence of the tree's tokens, with positions by depth and a mask
by ancestry, the model reads the shared part once; the logits are taken at the nodes that an option's token follows.
A soft prompt stands before the root, so a population of soft prompts is a batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .encoding import Encoded


@dataclass(frozen=True, eq=False)
class PrefixTree:
    """Tokens in an order in which parents come first, and where the options' log-probabilities are read.

    ``tokens``, ``depth``, ``parent`` have shape (nodes,), the parent of the root being -1. Reading ``r`` adds the
    log-probability of token ``read_token[r]`` after node ``read_node[r]`` to option ``read_option[r]`` of prompt
    ``read_prompt[r]``, prompts counted from ``first``.
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

    def ancestors(self) -> np.ndarray:
        """Boolean (nodes, nodes): row i is true at i and at its ancestors."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parent):
            if parent >= 0:
                seen[node] |= seen[parent]
        return seen


def build_trees(encoded: Encoded, most_nodes: int) -> list[PrefixTree]:
    """Prefix trees over consecutive prompts, of at most ``most_nodes`` nodes each (one prompt may exceed it).

    Prompts are shared out evenly: where two trees are needed, both come out at about half the nodes.
    """
    whole = _grow(encoded, 0, len(encoded.contexts), None)
    count = -(-len(whole.tokens) // most_nodes)
    if count == 1:
        return [whole]
    target = -(-len(whole.tokens) // count)
    trees, start = [], 0
    while start < len(encoded.contexts):
        tree = _grow(encoded, start, len(encoded.contexts), target)
        trees.append(tree)
        start += tree.prompts
    return trees


def _grow(encoded: Encoded, start: int, stop: int, target: int | None) -> PrefixTree:
    """The tree of prompts from ``start`` on, until ``target`` nodes are reached or ``stop``."""
    children: dict[tuple[int, int], int] = {}
    tokens: list[int] = []
    depth: list[int] = []
    parent: list[int] = []
    reads: list[tuple[int, int, int, int]] = []

    def descend(node: int, token: int) -> int:
        key = (node, token)
        if key not in children:
            children[key] = len(tokens)
            tokens.append(token)
            parent.append(node)
            depth.append(depth[node] + 1 if node >= 0 else 0)
        return children[key]

    prompt = start
    while prompt < stop and (target is None or len(tokens) < target):
        leaf = -1
        for token in encoded.contexts[prompt]:
            leaf = descend(leaf, token)
        for option, ids in enumerate(encoded.options[prompt]):
            node = leaf
            for i, token in enumerate(ids):
                reads.append((node, token, prompt - start, option))
                if i + 1 < len(ids):
                    node = descend(node, token)
        prompt += 1
    columns = np.array(reads, dtype=np.int64).T
    return PrefixTree(start, prompt - start, np.array(tokens), np.array(depth), np.array(parent), *columns)


class PackedForward:
    """The log-probabilities of all options of some prompts under a population of soft prompts.

    Args:
        model: a causal language model of transformers.
        encoded: the prompts' tokens.
        most_nodes: tokens a tree may have; attention costs their square.
        most_tokens: tokens a forward pass may have over the population: the memory budget.
    """

    def __init__(self, model: Any, encoded: Encoded, most_nodes: int = 1024, most_tokens: int = 4096) -> None:
        self.model, self.most_tokens = model, most_tokens
        self.prompts = len(encoded.contexts)
        self.options = max(map(len, encoded.options))
        self.trees = build_trees(encoded, most_nodes)
        self.nodes = sum(len(tree.tokens) for tree in self.trees)
        self._masks: dict[tuple[int, int], torch.Tensor] = {}

    def tokens(self, soft_tokens: int) -> int:
        """Tokens the model reads for one candidate."""
        return self.nodes + soft_tokens * len(self.trees)

    def logprobs(self, soft: torch.Tensor | None) -> torch.Tensor:
        """Log-probabilities (population, prompts, options) in float32; -inf where a prompt has fewer options.

        ``soft`` is (population, T, dim) in the model's embedding space, or None for the bare model (population 1).
        Differentiable with respect to ``soft``.
        """
        return self.read(soft)[0]

    def read(self, soft: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """``logprobs`` and, of the same shape, whether greedy decoding would write the option."""
        parts = [self._read_tree(number, soft) for number in range(len(self.trees))]
        return torch.cat([logs for logs, _ in parts], dim=1), torch.cat([greedy for _, greedy in parts], dim=1)

    def _read_tree(self, number: int, soft: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        tree = self.trees[number]
        length = len(tree.tokens) + (0 if soft is None else soft.shape[1])
        chunk = max(1, self.most_tokens // length)
        parts = [None] if soft is None else soft.split(chunk)
        done = [self._forward(number, tree, part) for part in parts]
        return torch.cat([logs for logs, _ in done]), torch.cat([greedy for _, greedy in done])

    def _forward(
        self, number: int, tree: PrefixTree, soft: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        device = self.model.device
        embeds = self.model.get_input_embeddings()(torch.from_numpy(tree.tokens).to(device))[None]
        virtual = 0 if soft is None else soft.shape[1]
        if soft is not None:
            embeds = torch.cat([soft.to(embeds), embeds.expand(len(soft), -1, -1)], dim=1)
        positions = torch.cat([torch.arange(virtual), torch.from_numpy(tree.depth) + virtual]).to(device)
        nodes, row = np.unique(tree.read_node, return_inverse=True)
        hidden = self.model.base_model(
            inputs_embeds=embeds,
            attention_mask=self._mask(number, virtual, embeds.dtype),
            position_ids=positions[None],
            use_cache=False,
        ).last_hidden_state
        leaves = hidden[:, torch.from_numpy(nodes + virtual).to(device)]
        logs = log_softmax_of(self.model, leaves)
        at, token = torch.from_numpy(row).to(device), torch.from_numpy(tree.read_token).to(device)
        missed = (logs.argmax(-1)[:, at] != token).float()
        greedy = _sum_by_option(missed, tree, self.options) == 0
        return _sum_by_option(logs[:, at, token], tree, self.options), greedy

    def _mask(self, number: int, virtual: int, dtype: torch.dtype) -> Any:
        key = (number, virtual)
        if key not in self._masks:
            self._masks[key] = _allowed(self.trees[number], virtual).to(self.model.device)
        allowed = self._masks[key]
        full = _additive(allowed, dtype)
        window = sliding_window(self.model.config)
        if window is None:
            return full
        tree = self.trees[number]
        depth = torch.cat([torch.arange(virtual), torch.from_numpy(tree.depth) + virtual]).to(allowed.device)
        near = depth[:, None] - depth[None] < window
        return {"full_attention": full, "sliding_attention": _additive(allowed & near, dtype)}


def log_softmax_of(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (..., vocabulary) in float32 of the next token after hidden states (..., dim).

    The head is multiplied in float32 whatever the model's dtype: near 20, neighbouring bfloat16 logits are 0.125
    apart, which would round every option's probability by several per cent.
    """
    head = model.get_output_embeddings()
    bias = None if head.bias is None else head.bias.float()
    logits = torch.nn.functional.linear(hidden.float(), head.weight.float(), bias)
    if cap := getattr(model.config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits.log_softmax(-1)


def sliding_window(config: Any) -> int | None:
    """The width of sliding-window layers of models that take one mask a layer type; None for other models."""
    kinds = getattr(config, "layer_types", None) or ()
    return config.sliding_window if "sliding_attention" in kinds else None


def _allowed(tree: PrefixTree, virtual: int) -> torch.Tensor:
    size = virtual + len(tree.tokens)
    allowed = torch.zeros(size, size, dtype=torch.bool)
    allowed[:virtual, :virtual] = torch.ones(virtual, virtual, dtype=torch.bool).tril()
    allowed[virtual:, :virtual] = True
    allowed[virtual:, virtual:] = torch.from_numpy(tree.ancestors())
    return allowed


def _additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[None, None]


def _sum_by_option(picked: torch.Tensor, tree: PrefixTree, options: int) -> torch.Tensor:
    """Token log-probabilities (population, reads) summed to options (population, prompts, options)."""
    cell = torch.from_numpy(tree.read_prompt * options + tree.read_option).to(picked.device)
    total = picked.new_zeros(len(picked), tree.prompts * options).index_add(1, cell, picked)
    asked = torch.zeros(tree.prompts * options, dtype=torch.bool, device=picked.device)
    asked[cell] = True
    return total.masked_fill(~asked, -torch.inf).view(len(picked), tree.prompts, options)


class PlainForward:
    """The same numbers from one right-padded row a prompt: for models whose masks cannot be packed, and as a check."""

    def __init__(self, model: Any, encoded: Encoded, most_tokens: int = 4096) -> None:
        self.model, self.encoded, self.most_tokens = model, encoded, most_tokens
        self.prompts = len(encoded.contexts)
        self.options = max(map(len, encoded.options))
        # Each prompt is a tree of its own whose branches are padded out; options of one token share one row.
        self.rows = [row for prompt in range(self.prompts) for row in _rows(encoded, prompt)]

    def tokens(self, soft_tokens: int) -> int:
        """Tokens the model reads for one candidate, padding not counted."""
        return sum(len(ids) + soft_tokens for ids, _ in self.rows)

    def logprobs(self, soft: torch.Tensor | None) -> torch.Tensor:
        """As ``PackedForward.logprobs``."""
        candidates: list[Any] = [None] if soft is None else [part[None] for part in soft]
        return torch.cat([self._candidate(one) for one in candidates])

    def _candidate(self, soft: torch.Tensor | None) -> torch.Tensor:
        total = torch.full((self.prompts, self.options), -torch.inf, device=self.model.device)
        for batch in self._batches(0 if soft is None else soft.shape[1]):
            for (_, reads), logs in zip(batch, self._logs([ids for ids, _ in batch], soft), strict=True):
                for prompt, option, at, tokens in reads:
                    total[prompt, option] = sum(logs[at + i, token] for i, token in enumerate(tokens))
        return total[None]

    def _batches(self, virtual: int) -> Iterator[list[Any]]:
        width = max(len(ids) for ids, _ in self.rows) + virtual
        size = max(1, self.most_tokens // (4 * width))  # full logits are kept at every position
        for start in range(0, len(self.rows), size):
            yield self.rows[start : start + size]

    def _logs(self, rows: list[list[int]], soft: torch.Tensor | None) -> torch.Tensor:
        """Log-probabilities (rows, length, vocabulary) after each token of right-padded rows."""
        device, longest = self.model.device, max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
        embeds = self.model.get_input_embeddings()(ids)
        if soft is not None:
            embeds = torch.cat([soft.to(embeds).expand(len(rows), -1, -1), embeds], dim=1)
            real = torch.cat([real.new_ones(len(rows), soft.shape[1]), real], dim=1)
        logits = self.model(inputs_embeds=embeds, attention_mask=real, use_cache=False).logits
        return logits[:, embeds.shape[1] - longest :].float().log_softmax(-1)


def _rows(encoded: Encoded, prompt: int) -> Iterator[tuple[list[int], list[tuple[int, int, int, list[int]]]]]:
    """Rows of one prompt with what to read: (prompt, option, position before its first token, its tokens)."""
    context, at = encoded.contexts[prompt], len(encoded.contexts[prompt]) - 1
    short = [(prompt, option, at, ids) for option, ids in enumerate(encoded.options[prompt]) if len(ids) == 1]
    if short:
        yield context, short
    for option, ids in enumerate(encoded.options[prompt]):
        if len(ids) > 1:
            yield context + ids[:-1], [(prompt, option, at, ids)]
