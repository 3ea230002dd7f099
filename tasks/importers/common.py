"""Parts that the importers of questions use: unusable questions, names of countries, the split, the file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from pydantic import ValidationError

from ...errors import InputError, UsageError
from ..countries import country as resolve
from ..countries import nearest
from ..items import Question
from ..rows import SELECTIONS
from ..spec import first_problem

Row = dict[str, object]
Line = tuple[int, dict[str, str]]
Asked = TypeVar("Asked")
Kept = TypeVar("Kept")


@dataclass
class Tally:
    """How many questions were ``mended``, by defect, and how many were ``left_out``, by the column that is wrong.

    Without ``skip`` none is left out: the first question that cannot be used is an error.
    """

    skip: bool = False
    mended: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)


class Unusable(Exception):
    """The reason why a question cannot be used: the line and column, and the problem."""

    def __init__(self, line: int, column: str, problem: str) -> None:
        super().__init__(problem)
        self.line, self.column = line, column


@contextmanager
def column(line: int, name: str) -> Iterator[None]:
    """Report an InputError about a cell as the reason why its question cannot be used."""
    try:
        yield
    except InputError as error:
        problem = str(error).removeprefix(f"{name}: ").partition(". ")[0]
        raise Unusable(line, name, problem.removesuffix(".")) from None


def checked(line: int, name: str, row: Row) -> Row:
    """Return a row of a question file if it makes a valid question; else its column ``name`` cannot be used."""
    try:
        Question.model_validate({key: value for key, value in row.items() if key != SELECTIONS})
    except ValidationError as error:
        raise Unusable(line, name, first_problem(error).removeprefix("file: ").removeprefix(f"{name}: ")) from None
    return row


def lines(rows: Sequence[Row]) -> str:
    """Format the rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def usable(source: str, questions: Iterable[Asked], read: Callable[[Asked], Kept], tally: Tally) -> list[Kept]:
    """Apply ``read`` to each question, such as its rows, and leave out or report those that cannot be used.

    Raises:
        InputError: a question cannot be used and none is to be left out, or none can be used.
    """
    kept = []
    for question in questions:
        try:
            kept.append(read(question))
        except Unusable as error:
            if not tally.skip:
                remedy = "Correct it, or add --skip-bad-rows to leave such questions out."
                raise InputError(f"{source}:{error.line}: {error.column}: {error}.\n{remedy}") from None
            tally.left_out[error.column] += 1
    if not kept:
        raise InputError(f"{source}: no question that can be used. Give the official file.")
    return kept


def one_by_one(table: list[dict[str, str]]) -> Iterable[list[Line]]:
    """Return each row, numbered from the second line on, as a question of its own."""
    return ([(line, row)] for line, row in enumerate(table, start=2))


def country_of(line: int, name: str) -> str:
    """Return the code of a country's name."""
    try:
        return resolve(name).code
    except UsageError:
        hint = f" (did you mean {near!r}?)" if (near := nearest(name)) else ""
        raise Unusable(line, "country", f"{name[:40]!r} is no country's name{hint}") from None


def split(rows: list[Row], seed: int, by: str = "group") -> list[Row]:
    """Assign every second question of a seeded order to the held-out split; rows with the same ``by`` stay together."""
    names = list(dict.fromkeys(row.get(by, row["id"]) for row in rows))
    order = np.random.default_rng([seed, 1]).permutation(len(names))
    held = {names[i] for i in order[1::2]}
    return [row | {"split": "heldout" if row.get(by, row["id"]) in held else "fit"} for row in rows]
