"""Import of the user's file of the World Values Survey or the European Values Study as an edition of answer shares.

An edition is weighted and has counts. Beside it lie the shares of demographic cells, and the correlations between
items over people, which shares do not show.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...errors import InputError
from ..metrics.share_reference import read_variants
from ..schema import Strict
from ..spec import load_spec
from .official import FOLDER, officials, sources
from .people import MISSING, People, latest, read_people

FAMILY = "wvs"
LEAST_PAIRS = 50  # respondents who answered both of two items; a correlation of fewer is left out


class Imported(Strict):
    """The result of an import: numbers of respondents and questions with answers, and the countries.

    ``left_out`` are the numbers of respondents without a positive weight, by country; they enter no share and no count.
    ``waves`` are those of each country where a file has several; ``unread`` says why an attribute is left out.
    """

    kind: str
    respondents: int
    countries: tuple[str, ...]
    questions: int
    left_out: dict[str, int]
    waves: dict[str, tuple[int, ...]]
    subgroups: tuple[str, ...]
    unread: dict[str, str]


@dataclass(frozen=True)
class Edition:
    """A converted file: a summary, and the lines of the three tables that are stored."""

    summary: Imported
    shares: Iterator[str]
    cells: Iterator[str]
    correlations: Iterator[str]


def convert(source: Path, waves: Sequence[int] = ()) -> Edition:
    """Convert to lines of ``country,question,code,share,count``, of the same by ``cell``, and of correlations.

    Shares are weighted and sum to 1 over valid codes; ``count`` is the unweighted number of answers. Codes that no
    scale has are missing, and so are the questions left out for a country (``variants.yaml`` says which and why).
    Respondents whose weight is missing or zero are left out of both, and those of other than the last wave of their
    country, or than ``waves``.

    Raises:
        InputError: not an official file; names column and remedy.
    """
    people = read_people(source, _questions(), attributes=True)
    if not people.columns:
        raise InputError(f"{source}: none of the questions of the task. Give the whole file.")
    _leave_out(people)
    asked = latest(people, waves)
    kept = asked & people.kept
    if not kept.any():
        raise InputError(f"{source}: no respondent of these waves has a weight. Give the official file.")
    lost = Counter(people.countries[i] for i in people.country[asked & ~people.kept].tolist())
    present = np.unique(people.country[kept]).tolist()
    summary = Imported(
        kind=sources().sources[people.kind].title,
        respondents=int(kept.sum()),
        countries=tuple(people.countries[i] for i in present),
        questions=sum(bool(np.isfinite(values[kept]).any()) for values in people.columns.values()),
        left_out=dict(sorted(lost.items())),
        waves=_waves(people, kept, present) if people.wave.any() else {},
        subgroups=tuple(people.attributes),
        unread=people.unread,
    )
    return Edition(summary, _shares(people, kept), _cells(people, kept), _correlations(people, kept, present))


@lru_cache(maxsize=1)
def _questions() -> dict[str, tuple[int, ...]]:
    """Return every question of the tasks, and its valid codes."""
    valid: dict[str, tuple[int, ...]] = {}
    for name in ("wvs.yaml", "wvs_themes.yaml"):
        items = load_spec(FOLDER / name).items
        valid |= {item: items.codes(item) for item in items.ids}
    return {item: codes for item, codes in valid.items() if item in officials()}


def _leave_out(people: People) -> None:
    """Replace the answers to the questions that ``variants.yaml`` leaves out for a country by NaN."""
    left_out = read_variants(FOLDER / "variants.yaml").left_out
    for place, country in enumerate(people.countries):
        for question in people.columns.keys() & {*left_out.get(country, ())}:
            people.columns[question][people.country == place] = np.nan


def _waves(people: People, kept: np.ndarray, present: list[int]) -> dict[str, tuple[int, ...]]:
    return {people.countries[i]: tuple(np.unique(people.wave[kept & (people.country == i)]).tolist()) for i in present}


def _shares(people: People, kept: np.ndarray) -> Iterator[str]:
    yield "country,question,code,share,count\n"
    for row, fields in _tallied(people, kept, people.country.astype(np.int32), len(people.countries)):
        yield f"{people.countries[row]},{fields}\n"


def _cells(people: People, kept: np.ndarray) -> Iterator[str]:
    yield "country,question,code,share,count,cell\n"
    for attribute, (names, place) in people.attributes.items():
        group = people.country.astype(np.int32) * len(names) + place
        for row, fields in _tallied(people, kept, group, len(people.countries) * len(names)):
            country, cell = divmod(row, len(names))
            if names[cell] != MISSING:
                yield f"{people.countries[country]},{fields},{attribute}={names[cell]}\n"


def _tallied(people: People, kept: np.ndarray, group: np.ndarray, groups: int) -> Iterator[tuple[int, str]]:
    """Yield group and ``question,code,share,count`` of every option that somebody of a group chose."""
    for question, valid in _questions().items():
        if question not in people.columns:
            continue
        values, options = people.columns[question], np.array(valid, dtype=np.float32)
        known = kept & np.isin(values, options)
        index = group[known] * len(options) + np.searchsorted(options, values[known])
        size = groups * len(options)
        sums = np.bincount(index, people.weight[known], minlength=size).reshape(-1, len(options))
        counts = np.bincount(index, minlength=size).reshape(-1, len(options))
        rows, chosen = np.nonzero(counts)
        shares = (sums / np.maximum(sums.sum(1, keepdims=True), 1e-300))[rows, chosen]
        of_option = zip(rows.tolist(), chosen.tolist(), shares.tolist(), counts[rows, chosen].tolist(), strict=True)
        for row, option, share, count in of_option:
            yield row, f"{question},{valid[option]},{share:.6f},{count}"


def _correlations(people: People, kept: np.ndarray, present: list[int]) -> Iterator[str]:
    """Yield Pearson correlations over people, weighted, of the answers that both items have."""
    yield "country,first,second,correlation,count\n"
    names = [name for name in _questions() if name in people.columns]
    answers = np.stack([people.columns[name][kept] for name in names], axis=1)
    country, weight = people.country[kept], people.weight[kept]
    for number in present:
        rows = country == number
        found, counts = pairwise(answers[rows].astype(np.float64), weight[rows])
        first, second = np.nonzero(np.triu((counts >= LEAST_PAIRS) & np.isfinite(found), 1))
        values, sizes = found[first, second].tolist(), counts[first, second].astype(int).tolist()
        for i, j, value, size in zip(first.tolist(), second.tolist(), values, sizes, strict=True):
            yield f"{people.countries[number]},{names[i]},{names[j]},{value:.4f},{size}\n"


def pairwise(answers: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute weighted Pearson correlations (items, items) over people, each from those who answered both items.

    Args:
        answers: (people, items), NaN without an answer. weight: (people,).

    Returns:
        Correlations, NaN where one of two items does not vary, and the numbers of people (items, items).
    """
    known = np.isfinite(answers)
    present, heavy = known.astype(np.float64), known * weight[:, None]
    average = np.where(known, answers, 0).sum(0) / np.maximum(present.sum(0), 1)
    centred = np.where(known, answers - average, 0.0)
    total = heavy.T @ present
    first = (centred * heavy).T @ present  # sum of w x over those who answered both
    both = (centred * heavy).T @ centred
    square = (centred**2 * heavy).T @ present
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = first / total
        variance = square / total - mean**2
        covariance = both / total - mean * mean.T
        found = covariance / np.sqrt(variance * variance.T)
    constant = (variance <= 1e-12) | (variance.T <= 1e-12)
    return np.where(constant, np.nan, np.clip(found, -1, 1)), present.T @ present
