"""Reading of columns from files of SPSS and Stata, a block of rows at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from .column import Column

MOST_ROWS = 5_000_000
MOST_COLUMNS = 20_000
CELLS = 5_000_000  # read at once: each is a Python object of some 32 bytes until it is in an array
_FALLBACK = "LATIN1"  # of files whose declared encoding is wrong


@dataclass(frozen=True)
class Metadata:
    """What such a file says of its columns: label of each, labels of values, types, and the number of rows."""

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
    encoding = None
    try:
        _, found = _read(source, metadataonly=True)
    except UnicodeDecodeError:
        encoding = _FALLBACK
        _, found = _read(source, metadataonly=True, encoding=encoding)
    rows, columns = found.number_rows, len(found.column_names)
    if rows is None:
        raise InputError(f"{source}: the number of its rows is not recorded. Save it anew.")
    if rows > MOST_ROWS or columns > MOST_COLUMNS:
        raise InputError(f"{source}: {rows:,} rows and {columns:,} columns; this is not the survey's file.")
    if rows == 0:
        raise InputError(f"{source}: columns and no rows. Give the whole file.")
    values = {
        name: {_text(code): str(label) for code, label in labels.items()}
        for name, labels in found.variable_value_labels.items()
    }
    texts = frozenset(name for name, kind in found.readstat_variable_types.items() if kind == "string")
    labels = {name: label or "" for name, label in zip(found.column_names, found.column_labels, strict=True)}
    return Metadata(rows, labels, values, texts, encoding)


def read_values(source: Path, names: Sequence[str], about: Metadata) -> dict[str, Column]:
    """Read some columns, by their names in the file; values that the file declares missing are empty texts.

    Raises:
        InputError: damaged; names the remedy.
    """
    block = max(1, CELLS // len(names))
    parts: dict[str, list[np.ndarray]] = {name: [] for name in names}
    for start in range(0, about.rows, block):
        found, _ = _read(
            source, usecols=list(names), row_offset=start, row_limit=block, output_format="dict",
            disable_datetime_conversion=True, encoding=about.encoding,
        )  # fmt: skip
        for name in names:
            kind = object if name in about.texts else np.float64
            parts[name].append(np.array(found[name], dtype=kind))
    if (read := sum(map(len, parts[names[0]]))) != about.rows:
        raise InputError(f"{source}: ends after {read:,} of {about.rows:,} rows. Download it again.")
    return {name: _column(np.concatenate(parts.pop(name)), about.values.get(name, {})) for name in names}


def _read(source: Path, **how: Any) -> Any:
    import pyreadstat

    with source.open("rb") as file:
        spss = file.read(3) == b"$FL"
    try:
        return (pyreadstat.read_sav if spss else pyreadstat.read_dta)(str(source), **how)
    except UnicodeDecodeError:
        if how.get("encoding") is None and how.get("metadataonly"):
            raise
        raise InputError(f"{source}: texts in an unknown encoding. Save it in Unicode.") from None
    except (pyreadstat.ReadstatError, pyreadstat.PyreadstatError, ValueError, OverflowError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        kind = "an SPSS" if spss else "a Stata"
        raise InputError(f"{source}: {kind} file that cannot be read ({reason}). Download it again.") from None


def _column(values: np.ndarray, labels: dict[str, str]) -> Column:
    from pandas import factorize

    place, distinct = factorize(values)
    texts = [_text(value) for value in distinct]
    place[place < 0] = len(texts)
    return Column((*texts, ""), place.astype(np.int32), labels)


def _text(value: Any) -> str:
    """Write a number without needless decimals, so that codes are compared as texts."""
    if isinstance(value, str):
        return value.strip()
    return str(int(value)) if float(value).is_integer() else repr(float(value))
