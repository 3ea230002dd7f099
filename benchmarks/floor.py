"""The lower bound of a forward pass: its matrix products only, on random inputs of the same shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

MOST_TOKENS = 4096  # at once; larger batches are not faster

Product = Callable[[torch.Tensor], torch.Tensor]


def floors(model: Any, tokens: int, read: int) -> dict[str, Callable[[], None]]:
    """Build the products of a model's linear layers for ``tokens`` tokens and its head for ``read`` of them, by kernel.

    ``linear`` is ``torch.nn.functional.linear``; ``mkldnn``, if this torch has it, uses weights in a layout prepared
    for the kernel. Empty for a model without linear layers.
    """
    layers = [layer.weight for layer in model.base_model.modules() if isinstance(layer, torch.nn.Linear)]
    if not layers:
        return {}
    passes = -(-tokens // MOST_TOKENS)
    weights = [*layers * passes, model.get_output_embeddings().weight]
    rows = [*[-(-tokens // passes)] * len(layers) * passes, read]
    inputs = {
        (n, w.shape[1]): torch.randn(n, w.shape[1], device=w.device, dtype=w.dtype)
        for n, w in zip(rows, weights, strict=True)
    }
    works = {}
    for name, kernel in (("linear", _linear), ("mkldnn", _mkldnn)):
        try:
            made = {(n, id(w)): kernel(w, n) for n, w in zip(rows, weights, strict=True)}
            work = _all([(made[n, id(w)], inputs[n, w.shape[1]]) for n, w in zip(rows, weights, strict=True)])
            work()
        except (AttributeError, NotImplementedError, RuntimeError):  # a kernel that is not available
            continue
        works[name] = work
    return works


def _linear(weight: torch.Tensor, rows: int) -> Product:
    return lambda x: torch.nn.functional.linear(x, weight)


def _mkldnn(weight: torch.Tensor, rows: int) -> Product:
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")


def _all(products: list[tuple[Product, torch.Tensor]]) -> Callable[[], None]:
    def work() -> None:
        with torch.inference_mode():
            for product, x in products:
                product(x)

    return work
