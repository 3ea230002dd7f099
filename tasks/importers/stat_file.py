"""Reading of columns from files of SPSS and Stata, by a process of its own (``stat_worker``)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from ...errors import InputError
from .column import Column

MOST_ROWS = 5_000_000
MOST_COLUMNS = 20_000
MOST_ANSWER = 1 << 28  # bytes of a line of the other process
_WORKER = Path(__file__).with_name("stat_worker.py")


@dataclass(frozen=True)
class Metadata:
    """What such a file says of its columns: label of each, labels of values, which are texts, number of rows."""

    rows: int
    labels: dict[str, str]
    values: dict[str, dict[str, str]]
    texts: frozenset[str]
    encoding: str | None


def read_metadata(source: Path) -> Metadata:
    """Read the metadata of a file of SPSS or Stata, and no row.

    Raises:
        InputError: damaged, or too large.
    """
    found, _ = _asked(source, {"names": None}, 0)
    rows, names = found["rows"], found["names"]
    if rows is None:
        raise InputError(f"{source}: the number of its rows is not recorded. Save it anew.")
    if rows > MOST_ROWS or len(names) > MOST_COLUMNS:
        raise InputError(f"{source}: {rows:,} rows and {len(names):,} columns; this is not the survey's file.")
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{source}: a column's name cannot be read. Download it again.")
    if rows == 0:
        raise InputError(f"{source}: columns and no rows. Give the whole file.")
    labels = dict(zip(names, found["labels"], strict=True))
    return Metadata(rows, labels, found["values"], frozenset(found["texts"]), found["encoding"])


def read_values(source: Path, names: Sequence[str], about: Metadata) -> dict[str, Column]:
    """Read some columns, by their names in the file; values that the file declares missing are empty texts.

    Raises:
        InputError: damaged; names the remedy.
    """
    texts = sorted(about.texts & set(names))
    request = {"names": list(names), "rows": about.rows, "texts": texts, "encoding": about.encoding}
    found, arrays = _asked(source, request, about.rows)
    if found["rows"] != about.rows:
        raise InputError(f"{source}: ends after {found['rows']:,} of {about.rows:,} rows. Download it again.")
    return {
        name: Column(tuple(distinct), place, about.values.get(name, {}))
        for name, distinct, place in zip(names, found["distinct"], arrays, strict=True)
    }


def _asked(source: Path, request: dict[str, Any], rows: int) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Ask the other process; return its answer, and an array of places (rows,) for each column asked for."""
    with source.open("rb") as file:
        kind = "an SPSS" if file.read(3) == b"$FL" else "a Stata"
    command = [sys.executable, "-P", str(_WORKER), json.dumps({"path": str(source)} | request)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline(MOST_ANSWER)
        found = json.loads(line) if line.endswith(b"\n") else {"error": "its reader stopped"}
        wanted = request["names"] or () if "error" not in found and found["rows"] == rows else ()
        arrays = [_array(process.stdout, rows) for _ in wanted]
    if process.returncode and "error" not in found:
        found = {"error": "its reader stopped"}
    if "error" in found:
        raise InputError(f"{source}: {kind} file that cannot be read ({found['error']}). Download it again.")
    return found, arrays


def _array(stream: IO[bytes], rows: int) -> np.ndarray:
    data = stream.read(4 * rows)
    return np.frombuffer(data if len(data) == 4 * rows else bytes(4 * rows), dtype=np.int32)
