"""Import of the user's wave-7 file of the World Values Survey as a weighted edition of answer shares with counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..schema import Strict
from ..spec import load_spec
from ..survey_countries import country_code
from .survey_file import Column, read_columns
from .wave_labels import FOLDER, codes, is_empty, known, numbers, phrases_of_questions

FAMILY = "wvs"
COUNTRY, WEIGHT = "B_COUNTRY_ALPHA", "W_WEIGHT"
CELLS = {"gender": "Q260", "age": "X003R", "settlement": "H_URBRURAL", "education": "Q275R", "income": "Q288R"}
MISSING = (-1, -2, -3, -4, -5)  # the survey's codes for a missing answer, and no weight


class Imported(Strict):
    """The result of an import: numbers of respondents and questions with answers, and the countries.

    ``left_out`` are the numbers of respondents without a positive weight, by country; they enter no share and no count.
    """

    respondents: int
    countries: tuple[str, ...]
    questions: int
    left_out: dict[str, int]


def convert(source: Path, by: Sequence[str] = ()) -> tuple[Imported, Iterator[str]]:
    """Convert to lines of ``country,question,code,share,count``, with a column ``cell`` if ``by`` names attributes.

    Shares are weighted by ``W_WEIGHT`` and sum to 1 over valid codes; ``count`` is the unweighted number of answers.
    Codes below zero are missing; codes that no scale has are left out (``variants.yaml`` says which and why).
    Respondents whose weight is missing or zero are left out of both.

    Raises:
        InputError: not the official file; names column and remedy.
    """
    asked = _questions()
    table = read_columns(source, [COUNTRY, WEIGHT, *asked, *(CELLS[name] for name in by)])
    weight = _weights(table[WEIGHT], f"{source}: {WEIGHT}")
    names, country = _countries(table[COUNTRY], source)
    kept = weight > 0
    missing = Counter(names[i] for i in country[~kept])
    cells, cell = _cells(table, by, source)
    group = country * len(cells) + cell
    phrases = phrases_of_questions()
    answers = {name: codes(table[name], phrases[name], f"{source}: {name}")[kept] for name in asked}
    found = Imported(
        respondents=int(kept.sum()),
        countries=tuple(names[i] for i in np.unique(country[kept])),
        questions=sum(bool((values >= 0).any()) for values in answers.values()),
        left_out=dict(sorted(missing.items())),
    )
    return found, _lines(answers, group[kept], weight[kept], names, cells if by else None)


def _questions() -> dict[str, tuple[int, ...]]:
    """Return every question of the tasks, and its valid codes."""
    valid: dict[str, tuple[int, ...]] = {}
    for name in ("wvs.yaml", "wvs_themes.yaml"):
        items = load_spec(FOLDER / name).items
        valid |= {item: items.codes(item) for item in items.ids}
    return valid


def _weights(column: Column, where: str) -> np.ndarray:
    """Return weights (respondents,), zero where there is none."""
    weight = np.nan_to_num(np.where(np.isin(found := numbers(column, where), MISSING), 0.0, found))
    if (weight < 0).any():
        raise InputError(f"{where}: a weight below zero. Give the official file.")
    if not (weight > 0).any():
        raise InputError(f"{where}: missing or zero for every respondent. Give the official file.")
    return weight


def _countries(column: Column, source: Path) -> tuple[list[str], np.ndarray]:
    """Return the two-letter code of each country, sorted, and each respondent's index (respondents,) among them."""
    letters = [_two_letters(text, source) for text in column.texts]
    names, place = np.unique(letters, return_inverse=True)
    return names.tolist(), place[column.place]


def _lines(
    answers: dict[str, np.ndarray], group: np.ndarray, weight: np.ndarray, names: list[str], cells: list[str] | None
) -> Iterator[str]:
    width = 1 if cells is None else len(cells)
    yield "country,question,code,share,count" + (",cell" if cells else "") + "\n"
    for question, valid in _questions().items():
        values = answers[question]
        options = np.array(valid)
        place = np.searchsorted(options, values)
        known = np.isin(values, options)
        index = group[known] * len(options) + place[known]
        size = len(names) * width * len(options)
        shares = np.bincount(index, weight[known], minlength=size).reshape(-1, len(options))
        counts = np.bincount(index, minlength=size).reshape(-1, len(options))
        for row in np.flatnonzero(shares.sum(1) > 0):
            total = shares[row].sum()
            for option in np.flatnonzero(counts[row]):
                fields = [names[row // width], question, options[option]]
                fields += [f"{shares[row, option] / total:.6f}", counts[row, option]]
                yield ",".join(map(str, fields + ([cells[row % width]] if cells else []))) + "\n"


def _two_letters(name: str, source: Path) -> str:
    code = country_code(name)
    if code is None:
        shown = "an empty cell" if is_empty(name) else f"{name[:40]!r}"
        raise InputError(f"{source}: {COUNTRY}: {shown} is not a country. Give the official file.")
    return code


def _cells(table: dict[str, Column], by: Sequence[str], source: Path) -> tuple[list[str], np.ndarray]:
    """Return the names of the demographic cells and each respondent's cell; ``missing`` for codes below zero."""
    if not by:
        return ["all"], np.zeros(len(table[WEIGHT].place), dtype=int)
    columns = []
    for name in by:
        values = codes(table[CELLS[name]], known().cells[name], f"{source}: {CELLS[name]}")
        columns.append([f"{name}={int(v)}" if v >= 0 else f"{name}=missing" for v in values])
    names, cell = np.unique([" ".join(parts) for parts in zip(*columns, strict=True)], return_inverse=True)
    return names.tolist(), cell
