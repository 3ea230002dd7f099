"""Places for the labels of a scatter plot: near their points and without overlap, found one label after another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ANGLES = np.arange(24) * (np.pi / 12)


def place_labels(
    anchors: np.ndarray,
    sizes: np.ndarray,
    reaches: Sequence[Sequence[float]],
    frame: tuple[float, float, float, float],
    obstacles: np.ndarray,
) -> np.ndarray:
    """Place labels in order, each at the nearest free place around its point, to the right first.

    Args:
        anchors: (labels, 2) points. sizes: (labels, 2) widths and heights.
        reaches: by label the distances to try between the point and the label, the nearest first.
        frame: left, bottom, right and top, within which labels lie.
        obstacles: (n, 4) boxes as left, bottom, right, top that no label covers.

    Returns:
        Boxes (labels, 4), NaN where no place is free.
    """
    taken = [np.asarray(obstacles, dtype=float).reshape(-1, 4)]
    placed = np.full((len(anchors), 4), np.nan)
    for label, (anchor, size) in enumerate(zip(anchors, sizes, strict=True)):
        boxes = _candidates(anchor, size, np.asarray(reaches[label], dtype=float))
        inside = (boxes[:, :2] >= frame[:2]).all(1) & (boxes[:, 2:] <= frame[2:]).all(1)
        free = np.flatnonzero(inside & ~_overlaps(boxes, np.concatenate(taken)))
        if len(free):
            placed[label] = boxes[free[0]]
            taken.append(placed[label][None])
    return placed


def _candidates(anchor: np.ndarray, size: np.ndarray, reaches: np.ndarray) -> np.ndarray:
    """Return boxes (reaches * angles, 4) around a point whose nearest side or corner is at each distance from it."""
    direction = np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)
    direction = direction[np.argsort(np.abs(np.angle(np.exp(1j * (ANGLES - 0.3)))), kind="stable")]
    # sin and cos beyond a half move the box's centre fully to that side, so that it touches the point's circle
    centre = direction[None] * reaches[:, None, None] + np.clip(direction * 1.5, -1, 1)[None] * size / 2
    middle = (anchor + centre).reshape(-1, 2)
    return np.concatenate([middle - size / 2, middle + size / 2], axis=1)


def _overlaps(boxes: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """Return which of some boxes (n, 4) overlap any of the taken ones (m, 4), (n,)."""
    low = np.maximum(boxes[:, None, :2], taken[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], taken[None, :, 2:])
    overlap: np.ndarray = (low < high).all(2).any(1)
    return overlap
