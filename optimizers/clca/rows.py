"""Files with one JSON object per line, each validated when read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from ...errors import InputError
from ...harness.util.atomic_io import write_text
from ...tasks.spec import first_problem

Row = TypeVar("Row", bound=BaseModel)


def write_rows(path: Path, rows: Sequence[BaseModel]) -> None:
    """Write one JSON object per line, atomically."""
    write_text(path, "".join(row.model_dump_json() + "\n" for row in rows))


def read_rows(path: Path, kind: type[Row]) -> list[Row]:
    """Read the rows of ``write_rows``.

    Raises:
        InputError: a missing or damaged file; names the line.
    """
    adapter, found = TypeAdapter(kind), []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}. Run the stage before again.") from None
    for number, line in enumerate(lines, start=1):
        try:
            found.append(adapter.validate_json(line))
        except ValidationError as error:
            raise InputError(f"{path}:{number}: {first_problem(error)}. Run its stage again with `fresh`.") from None
    return found
