"""Tables of questions or shares, one object per row: JSON lines, CSV or Parquet, by the file name's suffix."""

from __future__ import annotations

import ast
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from .items import Question
from .reading import MOST_CELL, MOST_ROWS, check_columns, iter_csv, read_bytes, read_text

MOST_QUESTIONS = 64 << 20  # bytes of a file of questions, each country's shares of them included
MOST_SHARES = 256 << 20  # bytes of a file of shares
TABLES = (".csv", ".parquet")
QUESTIONS = (".jsonl", *TABLES)  # suffixes of a file of questions
SELECTIONS = "selections"  # field of a question: country -> the share of each option

Check = Callable[[Sequence[str], str], None]
_MOST_INFLATED = 512 << 20  # bytes of a Parquet file after decompression


def read_rows(path: Path, check: Check, most: int, most_rows: int = MOST_ROWS) -> Iterator[tuple[int, dict[str, Any]]]:
    """Iterate over line number (Parquet: row number) and fields of each row.

    Args:
        check: called with the columns of a CSV or Parquet file and the file's name; raises where one is missing.
        most: bytes of the file.

    Raises:
        InputError: not such a table, or out of bounds; names line and remedy.
    """
    if path.suffix == ".jsonl":
        yield from _json_lines(path, most)
    elif path.suffix == ".parquet":
        yield from _parquet(path, check, most, most_rows)
    else:
        yield from iter_csv(path, check, most, most_rows)


def _json_lines(path: Path, most: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_text(path, most).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # includes a number of thousands of digits
            raise InputError(f"{path}:{number}: not JSON ({error}). Write one object a line.") from None
        if not isinstance(row, dict):
            raise InputError(f"{path}:{number}: not a JSON object. Write one object a line.")
        yield number, row


def _parquet(path: Path, check: Check, most: int, most_rows: int) -> Iterator[tuple[int, dict[str, Any]]]:
    from pyarrow import ArrowException, BufferReader, parquet

    data = read_bytes(path, most)
    try:
        file = parquet.ParquetFile(BufferReader(data))
        names, meta = file.schema_arrow.names, file.metadata
        # Column metadata is not read: on a damaged file the library terminates the process there.
        inflated = sum(meta.row_group(number).total_byte_size for number in range(meta.num_row_groups))
        if meta.num_rows > most_rows or inflated > _MOST_INFLATED:
            size = f"{meta.num_rows:,} rows in {inflated:,} bytes"
            raise InputError(f"{path}: {size}; more than can be read. Give a smaller file.")
        check(names, str(path))
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                if any(isinstance(cell, str) and len(cell) > MOST_CELL for cell in row.values()):
                    raise InputError(f"{path}:{number}: a cell of more than {MOST_CELL:,} characters. Correct it.")
                yield number, row
    except (ArrowException, OSError, UnicodeDecodeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise InputError(f"{path}: not a Parquet file that can be read ({reason}). Write it again.") from None


def question_id(row: dict[str, Any], number: int) -> str:
    """Return the id of a question; q and its number in the file if it has none."""
    return str(row.get("id") or f"q{number}")


def question_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Iterate over line number and fields of each question of a file, as ``Question`` takes them.

    Other columns of a CSV or Parquet file are ignored; its lists are JSON or Python literals. Shares beside the
    questions are left to the reader of the reference.

    Raises:
        InputError: as ``read_rows``.
    """
    table = path.suffix in TABLES
    for number, (line, row) in enumerate(read_rows(path, _check_questions, MOST_QUESTIONS), start=1):
        if table:
            row = {name: value for name, value in row.items() if value is not None and value != ""}
        if table or SELECTIONS in row:
            row |= {"id": question_id(row, number)}
        if table:
            row = {name: row[name] for name in row if name in Question.model_fields}
        row.pop(SELECTIONS, None)
        for name in ("options", "answers"):
            if isinstance(given := row.get(name), str) and table:
                row[name] = literal(given, f"{path}:{line}: {name}")
        if isinstance(options := row.get("options"), list | tuple):
            row["options"] = [spoken(option) for option in options]
        yield line, row


def spoken(option: Any) -> Any:
    """Write an option that is a number in its usual form."""
    if type(option) is float and option.is_integer():
        return str(int(option))
    return str(option) if type(option) in (int, float) else option


def _check_questions(found: Sequence[str], where: str) -> None:
    check_columns(found, ("question", "options"), where)


def literal(text: str, where: str) -> Any:
    """Parse a list or mapping from JSON or a Python literal (``defaultdict(...)`` too); nothing is executed.

    Raises:
        InputError: neither.
    """
    bare = text.strip()
    if bare.startswith("defaultdict("):
        bare = bare[bare.find("{") : bare.rfind("}") + 1]
    for read in (json.loads, ast.literal_eval):
        try:
            with warnings.catch_warnings(action="ignore"):  # about literals that a later Python will reject
                if len(bare) <= MOST_CELL:
                    return read(bare)
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # TypeError: a set of lists
            continue
    raise InputError(f"{where}: {text[:40]!r} is no list or mapping, as JSON or as Python prints it. Correct it.")
