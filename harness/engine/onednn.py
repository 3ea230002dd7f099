"""Frozen linear layers in oneDNN's own layout, with operations fused with their products.

PyTorch multiplies float32 matrices with MKL, which reaches less than half of oneDNN's speed on AMD processors; bfloat16
products run a few per cent faster. The repacked weights replace the original ones layer by layer, so that one layer at
most is in memory twice.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

MOST_SHARED = 1 << 30  # bytes of weights that somebody else keeps as they are: those would be in memory twice
_SHARED = "_culteval_shared_weights"
_PAGEOUT = 21  # MADV_PAGEOUT of Linux 5.4 and later; mmap has no name for it


class PackedLinear(torch.nn.Module):
    """Frozen linear layer ``x @ weight.T + bias``, differentiable with respect to ``x``."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), 1024)
        self.bias = None if bias is None else bias.detach()

    @property
    def weight(self) -> torch.Tensor:
        """A new copy of the weights (out, in) in PyTorch's layout."""
        return self.packed.to_dense()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., in) to (..., out)."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _Differentiable.apply(x, self)
        return self.then(x, "none")

    def then(self, x: torch.Tensor, activation: str) -> torch.Tensor:
        """Compute the product fused with oneDNN's ``activation``."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], "")

    def then_with(self, x: torch.Tensor, other: torch.Tensor, operation: str) -> torch.Tensor:
        """Compute the product fused with ``operation``, ``add`` or ``mul``, on ``other`` (..., out)."""
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
    """Compute SiLU of a layer's product."""
    return layer.then(x, "swish") if _can_fuse(layer) else functional.silu(layer(x))


def times(layer: Any, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Compute a layer's product times ``other``."""
    return layer.then_with(x, other, "mul") if _can_fuse(layer) else layer(x) * other


def plus(layer: Any, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Compute a layer's product plus ``other``."""
    return layer.then_with(x, other, "add") if _can_fuse(layer) else layer(x) + other


def _can_fuse(layer: Any) -> bool:
    return isinstance(layer, PackedLinear) and not torch.is_grad_enabled()


def lacking() -> str:
    """Return why oneDNN of the installed torch cannot be used, else "": its functions are private and may change."""
    x = torch.ones(1, 1)
    try:
        torch.ops.mkldnn._is_mkldnn_bf16_supported()
        layer = PackedLinear(x, None)
        layer.then(x, "swish")
        layer.then_with(x, x, "mul")
    except (AttributeError, NotImplementedError, RuntimeError, TypeError) as error:
        return (str(error).splitlines() or [type(error).__name__])[0][:160]
    return ""


def mark_shared(model: Any) -> None:
    """Mark a model as one whose weights are kept by somebody else, so that packed ones add to them."""
    setattr(model, _SHARED, True)


def may_pack(model: Any) -> bool:
    """Return whether packing would speed up a model's products: on a CPU with oneDNN, if memory stays bounded."""
    weight = model.get_input_embeddings().weight
    supported = weight.device.type == "cpu" and weight.dtype in (torch.float32, torch.bfloat16)
    if not supported or not torch.backends.mkldnn.is_available():
        return False
    return not getattr(model, _SHARED, False) or model.get_memory_footprint() <= MOST_SHARED


def packs(model: Any) -> bool:
    """Return whether a model's products are packed: ``may_pack`` holds and the installed torch supports it."""
    if not may_pack(model) or lacking():
        return False
    bfloat16 = model.get_input_embeddings().weight.dtype == torch.bfloat16
    return torch.ops.mkldnn._is_mkldnn_bf16_supported() if bfloat16 else True


def pack_linears(model: Any) -> None:
    """Replace the linear layers of a model except its head by packed ones, if ``packs`` holds."""
    if packs(model):
        replace_linears(model, PackedLinear)


def replace_linears(model: Any, kind: Callable[[torch.Tensor, torch.Tensor | None], torch.nn.Module]) -> int:
    """Replace the linear layers of a model except its head, one by one, by ``kind(weight, bias)``; return their number.

    Memory stays bounded: a replaced weight is freed or, if it is mapped from a file, its pages are given back.
    """
    files, replaced = MappedFiles(), 0
    # Without the layers themselves: a list of them would keep every replaced weight until the end.
    parents = [module for module in model.base_model.modules() if type(module) is not torch.nn.Linear]
    for parent in parents:
        for name, child in parent.named_children():
            # peft's attribute of a layer whose parameter LoRA changes: the parameter must be kept.
            if type(child) is torch.nn.Linear and not hasattr(parent, "parameter_name"):
                setattr(parent, name, kind(child.weight, child.bias))
                files.give_back(child.weight)
                replaced += 1
    trim()
    return replaced


def pack_head(model: Any, head: torch.nn.Linear) -> Any:
    """Return a head that multiplies in float32, packed if ``packs`` holds.

    A float32 head is replaced in the model, or left as it is where it is also the embedding matrix.
    """
    tied = head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    single = head.weight.dtype == torch.float32
    if single and (tied or not packs(model)):
        return head
    weight, bias = head.weight.float(), None if head.bias is None else head.bias.float()
    if not packs(model):
        return partial(functional.linear, weight=weight, bias=bias)
    packed = PackedLinear(weight, bias)
    if single:
        model.set_output_embeddings(packed)
    if not tied:
        MappedFiles().give_back(head.weight)
    return packed


def trim() -> None:
    """Return freed memory to the system: glibc would keep what small weights leave."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


class MappedFiles:
    """The parts of this process's memory that are files, as they were when this was made.

    transformers maps files of weights as a whole, so that their pages stay resident after a single weight is
    freed. Nothing is lost when a page is given back: it is read from the file again if it is needed again.
    """

    def __init__(self) -> None:
        self.ranges = _ranges() if sys.platform == "linux" else []

    def give_back(self, tensor: torch.Tensor) -> None:
        """Give the whole pages of a tensor back if they belong to a mapped file; other memory is left alone."""
        start, size = tensor.data_ptr(), tensor.numel() * tensor.element_size()
        if not any(first <= start and start + size <= last for first, last in self.ranges):
            return
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + size) // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            # The result does not matter: where the system refuses, the pages stay until it needs them.
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), _PAGEOUT)


def _ranges() -> list[tuple[int, int]]:
    try:
        lines = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    # Range, permissions, offset, device, inode and, for a file, its path.
    fields = [line.split(maxsplit=5) for line in lines]
    spans = [given[0].split("-") for given in fields if len(given) == 6 and given[5].startswith("/")]
    return [(int(first, 16), int(last, 16)) for first, last in spans]
