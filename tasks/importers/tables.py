"""Bounded and validated reading of an untrusted table: a CSV, JSON or Parquet file, or a data set of the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError, UnavailableError
from ..reading import MOST_ROWS, MOST_TABLE, check_columns, read_csv, read_text
from ..rows import read_rows

MARKS = ",;\t|"
_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def read_table(
    source: str,
    columns: Sequence[str],
    config: str | None = None,
    marks: str = ",",
    *,
    hub_file: str | None = None,
    most: int = MOST_TABLE,
) -> list[dict[str, str]]:
    """Read the rows of a file, or of a hub data set's first split, that has at least these columns; cells as text.

    Args:
        config: which configuration of the data set.
        marks: what may separate a CSV file's columns.
        hub_file: which file of the data set, if its configuration mixes tables.
        most: bytes of the file.

    Raises:
        InputError: not such a table; names line, column and remedy.
        UnavailableError: a hub data set that cannot be downloaded.
    """
    path = Path(source)
    if is_hub_id(source):
        return _from_hub(source, columns, config, hub_file)
    if path.suffix in (".jsonl", ".parquet"):
        return _texts(source, (row for _, row in read_rows(path, lambda found, where: None, most)), columns)
    if path.suffix == ".json":
        return _texts(source, _json_array(path, most), columns)
    return read_csv(path, columns, marks, most)


def is_hub_id(source: str) -> bool:
    """Return whether a source is the id of a data set, ``owner/name``, rather than an existing file."""
    return not Path(source).exists() and _HUB.fullmatch(source) is not None


def _json_array(path: Path, most: int) -> list[dict[str, Any]]:
    try:
        rows = json.loads(read_text(path, most))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON ({error}). Give the whole file.") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: not a JSON list of objects. Give the official file.")
    return rows


def _from_hub(name: str, columns: Sequence[str], config: str | None, file: str | None) -> list[dict[str, str]]:
    from datasets import load_dataset

    try:
        splits = load_dataset(name, config) if file is None else load_dataset(name, data_files=file)
    except Exception as error:  # no network, no such data set, no access: the library raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UnavailableError(
            f"{name}: cannot be downloaded from the hub ({reason}). Download its file and give the path."
        ) from None
    table = splits[next(iter(splits))]
    check_columns(table.column_names, columns, name)
    return _texts(name, table, columns)


def _texts(where: str, rows: Iterable[dict[str, Any]], columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows with their cells as text; an absent or empty cell is an empty text."""
    found: list[dict[str, str]] = []
    for number, row in enumerate(rows, start=1):
        if number > MOST_ROWS:
            raise InputError(f"{where}: more than {MOST_ROWS:,} rows; this is not the data set. Give the official one.")
        if not row.keys() >= set(columns):
            check_columns(list(map(str, row)), columns, f"{where} (row {number})")
        found.append({str(key): "" if value is None else str(value) for key, value in row.items()})
    if not found:
        raise InputError(f"{where}: no rows. Give the whole file.")
    return found
