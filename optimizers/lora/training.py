"""Parts of every training by a Trainer of transformers: batches, checkpoints, progress, seeds."""

from __future__ import annotations

import json
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# Tokens of one forward and backward pass, which bound the memory; a batch is divided into several. On a processor two
# padded examples at once take longer than one after the other.
MICRO_TOKENS = 512
Tell = Callable[[str, int, int], None]
"""Receives a stage's name, the steps done and all its steps."""


def micro_batch(batch: int, longest: int) -> int:
    """Return the examples of one pass, a divisor of ``batch``, where the longest example has ``longest`` tokens."""
    micro = max(1, min(batch, MICRO_TOKENS // longest))
    while batch % micro:
        micro -= 1
    return micro


def last_whole(checkpoints: Path) -> Path | None:
    """Find the last complete checkpoint, and remove an incomplete one after an interruption."""
    whole: dict[int, Path] = {}
    for path in checkpoints.glob("checkpoint-*"):
        try:
            whole[int(json.loads((path / "trainer_state.json").read_bytes())["global_step"])] = path
        except (OSError, ValueError, KeyError):
            shutil.rmtree(path)
    return whole[max(whole)] if whole else None


def progress(tell: Tell) -> Any:
    """Make a callback of a Trainer that tells how many of its steps are done."""
    from transformers import TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            tell("training", state.global_step, state.max_steps)

        on_step_end = on_train_begin

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # also called at an early stop
            tell("training", state.max_steps, state.max_steps)

    return Progress()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's own generator within a block, and suppress libraries' warnings.

    Afterwards the generators of torch, NumPy and Python, which a Trainer seeds all, are as they were.
    """
    import torch

    of_python, of_numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about each other
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(of_python)
            np.random.set_state(of_numpy)
