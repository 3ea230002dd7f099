"""Reading a stranger's table: a CSV file or a data set of the hub, bounded and checked."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError, UnavailableError

MOST_BYTES = 200 << 20
MOST_FIELD = 100_000  # characters of one cell
_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def read_table(source: str, columns: Sequence[str], config: str | None = None) -> list[dict[str, str]]:
    """Rows of a CSV file, or of a hub data set's first split, that has at least these columns.

    Raises:
        InputError: not such a table; names line, column and remedy.
        UnavailableError: a hub data set that cannot be had.
    """
    path = Path(source)
    if not path.exists() and _HUB.fullmatch(source):
        return _from_hub(source, columns, config)
    if path.is_file() and path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: larger than {MOST_BYTES >> 20} MB; this is not the file. Give the official CSV.")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}). Give a CSV file.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    if not text.strip():
        raise InputError(f"{path}: empty. Give the official CSV file.")
    csv.field_size_limit(MOST_FIELD)
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        check_columns(reader.fieldnames or (), columns, str(path))
        rows = []
        for row in reader:
            if None in row or None in row.values():
                raise InputError(
                    f"{path}:{reader.line_num}: another number of cells than the header has. Mend this line."
                )
            rows.append(row)
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error}). Mend this line.") from None
    if not rows:
        raise InputError(f"{path}: a header and no rows. Give the whole file.")
    return rows


def check_columns(found: Sequence[str], columns: Sequence[str], where: str) -> None:
    """Raise InputError where a column is missing; says so where the separator is another one."""
    missing = [name for name in columns if name not in found]
    if not missing:
        return
    other = next((mark for mark in (";", "\t", "|") if len(found) == 1 and mark in found[0]), None)
    if other:
        name = "tabs" if other == "\t" else repr(other)
        raise InputError(f"{where}:1: columns are separated by {name}. Save it with commas.")
    raise InputError(f"{where}:1: no column {missing[0]!r}. It needs {_some(columns)}.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _from_hub(name: str, columns: Sequence[str], config: str | None) -> list[dict[str, str]]:
    from datasets import load_dataset

    try:
        splits = load_dataset(name, config)
    except Exception as error:  # no network, no such data set, no right to it: the library raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UnavailableError(
            f"{name}: cannot be had from the hub ({reason}). Download the CSV file and give its path."
        ) from None
    table = splits[next(iter(splits))]
    check_columns(table.column_names, columns, name)
    return [{key: str(value) for key, value in row.items()} for row in table]
