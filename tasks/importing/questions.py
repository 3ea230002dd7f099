"""CulturalBench and CDEval, from the user's CSV file or the hub, as question files of ours."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import InputError, UsageError
from ..countries import country as resolve
from .tables import read_table

HARD = ("question_idx", "prompt_question", "prompt_option", "answer", "country")
EASY_OPTIONS = tuple(f"prompt_option_{letter}" for letter in "abcd")
EASY = ("question_idx", "prompt_question", *EASY_OPTIONS, "answer", "country")
CDEVAL = ("Question", "Option 1", "Option 2", "Dimension")
_DIMENSIONS = {
    "power distance": "pdi",
    "individualism": "idv",
    "masculinity": "mas",
    "uncertainty avoidance": "uai",
    "long-term orientation": "lto",
    "long term orientation": "lto",
    "indulgence": "ivr",
}

Row = dict[str, object]


def culturalbench_hard(source: str, seed: int) -> list[Row]:
    """Four true/false judgements a question, judged together (``group``)."""
    rows = read_table(source, HARD, "CulturalBench-Hard")
    found: list[Row] = []
    judged: Counter[str] = Counter()
    for line, row in enumerate(rows, start=2):
        truth = _truth(row["answer"], f"{source}:{line}")
        text = f"{row['prompt_question']}\nProposed answer: {row['prompt_option']}\nIs this answer right?"
        group = f"q{row['question_idx']}"
        judged[group] += 1
        asked: Row = {"id": f"{group}_{judged[group]}", "group": group}
        asked |= {"country": _country(row, source, line), "question": text, "options": ["True", "False"]}
        found.append(asked | {"answer": 1 if truth else 2})
    return _split(found, seed)


def culturalbench_easy(source: str, seed: int) -> list[Row]:
    """One of four options, shuffled by the seed. A Hard file will do: several true options are all right then."""
    try:
        rows = read_table(source, EASY, "CulturalBench-Easy")
    except InputError as error:
        if "prompt_option_" not in str(error):
            raise
        return _easy_from_hard(source, seed)
    rng, found = np.random.default_rng(seed), []
    for line, row in enumerate(rows, start=2):
        right = row["answer"].strip().upper()
        if right not in ("A", "B", "C", "D"):
            raise InputError(f"{source}:{line}: answer: {right[:20]!r} is not A, B, C or D.")
        options = [row[name] for name in EASY_OPTIONS]
        head = {"id": f"q{row['question_idx']}", "country": _country(row, source, line)}
        found.append(head | _shuffled(row["prompt_question"], options, ["ABCD".index(right)], rng))
    return _split(found, seed)


def _easy_from_hard(source: str, seed: int) -> list[Row]:
    rng = np.random.default_rng(seed)
    groups: dict[str, dict[str, Any]] = {}
    for line, row in enumerate(read_table(source, HARD), start=2):
        group = groups.setdefault(row["question_idx"], {"row": row, "line": line, "options": [], "right": []})
        if _truth(row["answer"], f"{source}:{line}"):
            group["right"].append(len(group["options"]))
        group["options"].append(row["prompt_option"])
    found = []
    for name, group in groups.items():
        if not group["right"]:
            raise InputError(f"{source}:{group['line']}: question {name}: no option is true.")
        head = {"id": f"q{name}", "country": _country(group["row"], source, group["line"])}
        found.append(head | _shuffled(group["row"]["prompt_question"], group["options"], group["right"], rng))
    return _split(found, seed)


def cdeval(source: str, seed: int) -> list[Row]:
    """Preference pairs; option 1 is the high pole."""
    found: list[Row] = []
    for line, row in enumerate(read_table(source, CDEVAL), start=2):
        name = row["Dimension"].strip().lower()
        dimension = _DIMENSIONS.get(name) or next(
            (v for k, v in _DIMENSIONS.items() if name in (v, k.split()[0])), None
        )
        if dimension is None:
            raise InputError(f"{source}:{line}: Dimension: {name[:40]!r} is none of {', '.join(_DIMENSIONS)}.")
        options = [row["Option 1"].strip(), row["Option 2"].strip()]
        found.append(
            {"id": f"{dimension}{line}", "dimension": dimension, "question": row["Question"], "options": options}
        )
    return _split(found, seed)


def lines(rows: Sequence[Row]) -> str:
    """The rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _truth(text: str, where: str) -> bool:
    if (said := text.strip().lower()) not in ("true", "false", "1", "0"):
        raise InputError(f"{where}: answer: {said[:20]!r} is neither True nor False.")
    return said in ("true", "1")


def _country(row: dict[str, str], source: str, line: int) -> str:
    try:
        return resolve(row["country"]).code
    except UsageError:
        raise InputError(f"{source}:{line}: country: {row['country'][:40]!r} is no country's name.") from None


def _shuffled(question: str, options: list[str], right: list[int], rng: np.random.Generator) -> Row:
    order = rng.permutation(len(options)).tolist()
    answers = sorted(order.index(place) + 1 for place in right)
    return {"question": question, "options": [options[i] for i in order], "answers": answers}


def _split(rows: list[Row], seed: int) -> list[Row]:
    """Every other question (or group) of a seeded order is held out."""
    names = list(dict.fromkeys(row.get("group", row["id"]) for row in rows))
    order = np.random.default_rng([seed, 1]).permutation(len(names))
    held = {names[i] for i in order[1::2]}
    return [row | {"split": "heldout" if row.get("group", row["id"]) in held else "fit"} for row in rows]
