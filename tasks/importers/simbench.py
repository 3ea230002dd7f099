"""Import of SimBench, from the user's files or the hub: questions to groups of people, with their answer shares.

The columns are those of the data card of ``pitehu/SimBench`` (Hu et al. 2025, arXiv 2510.17516): ``human_answer`` maps
the labels of the options to shares or per cent, ``input_template`` ends in a line ``(A): text`` for each option,
unless ``answer_options`` (in SimBenchGrouped.csv) gives the texts; the group is ``group_prompt_template`` with the
values of ``group_prompt_variable_map`` in place of names in braces. A question to several groups is in one split.
Pickle files are not read: that would run code.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...errors import InputError
from ..metrics.share_table import normalised
from ..metrics.simbench import PEOPLE
from ..rows import MOST_SHARES, SELECTIONS, literal
from .common import Line, Row, Tally, Unusable, checked, column, one_by_one, split, usable
from .tables import MARKS, is_hub_id, read_table

SIMBENCH = ("dataset_name", "group_prompt_template", "group_prompt_variable_map", "input_template", "human_answer")
_PARTS = {"simbench_pop": "SimBenchPop.csv", "simbench_grouped": "SimBenchGrouped.csv"}
_OPTIONS = re.compile(r"\n\s*Options:\s*\n")
_OPTION = re.compile(r"^\s*\(([^()\n]{1,20})\):?[^\S\n]*(.*)$", re.MULTILINE)


def simbench(source: str, seed: int, tally: Tally) -> dict[str, list[Row]]:
    """Convert one part, which the file's name tells (SimBenchPop or SimBenchGrouped), or both from the hub.

    Raises:
        InputError: another table, or a question that cannot be used. UnavailableError: as ``read_table``.
    """
    if is_hub_id(source):
        return {name: _part(source, file, seed, tally) for name, file in _PARTS.items()}
    if Path(source).suffix in (".pkl", ".pickle"):
        raise InputError(f"{source}: a pickle file is not read. Give {' or '.join(_PARTS.values())}.")
    stem = Path(source).stem.lower()
    found = [name for name in _PARTS if name.removeprefix("simbench_") in stem]
    if len(found) != 1:
        raise InputError(f"{source}: its name tells no part. Call it {' or '.join(_PARTS.values())}.")
    return {found[0]: _part(source, None, seed, tally)}


def _part(source: str, file: str | None, seed: int, tally: Tally) -> list[Row]:
    table = read_table(source, SIMBENCH, marks=MARKS, hub_file=file, most=MOST_SHARES)
    rows = split(usable(source, one_by_one(table), _asked, tally), seed, by="stem")
    return [{key: value for key, value in row.items() if key != "stem"} for row in rows]


def _asked(rows: list[Line]) -> Row:
    ((line, row),) = rows
    answer = _mapping(line, row, "human_answer")
    group = row["group_prompt_template"].strip()
    for name, value in _mapping(line, row, "group_prompt_variable_map").items():
        group = group.replace(f"{{{name}}}", str(value))
    if not row["dataset_name"].strip():
        raise Unusable(line, "dataset_name", "empty")
    stem, texts = _options(line, row, [str(label) for label in answer])
    with column(line, "human_answer"):
        shares = normalised(list(answer.values()), len(answer), "human_answer")
    if not shares:
        raise Unusable(line, "human_answer", "all shares are zero")
    made: Row = {
        "id": f"q{line - 1}",
        "topic": row["dataset_name"].strip(),
        "question": f"{group}\n{stem}".strip(),
        "options": texts,
        "ordered": False,
        SELECTIONS: {PEOPLE: shares},
    }
    return checked(line, "input_template", made) | {"stem": (made["topic"], stem)}


def _options(line: int, row: dict[str, str], labels: list[str]) -> tuple[str, list[str]]:
    """Return the question without its options, and the texts of the options with these labels."""
    parts = _OPTIONS.split(row["input_template"])
    stem, listed = "\n".join(parts[:-1]), parts[-1]
    texts = {str(key): str(text).strip() for key, text in _mapping(line, row, "answer_options").items()}
    if not texts and stem:
        texts = {label: text.strip() for label, text in _OPTION.findall(listed)}
    if missing := [label for label in labels if not texts.get(label)]:
        raise Unusable(line, "input_template", f"no line '({missing[0][:20]}): ...' after 'Options:'")
    return (stem or row["input_template"]).strip(), [texts[label] for label in labels]


def _mapping(line: int, row: dict[str, str], name: str) -> dict[Any, Any]:
    """Read a printed mapping; an empty or absent cell is an empty one."""
    text = row.get(name, "").strip()
    if text.lower() in ("", "nan", "none"):
        return {}
    with column(line, name):
        found = literal(text, name)
    if not isinstance(found, dict):
        raise Unusable(line, name, "no mapping")
    return found
