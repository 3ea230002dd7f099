"""Execute a run: align, answer, write the submission, score. An interrupted run resumes from its last checkpoint."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import RunError, is_memory
from ...tasks.answers import Answers
from ...tasks.countries import name_of
from ...tasks.prompts import render_protocol
from ..alignment.aligner import find_aligner
from ..alignment.checkpoint import RunCheckpoint
from ..providers.response_log import usage_of
from ..providers.settings import without_secrets
from ..registry import spec_of
from ..scoring.scores import Scores
from ..scoring.submission import Submission, load_submission
from ..submissions.manifest import SUBMISSION, AskedTask, as_stored
from ..submissions.writer import write_submission
from ..util.atomic_io import locked, remove_temporaries, write_json
from ..util.display import Display
from ..util.environment import versions
from ..util.event_log import RunLog
from .answer_cache import AnswerCache, software
from .checks import require_effect, require_room_of_run, text_tokens
from .config import RunConfig, aligner_settings, budget_of, objective_of
from .folder import (
    ALIGNED,
    CONFIG,
    COST,
    FIGURE,
    MODEL,
    SCORES,
    USAGE,
    Checksums,
    Cost,
    Run,
    is_finished,
    read_record,
    read_result,
    same_model,
)
from .load_model import load_other

if TYPE_CHECKING:
    from ..models.aligned import AlignedModel


def execute(
    config: RunConfig,
    root: Path,
    model_of: Callable[[], Any],
    display: Display,
    *,
    fresh: bool = False,
    cache: Path | None = None,
) -> Run:
    """Execute a run in its folder under ``root``; return a finished run of the same configuration unchanged.

    Args:
        model_of: loads the model when first called; not called for a finished run.
        cache: folder of answers shared by runs; None to use no cache.

    Raises:
        RunError: another process works on the folder, or the model differs from the one that the run began with.
    """
    folder = root / config.folder_name()
    if not fresh and is_finished(folder):
        return read_result(folder, reused=True)
    try:
        if cache is not None:
            software()  # now, since it may change on disk while the run works
        model = model_of()  # before anything is written: a model that cannot be loaded leaves no folder
        with locked(folder):
            if fresh:
                _clear(folder)
            remove_temporaries(folder)
            write_json(folder / CONFIG, config.model_dump(mode="json"))
            return _carry_out(config, folder, model, display, cache)
    except (MemoryError, RuntimeError, ImportError) as error:
        if not is_memory(error):
            raise
        raise RunError(
            f"{folder}: out of memory. Free some memory, then `culteval resume {folder}` continues the run."
        ) from error


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _carry_out(config: RunConfig, folder: Path, model: Any, display: Display, cache: Path | None) -> Run:
    """Execute the remaining stages of a run and return it."""
    log, started = RunLog(folder), time.monotonic()
    submission: Submission | None = None
    cached: tuple[str, ...] = ()
    log.event("started", command=command_line(), host=socket.gethostname(), pid=os.getpid())
    try:
        if not model.has_weights:  # its replies are logged in the run's folder instead
            cache = None
            model = model.at(folder, lambda done, total: display.advance(f"{config.aligner} asking", done, total, None))
        same_model(folder / MODEL, model)
        done = Checksums(folder)
        if not (done.finished(COST) and done.finished(ALIGNED)):
            log.event("stage", stage="align")
            _align(config, folder, model, display)
            done.add(ALIGNED, COST)
        if not done.finished(SUBMISSION):
            log.event("stage", stage="answer")
            display.say(f"{config.aligner}: answering {', '.join(config.tasks)}")
            submission, cached = _answer(config, folder, model, _shared_answers(cache, log, display), display)
            if cached:
                display.say(f"{config.aligner}: answers to {', '.join(cached)} were known from another run")
            done.add(SUBMISSION)
        log.event("stage", stage="score")
        submission = submission or load_submission(folder / SUBMISSION)
        scores = _score(config, folder, submission)
        done.add(CONFIG, MODEL, FIGURE, SCORES)
    except BaseException as error:
        log.event("error", kind=type(error).__name__, reason=str(error))
        raise
    log.event("finished", seconds=round(time.monotonic() - started, 3), cached=cached)
    return Run(folder, submission, scores, reused=False, cached=cached)


def _shared_answers(cache: Path | None, log: RunLog, display: Display) -> AnswerCache | None:
    def notify(text: str) -> None:
        display.say(text)
        log.event("note", text=text)

    return None if cache is None else AnswerCache(cache, notify)


def _score(config: RunConfig, folder: Path, submission: Submission) -> Scores:
    """Write what is computed from the submission: scores, figure and, for an endpoint, its usage."""
    from ..report.plots import write_figure

    if usage := usage_of(folder, config.endpoint):
        write_json(folder / USAGE, usage.model_dump(mode="json"))
    scores = submission.score()
    write_figure(folder / FIGURE, scores, name_of(config.country))
    write_json(folder / SCORES, scores.to_dicts())
    return scores


def _align(config: RunConfig, folder: Path, model: Any, display: Display) -> None:
    objective, budget = objective_of(config), budget_of(config)
    other = partial(load_other, config, say=display.say)
    checkpoint = RunCheckpoint(folder, budget, display, config.aligner, other)
    aligner = find_aligner(config.aligner)(aligner_settings(config.aligner, (), config.settings))
    if model.context_length is not None:
        before = aligner.longest_preamble(objective)
        require_room_of_run(config, model, objective, aligner.soft_tokens, before, fitted=aligner.budgeted)
    aligned = aligner.align(model, objective, budget, np.random.default_rng(config.seed), checkpoint)
    if model.has_weights:  # for an endpoint these checks would cost requests
        if aligned.preamble:
            require_room_of_run(config, model, objective, aligned.soft_tokens, aligned.preamble, fitted=False)
        require_effect(aligned, objective, display.say)
    aligned.save(folder / ALIGNED)
    write_json(folder / COST, Cost.of(budget).model_dump())
    checkpoint.log("aligned", **budget.state())


def _answers(
    config: RunConfig, aligned: AlignedModel, adapter: str | None, cache: AnswerCache | None, display: Display
) -> tuple[dict[str, Answers], tuple[str, ...]]:
    """Answer the tasks, showing the prompts answered; return also the tasks whose answers came from the cache."""
    specs = {name: spec_of(name) for name in config.tasks}
    prompts = {name: render_protocol(spec, config.protocol()) for name, spec in specs.items()}
    progress = _Progress(f"{config.aligner} answering", sum(map(len, prompts.values())), display)
    answers, known = {}, list[str]()
    for name, spec in specs.items():
        most = text_tokens(spec)
        if cache is None:
            answers[name] = aligned.answer(prompts[name], most_tokens=most, done=progress)
            continue
        answers[name], hit = cache.answer(aligned, adapter, prompts[name], most, progress)
        if hit:
            known.append(name)
            progress.total -= len(prompts[name])
    return answers, tuple(known)


class _Progress:
    """The count of prompts answered of those to answer, shown as it grows."""

    def __init__(self, label: str, total: int, display: Display) -> None:
        self.label, self.total, self._display, self._answered = label, total, display, 0

    def __call__(self, count: int) -> None:
        self._answered += count
        self._display.advance(self.label, self._answered, self.total, None)


def _answer(
    config: RunConfig, folder: Path, model: Any, cache: AnswerCache | None, display: Display
) -> tuple[Submission, tuple[str, ...]]:
    """Answer the tasks and write the submission; return it and the tasks whose answers came from the cache."""
    from ..models.aligned import AlignedModel, adapter_hash

    aligned, adapter = AlignedModel.load(model, folder / ALIGNED), adapter_hash(folder / ALIGNED)
    answers, known = _answers(config, aligned, adapter, cache, display)
    asked = map(spec_of, config.tasks)
    tasks = [AskedTask.of(spec, config.country, config.protocol(), config.options) for spec in asked]
    manifest = {
        "tasks": tasks,
        "model": model.info.model_dump(),
        "aligner": {
            "name": config.aligner,
            "settings": config.settings,
            "adapter_sha256": adapter,
        },
        "fitted": {
            "tasks": [spec_of(name).name for name in config.fit],
            "country": config.fit_country,
            "scoring": config.scoring,
            "norm": config.options.norm,
            "objective": config.objective,
        },
        "country": config.country,
        "seed": config.seed,
        "versions": versions(),
        "command": command_line(),
        "budget": read_record(folder / COST, Cost).spent_budget(),
    }
    answers = {name: as_stored(given) for name, given in answers.items()}
    written = write_submission(folder / SUBMISSION, manifest, answers)
    return Submission(folder / SUBMISSION, written, answers), known


def command_line() -> str:
    """Return culteval's command as typed, without secrets; of another program its file name alone.

    That program's arguments are none of culteval's, and may be private.
    """
    program, *words = sys.argv or [""]
    place, root = Path(program), Path(__file__).resolve().parents[2]
    as_module = place.name == "__main__.py" and place.resolve().parent == root
    if place.stem != "culteval" and not as_module:
        return place.name
    return " ".join(["culteval", *without_secrets(words)])[:4000]
