"""Make the dialogues that come with culteval, and say how they were made.

``python -m culteval.optimizers.clca.shipping FOLDER`` makes a country's file from the folder of ``clca intents``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...harness.runs.config import RunConfig
from ...harness.runs.folder import read_record
from ...harness.util.atomic_io import replacing, write_json
from ...harness.util.environment import versions
from ...tasks.schema import Strict
from .dialogues.dialogue import read_dialogues
from .dialogues.dialogue_filter import Decision, tally
from .dialogues.shipped import FOLDER, SUFFIX
from .dialogues.simulate import Playing, count_answers
from .rows import read_rows


class Provenance(Strict):
    """How a shipped file was made: the settings of CLCA and the seed, and the versions at the time it was packed.

    ``answers`` were asked for, repetitions included, and ``malformed`` of them asked for again. Of ``simulated``
    dialogues the filter dropped some, as ``filtered`` counts; the kept ones are shipped.
    """

    country: str
    settings: dict[str, Any]
    seed: int
    versions: dict[str, str]
    answers: int
    malformed: int
    simulated: int
    filtered: dict[str, int]


def provenance_of(path: Path) -> Provenance:
    """Read how a shipped file was made."""
    return Provenance.model_validate_json(_beside(path).read_bytes())


def ship(folder: Path) -> Path:
    """Compress the dialogues in a folder of ``clca intents`` into the country's shipped file, and return its path.

    Raises:
        InputError: the folder lacks a file of a finished stage, or has dialogues of several countries.
    """
    import pyarrow as pa

    kept, every = read_dialogues(folder / "intents.jsonl"), read_dialogues(folder / "dialogues.jsonl")
    played, decisions = read_rows(folder / "playing.jsonl", Playing), read_rows(folder / "decisions.jsonl", Decision)
    config, countries = read_record(folder / "config.json", RunConfig), {each.country for each in every}
    if len(countries) > 1:
        raise InputError(f"{folder}: dialogues of {len(countries)} countries. Give a folder of one.")
    answers, malformed = count_answers(played, config.settings["actions"] == "drawn")
    made = Provenance(
        country=countries.pop(),
        settings=config.settings,
        seed=config.seed,
        versions=versions(),
        answers=answers,
        malformed=malformed,
        simulated=len(every),
        filtered=dict(tally(decisions)),
    )
    assert len(kept) == made.filtered["kept"], "intents are of the kept dialogues"
    target = FOLDER / f"{made.country}{SUFFIX}"
    codec = pa.Codec("zstd", compression_level=19)
    with replacing(target) as temporary:
        temporary.write_bytes(codec.compress((folder / "intents.jsonl").read_bytes(), asbytes=True))
    write_json(_beside(target), made.model_dump())
    return target


def _beside(path: Path) -> Path:
    return path.with_name(path.name.replace(SUFFIX, ".json"))


if __name__ == "__main__":
    print(ship(Path(sys.argv[1])))
