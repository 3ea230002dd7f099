"""Task specs: lm-eval YAML files whose ``metadata:`` says what lm-eval has no field for.

``load_spec`` reads and checks a spec without executing anything: ``!function`` tags stay strings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from ..errors import InputError
from .schema import ItemFile, Metadata, Readout

OUTPUT_TYPES = ("multiple_choice", "generate_until")

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class TaskSpec:
    """A checked spec: its metadata, its items and the folder its data lie in."""

    name: str
    path: Path
    output_type: str
    metadata: Metadata
    items: ItemFile
    sources: tuple[Path, ...]

    @property
    def folder(self) -> Path:
        return self.path.parent

    @cached_property
    def hash(self) -> str:
        """sha256 over the spec, what it includes and its items: what was asked."""
        return _digest(self.sources)

    @cached_property
    def reference_hash(self) -> str:
        """sha256 of the reference file: what answers are compared with."""
        return _digest([self.folder / self.metadata.reference.file])

    @property
    def wordings(self) -> tuple[str, ...]:
        """All wordings of the protocol, those of ``fit`` first."""
        return self.metadata.splits.fit.wordings + self.metadata.splits.heldout.wordings

    @property
    def default_readout(self) -> Readout:
        return self.metadata.readouts[0]


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


class _Loader(yaml.SafeLoader):
    """SafeLoader that reads lm-eval's ``!function`` tag as a plain string."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping as plain data.

    Raises:
        InputError: the file is missing, not UTF-8, not YAML or not a mapping.
    """
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text. Save it as UTF-8 without a byte-order mark.") from None
    except RecursionError:
        raise InputError(f"{path}: nested too deeply.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise InputError(f"{where}: not valid YAML ({getattr(error, 'problem', None) or error}).") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of fields at the top level.")
    return data


def first_problem(error: ValidationError) -> str:
    """The first problem of a pydantic error as ``field: message``, for one-line errors."""
    problem = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in problem["loc"]) or "file"
    field = ascii(field)[1:-1][:100]  # it may be a stranger's text
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{field}: {problem['msg'].removeprefix('Value error, ')}{more}"


def parse(model: type[Model], data: Any, path: Path) -> Model:
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}. Mend this field.") from None


def _with_includes(path: Path, seen: tuple[Path, ...] = ()) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """A spec merged over the one file it includes, metadata field by field, and the files it came from.

    lm-eval replaces metadata as a whole; what its runs need of them has defaults.
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
    metadata = base.get("metadata", {}) | own
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
    if data["output_type"] not in OUTPUT_TYPES:
        raise InputError(f"{path}: output_type: {data['output_type']!r} is not one of {', '.join(OUTPUT_TYPES)}.")
    metadata = parse(Metadata, data["metadata"], path)
    item_path = path.resolve().parent / metadata.items
    items = parse(ItemFile, read_yaml(item_path), item_path)
    for name in (*metadata.splits.fit.wordings, *metadata.splits.heldout.wordings):
        if name not in items.wordings:
            raise InputError(f"{path}: metadata.splits: wording {name!r} is not in {item_path.name}. Add or drop it.")
    return TaskSpec(data["task"], path.resolve(), data["output_type"], metadata, items, (*files, item_path))
