"""Frozen linear layers in oneDNN's own layout, and what may ride on their products.

PyTorch multiplies float32 matrices by MKL, which on AMD processors runs at less than half of what oneDNN reaches there;
bfloat16 products gain a few per cent. The layout replaces the weights, so nothing is kept twice.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

MOST_BYTES = 1 << 30  # of weights: while a model is repacked its largest layer is there twice


class PackedLinear(torch.nn.Module):
    """``x @ weight.T + bias`` of a frozen layer, differentiable with respect to ``x``."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1024)
        self.bias = None if bias is None else bias.detach()

    @property
    def weight(self) -> torch.Tensor:
        """The weights (out, in) in PyTorch's layout, made anew."""
        return self.packed.to_dense()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _Differentiable.apply(x, self)
        return self.then(x, "none")

    def then(self, x: torch.Tensor, activation: str) -> torch.Tensor:
        """The product, with oneDNN's ``activation`` applied as it is written."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], "")

    def then_with(self, x: torch.Tensor, other: torch.Tensor, operation: str) -> torch.Tensor:
        """The product, joined with ``other`` (..., out) by ``add`` or ``mul`` as it is written."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.packed, self.bias, operation)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: PackedLinear) -> torch.Tensor:
        ctx.layer = layer
        return layer.then(x, "none")

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return grad @ ctx.layer.weight, None


def silu(layer: Any, x: torch.Tensor) -> torch.Tensor:
    """SiLU of a layer's product."""
    return layer.then(x, "swish") if _rides(layer) else functional.silu(layer(x))


def times(layer: Any, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A layer's product times ``other``."""
    return layer.then_with(x, other, "mul") if _rides(layer) else layer(x) * other


def plus(layer: Any, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """A layer's product plus ``other``."""
    return layer.then_with(x, other, "add") if _rides(layer) else layer(x) + other


def _rides(layer: Any) -> bool:
    return isinstance(layer, PackedLinear) and not torch.is_grad_enabled()


def lacking() -> str:
    """Why this torch's oneDNN cannot be used, empty where it can: its functions are private and may change."""
    x = torch.ones(1, 1)
    try:
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
        layer = PackedLinear(x, None)
        layer.then(x, "swish")
        layer.then_with(x, x, "mul")
    except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0][:160]
    return ""


def may_pack(model: Any) -> bool:
    """Whether a model's products would run faster packed: on a CPU with oneDNN, where the model is small enough."""
    weight = model.get_input_embeddings().weight
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    wanted = weight.device.type == "cpu" and size <= MOST_BYTES and weight.dtype in (torch.float32, torch.bfloat16)
    return wanted and torch.backends.mkldnn.is_available()


def packs(model: Any) -> bool:
    """Whether a model's products are packed: where they ``may_pack``, and this torch can."""
    if not may_pack(model) or lacking():
        return False
    bfloat16 = model.get_input_embeddings().weight.dtype == torch.bfloat16
    return torch.ops.mkldnn._is_mkldnn_bf16_supported() if bfloat16 else True


def pack_linears(model: Any) -> None:
    """Replace the linear layers of a model that ``packs``, except its head, by packed ones."""
    if not packs(model):
        return
    for parent in list(model.base_model.modules()):
        for name, child in parent.named_children():
            # What peft calls a parameter that LoRA itself changes: it must stay one.
            if type(child) is torch.nn.Linear and not hasattr(parent, "parameter_name"):
                setattr(parent, name, PackedLinear(child.weight, child.bias))
