"""Context managers that change settings of other libraries and restore them: torch threads, transformers logging."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Make transformers log errors only and show no progress bars inside the context."""
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
    """Set the number of torch threads inside the context. A change takes less than a microsecond."""
    import torch

    before = torch.get_num_threads()
    if count == before:  # setting the same number would turn off MKL's own choice
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
