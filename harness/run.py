"""One run: align, answer, write the submission, score. Killed anywhere, it goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ..errors import InputError, RunError
from ..tasks.countries import name_of
from ..tasks.prompts import protocol
from ..tasks.score import Score
from ..tasks.spec import TaskSpec, first_problem
from . import submission
from .answer_cache import AnswerCache
from .config import RunConfig, aligner_settings
from .files import replacing, write_json
from .fitting import budget_of, goal_of
from .log import RunLog
from .machine import versions
from .registry import find, spec_of
from .scoring import score_submission

CONFIG, CHECKPOINT, ALIGNED, SUBMISSION, SCORES, COST, FIGURE = (
    "config.json", "checkpoint.npz", "adapter", "submission", "scores.json", "cost.json", "dimensions.svg",
)  # fmt: skip
_SCORES = TypeAdapter(list[Score])


class Display(Protocol):
    """Where a run tells what it is doing."""

    def say(self, text: str) -> None:
        """One line to a person."""

    def advance(self, label: str, spent: float, allowed: float, best: float | None) -> None:
        """A search has spent so many of its survey evaluations; its best loss so far."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, what it says of itself, its scores, whether it was there before.

    ``cached`` are the tasks whose answers were known from another run.
    """

    folder: Path
    manifest: submission.Manifest
    scores: list[Score]
    reused: bool
    cached: tuple[str, ...] = ()


class _State(dict[str, np.ndarray]):
    """A checkpoint's arrays; one that is missed is damage of the file at ``path``."""

    path: Path

    def __missing__(self, key: str) -> np.ndarray:
        raise InputError(f"{self.path}: damaged checkpoint (no {key!r}). Start over with --fresh.")


class RunJournal:
    """Checkpoint and log of a run; saves the budget with the aligner's state and restores both."""

    def __init__(self, folder: Path, budget: Any, display: Display, label: str) -> None:
        self.folder = folder
        self.path, self.budget, self.log = folder / CHECKPOINT, budget, RunLog(folder).event
        self.display, self.label = display, label

    def load(self) -> dict[str, np.ndarray] | None:
        """The last state, or None; InputError for a damaged file."""
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as file:
                state = _State({name: file[name] for name in file.files})
                state.path = self.path
            self.budget.restore(json.loads(bytes(state.pop("_budget")).decode()))
        except Exception as error:  # numpy and zipfile raise many kinds on damaged bytes
            raise InputError(f"{self.path}: damaged checkpoint ({error}). Start over with --fresh.") from None
        self.log("resumed", **self.budget.state())
        return state

    def save(self, state: dict[str, np.ndarray], best: float) -> None:
        """Write the checkpoint atomically, log a line, move the progress bar."""
        spent = np.frombuffer(json.dumps(self.budget.state()).encode(), dtype=np.uint8)
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **state, _budget=spent)
        self.log("generation", best=best, **self.budget.state())
        allowed = self.budget.total / self.budget.per_survey
        self.display.advance(self.label, self.budget.evaluations, allowed, best)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Move the progress bar of a stage that is no search."""
        self.display.advance(f"{self.label} {stage}", done, total, None)


def execute(
    config: RunConfig,
    root: Path,
    model_of: Callable[[], Any],
    display: Display,
    *,
    fresh: bool = False,
    cache: Path | None = None,
) -> RunResult:
    """Carry out a run in its folder under ``root``; a finished run of the same configuration is returned as it is.

    Args:
        model_of: loads the model when first called; called only if there is something left to do.
        cache: folder of answers that runs share, where that is wanted.

    Raises:
        RunError: another process works on the folder, or the model is not the one the run began with.
    """
    from filelock import FileLock, Timeout

    folder = root / config.folder_name()
    if not fresh and (folder / SCORES).exists():
        return read_result(folder, reused=True)
    model = model_of()  # before anything is written: a model that cannot be had leaves no folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            if fresh:
                _clear(folder)
            write_json(folder / CONFIG, config.model_dump(mode="json"))
            cached = _carry_out(config, folder, model, display, cache)
    except Timeout:
        raise RunError(f"{folder}: another process works on this run. Wait for it, or change --out.") from None
    return replace(read_result(folder, reused=False), cached=cached)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _carry_out(config: RunConfig, folder: Path, model: Any, display: Display, cache: Path | None) -> tuple[str, ...]:
    """All that is left of a run; the tasks whose answers came from the cache."""
    log, started = RunLog(folder), time.monotonic()
    cached: tuple[str, ...] = ()
    log.event("started", command=command_line(), host=socket.gethostname(), pid=os.getpid())
    try:
        _same_model(folder / "model.json", model)
        if not (folder / COST).exists():
            log.event("stage", stage="align")
            _align(config, folder, model, display)
        if not (folder / SUBMISSION).exists():
            log.event("stage", stage="answer")
            display.say(f"{config.aligner}: answering {', '.join(config.tasks)}")
            cached = _answer(config, folder, model, _shared_answers(cache, log, display))
            if cached:
                display.say(f"{config.aligner}: answers to {', '.join(cached)} were known (--no-cache asks again)")
        log.event("stage", stage="score")
        _score(folder, name_of(config.country))
    except BaseException as error:
        log.event("error", kind=type(error).__name__, reason=str(error))
        raise
    log.event("finished", seconds=round(time.monotonic() - started, 3), cached=cached)
    return cached


def _shared_answers(cache: Path | None, log: RunLog, display: Display) -> AnswerCache | None:
    def notify(text: str) -> None:
        display.say(text)
        log.event("note", text=text)

    return None if cache is None else AnswerCache(cache, notify)


def _score(folder: Path, country: str) -> None:
    from .figure import write_figure

    _, scores = score_submission(folder / SUBMISSION)
    write_figure(folder / FIGURE, scores, country)
    write_json(folder / SCORES, [row.model_dump(mode="json") for row in scores])


def _same_model(path: Path, model: Any) -> None:
    identity = model.identity.model_dump(mode="json")
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8"))) != identity:
        odd = ", ".join(key for key in identity if identity[key] != before.get(key))
        raise RunError(f"{path.parent}: the run began with another model ({odd} differ). Start over with --fresh.")
    write_json(path, identity)


def _align(config: RunConfig, folder: Path, model: Any, display: Display) -> None:
    goal, budget = goal_of(config), budget_of(config)
    journal = RunJournal(folder, budget, display, config.aligner)
    aligner = find("aligners", config.aligner)
    settings = aligner_settings(config.aligner, (), config.settings)
    rng = np.random.default_rng(config.seed)
    aligned = aligner(settings).align(model, goal, budget, rng, journal)
    _require_effect(aligned, goal)
    aligned.save(folder / ALIGNED)
    write_json(folder / COST, {"allowed": budget.total, "per_survey": budget.per_survey} | budget.state())
    journal.log("aligned", **budget.state())


def _require_effect(aligned: Any, goal: Any) -> None:
    """Raise RunError where an aligned model answers a few prompts exactly as the model does without alignment."""
    if aligned.soft is None and aligned.lora is None and not aligned.preamble:
        return
    some = goal.prompts.take(np.arange(min(4, len(goal.prompts))))
    bare = type(aligned)(aligned.model)
    if np.array_equal(aligned.answer(some).probs, bare.answer(some).probs):
        raise RunError(
            "the alignment has no effect: answers are those of the model without it. Report how you got here."
        )


def _answer(config: RunConfig, folder: Path, model: Any, cache: AnswerCache | None) -> tuple[str, ...]:
    """Answer and write the submission; the tasks whose answers came from the cache."""
    from .aligned import AlignedModel, adapter_hash

    aligned, adapter = AlignedModel.load(model, folder / ALIGNED), adapter_hash(folder / ALIGNED)
    specs = {name: spec_of(name) for name in config.tasks}
    answers, known = {}, list[str]()
    for name, spec in specs.items():
        prompts = protocol(spec, config.asking())
        most = spec.most_tokens if spec.output_type == "generate_until" else 0
        if cache is None:
            answers[name] = aligned.answer(prompts, most_tokens=most)
            continue
        answers[name], found = cache.answer(aligned, adapter, prompts, most)
        known += [name] * found
    cost = json.loads((folder / COST).read_text(encoding="utf-8"))
    manifest = {
        "tasks": [_asked(name, spec, config) for name, spec in specs.items()],
        "model": model.identity.model_dump(),
        "aligner": {
            "name": config.aligner,
            "settings": config.settings,
            "adapter_sha256": adapter,
        },
        "fitted": {
            "tasks": [spec_of(name).name for name in config.fit],
            "country": config.fit_country,
            "readout": config.readout,
            "norm": config.options.norm,
        },
        "country": config.country,
        "seed": config.seed,
        "versions": versions(),
        "command": command_line(),
        "budget": {
            "item_forwards_allowed": cost["allowed"],
            "item_forwards": cost["spent"],
            "survey_evaluations": cost["spent"] / cost["per_survey"],
            "tokens": cost["tokens"],
            "seconds": round(cost["seconds"], 3),
        },
    }
    submission.write(folder / SUBMISSION, manifest, answers)
    return tuple(known)


def _asked(name: str, spec: TaskSpec, config: RunConfig) -> dict[str, Any]:
    options = config.options
    return {
        "name": name,
        "hash": spec.hash,
        "country": config.country,
        "edition": options.edition or spec.default_edition,
        "constants": options.constants,
        "respondents": config.respondents,
        "limit": config.limit,
        "calibrated": config.calibrate,
    }


def command_line() -> str:
    """The command as typed, without the folder of the program."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:4000]


def read_result(folder: Path, *, reused: bool) -> RunResult:
    """A finished run read back from its folder.

    Raises:
        InputError: the folder is not a finished run, or its files are damaged.
    """
    try:
        scores = _SCORES.validate_json((folder / SCORES).read_bytes())
    except OSError:
        raise InputError(f"{folder}: no finished run here. `culteval resume {folder}` ends it.") from None
    except ValidationError as error:
        raise InputError(f"{folder / SCORES}: {first_problem(error)}. Run again with --fresh.") from None
    manifest, _ = submission.read(folder / SUBMISSION)
    return RunResult(folder, manifest, scores, reused)


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run folder.

    Raises:
        InputError: no run folder, or a damaged configuration.
    """
    path = folder / CONFIG
    try:
        return RunConfig.model_validate_json(path.read_bytes())
    except OSError:
        raise InputError(f"{folder}: not a run folder (no {CONFIG}).") from None
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}.") from None
