"""Interpretation of the texts in a wave-7 file: codes as numbers, or the labels that programs write in their place."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import numpy as np

from ...errors import InputError
from ..items import Survey
from ..reading import read_yaml
from ..schema import Strict
from ..spec import load_spec, parse
from .column import Column
from .official import FOLDER

EMPTY = {"", ".", "NA", "N/A", "#N/A", "NAN", "NULL", "#NULL!"}  # of R, Excel, pandas, SPSS; Stata writes .a to .z
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_NUMBERED = re.compile(
    r"(-?\d{1,3})\s*(?:[.:=)\]]-?|\s-)\s*[^\W\d].*", re.DOTALL
)  # "1. Label", "1 - Label", "1) Label"
_APOSTROPHES = str.maketrans(dict.fromkeys("'’‘´`ʼ", ""))

Phrases = dict[int, str]


class Labels(Strict):
    """``labels.yaml``: phrases by scale and code, by demographic attribute and code, and those of missing answers."""

    scales: dict[str, Phrases]
    cells: dict[str, Phrases]
    missing: str


def numbers(column: Column, where: str) -> np.ndarray:
    """Parse a column of numbers (respondents,) float64, NaN where empty, with decimal points or decimal commas.

    Raises:
        InputError: a text that is not a number, or both points and commas.
    """
    given = [text for text in column.texts if not is_empty(text)]
    if invalid := next((text for text in given if not _NUMBER.fullmatch(text)), None):
        raise InputError(f"{where}: a cell is not a number ({invalid[:40]!r}). Give the official file.")
    if any("," in text for text in given) and any("." in text for text in given):
        raise InputError(f"{where}: numbers with commas and with points, so the decimal separator is ambiguous.")
    values = [np.nan if is_empty(text) else float(text.replace(",", ".")) for text in column.texts]
    return np.array(values)[column.place]


def codes(column: Column, phrases: Phrases, where: str) -> np.ndarray:
    """Parse a column of codes (respondents,) float64, NaN where empty or where a label marks a missing answer.

    Raises:
        InputError: a number that is not whole, or a label that is not in the scale; names it.
    """
    return np.array([_code(text, phrases, where) for text in column.texts])[column.place]


def _code(text: str, phrases: Phrases, where: str) -> float:
    if is_empty(text):
        return np.nan
    if _NUMBER.fullmatch(text):
        value = float(text.replace(",", "."))
        if not value.is_integer():
            raise InputError(f"{where}: {text!r} is not a code. Give the official file.")
        return value
    label = _plain(text)
    found = _matching(label, _table(tuple(phrases.items())))
    if found is None and _matching(label, _table(((0, known().missing),))) is not None:
        return np.nan
    if found is None and (numbered := _NUMBERED.fullmatch(text)):
        return float(numbered[1])
    if found is None:
        raise InputError(f"{where}: no code is known for the label {text[:60]!r}. Save it with codes, not labels.")
    return found


def is_empty(text: str) -> bool:
    """Return whether a cell is one of the texts that programs write for an empty cell."""
    return text.upper() in EMPTY or (len(text) == 2 and text[0] == "." and text[1].isalpha())


def _plain(text: str) -> str:
    """Return a label without case, accents, apostrophes and punctuation."""
    letters = unicodedata.normalize("NFKD", text.translate(_APOSTROPHES))
    bare = "".join(c for c in letters if not unicodedata.combining(c))
    return " ".join(re.sub(r"\W+", " ", bare).casefold().split())


@lru_cache(maxsize=256)
def _table(phrases: tuple[tuple[int, str], ...]) -> tuple[tuple[str, bool, int], ...]:
    """Return each phrase, whether it is only part of the label, and its code."""
    every = [(part.strip(), code) for code, parts in phrases for part in parts.split("|")]
    return tuple((part.removeprefix("~"), part.startswith("~"), code) for part, code in every)


def _matching(label: str, table: tuple[tuple[str, bool, int], ...]) -> int | None:
    """Return the code of the whole label, else of the longest phrase in it."""
    whole = next((code for phrase, _, code in table if phrase == label), None)
    inside = [(len(phrase), code) for phrase, part, code in table if part and f" {phrase} " in f" {label} "]
    return whole if whole is not None or not inside else max(inside)[1]


@lru_cache(maxsize=1)
def known() -> Labels:
    """Return the phrases of ``tasks/wvs/labels.yaml``."""
    return parse(Labels, read_yaml(FOLDER / "labels.yaml"), FOLDER / "labels.yaml")


@lru_cache(maxsize=1)
def phrases_of_questions() -> dict[str, Phrases]:
    """Return the phrases of every question's scale."""
    found: dict[str, Phrases] = {}
    for name in ("wvs.yaml", "wvs_themes.yaml"):
        items = load_spec(FOLDER / name).items
        assert isinstance(items, Survey), "as its file has it"
        found |= {item: known().scales[items.scale(item)] for item in items.ids}
    return found


def by_labels(column: Column, phrases: Phrases, where: str) -> Column:
    """Replace codes by those that their value labels stand for, where a file has both and they differ.

    An archive may number the same answers in another order, and a converter may number them from 1.

    Raises:
        InputError: they differ, and a code has no label or an unknown one, so that its meaning is unknown.
    """
    said = {text: _meaning(label, phrases) for text, label in column.labels.items() if text in column.texts}
    answers = {text: code for text, code in said.items() if code != "" and not text.startswith("-")}
    same = {("0", "2")} if set(phrases) == {1, 2} else set()  # "not mentioned" and "no" of trend files
    differing = (text for text, code in answers.items() if code not in (None, text) and (text, code) not in same)
    other = next(differing, None)
    known_codes = [code for code in answers.values() if code is not None]
    unlabelled = [t for t in column.texts if t not in column.labels and not (is_empty(t) or t.startswith("-"))]
    unclear = unlabelled or len(known_codes) < len(answers) or len(set(known_codes)) < len(known_codes)
    if other is not None and unclear:
        label = column.labels[other][:40]
        raise InputError(f"{where}: code {other} is labelled {label!r}, unlike in the survey. Give the official file.")
    texts = tuple(text if (code := said.get(text)) is None else code for text in column.texts)
    return Column(texts, column.place)


def _meaning(label: str, phrases: Phrases) -> str | None:
    """Return the code that a label stands for, as text; empty for a missing answer, None for an unknown label."""
    plain = _plain(label)
    code = _matching(plain, _table(tuple(phrases.items())))
    if code is None and _matching(plain, _table(((0, known().missing),))) is not None:
        return ""
    return None if code is None else str(code)
