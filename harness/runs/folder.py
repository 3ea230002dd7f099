"""Folder of a run: its files, their checksums, and functions that read them."""

from __future__ import annotations

import html
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from ...errors import InputError, RunError, UsageError
from ...tasks.reading import read_unmarked
from ...tasks.schema import Strict
from ...tasks.spec import first_problem
from ..alignment.budget import Budget
from ..models.base import Model
from ..providers.response_log import Usage, usage_of
from ..providers.settings import EndpointSettings
from ..scoring.scores import Scores
from ..scoring.submission import Submission, load_submission
from ..submissions.manifest import SUBMISSION, Manifest, Spent
from ..util.atomic_io import sha256, write_json
from .config import RunConfig, aligner_settings

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console, ConsoleOptions

CONFIG, MODEL, ALIGNED, SCORES, COST, USAGE, FIGURE = (
    "config.json", "model.json", "adapter", "scores.json", "cost.json", "usage.json", "dimensions.svg"
)  # fmt: skip


Record = TypeVar("Record", bound=BaseModel)


class Cost(Strict):
    """``cost.json``: item forwards allowed, items of the survey, and what the fit spent."""

    allowed: int = Field(ge=0)
    per_survey: int = Field(ge=1)
    spent: int = Field(ge=0)
    tokens: int = Field(ge=0)
    seconds: float = Field(ge=0)

    @classmethod
    def of(cls, budget: Budget) -> Cost:
        """Make the record of a budget."""
        return cls.model_validate({"allowed": budget.total, "per_survey": budget.per_survey} | budget.state())

    def spent_budget(self) -> Spent:
        """Return the record in the form of a manifest."""
        return Spent(
            item_forwards_allowed=self.allowed,
            item_forwards=self.spent,
            survey_evaluations=self.spent / self.per_survey,
            tokens=self.tokens,
            seconds=round(self.seconds, 3),
        )


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, submission and scores, and whether it was finished before (``reused``).

    ``cached`` are the tasks whose answers came from the cache.
    """

    folder: Path
    submission: Submission
    scores: Scores
    reused: bool
    cached: tuple[str, ...] = ()

    @property
    def manifest(self) -> Manifest:
        """Return the manifest of the submission."""
        return self.submission.manifest

    def to_frame(self) -> pd.DataFrame:
        """Return the scores, one row a score."""
        return self.scores.to_frame()

    def plot(self, metric: str | None = None) -> Any:
        """Draw the scores on new matplotlib axes and return the axes; see ``Scores.plot``."""
        return self.scores.plot(metric)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Any]:
        yield from self.scores.tables(options.max_width)
        yield f"run        {self.folder}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(str(self.folder))}</p>{self.scores._repr_html_()}"


def is_finished(folder: Path) -> bool:
    """Check whether a run is finished; return False also where only files that can be recomputed are damaged.

    Raises:
        InputError: its adapter, cost or submission is damaged.
    """
    if not (folder / SCORES).exists():
        return False
    sums = Checksums(folder)
    if not all([sums.finished(name) for name in (ALIGNED, COST, SUBMISSION)]) and sums.kept:  # a list: each is checked
        return False
    return sums.intact(
        CONFIG, MODEL, SCORES, *((FIGURE,) if FIGURE in sums.sums else ())
    )  # not every task has a figure


def same_model(path: Path, model: Model, remedy: str = "Start over with `fresh`.") -> None:
    """Record the model of a run; raise RunError where the run began with another one."""
    now = model.info
    if path.exists() and (before := read_record(path, type(now))) != now:
        changed = ", ".join(key for key, value in now if value != getattr(before, key))
        raise RunError(f"{path.parent}: the run began with another model ({changed} differ). {remedy}")
    write_json(path, now.model_dump(mode="json"))


def read_record(path: Path, kind: type[Record]) -> Record:
    """Read and validate a small JSON file of a run's folder.

    Raises:
        InputError: missing or damaged.
    """
    try:
        return kind.model_validate_json(read_unmarked(path))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}. Start over with `fresh`.") from None


def read_result(folder: Path, *, reused: bool) -> Run:
    """Read a finished run from its folder; its scores are recomputed from its answers.

    Raises:
        InputError: the folder is not a finished run, or its files are damaged.
    """
    if not (folder / SCORES).is_file():
        raise InputError(f"{folder}: no finished run here. `culteval resume {folder}` ends it.")
    Checksums(folder).finished(SUBMISSION)
    submission = load_submission(folder / SUBMISSION)
    return Run(folder, submission, submission.score(), reused)


def read_usage(folder: Path, endpoint: EndpointSettings | None) -> Usage | None:
    """Return the usage of endpoints in a finished run, None where it used none.

    It is computed anew where ``endpoint`` has prices; else read as it was when the run finished.

    Raises:
        InputError: a damaged file.
    """
    priced = endpoint is not None and (endpoint.price_in, endpoint.price_out) != (None, None)
    if priced and (usage := usage_of(folder, endpoint)):
        return usage
    path = folder / USAGE
    return read_record(path, Usage) if path.exists() else None


def read_config(folder: Path) -> RunConfig:
    """Read and validate the configuration of a run folder.

    Raises:
        InputError: no run folder, or a damaged configuration.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise InputError(f"{folder}: not a run folder (no {CONFIG}).")
    config = read_record(path, RunConfig)
    try:
        config.folder_name()
        aligner_settings(config.aligner, (), config.settings)
    except UsageError as error:  # the file names a task, aligner or setting that does not exist
        raise InputError(f"{path}: {error}") from None
    return config


SUMS = "checksums.json"


_SUMS = TypeAdapter(dict[str, str])


class Checksums:
    """The checksums of a run's folder, stored in ``checksums.json``. They detect damage, not deliberate changes.

    Raises:
        InputError: a damaged ``checksums.json``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / SUMS
        self.kept = self.path.is_file()
        try:
            self.sums = _SUMS.validate_json(read_unmarked(self.path)) if self.kept else {}
        except ValidationError as error:
            raise InputError(f"{self.path}: {first_problem(error)}. Start over with `fresh`.") from None

    def add(self, *names: str) -> None:
        """Record the checksums of finished files and folders; a missing file has none."""
        self.sums = {file: value for file, value in self.sums.items() if (self.folder / file).is_file()}
        for name in names:
            self.sums = {file: value for file, value in self.sums.items() if not _is_in(file, name)}
            self.sums |= self._current(name)
        write_json(self.path, self.sums)
        self.kept = True

    def finished(self, name: str) -> bool:
        """Check whether the checksums of a file or folder are recorded.

        Raises:
            InputError: it has changed since.
        """
        recorded = {file: value for file, value in self.sums.items() if _is_in(file, name)}
        if not recorded:
            return False
        current = self._current(name)
        if changed := sorted(file for file, value in recorded.items() if current.get(file) != value):
            raise InputError(
                f"{self.folder / changed[0]}: damaged: not as it was when it was finished ({SUMS}). "
                "Start over with `fresh`."
            )
        return True

    def intact(self, *names: str) -> bool:
        """Check that each of these is finished and unchanged; return True for a folder without checksums."""
        try:
            return not self.kept or all(self.finished(name) for name in names)
        except InputError:
            return False

    def _current(self, name: str) -> dict[str, str]:
        path = self.folder / name
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        return {file.relative_to(self.folder).as_posix(): sha256(file) for file in files if file.is_file()}


def _is_in(file: str, name: str) -> bool:
    return file == name or file.startswith(f"{name}/")
