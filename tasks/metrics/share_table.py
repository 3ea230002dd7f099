"""Answer shares of countries: a table with one row per option, or questions with each country's shares beside them."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..reading import check_columns
from ..rows import MOST_SHARES, SELECTIONS, literal, question_id, read_rows
from ..survey_countries import country_code, sample_of

FIELDS = ("country", "question", "code", "share")
MOST_ROWS = 10_000_000
ROUNDING = 0.005  # of a share that was published in per cent


@dataclass(frozen=True, eq=False)
class ShareTable:
    """Shares by country, question and code, sorted by these.

    ``country`` and ``question`` (rows,) number ``countries`` and ``questions``; ``code``, ``share`` and ``count``
    (rows,) belong to them; a count is 0 where the file has none.
    """

    countries: tuple[str, ...]
    questions: tuple[str, ...]
    country: np.ndarray
    question: np.ndarray
    code: np.ndarray
    share: np.ndarray
    count: np.ndarray

    def of(self, country: str) -> dict[str, dict[int, tuple[float, int]]]:
        """Return ``question -> code -> (share, count)`` of a country."""
        number = self.countries.index(country)
        first, last = np.searchsorted(self.country, [number, number + 1])
        found: dict[str, dict[int, tuple[float, int]]] = {}
        rows = (column[first:last].tolist() for column in (self.question, self.code, self.share, self.count))
        for question, code, share, count in zip(*rows, strict=True):
            found.setdefault(self.questions[question], {})[code] = (share, count)
        return found


def load_shares(path: Path, extension: Path | None = None) -> ShareTable:
    """Load the shares of a file, and of one that adds countries: JSON lines, CSV or Parquet.

    Raises:
        InputError: a malformed file, or a country in both; names line, field and remedy.
    """
    if extension is not None:
        return _joined(load_shares(path), load_shares(extension), extension)
    try:
        return _load_shares(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None


def _joined(first: ShareTable, second: ShareTable, path: Path) -> ShareTable:
    """Append the countries of a second table."""
    if both := set(first.countries) & set(second.countries):
        raise InputError(f"{path}: {min(both)} is in the file that it extends, too. Remove it from one of them.")
    questions = tuple(dict.fromkeys(first.questions + second.questions))
    place = np.array([questions.index(name) for name in second.questions], dtype=np.int64)
    added = {"country": second.country + len(first.countries), "question": place[second.question]}
    columns = {
        name: np.concatenate([getattr(first, name), added.get(name, getattr(second, name))])
        for name in ("country", "question", "code", "share", "count")
    }
    return ShareTable(first.countries + second.countries, questions, **columns)


@lru_cache(maxsize=4)  # scoring against every country reads the same file each time
def _load_shares(path: Path, changed: int) -> ShareTable:
    table = _Rows(path)
    for number, (line, row) in enumerate(read_rows(path, _check, MOST_SHARES, MOST_ROWS), start=1):
        if SELECTIONS in row:
            _add_selections(table, line, question_id(row, number), row)
        else:
            _add_share(table, line, row)
    return table.finished()


def _check(found: Sequence[str], where: str) -> None:
    if SELECTIONS not in found:
        check_columns(found, FIELDS, where)


class _Rows:
    """The rows read so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.countries: dict[str, int] = {}
        self.questions: dict[str, int] = {}
        self.numbers = array("q")  # country, question, code, count and line of each row
        self.shares = array("d")

    def add(self, line: int, country: str, question: str, code: int, share: float, count: int) -> None:
        place = self.countries.setdefault(country, len(self.countries))
        asked = self.questions.setdefault(question, len(self.questions))
        self.numbers.extend((place, asked, code, count, line))
        self.shares.append(share)

    def finished(self) -> ShareTable:
        """Return the table after checking that no row occurs twice and that every question's shares sum to 1."""
        country, question, code, count, line = np.array(self.numbers, dtype=np.int64).reshape(-1, 5).T
        share = np.array(self.shares)
        order = np.lexsort((line, code, question, country))
        country, question, code, count, line, share = (x[order] for x in (country, question, code, count, line, share))
        countries, questions = tuple(self.countries), tuple(self.questions)
        new = np.append(True, (np.diff(country) != 0) | (np.diff(question) != 0))[: len(order)]
        twice = np.flatnonzero(~new & (np.diff(code, prepend=-1) == 0))
        if len(twice):
            row = twice[line[twice].argmin()]
            problem = f"{questions[question[row]]} code {code[row]} of {countries[country[row]]} is there twice."
            raise InputError(f"{self.path}:{line[row]}: {problem}")
        starts = np.flatnonzero(new)
        totals = np.add.reduceat(share, starts) if len(starts) else np.zeros(0)
        invalid = np.flatnonzero(abs(totals - 1) > 1e-3)
        if len(invalid):
            row = starts[invalid[0]]
            place = f"{questions[question[row]]} of {countries[country[row]]}"
            raise InputError(
                f"{self.path}: {place}: shares add up to {totals[invalid[0]]:.3f}, not 1. Correct its rows."
            )
        return ShareTable(countries, questions, country, question, code, share, count)


def _add_share(table: _Rows, line: int, row: dict[str, Any]) -> None:
    """Add one option of one question in one country."""
    try:
        share, count, code = float(row["share"]), int(row.get("count") or 0), int(row["code"])
        country, question = str(row["country"]), str(row["question"])
        if not 0 <= share <= 1:
            raise ValueError(f"share {share} is not between 0 and 1")
        if not 0 <= count < 1 << 53:
            raise ValueError(f"count {count} is negative or not a number")
        if not abs(code) < 1 << 31:
            raise ValueError(f"code {code} is not a valid code")
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{table.path}:{line}: {error}. Expected {', '.join(FIELDS)}.") from None
    if country not in table.countries:
        country = _code_of(country, f"{table.path}:{line}")
    table.add(line, country, question, code, share, count)


def _add_selections(table: _Rows, line: int, question: str, row: dict[str, Any]) -> None:
    """Add a question's shares of every country."""
    options = _plain(row.get("options"), f"{table.path}:{line}: options")
    found = shares_by_country(row.get(SELECTIONS), options, f"{table.path}:{line}: {SELECTIONS}")
    for country, shares in found.items():
        for option, share in enumerate(shares, start=1):
            table.add(line, country, question, option, share, 0)


def shares_by_country(selections: Any, options: Any, where: str) -> dict[str, list[float]]:
    """Read a mapping of countries to a share of each option, as a mapping or as its text, by two-letter code.

    A list of zeros was not asked and is left out, as are samples of a part of a country; of several samples of a
    country the one with the best coverage counts.

    Args:
        where: the cell's name in messages.

    Raises:
        InputError: not such a mapping, a list of another length, shares that do not add up, an unknown country.
    """
    given = _plain(selections, where)
    if not isinstance(given, dict) or not isinstance(options, list | tuple):
        raise InputError(f"{where}: expected a mapping of countries to shares, beside a list of options.")
    best: dict[str, tuple[int, list[float]]] = {}
    for name, shares in given.items():
        place, rank = sample_of(str(name))
        if rank is None or shares is None:
            continue
        code, normal = _code_of(place, where), normalised(shares, len(options), f"{where}: {name}")
        if normal and (code not in best or rank < best[code][0]):
            best[code] = rank, normal
    return {code: normal for code, (_, normal) in best.items()}


def _plain(given: Any, where: str) -> Any:
    """Convert text to the value it stands for, and the pairs with which Parquet represents a mapping to a mapping."""
    plain = literal(given, where) if isinstance(given, str) else given
    pairs = isinstance(plain, list) and plain and all(isinstance(each, tuple) and len(each) == 2 for each in plain)
    return dict(plain) if pairs else plain


def normalised(shares: Any, options: int, where: str) -> list[float]:
    """Normalise rounded shares or per cent to sum to 1; nothing if all are zero."""
    if not isinstance(shares, list | tuple) or len(shares) != options:
        raise InputError(f"{where}: expected {options} shares, one an option. Correct this list.")
    try:
        numbers = [float(share) for share in shares]
    except (TypeError, ValueError):
        raise InputError(f"{where}: not a list of numbers. Correct this list.") from None
    total = sum(numbers)
    if total == 0 and not any(numbers):
        return []
    whole = 100.0 if total > 1 + options * ROUNDING + 1e-3 else 1.0
    if not all(0 <= share <= whole for share in numbers) or abs(total / whole - 1) > options * ROUNDING + 1e-3:
        raise InputError(f"{where}: shares add up to {total:.3f}, not 1 (nor 100 per cent). Correct this list.")
    return [share / total for share in numbers]


def _code_of(name: str, where: str) -> str:
    code = name if re.fullmatch("[A-Z]{2}", name) else country_code(name)
    if code is None:
        raise InputError(f"{where}: {name[:40]!r} is no country. Write its two letters (`culteval ls countries`).")
    return code
