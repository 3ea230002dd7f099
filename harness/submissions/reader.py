"""Read and validate a submission: an untrusted manifest and its answers."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from ...errors import InputError, UsageError
from ...tasks.answers import UNPARSED, Answers
from ...tasks.prompts import ORDERS, ProtocolOptions, count_answers, layout_of
from ...tasks.reading import ZSTD, read_lines, read_unmarked, unmarked
from ...tasks.spec import TaskSpec, first_problem
from ..registry import spec_of
from .manifest import ANSWERS, MANIFEST, MOST_LINE_BYTES, MOST_MANIFEST_BYTES, SCHEMA, AnswerRow, Manifest

COMPRESSED = ANSWERS + ZSTD
LEAST_LINE_BYTES = 80  # the length of an answer's field names alone
MOST_RATIO = 250  # accepted compression ratio; identical answers to all prompts reach about 100
MOST_BYTES = 1 << 30  # of all lines, decompressed; a million answers take a fifth of it


_NOT_ASKED = -1


def read_submission(path: Path, specs: Callable[[str], TaskSpec] = spec_of) -> tuple[Manifest, dict[str, Answers]]:
    """Read and check a submission, given its folder or its manifest.

    Args:
        specs: returns the spec of a task by name; a cached function saves time when many submissions are read.

    Raises:
        InputError: missing, malformed or out of bounds, or answers that do not match the task; names file and field.
        UsageError: a task that is not installed here.
    """
    path = path / MANIFEST if path.is_dir() else path
    manifest = read_manifest(path)
    source = answers_file(path.parent)
    _check_size(source, manifest.answers.rows)
    tables = _tables(manifest, path, specs)
    for number, line in enumerate(answer_lines(source, manifest), start=1):
        _place(tables, unmarked(line) if number == 1 else line, f"{source}:{number}")
    return manifest, {name: table.finished() for name, table in tables.items()}


def answers_file(folder: Path) -> Path:
    """Return the path of a submission's answers, plain or compressed; that of the plain file where neither exists.

    Raises:
        InputError: both exist, so that the answers are ambiguous.
    """
    plain, compressed = folder / ANSWERS, folder / COMPRESSED
    if not os.path.lexists(compressed):
        return plain
    if os.path.lexists(plain):
        raise InputError(f"{folder}: holds {ANSWERS} and {COMPRESSED}. Remove one of them.")
    return compressed


def answer_lines(source: Path, manifest: Manifest) -> Iterator[bytes]:
    """Yield the lines of an answers file; check their number and hash after the last one.

    Raises:
        InputError: unreadable, out of bounds, or lines that do not match the manifest's number and hash.
    """
    file, digest, size, rows = manifest.answers, hashlib.sha256(), 0, 0
    for rows, line in enumerate(read_lines(source, MOST_LINE_BYTES, whole=True), start=1):
        if rows > file.rows:
            raise InputError(f"{source}:{rows}: more lines than answers.rows ({file.rows}) says.")
        if (size := size + len(line)) > MOST_BYTES:
            raise InputError(f"{source}:{rows}: more than {MOST_BYTES:,} bytes of answers.")
        digest.update(line)
        yield line
    if rows != file.rows:
        raise InputError(f"{source}: {rows} lines, but answers.rows says {file.rows}; it is cut short.")
    if digest.hexdigest() != file.sha256:
        raise InputError(f"{source}: does not match answers.sha256 of {MANIFEST}; it was changed or damaged.")


def read_manifest(path: Path) -> Manifest:
    """Read and validate a manifest.

    Raises:
        InputError: missing, malformed or out of bounds; names file and field.
    """
    path = path / MANIFEST if path.is_dir() else path
    data = read_unmarked(path, MOST_MANIFEST_BYTES)
    try:
        return Manifest.model_validate_json(data)
    except ValidationError as error:
        version = next((one["input"] for one in error.errors() if one["loc"] == ("schema_version",)), SCHEMA)
        if version == 1:
            raise InputError(
                f"{path}: schema_version 1 is of an earlier version. `culteval leaderboard migrate` updates a board."
            ) from None
        raise InputError(f"{path}: {first_problem(error)}. See docs/submission.md.") from None


def _tables(manifest: Manifest, path: Path, find: Callable[[str], TaskSpec]) -> dict[str, _Table]:
    """Build an empty table for each task, after the manifest's number of answers is checked to bound the memory."""
    specs, total = {}, 0
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
        total += count_answers(spec, task.protocol(manifest.seed))
    if total != manifest.answers.rows:
        raise InputError(
            f"{path}: answers.rows: {manifest.answers.rows}, but the tasks and their personas ask for {total} answers."
        )
    return {task.name: _Table(specs[task.name], task.protocol(manifest.seed)) for task in manifest.tasks}


def _check_size(source: Path, rows: int) -> None:
    """Raise InputError where a file is too short for its rows, so that memory is bounded by the size of the file.

    A compressed file may hold up to ``MOST_RATIO`` times its size; the actual bytes are counted while it is read.
    """
    try:
        size = source.stat().st_size
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}).") from None
    most = size * MOST_RATIO if source.suffix == ZSTD else size
    if source.is_file() and most < rows * LEAST_LINE_BYTES:
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
    """The answers of one task while they are read, in the order of the protocol; each cell is filled exactly once."""

    def __init__(self, spec: TaskSpec, asked: ProtocolOptions) -> None:
        self.layout = layout = layout_of(spec, asked)
        shape = (len(layout.items), len(layout.paraphrases), len(layout.orders), layout.personas)
        self.rows = np.full(shape, _NOT_ASKED, dtype=np.int32)
        self.rows[layout.item, layout.paraphrase, layout.order, layout.persona] = np.arange(len(layout))
        self.by_text = "text" in spec.metadata.scorings
        self.weighed: bool | None = None
        self.levels = [
            {name: i for i, name in enumerate(names)} for names in (self.layout.items, self.layout.paraphrases)
        ]
        self.seen = np.zeros(len(self.layout), dtype=bool)
        self.probs = np.zeros(self.layout.codes.shape)
        self.off_options = np.zeros(len(self.layout))
        self.texts: list[str | None] = [None] * len(self.layout)
        self.parsed = np.full(len(self.layout), UNPARSED)

    def put(self, row: AnswerRow, where: str) -> None:
        item, paraphrase = self.levels[0].get(row.item), self.levels[1].get(row.paraphrase)
        known = item is not None and paraphrase is not None and row.persona < self.layout.personas
        at = int(self.rows[item, paraphrase, ORDERS.index(row.order), row.persona]) if known else _NOT_ASKED
        if at == _NOT_ASKED:
            cell = f"item {row.item[:40]!r}, paraphrase {row.paraphrase[:40]!r}, {row.order}, persona {row.persona}"
            raise InputError(f"{where}: {row.task} does not ask {cell}.")
        if self.seen[at]:
            raise InputError(f"{where}: answered twice ({row.item}, {row.paraphrase}, {row.order}, {row.persona}).")
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
        self.off_options[at], self.texts[at] = row.off_options, row.text
        self.parsed[at] = UNPARSED if row.parsed is None else row.parsed

    def _same_kind(self, row: AnswerRow, closed: bool, where: str) -> None:
        """Raise InputError unless either all or none of a task's answers have probabilities.

        Only a task that is scored by text may lack them; ``closed`` says whether the item has options.
        """
        if not closed:
            return
        if not row.probs and (not self.by_text or row.text is None):
            raise InputError(f"{where}: probs: none; only a task scored by text may lack them, and then needs a text.")
        if self.weighed not in (None, bool(row.probs)):
            raise InputError(f"{where}: probs: some answers of {row.task} have them and some have none.")
        self.weighed = bool(row.probs)

    def finished(self) -> Answers:
        """Return the answers, with texts only where every answer has one.

        All cells are filled: there are as many answers as prompts, and none is given twice.
        """
        texts = tuple(text for text in self.texts if text is not None)
        if len(texts) < len(self.texts):
            return Answers(self.layout, self.probs[None], self.off_options[None])
        return Answers(self.layout, self.probs[None], self.off_options[None], texts, self.parsed)
