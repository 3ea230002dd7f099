"""Execution of a run by a worker of any executor."""

from __future__ import annotations

import gc
import time
import traceback
from typing import Any

from ....errors import CultevalError
from ...runs.config import RunConfig
from ...runs.execute import execute
from ...runs.load_model import load
from ...util.display import Quiet
from .base import Job, Outcome

_held: dict[tuple[Any, ...], Any] = {}  # the one model that a worker process keeps for its next run


def work(job: Job) -> Outcome:
    """Execute one run; the reason of a failure is returned as text, since not every exception can be pickled."""
    started, config = time.monotonic(), job.config
    reason: str | None = None
    cached: tuple[str, ...] = ()
    try:
        cached = execute(config, job.root, lambda: _model(config), Quiet(), cache=job.cache).cached
    except CultevalError as error:
        reason = str(error)
    except BaseException as error:  # any error of a run is recorded, and the sweep continues
        reason = "".join(traceback.format_exception_only(error)).strip()
    return Outcome(time.monotonic() - started, reason, cached)


def _model(config: RunConfig) -> Any:
    """Return the model of a configuration; another one is freed before it is loaded."""
    place = (config.model, config.dtype, config.device, config.revision, config.threads, config.endpoint)
    around = (config.adapter_sha256, config.chat and config.chat.model_dump_json())
    if (key := (*place, *around, config.model_content)) not in _held:
        _held.clear()
        gc.collect()
        _held[key] = load(config, lambda text: None)
    return _held[key]
