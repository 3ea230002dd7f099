"""Detection of a file's kind by its first bytes, so that messages can name it."""

from __future__ import annotations

import codecs
import zlib

HEAD = 4096  # bytes that suffice for detection

_SURVEY = "Save it as CSV with codes in place of labels, or take the CSV that its publisher offers."
_TABLE = "Save it as CSV."
_PACKED = "Unpack it and give the file in it."
_MAGIC: tuple[tuple[bytes, str, str], ...] = (
    (b"$FL2", "an SPSS file", _SURVEY),
    (b"$FL3", "an SPSS file", _SURVEY),
    (b"<stata_dta>", "a Stata file", _SURVEY),
    (b"\x00" * 12 + b"\xc2\xea\x81\x60", "a SAS file", _SURVEY),
    (b"HEADER RECORD*******LIB", "a SAS transport file", _SURVEY),
    (b"RDX", "an R data file", _SURVEY),
    (b"RDA", "an R data file", _SURVEY),
    (b"X\n\x00\x00\x00", "an R data file", _SURVEY),
    (b"\xd0\xcf\x11\xe0", "an Excel file", _TABLE),
    (b"%PDF", "a PDF", "Give the table itself, as CSV."),
    (b"PAR1", "a Parquet file", _TABLE),
    (b"ARROW1", "an Arrow file", _TABLE),
    (b"FEA1", "a Feather file", _TABLE),
    (b"SQLite format 3\x00", "an SQLite data base", _TABLE),
    (b"BZh", "a bzip2 archive", _PACKED),
    (b"\xfd7zXZ", "an xz archive", _PACKED),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", _PACKED),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _PACKED),
    (b"Rar!", "a RAR archive", _PACKED),
    (b"PK\x05\x06", "an empty zip archive", "Give the whole file."),
    (b"version https://git-lfs", "a Git LFS pointer and not the data", "Fetch the data with `git lfs pull`."),
)
_MARKUP = {b"<!doctype html": "a web page", b"<html": "a web page", b"<?xml": "an XML file"}


def is_statistics(head: bytes) -> bool:
    """Return whether a file is one of SPSS or Stata, by its first bytes."""
    return head.startswith((b"$FL2", b"$FL3", b"<stata_dta>")) or _is_old_stata(head)


def _is_old_stata(head: bytes) -> bool:
    """Before release 117 a file begins with release and byte order."""
    return len(head) > 4 and 104 <= head[0] <= 115 and head[1] in (1, 2) and head[2:4] == b"\x01\x00"


def foreign(head: bytes) -> str | None:
    """Return the kind of a binary or markup file, and the remedy, by its first ``HEAD`` bytes.

    None if it may be text or zip.
    """
    for magic, name, remedy in _MAGIC:
        if head.startswith(magic):
            return f"{name}. {remedy}"
    if head[:2] == b"\x1f\x8b":
        return _gzip(head)
    if _is_old_stata(head):
        return f"a Stata file. {_SURVEY}"
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()[:20].lower()
    named = next((name for mark, name in _MARKUP.items() if start.startswith(mark)), None)
    return f"{named}, perhaps an error in place of the download. Give the CSV file." if named else None


def _gzip(head: bytes) -> str:
    """Return the description of a gzip archive, or of an R file, which R compresses with gzip."""
    try:
        inside = zlib.decompressobj(wbits=31).decompress(head, 64)
    except zlib.error:
        inside = b""
    if inside.startswith((b"RDX", b"RDA", b"X\n\x00\x00\x00")):
        return f"an R data file. {_SURVEY}"
    return f"a gzip archive. {_PACKED}"


def encoding_of(head: bytes) -> str | None:
    """Return the encoding given by a byte-order mark or by null bytes between letters; None without either."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF32_LE, "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if head.startswith(mark):
            return name
    if len(head) >= 4 and not any(head[1:64:2]) and all(head[0:64:2]):
        return "utf-16-le"
    if len(head) >= 4 and not any(head[0:64:2]) and all(head[1:64:2]):
        return "utf-16-be"
    return None
