"""The user's own wave-7 file of the World Values Survey as a weighted edition of answer shares with counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import InputError
from ..reading import check_columns
from ..schema import Strict
from ..spec import load_spec

FAMILY = "wvs"
COUNTRY, WEIGHT = "B_COUNTRY_ALPHA", "W_WEIGHT"
MOST_BYTES = 4 << 30
CELLS = {"gender": "Q260", "age": "X003R", "settlement": "H_URBRURAL", "education": "Q275R", "income": "Q288R"}
_FOLDER = Path(__file__).parent.parent / "wvs"


class Imported(Strict):
    """What an import found: respondents, countries, questions with answers."""

    respondents: int
    countries: tuple[str, ...]
    questions: int


def convert(source: Path, by: Sequence[str] = ()) -> tuple[Imported, Iterator[str]]:
    """Lines of ``country,question,code,share,count``, with a column ``cell`` where ``by`` names attributes.

    Shares are weighted by ``W_WEIGHT`` and add up to 1 over valid codes; ``count`` is the unweighted number of answers.
    Codes below zero are missing; codes that no scale of ours has are left out (``variants.yaml`` says which and why).

    Raises:
        InputError: not the official file; names column and remedy.
    """
    table = _columns(source, [COUNTRY, WEIGHT, *_questions(), *(CELLS[name] for name in by)])
    weight = _numbers(table, WEIGHT, source)
    if (weight[~np.isnan(weight)] < 0).any():
        raise InputError(f"{source}: {WEIGHT}: a weight below zero. Give the official file.")
    weight = np.nan_to_num(weight)
    names, country = np.unique(table[COUNTRY].to_numpy(zero_copy_only=False).astype(str), return_inverse=True)
    codes = [_two_letters(name, source) for name in names]
    cells, cell = _cells(table, by, source)
    group = country * len(cells) + cell
    questions = {name: _numbers(table, name, source) for name in _questions()}
    found = Imported(respondents=len(weight), countries=tuple(codes), questions=_asked(questions))
    return found, _lines(questions, group, weight, codes, cells if by else None)


def _questions() -> dict[str, tuple[int, ...]]:
    """Every question we ask, and the codes that count."""
    valid: dict[str, tuple[int, ...]] = {}
    for name in ("wvs.yaml", "wvs_themes.yaml"):
        items = load_spec(_FOLDER / name).items
        valid |= {item: items.codes(item) for item in items.ids}
    return valid


def _asked(questions: dict[str, np.ndarray]) -> int:
    return sum(bool((values >= 0).any()) for values in questions.values())


def _lines(
    questions: dict[str, np.ndarray], group: np.ndarray, weight: np.ndarray, codes: list[str], cells: list[str] | None
) -> Iterator[str]:
    width = 1 if cells is None else len(cells)
    yield "country,question,code,share,count" + (",cell" if cells else "") + "\n"
    for question, valid in _questions().items():
        values = questions[question]
        options = np.array(valid)
        place = np.searchsorted(options, values)
        known = np.isin(values, options)
        index = group[known] * len(options) + place[known]
        size = len(codes) * width * len(options)
        shares = np.bincount(index, weight[known], minlength=size).reshape(-1, len(options))
        counts = np.bincount(index, minlength=size).reshape(-1, len(options))
        for row in np.flatnonzero(shares.sum(1) > 0):
            total = shares[row].sum()
            for option in np.flatnonzero(counts[row]):
                fields = [codes[row // width], question, options[option]]
                fields += [f"{shares[row, option] / total:.6f}", counts[row, option]]
                yield ",".join(map(str, fields + ([cells[row % width]] if cells else []))) + "\n"


def _columns(source: Path, names: list[str]) -> Any:
    """The columns of the file that are needed, as an arrow table; labels behind a colon in the header are dropped."""
    from pyarrow import ArrowException, csv, string

    try:
        size = source.stat().st_size
        with source.open(encoding="utf-8-sig", errors="replace") as file:
            header = file.readline(1 << 20)
    except OSError as error:
        raise InputError(f"{source}: cannot be read ({error.strerror}). Give the official wave-7 CSV file.") from None
    if not header.strip():
        raise InputError(f"{source}: empty. Give the official wave-7 CSV file.")
    if size > MOST_BYTES:
        raise InputError(f"{source}: larger than {MOST_BYTES >> 30} GB; this is not the wave-7 file.")
    mark = ";" if header.count(";") > header.count(",") else ","  # the survey publishes both
    full = [cell.strip().strip('"') for cell in header.rstrip("\r\n").split(mark)]
    short = [cell.partition(":")[0].strip() for cell in full]
    check_columns(short, names, str(source))
    wanted = [full[short.index(name)] for name in names]
    try:
        table = csv.read_csv(
            source,
            parse_options=csv.ParseOptions(delimiter=mark),
            convert_options=csv.ConvertOptions(
                include_columns=wanted,
                strings_can_be_null=True,
                column_types={wanted[names.index(COUNTRY)]: string()},  # what is not UTF-8 would come as bytes
            ),
        )
    except (ArrowException, UnicodeDecodeError) as error:
        raise InputError(f"{source}: {str(error).splitlines()[0][:160]}. Give the official file unchanged.") from None
    if table.num_rows == 0:
        raise InputError(f"{source}: a header and no rows. Give the whole file.")
    return table.rename_columns(names)


def _numbers(table: Any, name: str, source: Path) -> np.ndarray:
    """A column as float64, NaN where empty."""
    from pyarrow import ArrowException, float64

    try:
        return table[name].cast(float64()).to_numpy(zero_copy_only=False)
    except ArrowException as error:
        raise InputError(f"{source}: {name}: not numbers ({str(error).splitlines()[0][:80]}).") from None


def _two_letters(name: str, source: Path) -> str:
    import pycountry

    found = pycountry.countries.get(alpha_3=name)
    if found is None and name not in ("NIR", "XKX"):  # Northern Ireland and Kosovo have codes of the survey's own
        raise InputError(f"{source}: {COUNTRY}: {name[:20]!r} is no country's three letters. Give the official file.")
    return found.alpha_2 if found else {"NIR": "XI", "XKX": "XK"}[name]


def _cells(table: Any, by: Sequence[str], source: Path) -> tuple[list[str], np.ndarray]:
    """Names of the demographic cells and each respondent's; ``missing`` for codes below zero."""
    if not by:
        return ["all"], np.zeros(table.num_rows, dtype=int)
    columns = []
    for name in by:
        values = _numbers(table, CELLS[name], source)
        columns.append([f"{name}={int(v)}" if v >= 0 else f"{name}=missing" for v in values])
    names, cell = np.unique([" ".join(parts) for parts in zip(*columns, strict=True)], return_inverse=True)
    return names.tolist(), cell
