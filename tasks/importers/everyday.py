"""Import of BLEnD and NormAd, from the user's file or the hub: questions and judgements with a right option.

- BLEnD (Myung et al. 2024, arXiv 2406.09948), the columns of ``mc_questions_file.csv`` or ``.json`` as the authors'
  ``multiple_choice_generation.py`` (github.com/nlee0212/BLEnD) writes them: ``prompt`` has the question, an instruction
  and the choices; ``choices`` maps letters to texts, ``answer_idx`` is a letter.
- NormAd (Rao et al. 2025, arXiv 2404.12464), the columns of ``normad_etiquette_final_data.csv``, hub id
  ``akhilayerukola/NormAd``: a ``Story`` asks whether something is acceptable, ``Gold Label`` is yes, no or neutral, and
  ``Country``, ``Value`` and ``Rule-of-Thumb`` are the three levels of context.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import numpy as np

from ..countries import name_of
from ..rows import literal
from .common import Line, Row, Tally, Unusable, checked, column, country_of, one_by_one, split, usable
from .tables import MARKS, read_table

BLEND = ("MCQID", "ID", "country", "prompt", "choices", "answer_idx")
NORMAD = ("Country", "Value", "Rule-of-Thumb", "Story", "Gold Label")
_BLEND_HUB, _MOST = "multiple-choice-questions", 512 << 20
_INSTRUCTION = " Without any explanation"  # what follows the question in a prompt of BLEnD
_REGIONS = {"assam": "IN", "northern_nigeria": "NG", "west_java": "ID"}  # the parts of countries that BLEnD names
_LABELS = {"yes": "Yes", "no": "No", "neutral": "Neutral"}


def blend(source: str, seed: int, tally: Tally, variants: int = 1) -> dict[str, list[Row]]:
    """Convert to questions with a region each (``kind``), the choices shuffled.

    The file asks a question of a region with many sets of other choices.

    Args:
        variants: how many of these sets are drawn for a question; 0 takes all.

    Raises:
        InputError: another table, or a question that cannot be used. UnavailableError: as ``read_table``.
    """
    table = read_table(source, BLEND, _BLEND_HUB, MARKS, most=_MOST)
    rng = np.random.default_rng(seed)
    asked: dict[tuple[str, str], list[Line]] = {}
    for line, row in enumerate(table, start=2):
        asked.setdefault((row["country"].strip(), row["ID"].strip()), []).append((line, row))
    drawn = asked.values() if variants == 0 else (_drawn(rows, variants, rng) for rows in asked.values())
    convert = partial(_everyday, rng=rng, is_variant=variants != 1)
    made = usable(source, ([row] for rows in drawn for row in rows), convert, tally)
    return {"blend": split(made, seed, by="topic")}  # a question of several regions is in one split


def normad(source: str, seed: int, tally: Tally) -> dict[str, list[Row]]:
    """Convert to the same stories with three contexts: the country; a value and the country; a rule of thumb.

    Raises:
        InputError: another table, or a story that cannot be used. UnavailableError: as ``read_table``.
    """
    table = read_table(source, NORMAD, marks=MARKS)
    stories = split(usable(source, one_by_one(table), _story, tally), seed)
    made: dict[str, list[Row]] = {}
    for story in stories:
        for level, question in cast(dict[str, str], story.pop("asked")).items():
            made.setdefault(f"normad_{level}", []).append(story | {"question": question})
    return made


def _drawn(rows: list[Line], number: int, rng: np.random.Generator) -> list[Line]:
    """Draw some of a question's rows, in file order."""
    return [rows[place] for place in sorted(rng.permutation(len(rows))[:number].tolist())]


def _everyday(rows: list[Line], rng: np.random.Generator, is_variant: bool) -> Row:
    ((line, row),) = rows
    question, found, _ = row["prompt"].partition(_INSTRUCTION)
    if not found or not question.strip():
        raise Unusable(line, "prompt", f"no question before {_INSTRUCTION.strip()!r}")
    with column(line, "choices"):
        choices = literal(row["choices"], "choices")
    right = row["answer_idx"].strip().upper()
    if not isinstance(choices, dict) or not all(isinstance(text, str | int | float) for text in choices.values()):
        raise Unusable(line, "choices", "no mapping of letters to texts")
    if right not in choices:
        raise Unusable(line, "answer_idx", f"{right[:20]!r} is not a letter of the choices")
    letters = list(choices)
    order = rng.permutation(len(letters)).tolist()
    region = row["country"].strip().lower().replace(" ", "_")
    made: Row = {
        "id": row["MCQID"].strip() or f"q{line - 1}",
        "country": _REGIONS.get(region) or country_of(line, region.replace("_", " ")),
        "kind": region,
        "topic": row["ID"].strip(),
        "question": question.strip(),
        "options": [str(choices[letters[place]]).strip() for place in order],
        "answer": order.index(letters.index(right)) + 1,
    }
    if is_variant:
        made["variant_of"] = f"{region} {made['topic']}"
    return checked(line, "choices", made)


def _story(rows: list[Line]) -> Row:
    ((line, row),) = rows
    for name in ("Story", "Value", "Rule-of-Thumb"):
        if not row[name].strip():
            raise Unusable(line, name, "empty")
    label = row["Gold Label"].strip().lower()
    if label not in _LABELS:
        raise Unusable(line, "Gold Label", f"{label[:20]!r} is not yes, no or neutral")
    code = country_of(line, row["Country"].strip().replace("_", " "))
    country, story = name_of(code), row["Story"].strip()
    head: Row = {"id": f"s{line - 1}", "country": code, "kind": label}
    head |= {"topic": row.get("Subaxis", "").strip() or None, "options": list(_LABELS.values())}
    head |= {"answer": list(_LABELS).index(label) + 1}
    contexts = {
        "country": f"Country: {country}",
        "value": f"Country: {country}\nValue: {row['Value'].strip()}",
        "rule": f"Rule: {row['Rule-of-Thumb'].strip()}",
    }
    asked = {level: f"{context}\nSituation: {story}" for level, context in contexts.items()}
    for question in asked.values():
        checked(line, "Story", head | {"question": question})
    return head | {"asked": asked}
