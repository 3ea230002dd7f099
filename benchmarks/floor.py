"""The floor under a forward pass: nothing but its matrix products, on random inputs of the same shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

MOST_TOKENS = 4096  # at once; more of them do not multiply faster

Product = Callable[[torch.Tensor], torch.Tensor]


def floors(model: Any, tokens: int, read: int) -> dict[str, Callable[[], None]]:
    """The products of a model's linear layers for ``tokens`` tokens and of its head at ``read`` of them, by kernel.

    ``linear`` is ``torch.nn.functional.linear``; ``mkldnn``, where this torch has it, multiplies weights whose layout
    was made for the kernel beforehand. Empty for a model without linear layers.
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
        except (AttributeError, NotImplementedError, RuntimeError):  # a kernel that is not there
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
