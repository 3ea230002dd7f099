"""One run: align, answer, write the submission, score. Killed anywhere, it goes on where it was."""

from __future__ import annotations

import json
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import InputError, RunError, UsageError
from ..tasks.countries import name_of
from ..tasks.prompts import protocol
from ..tasks.reading import read_bytes
from ..tasks.score import Score
from ..tasks.spec import TaskSpec, first_problem
from . import submission
from .checksums import Checksums
from .config import RunConfig, aligner_settings
from .files import remove_temporaries, replacing, write_json
from .fitting import budget_of, goal_of
from .registry import find, spec_of
from .scoring import score_submission

CONFIG, MODEL, CHECKPOINT, ALIGNED, SUBMISSION, SCORES, LOG, COST, FIGURE = (
    "config.json", "model.json", "checkpoint.npz", "adapter", "submission", "scores.json", "run.log", "cost.json",
    "dimensions.svg",
)  # fmt: skip


_ODD_STATE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)  # of libraries too
Record = TypeVar("Record", bound=BaseModel)


class _Cost(BaseModel):
    """``cost.json``: item forwards allowed, items of the survey, and what the fit spent."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    allowed: int = Field(ge=0)
    per_survey: int = Field(ge=1)
    spent: int = Field(ge=0)
    tokens: int = Field(ge=0)
    seconds: float = Field(ge=0)


class Display(Protocol):
    """Where a run tells what it is doing."""

    def say(self, text: str) -> None:
        """One line to a person."""

    def advance(self, label: str, spent: float, allowed: float, best: float | None) -> None:
        """A search has spent so many of its survey evaluations; its best loss so far."""


@dataclass(frozen=True)
class RunResult:
    """A finished run: its folder, what it says of itself, its scores, whether it was there before."""

    folder: Path
    manifest: submission.Manifest
    scores: list[Score]
    reused: bool


class _State(dict[str, np.ndarray]):
    """A checkpoint's arrays; one that is missed is damage of the file at ``path``."""

    path: Path

    def __missing__(self, key: str) -> np.ndarray:
        raise InputError(f"{self.path}: damaged checkpoint (no {key!r}). Start over with --fresh.")


class RunJournal:
    """Checkpoint and log of a run; saves the budget with the aligner's state and restores both."""

    def __init__(self, folder: Path, budget: Any, display: Display, label: str) -> None:
        self.folder = folder
        self.path, self.log_path, self.budget = folder / CHECKPOINT, folder / LOG, budget
        self.display, self.label = display, label
        self.restoring = False  # between a state that was loaded and the first one saved after it

    def load(self) -> dict[str, np.ndarray] | None:
        """The last state, or None; InputError for a damaged file."""
        if not self.path.exists():
            return None
        try:
            _check_unpacked(self.path)
            with np.load(self.path, allow_pickle=False) as file:
                state = _State({name: file[name] for name in file.files})
                state.path = self.path
            self.budget.restore(json.loads(bytes(state.pop("_budget")).decode()))
        except Exception as error:  # numpy and zipfile raise many kinds on damaged bytes
            raise InputError(f"{self.path}: damaged checkpoint ({error}). Start over with --fresh.") from None
        self.log("resumed", **self.budget.state())
        self.restoring = True
        return state

    def save(self, state: dict[str, np.ndarray], best: float) -> None:
        """Write the checkpoint atomically, log a line, move the progress bar."""
        self.restoring = False
        spent = np.frombuffer(json.dumps(self.budget.state()).encode(), dtype=np.uint8)
        with replacing(self.path) as temporary, temporary.open("wb") as file:
            np.savez(file, **state, _budget=spent)
        self.log("generation", best=best, **self.budget.state())
        allowed = self.budget.total / self.budget.per_survey
        self.display.advance(self.label, self.budget.evaluations, allowed, best)

    def tell(self, stage: str, done: int, total: int) -> None:
        """Move the progress bar of a stage that is no search."""
        self.display.advance(f"{self.label} {stage}", done, total, None)

    def log(self, event: str, **fields: Any) -> None:
        """One JSON line in ``run.log``."""
        line = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": event} | fields
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def _whole(folder: Path) -> bool:
    """Whether a finished run can be taken as it is; False where what is made from the rest has to be made again.

    Raises:
        InputError: its adapter, cost or submission is damaged.
    """
    sums = Checksums(folder)
    if not all([sums.finished(name) for name in (ALIGNED, COST, SUBMISSION)]) and sums.kept:  # each is looked at
        return False
    return sums.intact(CONFIG, MODEL, SCORES, *((FIGURE,) if FIGURE in sums.sums else ()))  # not every task has one


def _check_unpacked(path: Path) -> None:
    """Raise ValueError for an archive with compressed parts: ours has none, and a stranger's may unpack to anything."""
    with zipfile.ZipFile(path) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("it is compressed")


def execute(
    config: RunConfig, root: Path, model_of: Callable[[], Any], display: Display, *, fresh: bool = False
) -> RunResult:
    """Carry out a run in its folder under ``root``; a finished run of the same configuration is returned as it is.

    Args:
        model_of: loads the model when first called; called only if there is something left to do.

    Raises:
        RunError: another process works on the folder, or the model is not the one the run began with.
    """
    from filelock import FileLock, Timeout

    folder = root / config.folder_name()
    if not fresh and (folder / SCORES).exists() and _whole(folder):
        return read_result(folder, reused=True)
    try:
        model = model_of()  # before anything is written: a model that cannot be had leaves no folder
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock", timeout=0):
            if fresh:
                _clear(folder)
            remove_temporaries(folder)
            write_json(folder / CONFIG, config.model_dump(mode="json"))
            _carry_out(config, folder, model, display)
    except Timeout:
        raise RunError(f"{folder}: another process works on this run. Wait for it, or change --out.") from None
    except (MemoryError, RuntimeError) as error:
        if not _is_memory(error):
            raise
        raise RunError(
            f"{folder}: memory ran out. `culteval resume {folder}` goes on from what is there, given more of it."
        ) from error
    return read_result(folder, reused=False)


def _is_memory(error: Exception) -> bool:
    """Whether memory ran out, as Python says it or as torch does, which has a class of its own for cards alone."""
    said = str(error).lower()
    words = ("out of memory", "allocate memory", "bad_alloc")
    return isinstance(error, MemoryError) or any(word in said for word in words)


def _clear(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != ".lock":
            path.unlink()


def _carry_out(config: RunConfig, folder: Path, model: Any, display: Display) -> None:
    _same_model(folder / MODEL, model)
    done = Checksums(folder)
    if not (done.finished(COST) and done.finished(ALIGNED)):
        _align(config, folder, model, display)
        done.add(ALIGNED, COST)
    if not done.finished(SUBMISSION):
        display.say(f"{config.aligner}: answering {', '.join(config.tasks)}")
        _answer(config, folder, model)
        done.add(SUBMISSION)
    _, scores = score_submission(folder / SUBMISSION)
    from .figure import write_figure

    write_figure(folder / FIGURE, scores, name_of(config.country))
    write_json(folder / SCORES, [row.model_dump(mode="json") for row in scores])
    done.add(CONFIG, MODEL, FIGURE, SCORES)


def _same_model(path: Path, model: Any) -> None:
    now = model.identity
    if path.exists() and (before := _read(path, type(now))) != now:
        odd = ", ".join(key for key, value in now if value != getattr(before, key))
        raise RunError(f"{path.parent}: the run began with another model ({odd} differ). Start over with --fresh.")
    write_json(path, now.model_dump(mode="json"))


def _read(path: Path, kind: type[Record]) -> Record:
    """A small JSON file of a run's folder, checked.

    Raises:
        InputError: missing or damaged.
    """
    try:
        return kind.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}. Start over with --fresh.") from None


def _align(config: RunConfig, folder: Path, model: Any, display: Display) -> None:
    goal, budget = goal_of(config), budget_of(config)
    journal = RunJournal(folder, budget, display, config.aligner)
    journal.log("start", command=command_line())
    aligner = find("aligners", config.aligner)
    settings = aligner_settings(config.aligner, (), config.settings)
    rng = np.random.default_rng(config.seed)
    try:
        aligned = aligner(settings).align(model, goal, budget, rng, journal)
    except _ODD_STATE as error:
        if not journal.restoring:
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{journal.path}: damaged checkpoint ({reason}). Start over with --fresh.") from error
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


def _answer(config: RunConfig, folder: Path, model: Any) -> None:
    from .aligned import AlignedModel, adapter_hash

    aligned = AlignedModel.load(model, folder / ALIGNED)
    specs = {name: spec_of(name) for name in config.tasks}
    answers = {}
    for name, spec in specs.items():
        prompts = protocol(spec, config.asking())
        most = spec.most_tokens if spec.output_type == "generate_until" else 0
        answers[name] = aligned.answer(prompts, most_tokens=most)
    cost = _read(folder / COST, _Cost)
    manifest = {
        "tasks": [_asked(name, spec, config) for name, spec in specs.items()],
        "model": model.identity.model_dump(),
        "aligner": {
            "name": config.aligner,
            "settings": config.settings,
            "adapter_sha256": adapter_hash(folder / ALIGNED),
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
            "item_forwards_allowed": cost.allowed,
            "item_forwards": cost.spent,
            "survey_evaluations": cost.spent / cost.per_survey,
            "tokens": cost.tokens,
            "seconds": round(cost.seconds, 3),
        },
    }
    submission.write(folder / SUBMISSION, manifest, answers)


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


def versions() -> dict[str, str]:
    """Versions of what decides a number."""
    packages = ("culteval", "torch", "transformers", "numpy", "cmaes")
    return {"python": sys.version.split()[0]} | {name: version(name) for name in packages}


def command_line() -> str:
    """The command as typed, without the folder of the program."""
    return " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])[:4000]


def read_result(folder: Path, *, reused: bool) -> RunResult:
    """A finished run read back from its folder; its scores are computed from its answers, not read.

    Raises:
        InputError: the folder is not a finished run, or its files are damaged.
    """
    if not (folder / SCORES).is_file():
        raise InputError(f"{folder}: no finished run here. `culteval resume {folder}` ends it.")
    Checksums(folder).finished(SUBMISSION)
    manifest, scores = score_submission(folder / SUBMISSION)
    return RunResult(folder, manifest, scores, reused)


def read_config(folder: Path) -> RunConfig:
    """The configuration of a run folder.

    Raises:
        InputError: no run folder, or a damaged configuration.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: not a run folder (no {CONFIG}).")
    config = _read(path, RunConfig)
    try:
        config.folder_name()
        aligner_settings(config.aligner, (), config.settings)
    except UsageError as error:  # the file names what there is not
        raise InputError(f"{path}: {error}") from None
    return config
