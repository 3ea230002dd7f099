"""Bounded and validated reading of an untrusted table: a CSV file or a data set of the hub."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ...errors import InputError, UnavailableError
from ..reading import MOST_ROWS, check_columns, read_csv

_HUB = re.compile(r"[\w.-]+/[\w.-]+")


def read_table(
    source: str, columns: Sequence[str], config: str | None = None, marks: str = ","
) -> list[dict[str, str]]:
    """Read the rows of a CSV file, or of a hub data set's first split, that has at least these columns.

    Args:
        config: which configuration of the data set.
        marks: what may separate a file's columns.

    Raises:
        InputError: not such a table; names line, column and remedy.
        UnavailableError: a hub data set that cannot be downloaded.
    """
    path = Path(source)
    if not path.exists() and _HUB.fullmatch(source):
        return _from_hub(source, columns, config)
    return read_csv(path, columns, marks)


def _from_hub(name: str, columns: Sequence[str], config: str | None) -> list[dict[str, str]]:
    from datasets import load_dataset

    try:
        splits = load_dataset(name, config)
    except Exception as error:  # no network, no such data set, no access: the library raises many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160]
        raise UnavailableError(
            f"{name}: cannot be downloaded from the hub ({reason}). Download the CSV file and give its path."
        ) from None
    table = splits[next(iter(splits))]
    check_columns(table.column_names, columns, name)
    if table.num_rows > MOST_ROWS:
        raise InputError(f"{name}: more than {MOST_ROWS:,} rows; this is not the data set. Give the official one.")
    return [{key: "" if (value := row[key]) is None else str(value) for key in columns} for row in table]
