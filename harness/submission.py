"""Submissions: a manifest and an answers file that anyone may write, and that nobody trusts.

``manifest.json`` says what was asked of what; ``answers.jsonl`` beside it has one JSON object a line and answer.
``docs/submission.schema.json`` is the manifest's schema and ``docs/submission.md`` explains both files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from ..errors import InputError, UsageError
from ..tasks.answers import UNPARSED, Answers
from ..tasks.prompts import ORDERS, Asking, layout_of
from ..tasks.prompts import asked as count
from ..tasks.reading import read_lines, read_unmarked, unmarked
from ..tasks.schema import Readout
from ..tasks.spec import TaskSpec, first_problem
from .files import replacing, write_json
from .identity import Count, ModelIdentity, Name, Sha256
from .registry import spec_of

SCHEMA: Final = 1
MANIFEST = "manifest.json"
ANSWERS: Final = "answers.jsonl"
MOST_TEXT = 6_000  # characters of a generated answer that are kept: a line of them fits whatever the script
MOST_MANIFEST_BYTES, MOST_LINE_BYTES, MOST_ANSWERS = 1 << 20, 1 << 15, 5_000_000
LEAST_LINE_BYTES = 80  # the field names of an answer alone take as much
_NOT_ASKED = -1


Scalar = Annotated[str, Field(max_length=4000)] | int | float | bool | None
Setting = Scalar | Annotated[list[Scalar], Field(max_length=1000)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class AskedTask(_Strict):
    """A task that was answered: which edition of its prompts, of whom, for which country it is scored by default."""

    name: Name
    hash: Sha256
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    edition: Name | None = None
    constants: Name = "world"
    respondents: Annotated[int, Field(ge=0, le=100_000)] = 0
    limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    calibrated: bool = False


class Fitted(_Strict):
    """What the aligner was given: always the split ``fit``."""

    tasks: Annotated[tuple[Name, ...], Field(min_length=1, max_length=100)]
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    readout: Readout
    norm: Name
    split: Literal["fit"] = "fit"


class UsedAligner(_Strict):
    """The aligner with its full settings, and the hash of what it made."""

    name: Name
    settings: dict[Name, Setting]
    adapter_sha256: Sha256 | None


class Spent(_Strict):
    """The budget: allowed and spent item forwards, the same as survey evaluations, tokens read, seconds."""

    item_forwards_allowed: Count
    item_forwards: Count
    survey_evaluations: Annotated[float, Field(ge=0)]
    tokens: Count
    seconds: Annotated[float, Field(ge=0)]


class AnswersFile(_Strict):
    """The answers beside the manifest."""

    file: Literal["answers.jsonl"] = ANSWERS
    sha256: Sha256
    rows: Annotated[int, Field(ge=1, le=MOST_ANSWERS)]


class Manifest(_Strict):
    """A submission's manifest, version 1."""

    schema_version: Literal[1] = SCHEMA
    tasks: Annotated[tuple[AskedTask, ...], Field(min_length=1, max_length=100)]
    model: ModelIdentity
    aligner: UsedAligner
    fitted: Fitted | None
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    seed: Annotated[int, Field(ge=0, le=1 << 62)]
    versions: dict[Name, Name]
    command: Annotated[str, Field(max_length=4000)]
    budget: Spent
    answers: AnswersFile

    @property
    def aligned_to(self) -> str:
        """The country it was fitted to, which need not be the one it is scored for."""
        return self.fitted.country if self.fitted else self.country

    @property
    def configuration(self) -> str:
        """A hash over everything that was chosen but the seed: runs that share it differ by chance alone."""
        parts = self.model_dump(mode="json", include={"tasks", "model", "fitted", "country"}, exclude_defaults=True)
        parts["model"].pop("content_sha256", None)  # the revision says it, and older submissions lack it
        parts |= {"aligner": self.aligner.name, "settings": self.aligner.settings}
        parts["budget"] = self.budget.item_forwards_allowed
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def asked(self, task: str) -> AskedTask:
        """What is said of one of its tasks."""
        return next(asked for asked in self.tasks if asked.name == task)

    @model_validator(mode="after")
    def _tasks_once(self) -> Manifest:
        names = [task.name for task in self.tasks]
        if len(set(names)) < len(names):
            raise ValueError("tasks: a task is named twice")
        return self


class AnswerRow(_Strict):
    """One line of ``answers.jsonl``: option probabilities in code order, the mass on anything else, generated text."""

    task: Annotated[str, Field(max_length=200)]
    item: Annotated[str, Field(max_length=200)]
    wording: Annotated[str, Field(max_length=200)]
    order: Literal["natural", "reversed"]
    respondent: Annotated[int, Field(ge=0, le=100_000)]
    probs: Annotated[list[Annotated[float, Field(ge=0, le=1)]], Field(max_length=100)]
    outside: Annotated[float, Field(ge=0, le=1)]
    text: Annotated[str, Field(max_length=20_000)] | None = None
    parsed: int | None = None


def asking(task: AskedTask, seed: int) -> Asking:
    """How much of its protocol a task was asked."""
    return Asking(task.respondents, seed, task.limit, task.calibrated)


def _lines(task: str, answers: Answers) -> Iterator[str]:
    layout, weighed = answers.layout, answers.weighed
    for row in range(len(layout)):
        line: dict[str, Any] = {
            "task": task,
            "item": layout.items[layout.item[row]],
            "wording": layout.wordings[layout.wording[row]],
            "order": layout.orders[layout.order[row]],
            "respondent": int(layout.respondent[row]),
            "probs": [round(float(p), 9) for p in answers.probs[0, row, : layout.widths[row] * weighed]],
            "outside": round(float(answers.outside[0, row]), 9),
        }
        if answers.texts is not None and answers.parsed is not None:
            line |= {"text": answers.texts[row][:MOST_TEXT], "parsed": int(answers.parsed[row])}
        yield json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def write(folder: Path, manifest: dict[str, Any], answers: dict[str, Answers]) -> Manifest:
    """Write a submission folder atomically; ``manifest`` lacks only what the answers file decides."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        digest, rows = hashlib.sha256(), 0
        with (temporary / ANSWERS).open("wb") as file:
            for task, given in answers.items():
                for line in _lines(task, given):
                    file.write(data := line.encode())
                    digest.update(data)
                    rows += 1
        whole = Manifest(**manifest, answers=AnswersFile(sha256=digest.hexdigest(), rows=rows))
        write_json(temporary / MANIFEST, whole.model_dump(mode="json"))
    return whole


def read(path: Path, specs: Callable[[str], TaskSpec] = spec_of) -> tuple[Manifest, dict[str, Answers]]:
    """Read and check a submission, given its folder or its manifest.

    Args:
        specs: finds a task's spec by name; who reads many submissions gives one that reads each spec once.

    Raises:
        InputError: anything missing, malformed, out of bounds or not what the task asked; names file and field.
        UsageError: a task that is not installed here.
    """
    path = path / MANIFEST if path.is_dir() else path
    manifest = _manifest(path)
    source = path.with_name(manifest.answers.file)
    _check_size(source, manifest.answers.rows)
    tables = _tables(manifest, path, specs)
    digest, rows = hashlib.sha256(), 0
    for number, line in enumerate(read_lines(source, MOST_LINE_BYTES, whole=True), start=1):
        if number > manifest.answers.rows:
            raise InputError(f"{source}:{number}: more lines than answers.rows ({manifest.answers.rows}) says.")
        digest.update(line)
        _place(tables, unmarked(line) if number == 1 else line, f"{source}:{number}")
        rows = number
    if rows != manifest.answers.rows:
        raise InputError(f"{source}: {rows} lines, but answers.rows says {manifest.answers.rows}; it is cut short.")
    if digest.hexdigest() != manifest.answers.sha256:
        raise InputError(f"{source}: does not match answers.sha256 of {path.name}; it was changed or damaged.")
    return manifest, {name: table.finished() for name, table in tables.items()}


def _manifest(path: Path) -> Manifest:
    data = read_unmarked(path, MOST_MANIFEST_BYTES)
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}. See docs/submission.md.") from None


def _tables(manifest: Manifest, path: Path, find: Callable[[str], TaskSpec]) -> dict[str, _Table]:
    """An empty table a task, once the numbers fit: nothing large is built for a manifest that cannot be right."""
    specs, asked = {}, 0
    for number, task in enumerate(manifest.tasks):
        try:
            spec = find(task.name)
        except UsageError as error:
            raise InputError(f"{path}: tasks.{number}.name: {error}") from None
        if spec.hash != task.hash:
            raise InputError(
                f"{path}: tasks.{number}.hash: {task.hash[:12]} is not this {task.name} ({spec.hash[:12]}). "
                "Score it with the culteval version named under versions."
            )
        specs[task.name] = spec
        asked += count(spec, asking(task, manifest.seed))
    if asked != manifest.answers.rows:
        raise InputError(
            f"{path}: answers.rows: {manifest.answers.rows}, but tasks and respondents ask for {asked} answers."
        )
    return {task.name: _Table(specs[task.name], asking(task, manifest.seed)) for task in manifest.tasks}


def _check_size(source: Path, rows: int) -> None:
    """Raise InputError where a file is too short for its rows: what is built must not outgrow what was sent."""
    try:
        size = source.stat().st_size
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}).") from None
    if source.is_file() and size < rows * LEAST_LINE_BYTES:
        raise InputError(f"{source}: {size} bytes are too few for the {rows} lines of answers.rows; it is cut short.")


_ROW = TypeAdapter(AnswerRow)


def _place(tables: dict[str, _Table], line: bytes, where: str) -> None:
    try:
        row = _ROW.validate_json(line)
    except ValidationError as error:
        raise InputError(f"{where}: {first_problem(error)}.") from None
    if row.task not in tables:
        raise InputError(f"{where}: task: {row.task[:60]!r} is not among the manifest's tasks.")
    tables[row.task].put(row, where)


class _Table:
    """Answers of one task being filled, in the order in which the protocol asks; each cell exactly once."""

    def __init__(self, spec: TaskSpec, asked: Asking) -> None:
        self.layout = layout = layout_of(spec, asked)
        shape = (len(layout.items), len(layout.wordings), len(layout.orders), layout.respondents)
        self.rows = np.full(shape, _NOT_ASKED, dtype=np.int32)
        self.rows[layout.item, layout.wording, layout.order, layout.respondent] = np.arange(len(layout))
        self.by_text = "text" in spec.metadata.readouts
        self.weighed: bool | None = None
        self.levels = [{name: i for i, name in enumerate(names)} for names in (self.layout.items, self.layout.wordings)]
        self.seen = np.zeros(len(self.layout), dtype=bool)
        self.probs = np.zeros(self.layout.codes.shape)
        self.outside = np.zeros(len(self.layout))
        self.texts: list[str | None] = [None] * len(self.layout)
        self.parsed = np.full(len(self.layout), UNPARSED)

    def put(self, row: AnswerRow, where: str) -> None:
        item, wording = self.levels[0].get(row.item), self.levels[1].get(row.wording)
        known = item is not None and wording is not None and row.respondent < self.layout.respondents
        at = int(self.rows[item, wording, ORDERS.index(row.order), row.respondent]) if known else _NOT_ASKED
        if at == _NOT_ASKED:
            cell = f"item {row.item[:40]!r}, wording {row.wording[:40]!r}, {row.order}, respondent {row.respondent}"
            raise InputError(f"{where}: {row.task} does not ask {cell}.")
        if self.seen[at]:
            raise InputError(f"{where}: answered twice ({row.item}, {row.wording}, {row.order}, {row.respondent}).")
        width = self.layout.widths[at]
        self._same_kind(row, bool(width), where)
        if row.probs and len(row.probs) != width:
            raise InputError(f"{where}: probs: {len(row.probs)} numbers, item {row.item} has {width} options.")
        if row.probs and abs(sum(row.probs) - 1) > 1e-3:
            raise InputError(f"{where}: probs: they add up to {sum(row.probs):.4f}, not 1.")
        if row.parsed is not None and row.parsed != UNPARSED and row.parsed not in self.layout.codes[at, :width]:
            raise InputError(f"{where}: parsed: {row.parsed} is not a code of item {row.item}.")
        self.seen[at] = True
        self.probs[at, : len(row.probs)] = row.probs
        self.outside[at], self.texts[at] = row.outside, row.text
        self.parsed[at] = UNPARSED if row.parsed is None else row.parsed

    def _same_kind(self, row: AnswerRow, closed: bool, where: str) -> None:
        """Probabilities may be left out where a task is read as text: from all its answers, or from none."""
        if not closed:
            return
        if not row.probs and (not self.by_text or row.text is None):
            raise InputError(f"{where}: probs: none; only a task that is read as text may lack them, and needs a text.")
        if self.weighed not in (None, bool(row.probs)):
            raise InputError(f"{where}: probs: some answers of {row.task} have them and some have none.")
        self.weighed = bool(row.probs)

    def finished(self) -> Answers:
        """The answers: as many as asked, none twice, so all are there. Text only where every answer has one."""
        texts = tuple(text for text in self.texts if text is not None)
        if len(texts) < len(self.texts):
            return Answers(self.layout, self.probs[None], self.outside[None])
        return Answers(self.layout, self.probs[None], self.outside[None], texts, self.parsed)


def json_schema() -> dict[str, Any]:
    """JSON Schema of manifest and answer line, as exported to ``docs/submission.schema.json``."""
    return {"manifest": Manifest.model_json_schema(), "answer": AnswerRow.model_json_schema()}


if __name__ == "__main__":  # export: python -m culteval.harness.submission > docs/submission.schema.json
    print(json.dumps(json_schema(), indent=2))
