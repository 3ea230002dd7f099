"""Task specs: lm-eval YAML files with a ``metadata:`` block for the fields that lm-eval lacks.

``load_spec`` reads and checks a spec without executing anything: ``!function`` tags stay strings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import InputError
from .imported import imported
from .items import Items, Paraphrase, Question, Questions, Survey
from .reading import line_of, read_bytes, read_yaml
from .rows import MOST_SHARES, QUESTIONS, question_rows
from .schema import ALONE, Metadata, Scoring
from .templated_items import ClozeQuestions, TemplatedSurvey

OWN_EDITION = "own"  # of tasks whose answers need no reference, or have it in their items
EXTENDED = "extended"  # edition of the reference file and the countries in ``STEM_extended.csv`` beside it
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")  # it becomes part of folder names
OUTPUT_TYPES = ("multiple_choice", "generate_until")

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class TaskSpec:
    """A validated spec: its metadata, its items and the folder of its data."""

    name: str
    path: Path
    output_type: str
    metadata: Metadata
    items: Items
    metrics: tuple[str, ...]
    most_tokens: int
    sources: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        return self.path.parent

    @cached_property
    def hash(self) -> str:
        """Compute the sha256 of the spec, the files it includes and its items."""
        return _digest(self.sources)

    @cached_property
    def reference_hash(self) -> str | None:
        """Compute the sha256 of the default edition's file, which answers are compared with; None without one."""
        files = self.edition_files(self.default_edition)
        return _digest(files) if files else None

    def compared_with(self, edition: str | None) -> str | None:
        """Compute the sha256 of an edition's file, distributed or imported; None without a reference or such a file."""
        reference = self.metadata.reference
        if reference is None or edition is None or (reference.file and edition in reference.editions):
            return self.reference_hash
        files = self.edition_files(edition)
        return _digest(files) if files else None

    def edition_files(self, edition: str) -> tuple[Path, ...]:
        """Return the files of an edition, none if there is no such edition.

        They are distributed, imported, or the imported questions with shares beside them.
        """
        reference = self.metadata.reference
        if reference is None:
            return ()
        known = edition in reference.editions
        if known and reference.file:
            return (self.folder / reference.file,)
        if reference.file and edition == EXTENDED and self.extension:
            return (self.folder / reference.file, self.extension)
        questions = imported(self.folder.name, ".jsonl").get(self.metadata.imported or "") if known else None
        file = (imported(self.folder.name) | imported(self.folder.name, ".yaml")).get(edition, questions)
        return (file,) if file else ()

    @property
    def extension(self) -> Path | None:
        """Return the file that adds countries to the reference file, None without one.

        It belongs to the edition ``extended`` only, so that new countries change no hash, baseline or rank of the
        others.
        """
        reference = self.metadata.reference
        if reference is None or reference.file is None or EXTENDED in reference.editions:
            return None
        path = self.folder / reference.file
        path = path.with_name(f"{path.stem}_{EXTENDED}.csv")
        return path if path.is_file() else None

    @property
    def editions(self) -> tuple[str, ...]:
        """Return the distributed editions of the reference."""
        reference = self.metadata.reference
        return (*(reference.editions if reference else ()), *((EXTENDED,) if self.extension else ()))

    @property
    def paraphrases(self) -> tuple[str, ...]:
        """Return all paraphrases of the protocol, those of ``fit`` first."""
        parts = self.metadata.splits.named.values()
        return tuple(dict.fromkeys(name for part in parts for name in part.paraphrases))

    @property
    def default_edition(self) -> str:
        """Return the edition that is used if none is named; ``own`` for a task without a reference."""
        return self.metadata.reference.default_edition if self.metadata.reference else OWN_EDITION

    @property
    def default_scoring(self) -> Scoring:
        return self.metadata.scorings[0]

    @property
    def cloze(self) -> bool:
        """Return whether the options are read by the likelihood of their texts."""
        return "cloze" in self.metadata.scorings

    @property
    def verbalized(self) -> bool:
        """Return whether shares of the options are read from generated text."""
        return "verbalized" in self.metadata.scorings


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + read_bytes(path, MOST_SHARES) + b"\0")
    return digest.hexdigest()


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a pydantic error as ``field: message``, for one-line errors."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "file"
    field = ascii(field)[1:-1][:100]  # it may be untrusted text
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "string_type" and isinstance(problem["input"], bool):
        more = f" (YAML reads words such as NO and ON as {problem['input']!s}; put quotes around them){more}"
    return f"{field}: {problem['msg'].removeprefix('Value error, ')}{more}"


def parse(model: type[Model], data: Any, path: Path, within: tuple[str, ...] = ()) -> Model:
    """Validate data read from a file against a schema.

    Args:
        within: the fields of the file that contain the data.

    Raises:
        InputError: names the file, the line of a YAML file, the field and the problem.
    """
    try:
        return model.model_validate(data)
    except ValidationError as error:
        field = (*within, *error.errors()[0]["loc"])
        where = f"{path}:{line_of(path, field)}" if path.suffix in (".yaml", ".yml") else path
        above = "".join(f"{part}." for part in within)
        raise InputError(f"{where}: {above}{first_problem(error)}. Correct this field.") from None


def _with_includes(path: Path, seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """Merge a spec over the one file it includes, metadata field by field, and return it with the files that were read.

    lm-eval replaces metadata as a whole; the fields that its runs need have defaults.
    """
    if path in seen:
        raise InputError(f"{path}: includes itself. Remove the include.")
    data = read_yaml(path)
    if (include := data.pop("include", None)) is None:
        return data, (path,)
    base, files = _with_includes((path.parent / str(include)).resolve(), (*seen, path))
    own = data.get("metadata", {})
    if not isinstance(own, dict):
        raise InputError(f"{path}: metadata: expected a mapping of fields.")
    included = base.get("metadata", {})
    if not isinstance(included, dict):
        raise InputError(f"{files[0]}: metadata: expected a mapping of fields.")
    metadata = included | own
    return base | data | {"metadata": metadata}, (path, *files)


def load_spec(path: Path) -> TaskSpec:
    """Read a spec and its items.

    Raises:
        InputError: a file is missing or malformed; the message names file, field and remedy.
    """
    data, files = _with_includes(path.resolve())
    for field, kind in (("task", str), ("output_type", str), ("metadata", dict)):
        if not isinstance(data.get(field), kind):
            raise InputError(f"{path}: {field}: missing, or not a {kind.__name__}. Every spec needs it.")
    if not _NAME.fullmatch(data["task"]):
        raise InputError(
            f"{path}: task: {data['task'][:60]!r} is no name; letters, digits, dots, dashes and underscores."
        )
    if data["output_type"] not in OUTPUT_TYPES:
        raise InputError(f"{path}: output_type: {data['output_type']!r} is not one of {', '.join(OUTPUT_TYPES)}.")
    metadata = parse(Metadata, data["metadata"], path, ("metadata",))
    item_path = path.resolve().parent / metadata.items
    questions = metadata.imported if item_path.suffix in QUESTIONS else None
    if questions is not None:
        item_path = _imported_file(questions, ".jsonl", item_path.parent.name, path)
    items = _of_dimensions(_read_items(item_path, metadata, path), metadata, path)
    own: tuple[Path, ...] = ()
    if metadata.imported is not None and questions is None:
        items, own = _with_imported(items, metadata.imported, path)
    _check_splits(items, metadata, path)
    metrics = data.get("metric_list", [])
    if not isinstance(metrics, list) or not all(isinstance(row, dict) and "metric" in row for row in metrics):
        raise InputError(f"{path}: metric_list: expected a list of mappings with a field 'metric'.")
    names = tuple(str(row["metric"]) for row in metrics)
    most = _most_tokens(data, path)
    people = (item_path.parent / metadata.persona_file,) if metadata.persona_file and questions is None else ()
    files = (*files, item_path, *own, *people)
    return TaskSpec(data["task"], path.resolve(), data["output_type"], metadata, items, names, most, files)


def _most_tokens(data: dict[str, Any], path: Path) -> int:
    """Return the largest number of tokens of a text answer, lm-eval's ``max_gen_toks``."""
    options = data.get("generation_kwargs", {})
    most = options.get("max_gen_toks", 8) if isinstance(options, dict) else None
    if not isinstance(most, int) or not 1 <= most <= 4096:
        raise InputError(f"{path}: generation_kwargs.max_gen_toks: expected a whole number from 1 to 4096.")
    return most


def _read_items(path: Path, metadata: Metadata, spec: Path) -> Items:
    """Read a survey from a YAML file, or questions from JSON lines, CSV or Parquet."""
    if path.suffix not in QUESTIONS:
        return _read_survey(path, metadata, spec)
    if not metadata.templates:
        raise InputError(
            f"{spec}: metadata.templates: missing. Questions need one, such as '{{question}} {{options}}'."
        )
    questions = []
    for number, row in question_rows(path):
        try:
            questions.append(Question.model_validate(row))
        except ValidationError as error:
            raise InputError(f"{path}:{number}: {first_problem(error)}. Correct this field.") from None
    language = metadata.languages[0] if metadata.languages else "en"
    kind = ClozeQuestions if "cloze" in metadata.scorings else Questions
    return parse(kind, {"language": language, "templates": metadata.templates, "questions": questions}, path)


def _of_dimensions(items: Items, metadata: Metadata, path: Path) -> Items:
    """Return the items of the dimensions that a spec names; all items where it names none."""
    if not metadata.dimensions:
        return items
    kept = tuple(item for item in items.ids if items.dimension(item) in metadata.dimensions)
    if missing := set(metadata.dimensions) - {items.dimension(item) for item in kept}:
        raise InputError(f"{path}: metadata.dimensions: {metadata.items} has no item of {sorted(missing)[0]!r}.")
    return items.only(kept, items.presentations)


def _read_survey(path: Path, metadata: Metadata, spec: Path) -> Survey:
    """Read a survey, with the one template that its spec gives for scorings with prompts of their own."""
    listed = {scoring: scoring == "verbalized" for scoring in ALONE}.get(metadata.scorings[0])
    templates, data = tuple(metadata.templates.values()), read_yaml(path)
    if listed is None and not templates:
        return parse(Survey, data, path)
    if listed is None or len(templates) != 1 or ("{options}" in templates[0]) != listed:
        raise InputError(
            f"{spec}: metadata.templates: a survey has one for cloze, such as '{{question}}', or one for verbalized, "
            "with {options}, and none for other scorings."
        )
    return parse(TemplatedSurvey, data | {"template": templates[0]}, path)


class NotImportedError(InputError):
    """A task whose data must be imported by the user and have not been."""


def _with_imported(items: Items, name: str, path: Path) -> tuple[Items, tuple[Path, ...]]:
    """Return a survey with the set of paraphrases that the user imported, and the file it came from."""
    assert isinstance(items, Survey), "as read from any file but one of questions"
    file = _imported_file(name, ".yaml", path.resolve().parent.name, path)
    paraphrase = parse(Paraphrase, read_yaml(file), file)
    whole = items.model_dump(by_alias=True) | {"paraphrases": items.paraphrases | {name: paraphrase}}
    return parse(type(items), whole, file), (file,)


def _imported_file(name: str, suffix: str, family: str, path: Path) -> Path:
    file = imported(family, suffix).get(name)
    if file is None:
        raise NotImportedError(f"{path.name}: its data are not imported here. `culteval data import --help` shows how.")
    return file


def _check_splits(items: Items, metadata: Metadata, path: Path) -> None:
    for name, part in metadata.splits.named.items():
        for paraphrase in part.paraphrases:
            if paraphrase not in items.presentations:
                raise InputError(
                    f"{path}: metadata.splits: no paraphrase {paraphrase!r} in {metadata.items}. Add or drop it."
                )
        tagged = [item for item in items.ids if items.tag(item) == "heldout"]
        if name == "fit" and part.items == "all" and tagged:
            raise InputError(f"{path}: metadata.splits.fit.items: {tagged[0]!r} is tagged heldout. Write `items: fit`.")
        if part.items != "all" and not any(items.tag(item) == part.items for item in items.ids):
            raise InputError(f"{path}: metadata.splits.{name}: no item is tagged {part.items!r}. Add 'split' to items.")
