"""Run the layers of Llama-type decoders with fused matrix products, to the same numbers as transformers' modules.

Activation, gating and residual sums are fused with the products that compute their inputs; attention runs in blocks of
the prefix tree; the last layer is completed only for rows that are read. Weights and rotary tables are the model's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from .int8 import shared
from .model_config import sliding_window
from .onednn import plus, silu, times
from .tree_attention import Attention, Heads

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
MOST_GATED = 1 << 24  # bytes between the products of an MLP: enough rows to be fast, and little memory


class Decoder:
    """The layers of a Llama-type model.

    ``heads`` describes its attention. The constructor checks nothing: call ``can_run`` first.
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
        """Compute normalised last hidden states (population, len(rows), dim) at ``rows``.

        Args:
            embeds: (population, new, dim).
            positions: (new,) int64, or (population, new) where each candidate has its own.
            attention: attention of the new rows to all rows so far.
            memory: KV cache, one tensor (population, all rows, 2 x key heads, width) per layer; the new keys and
                values are written from row ``start`` on. None: attention to the new rows only.
        """
        population, new, dim = embeds.shape
        cos, sin = self.rotary(embeds, positions.view(-1, new))
        cos, sin = cos[:, :, None], sin[:, :, None]
        x = embeds.reshape(-1, dim)
        for number, layer in enumerate(self.layers):
            cache = None if memory is None else memory[number]
            seen = self._attend(layer, x.view(population, new, dim), (cos, sin), attention, cache, start)
            if number + 1 == len(self.layers):
                seen, x = seen[:, rows], x.view(population, new, dim)[:, rows].reshape(-1, dim)
            x = plus(layer.self_attn.o_proj, seen.reshape(len(x), -1), x)
            del seen  # the products of the MLP need the memory
            x = _mlp(layer, x)
        return _rms_norm(self.norm, x).view(population, -1, dim)

    def memory(self, population: int, rows: int, like: torch.Tensor) -> list[torch.Tensor]:
        """Allocate a KV cache of ``rows`` rows, one tensor (population, rows, 2 x key heads, width) per layer."""
        shape = (population, rows, 2 * self.heads.keys, self.heads.width)
        return [torch.empty(shape, dtype=like.dtype, device=like.device) for _ in self.layers]

    def _attend(
        self,
        layer: Any,
        x: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        attention: Attention,
        cache: torch.Tensor | None,
        start: int,
    ) -> torch.Tensor:
        """Compute what each row of (population, new, dim) sees, (population, new, query heads, width)."""
        queries, kv = self._project(layer.self_attn, _rms_norm(layer.input_layernorm, x), *rotation)
        if cache is not None:
            cache[:, start : start + x.shape[1]] = kv
            kv = cache
        return attention(queries, kv, self.heads)

    def _project(
        self, attention: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute queries (population, rows, query heads, width) and keys with values (same, 2 x key heads, same)."""
        shape, given = (*x.shape[:2], -1, self.heads.width), shared(x, attention.q_proj)
        queries, keys, values = (p(given).view(shape) for p in (attention.q_proj, attention.k_proj, attention.v_proj))
        if hasattr(attention, "q_norm"):
            queries, keys = _rms_norm(attention.q_norm, queries), _rms_norm(attention.k_norm, keys)
        return _rotate(queries, cos, sin), torch.cat([_rotate(keys, cos, sin), values], dim=2)


def _mlp(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """Add the layer's gated MLP to its input (rows, dim), on a CPU some rows at a time."""
    width = layer.mlp.down_proj.in_features * x.element_size()
    rows = max(1, MOST_GATED // width) if x.device.type == "cpu" else len(x)
    if len(x) > rows:
        return torch.cat([_mlp(layer, part) for part in x.chunk(-(-len(x) // rows))])
    normed = shared(_rms_norm(layer.post_attention_layernorm, x), layer.mlp.gate_proj)
    return plus(layer.mlp.down_proj, times(layer.mlp.up_proj, normed, silu(layer.mlp.gate_proj, normed)), x)


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Apply rotary positions (Su et al. 2021, arXiv 2104.09864) to (..., width)."""
    half = x.shape[-1] // 2
    rotated = x * cos
    rotated[..., :half].addcmul_(x[..., half:], sin[..., :half], value=-1)
    rotated[..., half:].addcmul_(x[..., :half], sin[..., half:])
    return rotated


def can_run(model: Any) -> bool:
    """Return whether ``Decoder`` supports a model's layers."""
    config = model.config
    if config.model_type not in FAMILIES or config.hidden_act != "silu" or sliding_window(config) is not None:
        return False
    rotated = 2 * model.base_model.rotary_emb.inv_freq.shape[0]
    return rotated == model.base_model.layers[0].self_attn.head_dim


def _rms_norm(norm: Any, x: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, norm.weight.shape, norm.weight, norm.variance_epsilon)
