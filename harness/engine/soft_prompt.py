"""Put soft prompts, vectors before the input embeddings of a text, into a forward pass."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def prepend(soft: torch.Tensor, embeds: torch.Tensor, padding: Sequence[int] | None = None) -> torch.Tensor:
    """Put soft prompts (n, T, dim) before embeddings (m, rows, dim); n and m are equal, or one of them is 1.

    Args:
        padding: rows of left padding of each text; its soft prompt is inserted after them.

    Returns:
        (max(n, m), T + rows, dim) in the dtype and on the device of ``embeds``; keeps the graph of ``soft``.
    """
    size = max(len(soft), len(embeds))
    soft, embeds = soft.to(embeds).expand(size, -1, -1), embeds.expand(size, -1, -1)
    if padding is None:
        return torch.cat([soft, embeds], dim=1)
    rows = zip(embeds, soft, padding, strict=True)
    return torch.stack([torch.cat([row[:start], own, row[start:]]) for row, own, start in rows])
