"""Bounded reading of untrusted files: text, YAML, tables.

Sizes are bounded in two ways: the bytes that are read, and the values that they expand to (YAML's aliases and merge
keys can expand a kilobyte to gigabytes).
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, cast

import yaml

from ..errors import InputError
from .file_kinds import HEAD, encoding_of, foreign

MOST_BYTES = 20 << 20  # of an item file
MOST_YAML, MOST_NODES, MOST_DEPTH, MOST_NUMBER = 1 << 20, 50_000, 50, 100
MOST_TABLE, MOST_ROWS, MOST_CELL = 32 << 20, 500_000, 100_000
ZSTD = ".zst"  # the suffix of a file that zstd compressed
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # control characters can manipulate a terminal


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read the bytes of a regular file.

    Raises:
        InputError: missing, unreadable, not a regular file, or larger than ``most`` bytes.
    """
    try:
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise InputError(f"{path}: cannot be read (not a regular file).")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if len(data) > most:
        raise InputError(f"{path}: larger than {_size(most)}; such a file is small.")
    return data


def read_unmarked(path: Path, most: int = MOST_BYTES) -> bytes:
    """Read a file as ``read_bytes``, without a byte-order mark before the text; JSON readers accept none."""
    return unmarked(read_bytes(path, most))


def unmarked(data: bytes) -> bytes:
    """Remove the byte-order mark that some programs write before UTF-8 text."""
    return data.removeprefix(codecs.BOM_UTF8)


def _size(count: int) -> str:
    return f"{count >> 20} MB" if count >= 1 << 20 else f"{count} bytes"


def read_lines(path: Path, most: int, *, whole: bool = False) -> Iterator[bytes]:
    """Iterate over the lines of a regular file, plain or ``.zst``, holding one line at a time.

    A byte-order mark before the first line is removed; ``whole`` keeps it, for callers that hash the content.

    Raises:
        InputError: missing, unreadable, not a regular file, not zstd although its name says so, or a line longer than
    """
    try:
        if path.exists() and not path.is_file():
            raise InputError(f"{path}: cannot be read (not a regular file).")
        with _open(path) as file:
            for number, line in enumerate(iter(lambda: file.readline(most + 1), b""), start=1):
                if len(line) > most:
                    raise InputError(f"{path}:{number}: longer than {most} bytes.")
                yield line if whole or number > 1 else unmarked(line)
    except OSError as error:  # pyarrow's errors have no strerror
        raise InputError(f"{path}: cannot be read ({error.strerror or error}).") from None


def _open(path: Path) -> BinaryIO:
    """Open a file's bytes, decompressed while reading if its name ends in ``.zst``."""
    if path.suffix != ZSTD:
        return path.open("rb")
    import pyarrow as pa

    return cast(BinaryIO, io.BufferedReader(pa.input_stream(str(path), compression="zstd")))


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Read a text file of bounded size, without a byte-order mark.

    Raises:
        InputError: missing, too large, empty, or not text.
    """
    data = read_bytes(path, most)
    if not data.strip():
        raise InputError(f"{path}: empty. Write its fields, or restore the file.")
    return decoded(data, path)


def decoded(data: bytes, path: Path) -> str:
    """Decode UTF-8 text, with or without a byte-order mark, or the encoding that such a mark names (UTF-16, UTF-32).

    Raises:
        InputError: neither; names the kind of file if its first bytes show it, else the line.
    """
    if kind := foreign(data[:HEAD]):
        raise InputError(f"{path}: this is {kind}")
    try:
        return data.decode(encoding_of(data[:HEAD]) or "utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}:{line}: not UTF-8 text. Save it as UTF-8.") from None


class _Loader(yaml.SafeLoader):
    """A SafeLoader within bounds, which reads lm-eval's ``!function`` tag as a plain string.

    An alias counts with all the values it expands to, so that the result is never larger than the count.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        """Compose the next node and count it with all its values."""
        mark, alias, before = self.peek_event().start_mark, self.check_event(yaml.AliasEvent), self._count
        self._depth, self._count = self._depth + 1, self._count + 1
        if self._depth > MOST_DEPTH:
            raise _refused("nested too deeply", mark)
        node = super().compose_node(parent, index)
        if alias:
            if node not in self._sizes:
                raise _refused("an alias inside the value that it refers to", mark)
            self._count += self._sizes[node]
        if self._count > MOST_NODES:
            problem = f"more than {MOST_NODES} values, with aliases expanded"
            raise _refused(f"{problem}; put so many questions into a file of JSON lines, CSV or Parquet", mark)
        self._sizes.setdefault(node, self._count - before)
        self._depth -= 1
        return node

    def compose_scalar_node(self, anchor: str | None) -> yaml.ScalarNode:
        """Compose a scalar without control characters or very long numbers (those in base 60 take quadratic time)."""
        node = super().compose_scalar_node(anchor)
        if _CONTROL.search(node.value):
            raise _refused("a control character in a text", node.start_mark)
        if len(node.value) > MOST_NUMBER and node.tag not in ("tag:yaml.org,2002:str", "!function"):
            raise _refused(f"a number or date of {len(node.value)} characters", node.start_mark)
        return node


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


def _refused(problem: str, mark: yaml.Mark) -> yaml.composer.ComposerError:
    return yaml.composer.ComposerError(None, None, problem, mark)


def parse_yaml(text: str, where: str) -> Any:
    """Parse YAML within bounds to plain data; nothing is executed.

    Args:
        where: the text's name in messages, such as its path.

    Raises:
        InputError: not YAML, or out of bounds; names the line.
    """
    if len(text) > MOST_YAML:
        raise InputError(f"{where}: larger than {_size(MOST_YAML)} of YAML; such a file is small.")
    try:
        return _Loader(text).get_single_data()
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise InputError(f"{place}: not valid YAML ({problem or str(error).splitlines()[0]}).") from None
    except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:  # of its constructors
        raise InputError(
            f"{where}: not valid YAML (an impossible date or number: {error}). Put quotes around it."
        ) from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping as plain data.

    Raises:
        InputError: the file is missing, not UTF-8, not YAML, out of bounds or not a mapping.
    """
    data = parse_yaml(read_text(path, MOST_YAML), str(path))
    if not isinstance(data, dict):
        raise InputError(f"{path}: expected a mapping of fields at the top level.")
    return data


def line_of(path: Path, field: Sequence[str | int]) -> int:
    """Find the line of a field in a YAML file, or of the innermost existing field around it; 1 if there is none.

    Raises:
        InputError: as ``read_yaml``.
    """
    node = _Loader(read_text(path, MOST_YAML)).get_single_node()
    line = 1
    for part in field:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == str(part)), None)
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            found = (node.value[part], node.value[part])
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def read_csv(path: Path, columns: Sequence[str], marks: str = ",", most: int = MOST_TABLE) -> list[dict[str, str]]:
    """Read the rows of a CSV file with a header that has at least these columns; every row must have as many cells.

    The separator is the one of ``marks`` that occurs most often in the header.

    Raises:
        InputError: not such a table, or out of bounds; names line, column and remedy.
    """

    def check(found: Sequence[str], where: str) -> None:
        check_columns(found, columns, where)

    return [row for _, row in iter_csv(path, check, most, marks=marks)]


def iter_csv(
    path: Path,
    check: Callable[[Sequence[str], str], None],
    most: int = MOST_TABLE,
    most_rows: int = MOST_ROWS,
    marks: str = ",",
) -> Iterator[tuple[int, dict[str, str]]]:
    """Iterate over line number and cells of each row of a CSV file, as ``read_csv``, holding one row at a time.

    Args:
        check: called with the columns and the file's name; raises InputError where they are wrong.
        most: bytes of the file.
    """
    data = read_bytes(path, most)
    if not data.strip():
        raise InputError(f"{path}: empty. Give the whole file.")
    packed = "a zip archive or an Excel file. Give the table itself, as CSV." if data[:4] == b"PK\x03\x04" else None
    if kind := foreign(data[:HEAD]) or packed:
        raise InputError(f"{path}: this is {kind}")
    text = io.TextIOWrapper(io.BytesIO(data), encoding_of(data[:HEAD]) or "utf-8", newline="")
    csv.field_size_limit(MOST_CELL)  # the library has one limit for all readers; every caller sets the same
    first, count = data.partition(b"\n")[0], 0
    mark = max(marks, key=lambda mark: first.count(mark.encode()))
    reader = csv.DictReader(text, delimiter=mark, strict=True)
    try:
        check(reader.fieldnames or (), str(path))
        for count, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                problem = "the number of cells differs from the header's. Correct this line."
                raise InputError(f"{path}:{reader.line_num}: {problem}")
            if count > most_rows:
                raise InputError(f"{path}: more than {most_rows:,} rows; this is not the file. Give the official one.")
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error}). Correct this line.") from None
    except UnicodeDecodeError:
        decoded(data, path)  # it raises an error that names the line
        raise
    if not count:
        raise InputError(f"{path}: a header and no rows. Give the whole file.")


def check_columns(found: Sequence[str], columns: Sequence[str], where: str) -> None:
    """Raise InputError if a column is missing or occurs twice; the message names a wrong separator."""
    if missing := [name for name in columns if name not in found]:
        other = next((mark for mark in (";", "\t", "|") if len(found) == 1 and mark in found[0]), None)
        if other:
            name = "tabs" if other == "\t" else repr(other)
            raise InputError(f"{where}:1: columns are separated by {name}. Save it with commas.")
        has = _some([ascii(name)[1:-1][:40] for name in found]) or "none"
        raise InputError(f"{where}:1: no column {missing[0]!r}. It needs {_some(columns)}; this file has {has}.")
    if twice := [name for name in columns if list(found).count(name) > 1]:
        raise InputError(f"{where}:1: column {twice[0]!r} is there twice. Remove one.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
