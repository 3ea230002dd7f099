"""Llama-shaped decoders run with fused products: the same numbers as transformers' modules, less work around them.

Activation, gating and residual sums ride on the products that make their inputs; attention goes by blocks of the prefix
tree; the last layer is finished only where its output is read. Weights and rotary tables stay the model's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from .model_config import sliding_window
from .onednn import plus, silu, times
from .tree_attention import Attention, Heads

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")


class Decoder:
    """The layers of a Llama-shaped model.

    ``heads`` describes its attention. Raises nothing: ask ``can_run`` first.
    """

    def __init__(self, model: Any) -> None:
        base, config = model.base_model, model.config
        attention = base.layers[0].self_attn
        width = attention.head_dim
        self.heads = Heads(config.num_attention_heads, config.num_key_value_heads, width, attention.scaling)
        self.rotary, self.norm, self.layers = base.rotary_emb, base.norm, list(base.layers)

    def __call__(
        self,
        embeds: torch.Tensor,
        positions: torch.Tensor,
        attention: Attention,
        rows: torch.Tensor,
        memory: list[torch.Tensor] | None = None,
        start: int = 0,
    ) -> torch.Tensor:
        """Normalised last hidden states (population, len(rows), dim) at ``rows``.

        Args:
            embeds: (population, new, dim).
            positions: (new,) int64, or (population, new) where each candidate has its own.
            attention: how the new rows see the rows so far.
            memory: keys and values a layer, (population, all rows, 2 x key heads, width); the new ones are written
                from row ``start`` on. None: only the new rows see one another.
        """
        population, new, dim = embeds.shape
        cos, sin = self.rotary(embeds, positions.view(-1, new))
        cos, sin = cos[:, :, None], sin[:, :, None]
        x = embeds.reshape(-1, dim)
        for number, layer in enumerate(self.layers):
            inner = _normed(layer.input_layernorm, x).view(population, new, dim)
            queries, kv = self._look(layer.self_attn, inner, cos, sin)
            if memory is not None:
                memory[number][:, start : start + new] = kv
                kv = memory[number]
            seen = attention(queries, kv, self.heads)
            if number + 1 == len(self.layers):
                seen, x = seen[:, rows], x.view(population, new, dim)[:, rows].reshape(-1, dim)
            x = plus(layer.self_attn.o_proj, seen.reshape(len(x), -1), x)
            inner = _normed(layer.post_attention_layernorm, x)
            x = plus(layer.mlp.down_proj, times(layer.mlp.up_proj, inner, silu(layer.mlp.gate_proj, inner)), x)
        return _normed(self.norm, x).view(population, -1, dim)

    def memory(self, population: int, rows: int, like: torch.Tensor) -> list[torch.Tensor]:
        """Room for the keys and values of so many rows in every layer."""
        shape = (population, rows, 2 * self.heads.keys, self.heads.width)
        return [torch.empty(shape, dtype=like.dtype, device=like.device) for _ in self.layers]

    def _look(
        self, attention: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries (population, rows, query heads, width); keys and values (population, rows, 2 x key heads, width)."""
        shape = (*x.shape[:2], -1, self.heads.width)
        queries, keys, values = (p(x).view(shape) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        if hasattr(attention, "q_norm"):
            queries, keys = _normed(attention.q_norm, queries), _normed(attention.k_norm, keys)
        return _turned(queries, cos, sin), torch.cat([_turned(keys, cos, sin), values], dim=2)


def _turned(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions (Su et al. 2021, arXiv 2104.09864) applied to (..., width)."""
    half = x.shape[-1] // 2
    turned = x * cos
    turned[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    turned[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return turned


def can_run(model: Any) -> bool:
    """Whether a model's layers are of a kind that ``Decoder`` knows."""
    config = model.config
    if config.model_type not in FAMILIES or config.hidden_act != "silu" or sliding_window(config) is not None:
        return False
    turned = 2 * model.base_model.rotary_emb.inv_freq.shape[0]
    return turned == model.base_model.layers[0].self_attn.head_dim


def _normed(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)
