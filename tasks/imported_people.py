"""What an import keeps of a survey's people beside an edition: shares of subgroups, and correlations between items."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InputError, UsageError, did_you_mean
from .imported import data_dir
from .reading import read_yaml
from .spec import TaskSpec

CELLS, CORRELATIONS = "cells", "correlations"
_NUMBERS = ("code", "share", "count", "correlation")
_FIELDS = {
    CELLS: ("country", "question", "code", "share", "count", "cell"),
    CORRELATIONS: ("country", "first", "second", "correlation", "count"),
}


@dataclass(frozen=True)
class CellShares:
    """Answer shares of the people of one subgroup: by question its codes' shares, and the number of answers."""

    shares: dict[str, dict[int, float]]
    counts: dict[str, int]


def edition_of(spec: TaskSpec, kind: str, edition: str | None, own: str | None) -> str:
    """Return the edition whose people are compared with.

    Args:
        kind: ``cells`` or ``correlations``.
        edition: a name, if one is asked for.
        own: the edition of the submission, which is taken where it has people.

    Raises:
        UsageError: no such edition, or nothing imported.
    """
    known = sorted(path.stem for path in (data_dir() / spec.folder.name / kind).glob("*.csv"))
    if not known:
        raise UsageError(
            f"{spec.name}: no respondents are imported here. `culteval data import wvs FILE` imports some."
        )
    if edition is not None and edition not in known:
        raise UsageError(f"`edition` {edition!r}: {spec.name} has {', '.join(known)}.{did_you_mean(edition, known)}")
    if edition is None and own not in known and len(known) > 1:
        raise UsageError(f"`edition`: {spec.name} has {', '.join(known)}. Name one of them.")
    return edition or (own if own in known else known[0])


def cells_of(spec: TaskSpec, edition: str, country: str) -> dict[str, dict[str, CellShares]]:
    """Read the answer shares of a country's subgroups, by attribute and cell.

    Raises:
        InputError: a malformed file. UsageError: the edition has no people of the country.
    """
    rows = _rows(spec, CELLS, edition, country)
    found: dict[str, dict[str, CellShares]] = {}
    for question, code, share, count, cell in zip(*(rows[name] for name in _FIELDS[CELLS][1:]), strict=True):
        attribute, _, name = str(cell).partition("=")
        of_cell = found.setdefault(attribute, {}).setdefault(name, CellShares({}, {}))
        of_cell.shares.setdefault(question, {})[int(code)] = float(share)
        of_cell.counts[question] = of_cell.counts.get(question, 0) + int(count)
    return found


def correlations_of(spec: TaskSpec, edition: str, country: str) -> tuple[np.ndarray, np.ndarray]:
    """Read the correlations between a task's items over a country's people.

    Returns:
        Correlations (items, items), NaN where unknown, and numbers of people (items, items), in the task's order.

    Raises:
        InputError: a malformed file. UsageError: the edition has no people of the country.
    """
    rows = _rows(spec, CORRELATIONS, edition, country)
    place = {name: number for number, name in enumerate(spec.items.ids)}
    found, counts = np.full((2, len(place), len(place)), np.nan)
    for first, second, value, count in zip(*(rows[name] for name in _FIELDS[CORRELATIONS][1:]), strict=True):
        if first in place and second in place:
            i, j = place[first], place[second]
            found[i, j] = found[j, i] = value
            counts[i, j] = counts[j, i] = count
    return found, np.nan_to_num(counts)


def persona_cells(spec: TaskSpec, attributes: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the survey's cell of each persona, by attribute; an empty text where it is in none.

    Args:
        attributes: values of the personas, as ``draw_attributes`` gives them.
    """
    from .importers.official import FOLDER, sources

    path = spec.folder / "subgroups.yaml"
    cells = read_yaml(path if path.is_file() else FOLDER / "subgroups.yaml")
    of_value = {name: {value: cell for cell, values in of.items() for value in values} for name, of in cells.items()}
    found = {
        name: [of_value[name].get(value, "") for value in values]
        for name, values in attributes.items()
        if name in of_value
    }
    if "age" in attributes:
        bands, ages = tuple(sources().codings["bands"]), np.array(sources().ages)
        place = np.searchsorted(ages, np.array(attributes["age"], dtype=float), side="right") - 1
        found["age"] = [bands[i] if 0 <= i < len(bands) else "" for i in place.tolist()]
    return found


def _rows(spec: TaskSpec, kind: str, edition: str, country: str) -> dict[str, Sequence[Any]]:
    """Read the columns of a stored table, of one country."""
    from pyarrow import ArrowException, compute, csv, string, types

    path = data_dir() / spec.folder.name / kind / f"{edition}.csv"
    kept: dict[str, Any] = {name: string() for name in _FIELDS[kind] if name not in _NUMBERS}
    try:
        table = csv.read_csv(path, convert_options=csv.ConvertOptions(include_columns=_FIELDS[kind], column_types=kept))
        valid: Callable[[Any], bool] = types.is_floating
        wrong = [n for n in _FIELDS[kind] if n in _NUMBERS and not (valid(t := table[n].type) or types.is_integer(t))]
    except (ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"{path}: damaged ({reason}). Import the file again.") from None
    if wrong:
        raise InputError(f"{path}: {wrong[0]}: not numbers. Import the file again.")
    rows = table.filter(compute.equal(table["country"], country))
    if not rows.num_rows:
        known = ", ".join(sorted(compute.unique(table["country"]).to_pylist()))[:200]
        raise UsageError(f"country {country}: edition {edition!r} has no people of it. It has {known}.")
    return {name: rows[name].to_pylist() for name in _FIELDS[kind]}
