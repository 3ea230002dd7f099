"""Write a submission: manifest and compressed answers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ...tasks.answers import Answers
from ..util.atomic_io import replacing, write_json
from .manifest import MANIFEST, MOST_TEXT, AnswersFile, Manifest
from .reader import COMPRESSED

LEVEL = 17  # of zstd: 18 takes three times as long for 4 % smaller files
FRAME = 8 << 20  # bytes of lines compressed at once


def _lines(task: str, answers: Answers) -> Iterator[str]:
    layout, weighed = answers.layout, answers.weighed
    for row in range(len(layout)):
        line: dict[str, Any] = {
            "task": task,
            "item": layout.items[layout.item[row]],
            "paraphrase": layout.paraphrases[layout.paraphrase[row]],
            "order": layout.orders[layout.order[row]],
            "persona": int(layout.persona[row]),
            "probs": [round(float(p), 9) for p in answers.probs[0, row, : layout.widths[row] * weighed]],
            "off_options": round(float(answers.off_options[0, row]), 9),
        }
        if answers.texts is not None and answers.parsed is not None:
            line |= {"text": answers.texts[row][:MOST_TEXT], "parsed": int(answers.parsed[row])}
        yield json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def write_submission(folder: Path, manifest: dict[str, Any], answers: dict[str, Answers]) -> Manifest:
    """Write a submission folder atomically and return its manifest.

    Args:
        manifest: the fields of the manifest except ``answers``.
        answers: by task.
    """
    with replacing(folder) as temporary:
        temporary.mkdir()
        lines = (line.encode() for task, given in answers.items() for line in _lines(task, given))
        file = write_answers(temporary / COMPRESSED, lines)
        whole = Manifest(**manifest, answers=file)
        write_json(temporary / MANIFEST, whole.model_dump(mode="json"))
    return whole


def write_answers(path: Path, lines: Iterable[bytes]) -> AnswersFile:
    """Write lines of answers compressed by zstd, and return their hash and number.

    The same version of zstd gives the same bytes for the same lines; the hash is over the uncompressed lines.
    """
    import pyarrow as pa

    codec = pa.Codec("zstd", compression_level=LEVEL)
    digest, rows, frame = hashlib.sha256(), 0, bytearray()
    with path.open("wb") as file:
        for line in lines:
            digest.update(line)
            rows += 1
            frame += line
            if len(frame) >= FRAME:
                file.write(codec.compress(bytes(frame), asbytes=True))
                frame.clear()
        if frame:
            file.write(codec.compress(bytes(frame), asbytes=True))
    return AnswersFile(sha256=digest.hexdigest(), rows=rows)
