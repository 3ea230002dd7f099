"""The peer: stock lm-eval's HFLM on the same weights, at its fastest batch size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .common import Settings, say, source_of, wall

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

SIZES = (1, 2, 4, 8, 16, 32, 64)


def stock(settings: Settings, dtype: str, adapter: Path | None = None, batch: int = 1) -> HFLM:
    """Load HFLM from the model's folder, with a PEFT adapter if there is one."""
    from lm_eval.models.huggingface import HFLM

    if settings.threads:
        torch.set_num_threads(settings.threads)
    peft = {"peft": str(adapter)} if adapter else {}
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
    """Set and return the fastest batch size in one timed pass each, after one batch as warm-up."""
    seconds = {}
    for size in SIZES:
        lm.batch_size_per_gpu = size
        loglikelihoods(lm, requests[: size * options])
        seconds[size] = wall(lambda: loglikelihoods(lm, requests))
        say(f"  peer, batch size {size}: {seconds[size]:.3g} s")
    lm.batch_size_per_gpu = min(seconds, key=seconds.__getitem__)
    return lm.batch_size_per_gpu
