"""Write a submission: manifest and answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...tasks.answers import Answers
from ..util.atomic_io import replacing, write_json
from .manifest import ANSWERS, MANIFEST, MOST_TEXT, AnswersFile, Manifest


def _lines(task: str, answers: Answers) -> Iterator[str]:
    layout, weighed = answers.layout, answers.weighed
    for row in range(len(layout)):
        line: dict[str, Any] = {
            "task": task,
            "item": layout.items[layout.item[row]],
            "wording": layout.wordings[layout.wording[row]],
            "order": layout.orders[layout.order[row]],
            "respondent": int(layout.respondent[row]),
            "probs": [round(float(p), 9) for p in answers.probs[0, row, : layout.widths[row] * weighed]],
            "outside": round(float(answers.outside[0, row]), 9),
        }
        if answers.texts is not None and answers.parsed is not None:
            line |= {"text": answers.texts[row][:MOST_TEXT], "parsed": int(answers.parsed[row])}
        yield json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def write_submission(folder: Path, manifest: dict[str, Any], answers: dict[str, Answers]) -> Manifest:
    """Write a submission folder atomically; ``manifest`` lacks only what the answers file decides."""
    with replacing(folder) as temporary:
        temporary.mkdir()
        digest, rows = hashlib.sha256(), 0
        with (temporary / ANSWERS).open("wb") as file:
            for task, given in answers.items():
                for line in _lines(task, given):
                    file.write(data := line.encode())
                    digest.update(data)
                    rows += 1
        whole = Manifest(**manifest, answers=AnswersFile(sha256=digest.hexdigest(), rows=rows))
        write_json(temporary / MANIFEST, whole.model_dump(mode="json"))
    return whole
