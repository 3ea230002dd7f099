"""The peer: stock lm-eval's HFLM on the same weights, at its fastest batch size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .common import Settings, say, source_of, wall

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

SIZES = (1, 2, 4, 8, 16, 32, 64)
LEAST = 4  # prompts


def stock(settings: Settings, dtype: str, adapter: Path | None = None, batch: int = 1) -> HFLM:
    """Load HFLM from the model's folder, with a PEFT adapter if there is one; for int8, which it lacks, in float32."""
    from lm_eval.models.huggingface import HFLM

    if settings.threads:
        torch.set_num_threads(settings.threads)
    peft = {"peft": str(adapter)} if adapter else {}
    dtype = "float32" if dtype == "int8" else dtype
    return HFLM(pretrained=source_of(settings.model), dtype=dtype, device=settings.device, batch_size=batch, **peft)


def requests_of(contexts: Sequence[str], options: Sequence[Sequence[str]]) -> list[Instance]:
    """Build one log-likelihood request per option, context by context."""
    from lm_eval.api.instance import Instance

    pairs = [(context, option) for context, row in zip(contexts, options, strict=True) for option in row]
    return [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]


def loglikelihoods(lm: Any, requests: list[Instance]) -> list[float]:
    """Compute the log-likelihood of each request."""
    return [value for value, _ in lm.loglikelihood(requests, disable_tqdm=True)]


def use_best_batch(lm: HFLM, requests: list[Instance], options: int) -> int:
    """Set and return the fastest batch size in one timed pass each, after one batch as warm-up.

    Larger sizes are not tried after two sizes in a row that were slower than the best.
    """
    seconds: dict[int, float] = {}
    for size in SIZES:
        if size > 1 and (size // 2) * options >= len(requests):
            break  # all requests are in one batch already
        lm.batch_size_per_gpu = size
        loglikelihoods(lm, requests[: size * options])
        seconds[size] = wall(lambda: loglikelihoods(lm, requests))
        say(f"  peer, batch size {size}: {seconds[size]:.3g} s")
        if len(seconds) > 2 and min(seconds, key=seconds.__getitem__) < size // 2:
            break
    lm.batch_size_per_gpu = min(seconds, key=seconds.__getitem__)
    return lm.batch_size_per_gpu


def some_prompts(lm: HFLM, requests: list[list[Instance]], seconds: float) -> list[int]:
    """Choose prompts, evenly spaced, that the peer reads one by one in about ``seconds``, but at least ``LEAST``.

    Args:
        requests: those of each prompt.
    """
    few = [request for row in requests[:2] for request in row]
    loglikelihoods(lm, few)
    each = wall(lambda: loglikelihoods(lm, few)) / 2
    count = int(min(len(requests), max(LEAST, seconds / each)))
    return [int(at) for at in np.linspace(0, len(requests) - 1, count)]
