"""The model of a run's configuration: here, or behind an API."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from typing import Any

from .api import Api, is_remote
from .config import RunConfig


def load(config: RunConfig, say: Callable[[str], None]) -> Any:
    """A ``LanguageModel``, or an ``ApiModel`` where the name stands for one.

    Raises:
        UsageError, UnavailableError: as ``load_model`` and ``ApiModel``.
    """
    if is_remote(config.model):
        from .api_model import ApiModel

        return ApiModel(config.model, config.api or Api(), say)
    from .models import load_model

    with contextlib.redirect_stdout(io.StringIO()):  # what libraries print
        return load_model(config.model, config.dtype, config.device, config.revision, config.threads, say)
