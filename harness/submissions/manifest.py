"""The format of submissions: a manifest and an answers file, both untrusted input that any program may write.

``manifest.json`` describes model, aligner and tasks; ``answers.jsonl`` beside it, plain or compressed as
``answers.jsonl.zst``, has one JSON object a line and answer. ``docs/submission.schema.json`` is the manifest's schema
and ``docs/submission.md`` explains both files.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import Field, model_validator

from ...errors import InputError
from ...tasks.answers import Answers
from ...tasks.measure import MeasureOptions
from ...tasks.prompts import ProtocolOptions
from ...tasks.schema import FitObjective, Scoring, Strict
from ...tasks.spec import OWN_EDITION, TaskSpec
from ..model_info import Count, ModelInfo, Name, Sha256
from ..util.event_log import LOG

SCHEMA: Final = 2
SUBMISSION, MANIFEST = "submission", "manifest.json"  # a folder within a run's folder; a file within that
ANSWERS: Final = "answers.jsonl"
DIGITS = 9  # decimals of a stored probability
MOST_TEXT = 6_000  # characters kept of a generated answer
MOST_LINE_BYTES = 6 * MOST_TEXT + (1 << 13)  # JSON escapes a control character to six bytes; the rest: other fields
MOST_MANIFEST_BYTES, MOST_ANSWERS = 1 << 20, 5_000_000
MOST_SPENT = 1e12  # seconds, or survey evaluations: sums over many submissions remain finite

Seed = Annotated[int, Field(ge=0, le=1 << 62)]
Limit = Annotated[int, Field(ge=1, le=100_000)]
Surveys = Annotated[int, Field(ge=0, le=int(MOST_SPENT))]  # a budget in survey evaluations
MOST_TASKS = 100

Scalar = Annotated[str, Field(max_length=4000)] | int | float | bool | None
Setting = Scalar | Annotated[list[Scalar], Field(max_length=1000)]


class AskedTask(Strict):
    """A task that was answered: its hash, its protocol, and the country and options it is scored with by default.

    ``heldout_only``: the split ``heldout`` alone was answered, as stock lm-eval does.
    """

    name: Name
    hash: Sha256
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    edition: Name | None = None
    constants: Name = "world"
    personas: Annotated[int, Field(ge=0, le=100_000)] = 0
    limit: Limit | None = None
    calibrated: bool = False
    heldout_only: bool = False

    @classmethod
    def of(cls, spec: TaskSpec, country: str, protocol: ProtocolOptions, options: MeasureOptions) -> AskedTask:
        """Describe how much of a task's protocol is asked, and the options it is scored with."""
        return cls(
            name=spec.name,
            hash=spec.hash,
            country=country,
            edition=options.edition or spec.default_edition,
            constants=options.constants,
            personas=protocol.personas,
            limit=protocol.limit,
            calibrated=protocol.calibrate,
            heldout_only=protocol.heldout_only,
        )

    def protocol(self, seed: int) -> ProtocolOptions:
        """Return how much of the protocol was asked; ``seed`` is the manifest's, which draws the personas."""
        return ProtocolOptions(self.personas, seed, self.limit, self.calibrated, self.heldout_only)

    @property
    def options(self) -> MeasureOptions:
        """Return the options that the task is scored with by default."""
        edition = None if self.edition == OWN_EDITION else self.edition
        return MeasureOptions(edition=edition, constants=self.constants)


class Fitted(Strict):
    """The tasks, country and loss that the aligner was fitted to, always on the split ``fit``."""

    tasks: Annotated[tuple[Name, ...], Field(min_length=1, max_length=MOST_TASKS)]
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    scoring: Scoring
    norm: Name
    objective: FitObjective = "task"
    split: Literal["fit"] = "fit"


class UsedAligner(Strict):
    """The aligner with its full settings, and the hash of the adapter that it produced."""

    name: Name
    settings: dict[Name, Setting]
    adapter_sha256: Sha256 | None


class Spent(Strict):
    """The budget: item forwards allowed and spent, the latter also in survey evaluations; tokens read; seconds."""

    item_forwards_allowed: Count
    item_forwards: Count
    survey_evaluations: Annotated[float, Field(ge=0, le=MOST_SPENT)]
    tokens: Count
    seconds: Annotated[float, Field(ge=0, le=MOST_SPENT)]


class AnswersFile(Strict):
    """The answers beside the manifest: JSON lines, plain (``answers.jsonl``) or by zstd (``answers.jsonl.zst``).

    ``file`` is the name of the plain file and ``sha256`` the hash of its lines, for the compressed file too, so that
    compressing or decompressing the answers does not change the manifest.
    """

    file: Literal["answers.jsonl"] = ANSWERS
    sha256: Sha256
    rows: Annotated[int, Field(ge=1, le=MOST_ANSWERS)]


class Manifest(Strict):
    """A submission's manifest, version 2; ``culteval leaderboard migrate`` makes it from version 1."""

    schema_version: Literal[2] = SCHEMA
    tasks: Annotated[tuple[AskedTask, ...], Field(min_length=1, max_length=MOST_TASKS)]
    model: ModelInfo
    aligner: UsedAligner
    fitted: Fitted | None
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    seed: Seed
    versions: dict[Name, Name]
    command: Annotated[str, Field(max_length=4000)]
    budget: Spent
    answers: AnswersFile

    @property
    def aligned_to(self) -> str:
        """Return the country that the model was fitted to, which may differ from the country it is scored for."""
        return self.fitted.country if self.fitted else self.country

    @property
    def fitted_to(self) -> str:
        """Format the tasks and country that a budget was spent on, and an unusual loss; ``nothing`` without one."""
        if not self.fitted or not self.budget.item_forwards:
            return "nothing"
        usual = {"task", "expected"}
        loss = [word for word in (self.fitted.objective, self.fitted.scoring) if word not in usual]
        return ", ".join([*self.fitted.tasks, self.fitted.country, *loss])

    @property
    def configuration(self) -> str:
        """Return a hash over the configuration without the seed, equal for runs that differ in their seed alone."""
        parts = self.model_dump(mode="json", include={"tasks", "model", "fitted", "country"}, exclude_defaults=True)
        parts["model"].pop("content_sha256", None)  # implied by the revision, and missing in older submissions
        parts |= {"aligner": self.aligner.name, "settings": self.aligner.settings}
        parts["budget"] = self.budget.item_forwards_allowed
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def task(self, task: str) -> AskedTask:
        """Return the entry of a task by its name."""
        return next(entry for entry in self.tasks if entry.name == task)

    @model_validator(mode="after")
    def _tasks_once(self) -> Manifest:
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError("tasks: a task is named twice")
        return self


class AnswerRow(Strict):
    """One line of ``answers.jsonl``: option probabilities in code order, the probability off the options, the text."""

    task: Annotated[str, Field(max_length=200)]
    item: Annotated[str, Field(max_length=200)]
    paraphrase: Annotated[str, Field(max_length=200)]
    order: Literal["natural", "reversed"]
    persona: Annotated[int, Field(ge=0, le=100_000)]
    probs: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(max_length=100)]
    off_options: Annotated[float, Field(ge=0, le=1)]
    text: Annotated[str, Field(max_length=20_000)] | None = None
    parsed: int | None = None


def as_stored(answers: Answers) -> Answers:
    """Return answers as they are read back from a submission: probabilities rounded, texts cut to ``MOST_TEXT``."""
    probs, outside = (
        np.array([round(value, DIGITS) for value in array.ravel().tolist()]).reshape(array.shape)
        for array in (answers.probs, answers.off_options)
    )
    texts = None if answers.texts is None else tuple(text[:MOST_TEXT] for text in answers.texts)
    return Answers(answers.layout, probs, outside, texts, answers.parsed)


def submission_of(path: Path) -> Path:
    """Return the submission folder within a run folder; return any other path unchanged.

    Raises:
        InputError: a run that has no submission yet.
    """
    if (path / SUBMISSION).is_dir():
        return path / SUBMISSION
    if (path / LOG).is_file() and not (path / MANIFEST).is_file():
        raise InputError(f"{path}: an unfinished run. `culteval resume {path}` ends it.")
    return path


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of manifest and answer line, as exported to ``docs/submission.schema.json``."""
    return {"manifest": Manifest.model_json_schema(), "answer": AnswerRow.model_json_schema()}


if __name__ == "__main__":  # export: python -m culteval.harness.submissions.manifest > docs/submission.schema.json
    print(json.dumps(json_schema(), indent=2))
