"""The lower bound of a forward pass: its matrix products only, on random numbers of the same shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

MOST_TOKENS = 4096  # at once; larger batches are not faster
UNCACHED = 256 << 20  # bytes of weights: more than a processor's cache holds, so that products read them from memory

Product = Callable[[torch.Tensor], torch.Tensor]


def floors(model: Any, tokens: int, read: int) -> dict[str, Callable[[], None]]:
    """Build the products of a model's linear layers for ``tokens`` tokens and its head for ``read`` of them, by kernel.

    ``linear`` is ``torch.nn.functional.linear``; ``mkldnn``, if this torch has it, uses weights in a layout prepared
    for the kernel. Both are in the dtype of the model's embeddings. Empty for a model without linear layers.
    """
    layers = [
        (layer.out_features, layer.in_features) for layer in model.base_model.modules() if hasattr(layer, "in_features")
    ]
    if not layers:
        return {}
    passes = -(-tokens // MOST_TOKENS)
    rows, like = -(-tokens // passes), model.get_input_embeddings().weight
    shapes = [(rows, shape) for shape in layers * passes] + [(read, tuple(like.shape))]
    inputs = {(n, width): _random(like, n, width) for n, (_, width) in shapes}
    works = {}
    for name, kernel in (("linear", _linear), ("mkldnn", _mkldnn)):
        try:
            pool = _Pool(like, kernel)
            work = _all([(pool.product(n, shape), inputs[n, shape[1]]) for n, shape in shapes])
            work()
        except (AttributeError, NotImplementedError, RuntimeError):  # a kernel that is not available
            continue
        works[name] = work
    return works


class _Pool:
    """Products with random weights; layers of a shape share weights once they are more than a cache holds."""

    def __init__(self, like: torch.Tensor, kernel: Callable[[torch.Tensor, int], Product]) -> None:
        self.like, self.kernel = like, kernel
        self.made: dict[tuple[int, tuple[int, int]], list[Product]] = {}
        self.turn: dict[tuple[int, tuple[int, int]], int] = {}

    def product(self, rows: int, shape: tuple[int, int]) -> Product:
        made = self.made.setdefault((rows, shape), [])
        turn = self.turn[rows, shape] = self.turn.get((rows, shape), -1) + 1
        if len(made) * shape[0] * shape[1] * self.like.element_size() < UNCACHED:
            made.append(self.kernel(_random(self.like, *shape), rows))
        return made[turn % len(made)]


def _random(like: torch.Tensor, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, device=like.device, dtype=like.dtype)


def _linear(weight: torch.Tensor, rows: int) -> Product:
    return lambda x: torch.nn.functional.linear(x, weight)


def _mkldnn(weight: torch.Tensor, rows: int) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def _all(products: list[tuple[Product, torch.Tensor]]) -> Callable[[], None]:
    def work() -> None:
        with torch.inference_mode():
            for product, x in products:
                product(x)

    return work
