"""``sweep.json``: what became of every run of a sweep. Read back by the next call, as a stranger's file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, TypeAdapter, ValidationError

from ...errors import InputError
from ...tasks.reading import read_unmarked
from ...tasks.schema import Strict
from ...tasks.spec import first_problem

STATUS = "sweep.json"
MOST_STATUS = 64 << 20  # bytes
MOST_REASONS = 20  # of a run; the latest are kept
State = Literal["waiting", "running", "done", "failed", "skipped"]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]


def _finite(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    json.dumps(value, allow_nan=False)  # ValueError: NaN or Infinity, which could not be written again
    return value


class Row(Strict):
    """A run of a sweep. ``attempts``, ``seconds`` and ``reasons`` are those of all calls; ``varied`` are the settings
    that its aligner's ``grid`` gave it."""

    run: str
    tasks: tuple[str, ...]
    model: str
    aligner: str
    country: str
    seed: Count
    budget: Count
    varied: Annotated[dict[str, JsonValue], AfterValidator(_finite)] = Field(default_factory=dict)
    state: State
    attempts: Count
    seconds: float = Field(ge=0, lt=1 << 53)
    reasons: tuple[str, ...]
    cached: tuple[str, ...] = ()


_ROWS = TypeAdapter(list[Row])


def read_rows(root: Path) -> dict[str, Row]:
    """The runs of the sweeps into a folder, by name; none where there was no sweep.

    Raises:
        InputError: the file is damaged, or another program's.
    """
    path = root / STATUS
    if not path.exists():
        return {}
    try:
        return {row.run: row for row in _ROWS.validate_json(read_unmarked(path, MOST_STATUS))}
    except ValidationError as error:
        remedy = "Remove the file: runs stay, what they took is forgotten."
        raise InputError(f"{path}: {first_problem(error)}. {remedy}") from None
