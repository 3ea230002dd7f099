"""The file ``sweep.json``: the state of every run of a sweep. The next call reads it as untrusted input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, JsonValue, TypeAdapter, ValidationError

from ...errors import InputError
from ...tasks.reading import read_unmarked
from ...tasks.schema import Strict
from ...tasks.spec import first_problem
from ..submissions.manifest import Seed, Surveys

STATUS = "sweep.json"
MOST_STATUS = 64 << 20  # bytes
MOST_REASONS = 20  # errors kept of a run, the latest
State = Literal["waiting", "running", "done", "failed", "skipped"]
Count = Annotated[int, Field(ge=0, lt=1 << 53)]


def _finite(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    json.dumps(value, allow_nan=False)  # ValueError for NaN or Infinity, which could not be written again
    return value


class Row(Strict):
    """The state of one run of a sweep.

    ``attempts``, ``seconds`` and ``reasons`` are those of all calls; ``varied`` are the settings chosen from the
    aligner's ``grid``.
    """

    run: str
    tasks: tuple[str, ...]
    model: str
    aligner: str
    country: str
    seed: Seed
    budget: Surveys
    varied: Annotated[dict[str, JsonValue], AfterValidator(_finite)] = Field(default_factory=dict)
    state: State
    attempts: Count
    seconds: float = Field(ge=0, lt=1 << 53)
    reasons: tuple[str, ...]
    cached: tuple[str, ...] = ()


_ROWS = TypeAdapter(list[Row])


def read_rows(root: Path) -> dict[str, Row]:
    """Read the state of the runs of all sweeps in a folder, by name; return none where there was no sweep.

    Raises:
        InputError: a damaged file, or one of another program.
    """
    path = root / STATUS
    if not path.exists():
        return {}
    try:
        return {row.run: row for row in _ROWS.validate_json(read_unmarked(path, MOST_STATUS))}
    except ValidationError as error:
        remedy = "Remove the file: runs stay, their attempts and times are lost."
        raise InputError(f"{path}: {first_problem(error)}. {remedy}") from None
