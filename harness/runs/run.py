"""The function ``culteval.run``: align a model, answer tasks, write a submission and score it."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ...tasks.chat_options import DEFAULT_CHAT
from ..util.display import Display, Quiet
from .answer_cache import answers_folder
from .config import DEFAULT_MODEL
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
    model: Any = DEFAULT_MODEL,
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
        model: an embedded model's name, a folder, a hub id, ``ollama:NAME``, ``openai-chat:NAME``; or a model and
            tokenizer of transformers in memory, as a pair.
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
    in_memory = not isinstance(model, str | Path)
    asked = RunRequest.of(aligner=aligner, tasks=tasks, model="in memory" if in_memory else str(model), **request)
    wrapped = _wrapped(model, asked) if in_memory else None
    if wrapped is not None:
        info = {name: getattr(wrapped.info, name) for name in ("dtype", "device")}
        asked = asked.model_copy(update={"model": wrapped.info.name, "revision": _identity(wrapped), **info})
    config = plan(asked)
    if wrapped is not None:
        around = {name: getattr(wrapped.info, name) for name in ("adapter_sha256", "chat")}
        config = config.model_copy(update=around)
    uses_cache = NO_CACHE not in os.environ if cache is None else cache
    answers = answers_folder() if uses_cache and not fresh else None
    with _display(progress) as display:
        return execute(
            config, Path(out), lambda: wrapped or load(config, display.say), display, fresh=fresh, cache=answers
        )


def _wrapped(model: Any, request: RunRequest) -> Model:
    """Wrap a model and tokenizer of transformers as a ``Model``; return a ``Model`` unchanged.

    Raises:
        UsageError: a model behind an endpoint, or an argument that a model in memory cannot follow any more.
    """
    pair = isinstance(model, tuple)
    if not pair and not model.has_weights:
        raise UsageError("`model`: name a model behind an endpoint as a string, openai-chat:NAME, and give `endpoint`.")
    fixed = ("revision", "dtype", "device", "adapter", "endpoint", *(() if pair else ("chat", "threads")))
    for name in fixed:
        if getattr(request, name) != RunRequest.model_fields[name].default:
            raise UsageError(f"`{name}`: the model is in memory already. Leave it out.")
    if not pair:
        return model
    from ..models.load import wrap_model

    return wrap_model(*model, threads=request.threads, chat=request.chat or DEFAULT_CHAT)


def _identity(model: Model) -> str:
    """Return a hash of a model in memory with its tokenizer and end tokens."""
    info = model.info
    if info.content_sha256 is None:
        from ..models.fingerprint import vocabulary_hash
        from ..models.local import LanguageModel

        if isinstance(model, LanguageModel):
            return vocabulary_hash(info.revision, model.tokenizer, model.ends)
    return info.content_sha256 or info.revision


def _display(progress: bool | Display) -> AbstractContextManager[Display]:
    if not isinstance(progress, bool):
        return nullcontext(progress)  # of the caller, who opens and closes it
    if not progress:
        return nullcontext(Quiet())
    from rich.console import Console

    from ..report.progress import TerminalDisplay

    return TerminalDisplay(Console(stderr=True))
