"""Score many prompts in one forward pass over a prefix tree of their tokens.

The prompts of a survey share most of their text. The tree's tokens form one sequence, with positions by depth and a
mask by which each token attends to its ancestors only, so that the model reads the shared part once. Logits are read at
the nodes before an option's tokens. A soft prompt stands before the root, so a population of soft prompts is a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from .fused_decoder import Decoder, can_run
from .model_config import has_kinds, logit_factor, sliding_window, text_config
from .onednn import pack_head, pack_linears
from .prefix_tree import PrefixTree, build_trees
from .soft_prompt import prepend
from .tokenize import Encoded
from .tree_attention import TreeAttention

CPU_TOKENS = 2048  # per pass: more exceed the processor cache, fewer make the products too small
MOST_NODES = 4096  # per tree: the attention mask grows with the square of the nodes


class Engine:
    """A causal language model of transformers prepared for packed passes.

    Args:
        model: the model; on a CPU its linear layers are replaced by faster ones with the same weights.
        fused: run the layers with ``Decoder`` if it supports them. Otherwise transformers runs them with a dense mask.
    """

    def __init__(self, model: Any, fused: bool = True) -> None:
        self._head = _float_head(model)  # first: while it is packed it is in memory twice
        pack_linears(model)
        self.model = model
        self.decoder = Decoder(model) if fused and can_run(model) else None
        self.embed = model.get_input_embeddings()
        config = text_config(model)
        self._factor, self._cap = logit_factor(config), getattr(config, "final_logit_softcapping", None)

    @property
    def kind(self) -> str:
        """``fused`` if ``Decoder`` runs the layers, ``packed`` if transformers does."""
        return "packed" if self.decoder is None else "fused"

    @property
    def fused(self) -> Decoder:
        """The decoder of a fused engine."""
        assert self.decoder is not None, "transformers runs the layers of this engine"
        return self.decoder

    def log_softmax(self, hidden: torch.Tensor) -> torch.Tensor:
        """Compute log-probabilities (..., vocabulary) in float32 of the next token after hidden states (..., dim).

        The head is multiplied in float32 whatever the model's dtype: near 20, neighbouring bfloat16 logits are 0.125
        apart, which would round every option's probability by several per cent.
        """
        logits = self._head(hidden.float())
        if self._factor != 1:
            logits = logits * self._factor
        if cap := self._cap:
            logits = cap * torch.tanh(logits / cap)
        return logits.log_softmax(-1)

    def most_tokens(self) -> int:
        """Return the tokens per pass that suit the processor's cache, or fit half of the GPU's memory."""
        if self.model.device.type != "cuda":
            return CPU_TOKENS
        config = text_config(self.model)
        width = 8 * config.hidden_size + 3 * (getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
        per_token = (
            4 * width * self.model.dtype.itemsize + config.vocab_size
        )  # with float32 logits of every twelfth token
        # Total instead of free memory: the same configuration must give the same trees.
        free = torch.cuda.get_device_properties(self.model.device).total_memory - self.model.get_memory_footprint()
        return int(min(1 << 16, max(CPU_TOKENS, free // 2 // per_token)))


def _float_head(model: Any) -> Any:
    """Return the head as a function in float32."""
    head = _unwrapped(model.get_output_embeddings())
    if type(head) is not torch.nn.Linear:  # such as one with an adapter
        return lambda hidden: head(hidden.to(model.dtype)).float()
    return pack_head(model, head)


def _unwrapped(head: Any) -> Any:
    """Return the module that peft trained in place of the head, if any, else the head."""
    copies = getattr(head, "modules_to_save", None)
    return head if copies is None else copies[head.active_adapters[0]]


class PackedForward:
    """Packed forward passes that score all options of some prompts under a population of soft prompts.

    Args:
        engine: the model.
        encoded: the prompts' tokens.
        most_tokens: maximum tokens per pass, over tree and population: the memory budget.
    """

    def __init__(self, engine: Engine, encoded: Encoded, most_tokens: int | None = None) -> None:
        self.engine, self.most_tokens = engine, most_tokens or engine.most_tokens()
        self.prompts = len(encoded.contexts)
        self.options = max(map(len, encoded.options))
        self.passes = [
            TreePass(engine, tree, self.options) for tree in build_trees(encoded, min(self.most_tokens, MOST_NODES))
        ]

    def tokens(self, soft_tokens: int) -> int:
        """Return the number of tokens read per candidate."""
        return sum(len(tree_pass.tree) + soft_tokens for tree_pass in self.passes)

    def logprobs(self, soft: torch.Tensor | None, done: Callable[[int], None] | None = None) -> torch.Tensor:
        """Compute log-probabilities (population, prompts, options) in float32; -inf for options a prompt lacks.

        ``soft`` is (population, T, dim) in the model's embedding space, or None for the bare model (population 1).
        Differentiable with respect to ``soft``.

        Args:
            done: is told the number of prompts of each pass, after it.
        """
        return self.read(soft, done)[0]

    def read(
        self, soft: torch.Tensor | None, done: Callable[[int], None] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute ``logprobs`` and, in the same shape, whether greedy decoding would generate the option."""
        found = []
        for tree_pass in self.passes:
            found.append(self._in_chunks(tree_pass, soft))
            if done:
                done(tree_pass.tree.prompts)
        return torch.cat([logs for logs, _ in found], dim=1), torch.cat([greedy for _, greedy in found], dim=1)

    def _in_chunks(self, one: TreePass, soft: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        if soft is None:
            return one(None)
        done = [one(part) for part in soft.split(max(1, self.most_tokens // (len(one.tree) + soft.shape[1])))]
        return torch.cat([logs for logs, _ in done]), torch.cat([greedy for _, greedy in done])


class TreePass:
    """The forward pass over one tree; everything that depends on the tree alone is computed once."""

    def __init__(self, engine: Engine, tree: PrefixTree, options: int) -> None:
        self.engine, self.tree = engine, tree
        device = engine.model.device
        self._tokens = torch.from_numpy(tree.tokens).to(device)
        self._leaves, self._readings = Readings.of(tree, options, device)
        self._layouts: dict[tuple[int, torch.dtype], tuple[torch.Tensor, torch.Tensor, Any]] = {}

    def __call__(self, soft: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute log-probabilities and greediness (population, prompts, options) under soft prompts (n, T, dim)."""
        virtual, dtype = 0 if soft is None else soft.shape[1], self.engine.embed.weight.dtype
        if (virtual, dtype) not in self._layouts:
            self._layouts[virtual, dtype] = self._layout(virtual, dtype)
        positions, leaves, sight = self._layouts[virtual, dtype]
        if self.engine.decoder is not None:
            hidden = self.engine.decoder(self._embeds(soft), positions, sight, leaves)
        else:
            # Ids without a soft prompt: some models read ids besides embeddings.
            given = {"input_ids": self._tokens[None]} if soft is None else {"inputs_embeds": self._embeds(soft)}
            outputs = self.engine.model.get_decoder()(
                **given, attention_mask=sight, position_ids=positions[None], use_cache=False
            )
            hidden = outputs.last_hidden_state[:, leaves]
        return self._readings(self.engine, hidden)

    def _embeds(self, soft: torch.Tensor | None) -> torch.Tensor:
        """Return input embeddings (population, rows, dim) of the tree after soft prompts (population, T, dim)."""
        embeds = self.engine.embed(self._tokens)[None]
        return embeds if soft is None else prepend(soft, embeds)

    def _layout(self, virtual: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, Any]:
        """Compute positions, leaf rows and the attention mask after ``virtual`` soft tokens."""
        device = self.engine.model.device
        positions = torch.from_numpy(np.concatenate([np.arange(virtual), self.tree.depth + virtual])).to(device)
        allowed = visible(self.tree, virtual)
        if self.engine.decoder is not None:
            return positions, self._leaves + virtual, TreeAttention(allowed)
        seen = torch.from_numpy(allowed).to(device)
        mask: Any = _additive(seen, dtype)
        config = text_config(self.engine.model)
        if window := sliding_window(config):
            near = _additive(seen & (positions[:, None] - positions[None] < window), dtype)
            mask = {"full_attention": mask, "sliding_attention": near} if has_kinds(config) else near
        return positions, self._leaves + virtual, mask


class Readings:
    """The map from log-probabilities at the leaves to the options of prompts.

    ``at`` and ``token`` are the leaf and token of each reading, leaves ascending, ``cell`` the flat index of its prompt
    and option.
    """

    def __init__(self, at: torch.Tensor, token: torch.Tensor, cell: torch.Tensor, absent: torch.Tensor) -> None:
        self.at, self.token, self.cell, self.absent = at, token, cell, absent
        self._leaf = at.cpu().numpy()

    @classmethod
    def of(
        cls, tree: PrefixTree, options: int, device: torch.device, nodes: np.ndarray | None = None
    ) -> tuple[torch.Tensor, Readings]:
        """Return the leaves whose logits are needed, as positions in ``nodes`` (default: all), and their readings."""
        nodes = np.arange(len(tree)) if nodes is None else nodes
        place = np.full(len(tree), -1)
        place[nodes] = np.arange(len(nodes))
        wanted = place[tree.read_node] >= 0
        leaves, at = np.unique(place[tree.read_node[wanted]], return_inverse=True)
        cell = tree.read_prompt * options + tree.read_option
        absent = np.ones(tree.prompts * options, dtype=bool)
        absent[cell] = False
        order = np.argsort(at, kind="stable")
        read = (column[order] for column in (at, tree.read_token[wanted], cell[wanted]))
        arrays = (*read, absent.reshape(tree.prompts, options))
        return torch.from_numpy(leaves).to(device), cls(*(torch.from_numpy(array).to(device) for array in arrays))

    def sums(self, engine: Engine, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Sum readings after hidden states (population, leaves, dim) over each option's tokens.

        Logits of the whole vocabulary exist for some leaves at a time: options of many tokens have many leaves.

        Returns:
            Log-probabilities, and the number of tokens that greedy decoding would not generate, (population, prompts,
            options) each.
        """
        picked, missed = [], []
        size = max(1, engine.most_tokens() // 8 // len(hidden))
        for start in range(0, hidden.shape[1], size):
            first, last = np.searchsorted(self._leaf, (start, start + size))
            logs = engine.log_softmax(hidden[:, start : start + size])
            at, token = self.at[first:last] - start, self.token[first:last]
            picked.append(logs[:, at, token])
            missed.append((logs.argmax(-1)[:, at] != token).float())
        return self._sum(torch.cat(picked, 1)), self._sum(torch.cat(missed, 1))

    def without_absent(self, total: torch.Tensor) -> torch.Tensor:
        """Set sums to -inf for options that a prompt lacks."""
        return total.masked_fill(self.absent, -torch.inf)

    def __call__(self, engine: Engine, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Map (population, leaves, dim) to log-probabilities and greediness (population, prompts, options)."""
        total, missed = self.sums(engine, hidden)
        return self.without_absent(total), (missed == 0) & ~self.absent

    def _sum(self, picked: torch.Tensor) -> torch.Tensor:
        cells = picked.new_zeros(len(picked), self.absent.numel()).index_add(1, self.cell, picked)
        return cells.view(len(picked), *self.absent.shape)


def visible(tree: PrefixTree, virtual: int) -> np.ndarray:
    """Compute the boolean attention mask (rows, rows) of a tree after ``virtual`` soft tokens."""
    size = virtual + len(tree)
    allowed = np.zeros((size, size), dtype=bool)
    allowed[:virtual, :virtual] = np.tri(virtual, dtype=bool)
    allowed[virtual:, :virtual] = True
    allowed[virtual:, virtual:] = tree.ancestors()
    return allowed


def _additive(allowed: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    mask = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[None, None]
