"""Import of the user's copy of the official VSM 2013 form as a set of paraphrases."""

from __future__ import annotations

from pathlib import Path

import yaml

from ...errors import InputError
from ..items import Survey
from ..spec import load_spec
from .tables import read_table

OPTIONS = tuple(f"option{number}" for number in range(1, 6))
COLUMNS = ("item", "question", *OPTIONS)
_SPEC = Path(__file__).parent.parent / "vsm13" / "vsm13.yaml"


def convert(source: str) -> str:
    """Convert 24 rows ``item,question,option1..option5``, items m01 to m24, options in code order, to YAML.

    Raises:
        InputError: not 24 items, one of them empty or twice, or options that differ within a scale.
    """
    survey = load_spec(_SPEC).items
    assert isinstance(survey, Survey)
    rows = read_table(source, COLUMNS)
    if (items := [row["item"].strip() for row in rows]) != list(survey.ids):
        mismatch = next(
            (f"row {i + 2}: {a!r}" for i, (a, b) in enumerate(zip(items, survey.ids, strict=False)) if a != b), None
        )
        raise InputError(f"{source}: {mismatch or f'{len(items)} rows'}; expected the items m01 to m24, in this order.")
    scales: dict[str, tuple[str, ...]] = {}
    for line, row in enumerate(rows, start=2):
        if empty := [name for name in COLUMNS if not row[name].strip()]:
            raise InputError(f"{source}:{line}: {empty[0]} is empty.")
        labels = tuple(row[name].strip() for name in OPTIONS)
        scale = survey.items[row["item"].strip()].scale
        if scales.setdefault(scale, labels) != labels:
            raise InputError(f"{source}:{line}: options differ from those of another item of the scale {scale!r}.")
    paraphrase = {
        "instruction": "Answer with one number only.",
        "scales": {name: list(labels) for name, labels in scales.items()},
        "stems": {key.stem: "" for key in survey.items.values() if key.stem},
        "items": {row["item"].strip(): " ".join(row["question"].split()) for row in rows},
    }
    return yaml.safe_dump(paraphrase, allow_unicode=True, sort_keys=False)
