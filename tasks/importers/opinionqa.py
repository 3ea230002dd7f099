"""Import of OpinionQA from the authors' folder of human responses: questions, and answer shares as editions.

Folders such as ``human_resp/American_Trends_Panel_W26`` (Santurkar et al. 2023, arXiv 2303.17548; GitHub
tatsu-lab/opinions_qa) have ``info.csv`` (``key``, ``question``, ``references``, the options, refusals last, and
``option_ordinal``, the positions of those that are no refusal) and ``responses.csv`` (a row a respondent: for each key
the text of the chosen option, attributes such as POLPARTY, and the weight ``WEIGHT_W26``). As in the authors'
``helpers.py``, shares are weighted and without refusals.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import cast

from ...errors import InputError
from ..reading import check_columns, iter_csv, read_csv
from ..rows import MOST_SHARES, literal
from .common import Line, Row, Tally, Unusable, checked, column, one_by_one, split, usable

INFO = ("key", "question", "references", "option_ordinal")
OVERALL, REFUSED, MOST_GROUPS = "overall", "Refused", 200
_WAVE = re.compile(r"American_Trends_Panel_W\d+")
_KEY = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_COUNTRY = "US"


@dataclass
class _Answers:
    """The sums of weights and the number of respondents by option, of one question and one group."""

    weights: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def opinionqa(source: str, seed: int, tally: Tally, by: Sequence[str] = ()) -> tuple[list[Row], dict[str, str]]:
    """Convert to questions and editions, each the text of a file of shares: all respondents, and the groups of ``by``.

    Raises:
        InputError: no such folder, another table, or a question that cannot be used, for example because an answer is
            none of its ``references``.
    """
    rows: list[Row] = []
    editions: dict[str, list[str]] = {}
    for wave, folder in _waves(Path(source)):
        table = read_csv(folder / "info.csv", INFO)
        asked = usable(f"{folder / 'info.csv'}", one_by_one(table), _question, tally)
        groups, unlisted = _groups(folder / "responses.csv", wave, asked, by)
        found = usable(f"{folder / 'responses.csv'}", asked, partial(_answered, unlisted=unlisted), tally)
        for group, answers in groups.items():
            editions.setdefault(group, []).extend(_shares(found, answers))
        rows += found
    head = "country,question,code,share,count\n"
    return split(rows, seed), {name: head + "".join(lines) for name, lines in editions.items() if lines}


def _waves(folder: Path) -> list[tuple[str, Path]]:
    """Return the waves in a folder, in one above it, or the folder itself."""
    places = [folder, *sorted(folder.glob("*/")), *sorted(folder.glob("human_resp/*/"))]
    waves = {name: place for place in places if _WAVE.fullmatch(name := place.resolve().name)}
    if not waves:
        raise InputError(
            f"{folder}: no folder American_Trends_Panel_W... in it. Give the folder human_resp of OpinionQA's data."
        )
    return [(name.rpartition("_")[2], place) for name, place in waves.items()]


def _question(rows: list[Line]) -> Row:
    ((line, row),) = rows
    if not _KEY.fullmatch(row["key"].strip()):
        raise Unusable(line, "key", f"{row['key'][:20]!r} is no name of a column")
    with column(line, "references"):
        options = literal(row["references"], "references")
    with column(line, "option_ordinal"):
        places = literal(row["option_ordinal"], "option_ordinal")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise Unusable(line, "references", "no list of texts")
    options = [option.strip() for option in options]  # as the answers
    if not isinstance(places, list) or not all(isinstance(place, int | float) for place in places):
        raise Unusable(line, "option_ordinal", "no list of numbers")
    if not 2 <= len(places) <= len(options):
        raise Unusable(line, "option_ordinal", f"{len(places)} positions of {len(options)} options")
    listed = [option for _, option in sorted(zip(places, options, strict=False), key=lambda pair: pair[0])]
    steps = {round(high - low, 6) for low, high in zip(sorted(places), sorted(places)[1:], strict=False)}
    if len(steps) > 1:
        raise Unusable(line, "option_ordinal", "positions that are not equally far apart")
    made: Row = {"id": row["key"].strip(), "question": row["question"].strip(), "options": listed}
    if steps == {0}:
        made["ordered"] = False
    return checked(line, "references", made) | {"references": options}


def _groups(
    path: Path, wave: str, asked: Sequence[Row], by: Sequence[str]
) -> tuple[dict[str, dict[str, _Answers]], dict[str, tuple[int, str]]]:
    """Count the answers by edition and question.

    Returns:
        The counts, and by question the line and text of the first answer that is none of its references; answers of
        weight zero do not matter.
    """
    listed = {str(row["id"]): cast(list[str], row["references"]) for row in asked}
    keys, weight = list(listed), f"WEIGHT_{wave}"
    found: dict[str, dict[str, _Answers]] = {}
    unlisted: dict[str, tuple[int, str]] = {}

    def check(columns: Sequence[str], where: str) -> None:
        check_columns(columns, (weight, *keys, *by), where)

    for line, row in iter_csv(path, check, MOST_SHARES):
        share = _weight(row[weight], f"{path}:{line}: {weight}")
        for key in keys if share > 0 else ():
            if (text := row[key].strip()) and text not in listed[key]:
                unlisted.setdefault(key, (line, text))
        groups = [OVERALL, *(_name(name, row[name]) for name in by if row[name].strip() not in ("", REFUSED))]
        for group in groups:
            answers = found.setdefault(group, {key: _Answers() for key in keys})
            for key in keys:
                if text := row[key].strip():
                    answers[key].weights[text] = answers[key].weights.get(text, 0.0) + share
                    answers[key].counts[text] = answers[key].counts.get(text, 0) + 1
        if len(found) > MOST_GROUPS:
            raise InputError(f"{path}:{line}: more than {MOST_GROUPS} groups. Give --by an attribute with few values.")
    return found, unlisted


def _answered(row: Row, unlisted: dict[str, tuple[int, str]]) -> Row:
    """Return the row without its references if every answer is one of them."""
    if answer := unlisted.get(str(row["id"])):
        line, text = answer
        raise Unusable(line, str(row["id"]), f"{text[:40]!r} is none of the references in info.csv")
    return {name: value for name, value in row.items() if name != "references"}


def _weight(text: str, where: str) -> float:
    """Read a weight; an empty one is zero."""
    try:
        share = float(text.strip() or 0)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1e9:
        raise InputError(f"{where}: {text[:20]!r} is no weight. Correct this line.")
    return share


def _name(attribute: str, group: str) -> str:
    """Name the edition of a group."""
    return "_".join(re.findall(r"[A-Za-z0-9]+", f"{attribute} {group}"))[:60]


def _shares(asked: Iterable[Row], answers: dict[str, _Answers]) -> Iterator[str]:
    """Format the shares of the questions that a group answered."""
    for row in asked:
        own = answers.get(str(row["id"]), _Answers())
        options = cast(list[str], row["options"])
        total = sum(own.weights.get(option, 0.0) for option in options)
        for code, option in enumerate(options if total > 0 else (), start=1):
            share, count = own.weights.get(option, 0.0) / total, own.counts.get(option, 0)
            yield f"{_COUNTRY},{row['id']},{code},{share!r},{count}\n"
