"""Settings of other libraries while a model works, put back afterwards: torch's threads, what transformers logs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Have transformers log errors alone and show no progress bars for now."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def use_threads(count: int) -> Iterator[None]:
    """Have torch use so many threads for now. A change takes less than a microsecond."""
    import torch

    before = torch.get_num_threads()
    if count == before:  # setting it, even so, would turn off MKL's own choice
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
