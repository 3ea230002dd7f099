"""The function ``culteval.run``: align a model, answer tasks, write a submission and score it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..util.display import Display, Quiet
from .answer_cache import answers_folder
from .config import RunConfig
from .execute import execute
from .load_model import load
from .plan import RunRequest, plan

if TYPE_CHECKING:
    from ..models.base import Model
    from .folder import Run

NO_CACHE = "CULTEVAL_NO_CACHE"


def run(
    aligner: str,
    tasks: str | list[str] | tuple[str, ...],
    *,
    model: Any = "smollm2",
    out: str | Path = "culteval-runs",
    progress: bool | Display = True,
    fresh: bool = False,
    cache: bool | None = None,
    **request: Any,
) -> Run:
    """Align a model to a country, answer tasks, write a submission and score it.

    A finished run of the same arguments is returned unchanged; an interrupted one resumes from its checkpoint.

    Args:
        aligner: the name of an aligner (``culteval.list_aligners()``).
        tasks: the name of a task, or several (``culteval.list_tasks()``).
        model: an embedded model's name, a folder, a hub id, ``openai-chat:NAME``; or a model and tokenizer of
            transformers in memory, as a pair.
        out: the folder of runs.
        progress: whether to show a progress bar on standard error; or a ``Display`` of your own.
        fresh: start over, even if this run exists already.
        cache: use and keep answers of other runs [default: unless ``CULTEVAL_NO_CACHE`` is set].
        request: country, budget, seed, fit, scoring, personas, settings, dtype, device, adapter, chat, endpoint and the
            other fields of ``RunRequest``.

    Raises:
        UsageError: an invalid argument. InputError: a damaged file. UnavailableError: no such model, or no network.
        RunError: the run cannot be finished.
    """
    load_model: Callable[[RunConfig, Callable[[str], None]], Model] = load
    if not isinstance(model, str | Path):
        wrapped = _wrapped(model)
        load_model = lambda config, say: wrapped  # noqa: E731
        request |= {"revision": wrapped.info.revision, "dtype": wrapped.info.dtype, "device": wrapped.info.device}
        model = wrapped.info.name
    config = plan(RunRequest.of(aligner=aligner, tasks=tasks, model=str(model), **request))
    uses_cache = NO_CACHE not in os.environ if cache is None else cache
    answers = answers_folder() if uses_cache and not fresh else None
    with _display(progress) as display:
        return execute(config, Path(out), lambda: load_model(config, display.say), display, fresh=fresh, cache=answers)


def _wrapped(model: Any) -> Model:
    """Wrap a model and tokenizer of transformers as a ``Model``; return a ``Model`` unchanged."""
    if not isinstance(model, tuple):
        return model
    from ..models.load import wrap_model

    return wrap_model(*model)


def _display(progress: bool | Display) -> Any:
    if not isinstance(progress, bool):
        return _Given(progress)
    if not progress:
        return Quiet()
    from rich.console import Console

    from ..report.progress import TerminalDisplay

    return TerminalDisplay(Console(stderr=True))


class _Given:
    """A display of the caller, which is neither opened nor closed here."""

    def __init__(self, display: Display) -> None:
        self.display = display

    def __enter__(self) -> Display:
        return self.display

    def __exit__(self, *failure: object) -> None:
        """Close nothing."""
