"""Respondents of a survey's file as arrays: answers by official name, weights, countries, demographic attributes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import InputError, UsageError
from ..survey_countries import country_code
from .column import Column
from .official import Official, Source, kind_of, known_names, officials, sources
from .survey_file import SurveyFile, open_survey
from .wave_labels import by_labels, codes, is_empty, known, numbers, phrases_of_questions

MISSING = "missing"  # the cell of respondents without an attribute


@dataclass(frozen=True)
class People:
    """The respondents of a file, in its order; those without a positive weight have weight 0.

    Args:
        kind: the kind of the file (``sources.yaml``).
        countries, country: two-letter codes, and each respondent's index (respondents,) among them.
        weight: (respondents,) float64, zero or more.
        wave: (respondents,) int8, wave of the World Values Survey; 0 where the file has one wave only.
        columns: answers (respondents,) float32 by the name that was asked for; NaN is missing.
        attributes: by attribute the names of its cells, and each respondent's index (respondents,) among them.
        unread: why an attribute's column cannot be read, by attribute.
    """

    kind: str
    countries: tuple[str, ...]
    country: np.ndarray
    weight: np.ndarray
    wave: np.ndarray
    columns: dict[str, np.ndarray]
    attributes: dict[str, tuple[tuple[str, ...], np.ndarray]]
    unread: dict[str, str]

    @property
    def kept(self) -> np.ndarray:
        """Return who has a positive weight, boolean (respondents,)."""
        return self.weight > 0


def read_people(source: Path, names: Collection[str], attributes: bool = False) -> People:
    """Read respondents from a file of SPSS, Stata or text; only the columns needed are read.

    Codes that are no answers, such as the survey's negative codes, are NaN. A name of trend files gives trend codes
    (1 and 0 for mentioned), one of wave 7 its codes (1 and 2), whatever the file.

    Args:
        names: official names of answers, as in trend files (``F118``) or wave 7 (``Q182``); those that the file does
            not have are left out of the result.
        attributes: also read gender, age, education, income, religion and settlement where the file has them.

    Raises:
        InputError: not an official file; names column and remedy.
        UsageError: a name that no file has.
    """
    if unknown := [name for name in names if name not in officials()]:
        raise UsageError(f"{unknown[0]}: not a column of tasks/wvs/columns.csv.")
    file = open_survey(source, known_names())
    kind = kind_of(file.columns, source)
    about = sources().sources[kind]
    if about.labelled and not file.labels:
        raise InputError(f"{source}: {about.title} as text has no labels. Give its SPSS or Stata file.")
    asked = {name: column for name in names if (column := officials()[name].column(kind)) in file.columns}
    country, weight = (next(filter(file.columns.get, names)) for names in (about.country, about.weight))
    waves = [name for name in about.waves if name in file.columns]
    extra = _attribute_columns(about, file) if attributes else {}
    table = file.read(list(dict.fromkeys([country, weight, *waves, *asked.values(), *extra.values()])))
    _check_labels(file, kind, asked)
    countries, place = _countries(table[country], f"{source}: {country}")
    columns = {name: _answers(table[column], name, f"{source}: {column}") for name, column in asked.items()}
    cells, unread = _cells(about, extra, table, source)
    return People(
        kind, countries, place, _weights(table[weight], f"{source}: {weight}"),
        _waves(about, waves, table, source, len(place)), columns, cells, unread,
    )  # fmt: skip


def latest(people: People, waves: Sequence[int] = ()) -> np.ndarray:
    """Return who was asked in one of some waves, or in the last wave of their country, boolean (respondents,).

    Raises:
        InputError: the file has one wave only, or none of these waves.
    """
    if waves:
        chosen = np.isin(people.wave, waves)
        if not chosen.any():
            found = ", ".join(map(str, np.unique(people.wave[people.wave > 0]))) or "no column of waves"
            raise InputError(f"--wave {waves[0]}: not in this file, which has {found}.")
        return chosen
    last = np.zeros(len(people.countries), dtype=people.wave.dtype)
    np.maximum.at(last, people.country[people.kept], people.wave[people.kept])
    return people.wave == last[people.country]


def _answers(column: Column, name: str, where: str) -> np.ndarray:
    """Return answers (respondents,) in the codes of a name, NaN for all else."""
    official = officials()[name]
    phrases = phrases_of_questions().get(official.named.get("wave7", ""), {})
    values = codes(by_labels(column, phrases, where), phrases, where)
    if official.mentioned:
        no = 0 if name == official.named.get("trend") else 2
        return np.where(values == 1, 1, np.where(np.isin(values, (0, 2)), no, np.nan)).astype(np.float32)
    return np.where((values >= official.lowest) & (values <= official.highest), values, np.nan).astype(np.float32)


def _check_labels(file: SurveyFile, kind: str, asked: dict[str, str]) -> None:
    """Raise InputError where a numbered column of EVS 2017, wave 5 or wave 6 is not labelled as its question."""
    for name, column in asked.items() if sources().sources[kind].labelled else ():
        official: Official = officials()[name]
        label = file.labels.get(column, "").lower()
        if not any(part in label for part in official.label):
            raise InputError(f"{file.path}: {column} is labelled {label[:60]!r}, not {official.label[0]!r}. "
                             "Give the official file.")  # fmt: skip


def _countries(column: Column, where: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the two-letter code of each country, sorted, and each respondent's index (respondents,) among them."""
    used = np.unique(column.place)
    letters = np.full(len(column.texts), "", dtype="U2")
    for place in used.tolist():
        letters[place] = _two_letters(column.texts[place], column.labels.get(column.texts[place], ""), where)
    names, index = np.unique(letters[used], return_inverse=True)
    by_text = np.zeros(len(column.texts), dtype=np.int16)
    by_text[used] = index
    return tuple(names.tolist()), by_text[column.place]


def _two_letters(name: str, label: str, where: str) -> str:
    code = country_code(name) or (country_code(label) if label else None)
    if code is None:
        shown = "an empty cell" if is_empty(name) else f"{name[:40]!r}"
        raise InputError(f"{where}: {shown} is not a country. Give the official file.")
    return code


def _weights(column: Column, where: str) -> np.ndarray:
    """Return weights (respondents,), zero where there is none; -1 to -5 are the survey's codes for a missing one."""
    found = numbers(column, where)
    weight = np.nan_to_num(np.where(np.isin(found, (-1, -2, -3, -4, -5)), 0.0, found))
    if (weight < 0).any():
        raise InputError(f"{where}: a weight below zero. Give the official file.")
    if not (weight > 0).any():
        raise InputError(f"{where}: missing or zero for every respondent. Give the official file.")
    return weight


def _waves(about: Source, waves: Sequence[str], table: dict[str, Column], source: Path, size: int) -> np.ndarray:
    """Return waves (respondents,); a column of waves of another survey counts where the first has none."""
    found = np.zeros(size, dtype=np.int8)
    for name in waves:
        values = codes(table[name], {}, f"{source}: {name}")
        numbers_of = np.array([about.waves[name].get(int(v), int(v)) if v > 0 else 0 for v in _distinct(values)])
        place = np.searchsorted(_distinct(values), np.nan_to_num(values, nan=-1))
        found = np.where(found > 0, found, numbers_of[place]).astype(np.int8)
    return found


def _distinct(values: np.ndarray) -> np.ndarray:
    return np.unique(np.nan_to_num(values, nan=-1))


def _attribute_columns(about: Source, file: SurveyFile) -> dict[str, str]:
    """Return the first column of each attribute that the file has."""
    found = {name: next((c for c in columns if c in file.columns), None) for name, columns in about.attributes.items()}
    return {name: column for name, column in found.items() if column is not None}


def _cells(
    about: Source, extra: dict[str, str], table: dict[str, Column], source: Path
) -> tuple[dict[str, tuple[tuple[str, ...], np.ndarray]], dict[str, str]]:
    """Return the cells of each attribute, and why an attribute's column cannot be read."""
    found, unread = {}, {}
    for name, column in extra.items():
        coding = about.attributes[name][column]
        try:
            found[name] = _cell(table[column], name, coding, f"{column}")
        except InputError as error:
            unread[name] = str(error)
    return found, unread


def _cell(column: Column, attribute: str, coding: str, where: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the names of an attribute's cells, the last one ``missing``, and each respondent's (respondents,)."""
    if coding == "years":
        names, ages = tuple(sources().codings["bands"]), np.array(sources().ages)
        years = np.nan_to_num(numbers(column, where), nan=-1)
        place = np.searchsorted(ages, years, side="right") - 1
        return (*names, MISSING), np.where((place >= 0) & (place < len(names)), place, len(names)).astype(np.int8)
    cells = sources().codings[coding]
    phrases = known().cells.get(attribute, {})
    values = codes(by_labels(column, phrases, where), phrases, where)
    place = np.full(len(values), len(cells), dtype=np.int8)
    for number, of_cell in enumerate(cells.values()):
        place[np.isin(values, of_cell)] = number
    return (*cells, MISSING), place
