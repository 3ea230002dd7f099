"""What a worker does with a run, whoever started the worker."""

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

_held: dict[tuple[Any, ...], Any] = {}  # of a worker process: the one model it keeps for its next run


def work(job: Job) -> Outcome:
    """Carry out one run. Why it failed comes back as text, since not every exception can travel."""
    started, config = time.monotonic(), job.config
    reason: str | None = None
    cached: tuple[str, ...] = ()
    try:
        cached = execute(config, job.root, lambda: _model(config), Quiet(), cache=job.cache).cached
    except CultevalError as error:
        reason = str(error)
    except BaseException as error:  # whatever a run dies of is kept, and the sweep goes on
        reason = "".join(traceback.format_exception_only(error)).strip()
    return Outcome(time.monotonic() - started, reason, cached)


def _model(config: RunConfig) -> Any:
    """One model a worker; another one is loaded only after it was let go."""
    place = (config.model, config.dtype, config.device, config.revision, config.threads, config.endpoint)
    around = (config.adapter_sha256, config.chat and config.chat.model_dump_json())
    if (key := (*place, *around, config.model_content)) not in _held:
        _held.clear()
        gc.collect()
        _held[key] = load(config, lambda text: None)
    return _held[key]
