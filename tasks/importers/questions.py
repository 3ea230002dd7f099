"""Import of CulturalBench and CDEval, from the user's file or the hub, as question files.

Defects that can be corrected without loss are corrected and counted. A question that cannot be used is an error, or is
left out and counted on request.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from ...errors import InputError
from .common import Line, Row, Tally, Unusable, country_of, split, usable
from .tables import MARKS, read_table

HARD = ("question_idx", "prompt_question", "prompt_option", "answer", "country")
EASY_OPTIONS = tuple(f"prompt_option_{letter}" for letter in "abcd")
EASY = ("question_idx", "prompt_question", *EASY_OPTIONS, "answer", "country")
CDEVAL = ("Question", "Option 1", "Option 2", "Dimension")
# A dimension's name, its high pole first. Files contain the beginning of it, or the code, or both.
_DIMENSIONS = {
    "pdi": ["power", "distance"],
    "idv": ["individualism", "collectivism"],
    "mas": ["masculinity", "femininity"],
    "uai": ["uncertainty", "avoidance"],
    "lto": ["long", "term", "short", "term"],
    "ivr": ["indulgence", "restraint"],
}
_FILLING = {"vs", "versus", "and", "or", "index", "orientation", "normative", "dimension"}
_EMPTY, _EQUAL, _TWICE = "empty options", "equal options", "rows of one question"  # the defects that are corrected
_LABELLED = "letters before options"

Option = tuple[int, str, bool]  # its line, its text, whether it is right


@dataclass(frozen=True)
class _Asked:
    """A question of CulturalBench, and whether each of its options is right."""

    name: str
    question: str
    country: str
    options: dict[str, bool]


def culturalbench(source: str, seed: int, tally: Tally) -> dict[str, list[Row]]:
    """Convert to rows of ``easy``, with shuffled options, and of ``hard``, a judgement of each option (``group``).

    An Easy file gives ``easy`` only. A Hard file gives both, and several options may be right then.

    Raises:
        InputError: another table, or a question that cannot be used.
    """
    made: dict[str, list[Row]] = {}
    for name, columns, options_of in (("easy", EASY, _easy_options), ("hard", HARD, _hard_options)):
        try:
            table = read_table(source, columns, f"CulturalBench-{name.title()}", MARKS)
        except InputError as error:
            if "no column" not in str(error) or (name == "hard" and not made):
                raise
            continue
        asked = usable(source, _by_index(table), partial(_merged, options_of=options_of, tally=tally), tally)
        if "easy" not in made:
            rng = np.random.default_rng(seed)
            made["easy"] = [_choice(each, rng) for each in asked]
        if name == "hard":
            made["hard"] = [row for each in asked for row in _judgements(each)]
    return {name: split(rows, seed) for name, rows in made.items()}


def cdeval(source: str, seed: int, tally: Tally) -> dict[str, list[Row]]:
    """Convert to preference pairs; option 1 is the high pole.

    Raises:
        InputError: another table, or a pair that cannot be used.
    """
    pairs: dict[tuple[str, ...], list[Line]] = {}
    for line, row in enumerate(read_table(source, CDEVAL, marks=MARKS), start=2):
        pairs.setdefault(tuple(row[name].strip() for name in CDEVAL), []).append((line, row))
    return {"cdeval": split(usable(source, pairs.values(), partial(_preference, tally=tally), tally), seed)}


def _by_index(table: Sequence[dict[str, str]]) -> Iterable[list[Line]]:
    """Group the rows by question."""
    found: dict[str, list[Line]] = {}
    for line, row in enumerate(table, start=2):
        found.setdefault(row["question_idx"].strip(), []).append((line, row))
    return found.values()


def _merged(rows: list[Line], options_of: Callable[[list[Line], set[str]], Iterator[Option]], tally: Tally) -> _Asked:
    """Merge the rows of one question: without empty options, and with equal ones once."""
    (line, first), mended = rows[0], set[str]()
    country = country_of(line, first["country"])
    for number, row in rows:
        if not row["prompt_question"].strip():
            raise Unusable(number, "prompt_question", "empty")
        same = row["prompt_question"].strip() == first["prompt_question"].strip()
        if not same or country_of(number, row["country"]) != country:
            raise Unusable(number, "question_idx", f"{row['question_idx'][:20]!r} is another question in line {line}")
    options: dict[str, bool] = {}
    for number, text, right in options_of(rows, mended):
        if right and not text:
            raise Unusable(number, "answer", "the right option is empty")
        if text:
            options[text] = right or options.get(text, False)
        else:
            mended.add(_EMPTY)
    if len(options) < 2:
        raise Unusable(line, "options", "fewer than two that are different and not empty")
    if not any(options.values()):
        raise Unusable(line, "answer", "no option is true")
    tally.mended.update(mended)
    return _Asked(f"q{first['question_idx'].strip()}", first["prompt_question"].strip(), country, options)


def _easy_options(rows: list[Line], mended: set[str]) -> Iterator[Option]:
    """Return the options of an Easy question, once for each right one; such a question occurs in several rows."""
    found: list[set[str]] = []
    for line, row in rows:
        right = row["answer"].strip().upper()
        if right not in ("A", "B", "C", "D"):
            raise Unusable(line, "answer", f"{right[:20]!r} is not A, B, C or D")
        texts = _unlabelled([row[column].strip() for column in EASY_OPTIONS], mended)
        found.append(set(texts))
        if found[-1] != found[0]:
            raise Unusable(line, "question_idx", f"{row['question_idx'][:20]!r} has other options in line {rows[0][0]}")
        if len(set(filter(None, texts))) < sum(map(bool, texts)):
            mended.add(_EQUAL)
        yield from ((line, text, letter == right) for letter, text in zip("ABCD", texts, strict=True))
    if len(rows) > 1:
        mended.add(_TWICE)


def _hard_options(rows: list[Line], mended: set[str]) -> Iterator[Option]:
    """Return the options of a Hard question, one per row."""
    truths: dict[str, bool] = {}
    for line, row in rows:
        verdict, text = row["answer"].strip().lower(), row["prompt_option"].strip()
        if verdict not in ("true", "false", "1", "0"):
            raise Unusable(line, "answer", f"{verdict[:20]!r} is neither True nor False")
        if text in truths:
            mended.add(_EQUAL)
        if truths.setdefault(text, right := verdict in ("true", "1")) != right:
            raise Unusable(line, "answer", "True and False of the same option")
        yield line, text, right


def _unlabelled(texts: list[str], mended: set[str]) -> list[str]:
    """Remove letters before options ("A. tea"), which would be wrong when the options are shuffled."""
    bare = [re.sub(rf"^\(?{letter}[.):]\s+", "", text) for letter, text in zip("ABCD", texts, strict=True)]
    if sum(one != other for one, other in zip(bare, texts, strict=True)) < 2:  # a single one may be an initial
        return texts
    mended.add(_LABELLED)
    return bare


def _choice(asked: _Asked, rng: np.random.Generator) -> Row:
    texts = list(asked.options)
    order = rng.permutation(len(texts)).tolist()
    right = [code for code, place in enumerate(order, start=1) if asked.options[texts[place]]]
    head = {"id": asked.name, "country": asked.country, "question": asked.question}
    return head | {"options": [texts[place] for place in order], "answers": right}


def _judgements(asked: _Asked) -> Iterator[Row]:
    for number, (text, right) in enumerate(asked.options.items(), start=1):
        question = f"{asked.question}\nProposed answer: {text}\nIs this answer right?"
        head = {"id": f"{asked.name}_{number}", "group": asked.name, "country": asked.country, "question": question}
        yield head | {"options": ["True", "False"], "answer": 1 if right else 2}


def _preference(rows: list[Line], tally: Tally) -> Row:
    """Convert a pair, which may occur several times."""
    (line, row), *more = rows
    dimension = _dimension(row["Dimension"])
    if dimension is None:
        names = ", ".join(" ".join(words[:2]) for words in _DIMENSIONS.values())
        raise Unusable(line, "Dimension", f"{row['Dimension'][:40]!r} is not one of {names}")
    options = [row["Option 1"].strip(), row["Option 2"].strip()]
    if not row["Question"].strip():
        raise Unusable(line, "Question", "empty")
    if not all(options) or options[0] == options[1]:
        raise Unusable(line, "options", "not two that are different and not empty")
    if more:
        tally.mended[_TWICE] += 1
    return {"id": f"{dimension}{line}", "dimension": dimension, "question": row["Question"], "options": options}


def _dimension(name: str) -> str | None:
    """Find the dimension that a full name, a code or both stand for; None if they disagree."""
    words = [word for word in re.findall(r"[^\W\d_]+", name.lower()) if word not in _FILLING]
    codes = {word for word in words if word in _DIMENSIONS}
    written = [word for word in words if word not in codes]
    named = {code for code, full in _DIMENSIONS.items() if written and full[: len(written)] == written}
    found = codes | named
    return found.pop() if len(found) == 1 and bool(named) == bool(written) else None
