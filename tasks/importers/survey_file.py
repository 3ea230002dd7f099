"""Reading of columns from a survey's respondent file, in its various formats: SPSS, Stata and text.

Text is separated by commas, semicolons, tabs or bars, in UTF-8, UTF-16 or a Western code page, plain or in a zip
archive, with lines before the header, with names in any case and labels after them. All cells are read as text; the
caller interprets them.
"""

from __future__ import annotations

import codecs
import csv
import io
import itertools
import re
import shutil
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ...errors import InputError
from ..file_kinds import HEAD, encoding_of, foreign, is_statistics
from ..reading import MOST_CELL, check_columns
from .column import Column
from .stat_file import Metadata, read_metadata, read_values

MOST_BYTES = 4 << 30
MOST_HEADER = 1 << 20  # bytes within which the header ends
MOST_PREAMBLE = 50  # lines before it
_MARKS = ",;\t|"
_FALLBACKS = ("utf-8", "cp1252", "latin-1")
_NAME = re.compile(r"\s*([A-Za-z]\w*)\s*(?:$|:|\.\.|\.\s|\s[-–—]\s)")  # R writes "Q1..Label" for "Q1: Label"


@dataclass(frozen=True)
class SurveyFile:
    """A respondent file: the columns' names in it by official name, and the label of each where it has labels."""

    path: Path
    columns: dict[str, str]
    labels: dict[str, str]
    metadata: Metadata | None = None
    unpacked: Any = None  # the temporary file that a file of an archive was unpacked to; it is removed with this object

    def read(self, names: Sequence[str]) -> dict[str, Column]:
        """Read some columns by official name.

        Raises:
            InputError: damaged; names line, column and remedy.
        """
        if self.metadata is None:
            return _text_columns(self.path, names)
        own = [self.columns[name] for name in names]
        with _readable(self.path), _named(self.path, self.unpacked) as path:
            found = read_values(path, list(dict.fromkeys(own)), self.metadata)
        return {name: found[column] for name, column in zip(names, own, strict=True)}


@dataclass(frozen=True)
class _Header:
    """The header: its cells, the separator, and the number of lines up to its end."""

    cells: tuple[str, ...]
    mark: str
    lines: int


def open_survey(source: Path, known: Collection[str]) -> SurveyFile:
    """Read which of the ``known`` columns a respondent file has, and no row.

    A column is known by its name, in any case, or by a label that begins with the name.

    Raises:
        InputError: no such file; names the kind of file and the remedy.
    """
    with _readable(source):
        unpacked = _unpacked(source) if source.is_file() else None
        if unpacked or (source.is_file() and is_statistics(_head(source))):
            with _named(source, unpacked) as path:
                _check_size(source, path.stat().st_size)
                about = read_metadata(path)
            columns = _official(source, about, known)
            labels = {name: about.labels[own] for name, own in columns.items()}
            return SurveyFile(source, columns, labels, about, unpacked)
        header, _ = _text_header(source, known)
        short = [_short(cell) for cell in header.cells]
        return SurveyFile(source, {name: name for name in short if name in known}, {})


def _official(source: Path, about: Metadata, known: Collection[str]) -> dict[str, str]:
    """Return the columns' names in the file by official name: by its own name, else by the beginning of its label."""
    named = Counter(map(_short, about.labels))
    if twice := [name for name, times in named.items() if times > 1 and name in known]:
        raise InputError(f"{source}: column {twice[0]!r} is there twice. Remove one.")
    labelled = Counter(map(_short, about.labels.values()))
    by_label = {_short(label): name for name, label in about.labels.items() if labelled[_short(label)] == 1}
    by_name = {_short(name): name for name in about.labels}
    return {name: column for name, column in (by_label | by_name).items() if name in known}


def _head(source: Path) -> bytes:
    with source.open("rb") as file:
        return file.read(HEAD)


def _unpacked(source: Path) -> Any:
    """Unpack the only file of SPSS or Stata in an archive without a table; None for anything else."""
    if _head(source)[:4] != b"PK\x03\x04":
        return None
    with zipfile.ZipFile(source) as archive:
        files = _members(archive)
        own = [each for each in files if each.filename.lower().endswith((".sav", ".zsav", ".dta"))]
        if len(own) != 1 or any(each.filename.lower().endswith(".csv") for each in files):
            return None
        _check_size(source, own[0].file_size)
        target = tempfile.NamedTemporaryFile(suffix=Path(own[0].filename).suffix)  # noqa: SIM115 - closed when unused
        with archive.open(own[0]) as inside:
            shutil.copyfileobj(inside, target)
    target.flush()
    return target if is_statistics(_head(Path(target.name))) else None


@contextmanager
def _named(source: Path, unpacked: Any) -> Iterator[Path]:
    """Yield the path of the data; errors name the user's file where it was unpacked."""
    path = Path(unpacked.name) if unpacked else source
    try:
        yield path
    except InputError as error:
        raise InputError(str(error).replace(str(path), str(source))) from None


@contextmanager
def _readable(source: Path) -> Iterator[None]:
    """Turn errors of the operating system and of archives into InputError."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:  # or a password
        raise InputError(f"{source}: an archive that cannot be read ({str(error)[:80]}). Unpack it.") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{source}: cannot be read ({reason}). Give the survey's file.") from None


def _text_header(source: Path, names: Collection[str], encodings: Sequence[str] = ()) -> tuple[_Header, Sequence[str]]:
    """Return the header of a text file and the encodings that it may have, the one it was read in first."""
    with _opened(source) as file:
        head = file.read(MOST_HEADER)
    if kind := foreign(head[:HEAD]):
        raise InputError(f"{source}: this is {kind}")
    found = encoding_of(head[:HEAD])
    encodings = encodings or ((found,) if found else _FALLBACKS)
    for place, encoding in enumerate(encodings):
        try:
            header = _header(head, encoding, names)
        except UnicodeDecodeError:
            continue
        if not header.cells:
            raise InputError(f"{source}: empty. Give the survey's file.")
        return header, encodings[place:]
    raise InputError(f"{source}: not text in {found}. Save it as UTF-8.")


def _text_columns(source: Path, names: Sequence[str]) -> dict[str, Column]:
    encodings: Sequence[str] = ()
    with _readable(source):
        while True:
            header, encodings = _text_header(source, names, encodings)
            try:
                return _table(source, header, encodings[0], names)
            except UnicodeDecodeError:  # a letter beyond the header
                if not encodings[1:]:
                    raise InputError(f"{source}: not text in {encodings[0]}. Save it as UTF-8.") from None
                encodings = encodings[1:]


@contextmanager
def _opened(source: Path) -> Iterator[IO[bytes]]:
    """Open the file, or the only table in an archive, from its beginning."""
    if source.exists() and not source.is_file():
        raise InputError(f"{source}: cannot be read (not a regular file).")
    with source.open("rb") as file:
        if file.read(4) == b"PK\x03\x04":
            with zipfile.ZipFile(file) as archive, archive.open(_member(source, archive)) as inside:
                yield inside
        else:
            _check_size(source, source.stat().st_size)
            file.seek(0)
            yield file


def _member(source: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Find the only table of an archive."""
    files = _members(archive)
    if any(each.filename.startswith(("xl/", "word/")) or each.filename == "content.xml" for each in files):
        raise InputError(f"{source}: this is a spreadsheet or document (Excel, LibreOffice). Save it as CSV.")
    tables = [each for each in files if each.filename.lower().endswith((".csv", ".tsv", ".txt", ".dat"))]
    if len(tables) > 1:  # a note may be in the archive beside the table
        tables = [each for each in tables if each.filename.lower().endswith(".csv")]
    if len(tables) != 1:
        inside = ", ".join(each.filename[:40] for each in files[:4]) or "nothing"
        raise InputError(f"{source}: an archive without one CSV, SPSS or Stata file in it ({inside}). Unpack it.")
    _check_size(source, tables[0].file_size)
    return tables[0]


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    return [each for each in archive.infolist() if not each.is_dir() and not each.filename.startswith("__MACOSX/")]


def _check_size(source: Path, size: int) -> None:
    if size > MOST_BYTES:
        raise InputError(f"{source}: larger than {MOST_BYTES >> 30} GB; this is not the survey's file.")


def _header(head: bytes, encoding: str, names: Collection[str]) -> _Header:
    """Find the line with most of the names, among the first ones, by any separator; the first line if none has any."""
    text = codecs.getincrementaldecoder(encoding)().decode(head, len(head) < MOST_HEADER)
    wanted, best, most = set(names), _Header((), ",", 0), 0
    csv.field_size_limit(MOST_CELL)
    for mark in _MARKS:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark)
        try:
            for cells in itertools.islice(reader, MOST_PREAMBLE + 1):
                here = len(wanted.intersection(map(_short, cells)))
                first = any(cells) and best.lines in (0, reader.line_num) and len(cells) > len(best.cells)
                if here > most or (not most and first):
                    best, most = _Header(tuple(cells), mark, reader.line_num), here
        except csv.Error:  # by this separator it is no table
            continue
    return best


def _short(cell: str) -> str:
    """Return a column's name in upper case, without the label after it."""
    found = _NAME.match(cell)
    return (found[1] if found else cell.strip()).upper()


def _table(source: Path, header: _Header, encoding: str, names: Sequence[str]) -> dict[str, Column]:
    from pyarrow import ArrowException, string
    from pyarrow import csv as arrow_csv

    short = [_short(cell) for cell in header.cells]
    check_columns(short, names, str(source))
    unique = [str(number) for number in range(len(short))]
    wanted = [unique[short.index(name)] for name in names]
    try:
        with _opened(source) as file:
            table = arrow_csv.read_csv(
                file,
                read_options=arrow_csv.ReadOptions(
                    column_names=unique, skip_rows=header.lines, encoding=encoding.removesuffix("-sig")
                ),
                parse_options=arrow_csv.ParseOptions(delimiter=header.mark, newlines_in_values=True),
                convert_options=arrow_csv.ConvertOptions(
                    include_columns=wanted, column_types={name: string() for name in wanted}
                ),
            )
    except ArrowException as error:
        if "UTF8" in str(error):
            raise UnicodeDecodeError("utf-8", b"", 0, 0, "not UTF-8") from None
        reason = str(error).splitlines()[0][:160]
        raise InputError(f"{source}: {reason}. Give the official file unchanged.") from None
    if table.num_rows == 0:
        raise InputError(f"{source}: a header and no rows. Give the whole file.")
    return {name: _column(table[number]) for name, number in zip(names, wanted, strict=True)}


def _column(values: Any) -> Column:
    encoded = values.combine_chunks().dictionary_encode()
    texts = [text.strip() for text in encoded.dictionary.to_pylist()]
    return Column(tuple(texts), encoded.indices.to_numpy(zero_copy_only=False))
