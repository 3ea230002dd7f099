"""Write and read the file of a soft prompt: a PEFT prompt-tuning adapter.

A soft prompt is an array (n, T, dim) float32 everywhere: n candidates of T virtual tokens each, dim being the width of
the model's embeddings. A file holds one candidate, (1, T, dim), as a matrix (T, dim).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...errors import InputError
from .peft_files import WEIGHTS

KEY = "prompt_embeddings"  # peft's name for the virtual tokens of prompt tuning
MOST_TOKENS = 10_000


def write_soft_prompt(folder: Path, soft: np.ndarray) -> None:
    """Write one soft prompt (1, T, dim) as the weights of a PEFT adapter; the caller writes its configuration."""
    from safetensors.numpy import save

    (vectors,) = soft
    data = save({KEY: np.ascontiguousarray(vectors, dtype=np.float32)})
    (folder / WEIGHTS).write_bytes(data)  # so that a full disk is an ordinary OSError


def read_soft_prompt(path: Path, dim: int) -> np.ndarray:
    """Read and validate the soft prompt (1, T, dim) float32 of a PEFT prompt-tuning adapter.

    Raises:
        InputError: not a safetensors file, or not a finite matrix of the model's width.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
            names = list(file.keys())
            if names != [KEY]:
                raise InputError(f"{path}: holds {names[:3]}, expected one tensor {KEY!r} (prompt tuning).")
            shape = file.get_slice(KEY).get_shape()
            if len(shape) != 2 or shape[1] != dim or not 1 <= shape[0] <= MOST_TOKENS:
                raise InputError(
                    f"{path}: {KEY} has shape {shape}; this model needs (tokens, {dim}), {MOST_TOKENS} tokens at most."
                )
            given = file.get_tensor(KEY)
            if not given.is_floating_point():
                raise InputError(f"{path}: {KEY} holds {given.dtype} instead of floating-point numbers.")
            vectors: np.ndarray = given.float().numpy()
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not a safetensors adapter ({error}).") from None
    if not np.isfinite(vectors).all():
        raise InputError(f"{path}: {KEY} holds NaN or infinite numbers.")
    return vectors[None]
