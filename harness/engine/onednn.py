"""Frozen linear layers in oneDNN's own layout, with operations fused with their products.

PyTorch multiplies float32 matrices with MKL, which reaches less than half of oneDNN's speed on AMD processors; bfloat16
products run a few per cent faster. The repacked weights replace the original ones layer by layer, so that one layer at
most is in memory twice. A large head stays in its file and is read in blocks.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.nn import functional

MOST_SHARED = 1 << 30  # bytes of weights that somebody else keeps as they are: those would be in memory twice
MOST_HEAD = 1 << 29  # bytes of a head that is packed; larger ones are read from their file
HEAD_BLOCK = 1 << 24  # bytes of a head in memory at once
_SHARED = "_culteval_shared_weights"


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
        return self.product(x)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the product without a gradient."""
        return self.then(x, "none")

    def gradient(self, grad: torch.Tensor) -> torch.Tensor:
        """Compute the gradient (..., in) of the input from that of the product, (..., out)."""
        return grad @ self.weight

    def then(self, x: torch.Tensor, activation: str) -> torch.Tensor:
        """Compute the product fused with oneDNN's ``activation``."""
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, activation, [], "")

    def then_with(self, x: torch.Tensor, other: torch.Tensor, operation: str) -> torch.Tensor:
        """Compute the product fused with ``operation``, ``add`` or ``mul``, on ``other`` (..., out)."""
        return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.packed, self.bias, operation)


class _Differentiable(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: PackedLinear | MappedHead) -> torch.Tensor:
        ctx.layer = layer
        return layer.product(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        return ctx.layer.gradient(grad), None


class MappedHead(torch.nn.Module):
    """Output matrix without bias, in float32, of which one block is in memory at a time.

    Args:
        weight: (vocabulary, dim), mapped from a file for this object alone.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (..., dim) to (..., vocabulary)."""
        if torch.is_grad_enabled() and x.requires_grad:
            return _Differentiable.apply(x, self)
        return self.product(x)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """Compute the product without a gradient."""
        rows = x.reshape(-1, x.shape[-1])
        trim()  # of what the layers left
        out = x.new_empty(len(rows), len(self.weight))
        for block, part in self._blocks(out):
            # With weights in PyTorch's layout: faster than MKL's product, slower than one of packed weights.
            part.copy_(torch.ops.mkldnn._linear_pointwise(rows, block, None, "none", [], ""))
            _drop(block)
        return out.view(*x.shape[:-1], -1)

    def gradient(self, grad: torch.Tensor) -> torch.Tensor:
        """Compute the gradient (..., dim) of the input from that of the product, (..., vocabulary)."""
        rows = grad.reshape(-1, grad.shape[-1])
        out = rows.new_zeros(len(rows), self.weight.shape[1])
        for block, part in self._blocks(rows):
            out.addmm_(part, block)
            _drop(block)
        return out.view(*grad.shape[:-1], -1)

    def _blocks(self, logits: torch.Tensor) -> zip[tuple[torch.Tensor, torch.Tensor]]:
        """Pair blocks of the matrix with their part of logits (rows, vocabulary)."""
        blocks = self.weight.split(max(1, HEAD_BLOCK // (4 * self.weight.shape[1])))
        return zip(blocks, logits.split([len(block) for block in blocks], dim=1), strict=True)


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
    return hasattr(layer, "then") and not torch.is_grad_enabled()


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

    Layers in training stay.
    Memory stays bounded: a replaced weight is freed or, if it is mapped from a file, its pages are given back.
    """
    files, replaced = _files_of(model), 0
    # Without the layers themselves: a list of them would keep every replaced weight until the end.
    parents = [module for module in model.base_model.modules() if type(module) is not torch.nn.Linear]
    for parent in parents:
        before = replaced
        for name, child in parent.named_children():
            # peft's attribute of a layer whose parameter LoRA changes: the parameter must be kept.
            kept = hasattr(parent, "parameter_name")
            if type(child) is torch.nn.Linear and not kept and not _in_training(child):
                setattr(parent, name, kind(child.weight, child.bias))
                files.give_back(child.weight)
                replaced += 1
        if replaced > before:
            trim()
    return replaced


def _in_training(layer: torch.nn.Module) -> bool:
    return any(weight.requires_grad for weight in layer.parameters())


def pack_head(model: Any, head: torch.nn.Linear) -> Any:
    """Return a head that multiplies in float32, packed if ``packs`` holds.

    A float32 head is replaced in the model, or left as it is where it is also the embedding matrix.
    """
    tied = head.weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
    single = head.weight.dtype == torch.float32
    if single and (tied or not packs(model)):
        return head
    files = _files_of(model)
    large = single and head.bias is None and head.weight.nbytes > MOST_HEAD
    packed: Any
    if large and (own := files.again(head.weight)) is not None:
        packed = MappedHead(own)
    else:
        weight, bias = head.weight.float(), None if head.bias is None else head.bias.float()
        if not packs(model):
            return partial(functional.linear, weight=weight, bias=bias)
        packed = PackedLinear(weight, bias)
    if single:
        model.set_output_embeddings(packed)
    if not tied:
        files.give_back(head.weight)
    trim()
    return packed


@contextmanager
def in_pieces(model: Any) -> Iterator[None]:
    """Give the pages of mapped weights back after each linear layer's product, inside the context."""
    files = _files_of(model)
    layers = [layer for layer in model.modules() if type(layer) is torch.nn.Linear and files.holds(layer.weight)]
    hooks = [layer.register_forward_hook(lambda layer, *_: files.give_back(layer.weight)) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _files_of(model: Any) -> MappedFiles:
    """Return the mapped files of a model's weights, none of weights that somebody else may write over."""
    files = MappedFiles()
    if getattr(model, _SHARED, False):
        files.ranges.clear()
    return files


def trim() -> None:
    """Return freed memory to the system: glibc would keep what small weights leave."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


class MappedFiles:
    """The files mapped into this process's memory that nobody had written over when this was made.

    transformers maps files of weights as a whole, so that their pages stay resident after a single weight is
    freed. A page that is given back is read from the file again if it is needed again.
    """

    def __init__(self) -> None:
        self.ranges = _ranges() if sys.platform == "linux" else []

    def holds(self, tensor: torch.Tensor) -> bool:
        """Return whether a tensor is part of such a file."""
        return self._range(tensor) is not None

    def give_back(self, tensor: torch.Tensor) -> None:
        """Give the whole pages of a tensor back if it is part of such a file; other memory is left alone."""
        if self.holds(tensor):
            _drop(tensor)

    def again(self, tensor: torch.Tensor) -> torch.Tensor | None:
        """Map the numbers of a tensor a second time, for the caller alone; None if it is not part of such a file."""
        if (found := self._range(tensor)) is None:
            return None
        at = found.offset + tensor.data_ptr() - found.first
        try:
            if os.stat(found.path).st_ino != found.inode:
                return None
            file = torch.from_file(found.path, shared=False, size=at + tensor.nbytes, dtype=torch.uint8)
        except (OSError, RuntimeError):
            return None
        return file[at:].view(tensor.dtype).view(tensor.shape)

    def _range(self, tensor: torch.Tensor) -> _Range | None:
        first, last = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        return next((one for one in self.ranges if one.first <= first and last <= one.last), None)


class _Range(NamedTuple):
    first: int
    last: int
    offset: int
    inode: int
    path: str


def _drop(tensor: torch.Tensor) -> None:
    """Give the whole pages of a tensor back; what was written over them is lost."""
    start, size = tensor.data_ptr(), tensor.nbytes
    first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if last > first:
        ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def _ranges() -> list[_Range]:
    """Read the mapped files that have no pages of their own in memory or swap, as written pages would be."""
    try:
        text = Path("/proc/self/smaps").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    found = []
    # Range, permissions, offset, device, inode, path; then one line for each figure.
    for head, figures in re.findall(r"^([0-9a-f]+-.*)\n((?:[A-Z]\w+:.*\n)*)", text, re.MULTILINE):
        fields = head.split(maxsplit=5)
        kept = re.findall(r"^(?:Anonymous|Swap): +(\d+) kB", figures, re.MULTILINE)
        if len(fields) == 6 and fields[5].startswith("/") and kept and set(kept) == {"0"}:
            first, last = (int(end, 16) for end in fields[0].split("-"))
            found.append(_Range(first, last, int(fields[2], 16), int(fields[4]), fields[5]))
    return found
