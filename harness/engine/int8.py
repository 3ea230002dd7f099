"""Linear layers that multiply in int8, on a CPU: weights are quantised once, inputs at every call ("dynamic").

Scales are symmetric, one for each output of the weights and one for each token of the input (vector-wise quantisation,
Dettmers et al. 2022, arXiv 2208.07339, section 2), so that a token's numbers do not depend on the rest of the pass.
Both are rotated before rounding by the same Hadamard matrix, which leaves the product as it is and spreads the few
large inputs of language models over many (QuaRot, Ashkboos et al. 2024, arXiv 2404.00456). Sums are exact, in int32:
where a processor's instructions would saturate, weights have seven bits.

``torch._int_mm`` is fast on processors with VNNI only; on others (AVX2) oneDNN's product of unsigned inputs is used,
which was 30 to 52 times as fast for 40 to 1,024 rows (1,536 x 8,960, two threads).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from platform import machine
from typing import Any

import torch
from torch.nn import functional

from ...errors import UnavailableError, UsageError
from .onednn import replace_linears

LARGEST = 127
LARGEST_WEIGHT = 64  # where pairs of products of unsigned inputs and weights are added in 16 bits: 2 x 255 x 64 < 2^15
MOST_ROTATED = 64  # neighbouring inputs: more cost more than they gain
UNSIGNED = 128  # is added to inputs to make them unsigned
ROWS = 512  # rounded at once: what lies between input and output stays in the cache
CHANGED = 64  # outputs of a product, at once


@dataclass(frozen=True, eq=False)
class Quantised:
    """The rotated input of a layer: ``numbers`` (rows, in) times ``scale`` (rows, 1); ``shape`` as given.

    Numbers are int8, or uint8 and greater by ``UNSIGNED``.
    """

    numbers: torch.Tensor
    scale: torch.Tensor
    shape: torch.Size


class Int8Linear(torch.nn.Module):
    """Frozen linear layer ``x @ weight.T + bias`` that multiplies in int8; not differentiable."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        self.rotation = _rotation(self.in_features)
        given = self._rounded(weight.detach().float(), largest_weight(), 0)
        self.numbers, self.scale = _packed(given.numbers), given.scale.t()
        self.bias = None if bias is None else bias.detach().float()

    def quantise(self, x: torch.Tensor) -> Quantised:
        """Rotate an input (..., in) and round it; layers of equal width may share the result."""
        return self._rounded(x, LARGEST, UNSIGNED if _unsigned() else 0)

    def _rounded(self, x: torch.Tensor, most: int, offset: int) -> Quantised:
        """Rotate and round to ``most`` at most, and add ``offset``."""
        rows = x.reshape(-1, self.in_features)
        numbers = torch.empty(rows.shape, dtype=torch.uint8 if offset else torch.int8)
        scale = rows.new_empty(len(rows), 1)
        for part, rounded, unit in zip(rows.split(ROWS), numbers.split(ROWS), scale.split(ROWS), strict=True):
            turned = (part.reshape(-1, len(self.rotation)) @ self.rotation).view(part.shape)
            unit.copy_((turned.abs().amax(1, keepdim=True) / most).clamp_(min=torch.finfo(rows.dtype).tiny))
            turned.div_(unit).round_()
            rounded.copy_(turned.add_(offset) if offset else turned)
        return Quantised(numbers, scale, x.shape)

    def forward(self, x: torch.Tensor | Quantised) -> torch.Tensor:
        """Map (..., in) to (..., out).

        Raises:
            UsageError: a gradient is wanted: rounding has none.
        """
        return self._after(x, lambda out, _: out)

    def then(self, x: torch.Tensor | Quantised, activation: str) -> torch.Tensor:
        """Compute the product and, of the one ``activation`` there is, ``swish``, its value."""
        assert activation == "swish"
        return self._after(x, lambda out, _: functional.silu(out, inplace=True))

    def then_with(self, x: torch.Tensor | Quantised, other: torch.Tensor, operation: str) -> torch.Tensor:
        """Compute the product and ``operation``, ``add`` or ``mul``, with ``other`` (..., out)."""
        rows = other.reshape(-1, self.out_features)
        if operation == "mul":
            return self._after(x, lambda out, at: out.mul_(rows[at]))
        return self._after(x, lambda out, at: out.add_(rows[at]))

    def _after(
        self, x: torch.Tensor | Quantised, change: Callable[[torch.Tensor, slice], torch.Tensor]
    ) -> torch.Tensor:
        """Compute the product, scaled and changed in place, some rows at a time."""
        if isinstance(x, torch.Tensor):
            if torch.is_grad_enabled() and x.requires_grad:
                raise UsageError(
                    "`dtype` int8 has no gradients. Use float32 or bfloat16; or, for a search, `settings` space=random."
                )
            x = self.quantise(x)
        sums = _product(x.numbers, self.numbers)
        out = sums.view(torch.float32)  # in the same memory
        for start in range(0, len(out), CHANGED):
            at = slice(start, start + CHANGED)
            part = torch.mul(sums[at].float(), x.scale[at], out=out[at]).mul_(self.scale)
            change(part if self.bias is None else part.add_(self.bias), at)
        return out.view(*x.shape[:-1], self.out_features)


def shared(x: torch.Tensor, layer: Any) -> Any:
    """Return the input of ``layer`` and of others of its width in a form that they compute once."""
    return layer.quantise(x) if isinstance(layer, Int8Linear) and not x.requires_grad else x


@cache
def largest_weight() -> int:
    """Return the largest number of a weight whose products this processor adds exactly.

    It is 127 with instructions for int8 (VNNI, AMX), else 64: oneDNN then adds pairs of products with saturation.

    Raises:
        UnavailableError: torch has no exact product at all.
    """
    for most in (LARGEST, LARGEST_WEIGHT):
        weights = torch.full((256, 256), most, dtype=torch.int8)
        signed = torch.full((256, 256), LARGEST, dtype=torch.int8)
        inputs = (signed.int() + UNSIGNED).to(torch.uint8) if _unsigned() else signed
        try:
            product = _product(inputs, _packed(weights))
            opposite = _product(inputs, _packed(-weights))
        except (AttributeError, NotImplementedError, RuntimeError):
            break
        if (product == 256 * LARGEST * most).all() and (opposite == -product).all():
            return most
    raise UnavailableError(f"`dtype` int8: torch {torch.__version__} has no exact int8 product here. Use float32.")


@cache
def _unsigned() -> bool:
    """Return whether oneDNN's product of unsigned inputs is used: on x86 without VNNI, where torch has it."""
    vnni = getattr(torch.cpu, "_is_vnni_supported", lambda: True)
    return machine() in ("x86_64", "AMD64") and not vnni() and hasattr(torch.ops.onednn, "qlinear_pointwise")


def _packed(numbers: torch.Tensor) -> torch.Tensor:
    """Bring a layer's numbers (out, in) into the form that ``_product`` takes."""
    return torch.ops.onednn.qlinear_prepack(numbers, None) if _unsigned() else numbers.t()


def _product(inputs: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Multiply inputs (rows, in), int8 or uint8, by packed numbers: sums (rows, out), int32 or float32."""
    if inputs.dtype == torch.int8:
        return torch._int_mm(inputs, weights)
    scale, zero = torch.ones(1), torch.zeros(1, dtype=torch.int64)
    return torch.ops.onednn.qlinear_pointwise(
        inputs, 1.0, UNSIGNED, weights, scale, zero, None, 1.0, 0, torch.float32, "none", [], ""
    )


def quantise_linears(model: Any) -> None:
    """Replace the linear layers of a model except its head by ``Int8Linear``.

    Raises:
        UsageError: the model is not on a CPU, or has no linear layers of PyTorch's kind.
    """
    if model.device.type != "cpu":
        raise UsageError(f"`dtype` int8 runs on a CPU only, not on {model.device.type}. Use bfloat16 there.")
    if not replace_linears(model, Int8Linear):
        raise UsageError("`dtype` int8: this model has no plain linear layers to quantise. Use float32 or bfloat16.")


def dtype_of(model: Any) -> str:
    """Return the name of a model's dtype: int8 if its linear layers are quantised, else that of its weights."""
    quantised = any(isinstance(layer, Int8Linear) for layer in model.modules())
    return "int8" if quantised else str(model.dtype).removeprefix("torch.")


def _rotation(width: int) -> torch.Tensor:
    """Return the orthonormal Hadamard matrix (Sylvester's) of the largest order that divides ``width``."""
    order = math.gcd(width, MOST_ROTATED)
    matrix = torch.ones(1, 1)
    while len(matrix) < order:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix / math.sqrt(order)
