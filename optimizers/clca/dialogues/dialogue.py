"""Dialogues of two persons, and their file: JSON lines in the format of Sotopia's published episodes.

A user's file may also be one JSON array, and may contain chats (``chats.py``).

A line has ``episode_id``, ``scenario``, ``codename``, ``agents_background`` and ``social_goals`` by name, and
``social_interactions``, the turns as text with an empty line between them (Zhou et al. 2024, arXiv 2310.11667).
``country`` and ``intents`` are additions and may be missing.
"""

from __future__ import annotations

import json
import re
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ....errors import InputError
from ....harness.util.atomic_io import replacing, write_text
from ....tasks.reading import read_bytes, read_lines
from ....tasks.schema import Strict
from ....tasks.spec import first_problem
from .chats import elements, fields_of, is_chat

Kind = Literal["none", "non-verbal", "speak", "leave"]
MOST_BYTES, MOST_LINE, MOST_DIALOGUES, MOST_TURNS = 256 << 20, 4 << 20, 100_000, 200
Name = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\n\[\]]+$")]
Text = Annotated[str, Field(max_length=8000)]


class Turn(Strict):
    """The action of one person: ``speak`` and ``non-verbal`` have a text, ``none`` and ``leave`` have none."""

    speaker: Name
    kind: Kind
    text: Text = ""
    intent: Text = ""

    @model_validator(mode="after")
    def _said(self) -> Turn:
        if bool(self.text.strip()) != (self.kind in ("speak", "non-verbal")):
            raise ValueError(
                f"a turn of kind {self.kind!r} {'needs a text' if not self.text.strip() else 'has no text'}"
            )
        return self

    def line(self) -> str:
        """Format the turn as a sentence, as in the published episodes."""
        return {
            "speak": f'{self.speaker} said: "{self.text}"',
            "non-verbal": f"{self.speaker} [non-verbal communication] {self.text}",
            "none": f"{self.speaker} did nothing",
            "leave": f"{self.speaker} left the conversation",
        }[self.kind]


class Dialogue(Strict):
    """A scene and its turns by two persons; ``backgrounds`` and ``goals`` are private to each, in order."""

    id: Annotated[str, Field(min_length=1, max_length=200)]
    codename: Annotated[str, Field(max_length=200)] = ""
    country: Annotated[str, Field(pattern="^([A-Z]{2})?$")] = ""
    scenario: Text
    people: tuple[Name, Name]
    backgrounds: tuple[Text, Text]
    goals: tuple[Text, Text]
    turns: Annotated[tuple[Turn, ...], Field(max_length=MOST_TURNS)]

    @model_validator(mode="after")
    def _two(self) -> Dialogue:
        if self.people[0] == self.people[1]:
            raise ValueError("the two persons have one name")
        if unknown := {turn.speaker for turn in self.turns} - set(self.people):
            raise ValueError(f"{sorted(unknown)[0]!r} speaks and is neither of the two persons")
        return self


class _Episode(BaseModel):
    """A line of the file; additional fields are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    episode_id: str
    scenario: str
    codename: str = ""
    agents_background: dict[str, str] = Field(min_length=2, max_length=2)
    social_goals: dict[str, str] = Field(min_length=2, max_length=2)
    social_interactions: str
    country: str = ""
    intents: tuple[str, ...] = ()


def as_episode(dialogue: Dialogue) -> dict[str, Any]:
    """Convert a dialogue to the published format."""
    return {
        "episode_id": dialogue.id,
        "scenario": dialogue.scenario,
        "codename": dialogue.codename,
        "agents_background": dict(zip(dialogue.people, dialogue.backgrounds, strict=True)),
        "social_goals": dict(zip(dialogue.people, dialogue.goals, strict=True)),
        "social_interactions": "\n\n".join(turn.line() for turn in dialogue.turns),
        "country": dialogue.country,
        "intents": [turn.intent for turn in dialogue.turns],
    }


def from_episode(line: dict[str, Any]) -> Dialogue:
    """Convert a dialogue from the published format.

    Raises:
        ValueError: a missing or wrong field, a turn without a known speaker, or two names that do not match.
    """
    episode = _Episode.model_validate(line)
    people = tuple(episode.agents_background)
    if set(people) != set(episode.social_goals):
        raise ValueError("social_goals: not the persons of agents_background")
    turns = list(islice(_turns(episode.social_interactions, people), MOST_TURNS + 1))
    intents = episode.intents if len(episode.intents) == len(turns) else ("",) * len(turns)
    return Dialogue(
        id=episode.episode_id,
        codename=episode.codename,
        country=episode.country,
        scenario=episode.scenario,
        people=people,
        backgrounds=tuple(episode.agents_background.values()),
        goals=tuple(episode.social_goals[name] for name in people),
        turns=tuple(turn.model_copy(update={"intent": intent}) for turn, intent in zip(turns, intents, strict=True)),
    )


def _turns(text: str, people: Sequence[str]) -> Iterator[Turn]:
    """Split an interaction into turns: each begins a paragraph with one of the names.

    Other paragraphs continue a turn.
    """
    begins = re.compile(rf"(?:^|\n\n)(?=(?:{'|'.join(map(re.escape, people))}) (?:said:|\[|did nothing|left the))")
    for part in (part for part in begins.split(text) if part.strip()):
        yield _turn(part.strip("\n"), people)


def _turn(text: str, people: Sequence[str]) -> Turn:
    for name in sorted(people, key=len, reverse=True):
        if not text.startswith(f"{name} "):
            continue
        done = text[len(name) + 1 :]
        if done.startswith("said:"):
            return Turn(
                speaker=name, kind="speak", text=done.removeprefix("said:").strip().removeprefix('"').removesuffix('"')
            )
        if found := re.match(r"\[(?:non-verbal communication|action)\] *(.*)", done, re.DOTALL):
            return Turn(speaker=name, kind="non-verbal", text=found[1])
        return Turn(speaker=name, kind="none" if done.startswith("did nothing") else "leave")
    raise ValueError(f"social_interactions: {text[:40]!r} is not a turn of either person")


def read_dialogues(path: Path) -> list[Dialogue]:
    """Read the dialogues of a file of JSON lines, plain or ``.zst``, or of one JSON array: episodes or chats.

    Raises:
        InputError: too large, no dialogue, or an invalid line; names the line.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file. Give a file of dialogues, one JSON object a line.")
    if path.stat().st_size > MOST_BYTES:
        raise InputError(f"{path}: {path.stat().st_size} bytes; {MOST_BYTES} at most. Split the file.")
    found: list[Dialogue] = []
    for line, record in _records(path):
        if len(found) == MOST_DIALOGUES:
            raise InputError(f"{path}: more than {MOST_DIALOGUES} dialogues. Split the file.")
        found.append(_parsed(record, len(found) + 1, f"{path}:{line}"))
    if not found:
        raise InputError(f"{path}: no dialogue. Give one JSON object a line.")
    if len({each.id for each in found}) < len(found):
        raise InputError(f"{path}: two dialogues have one episode_id.")
    return found


def _records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the records of a file, each with its line: the elements of an array, or the object on each line."""
    number = 1
    try:
        with path.open("rb") as file:
            whole = file.read(1 << 16).removeprefix(BOM_UTF8).lstrip().startswith(b"[")
        if whole:
            for number, record in elements(read_bytes(path, MOST_BYTES).decode("utf-8-sig")):
                yield number, record
            return
        size = 0  # of the text: a compressed file is smaller
        for number, line in enumerate(read_lines(path, MOST_LINE), start=1):
            if (size := size + len(line)) > MOST_BYTES:
                raise InputError(f"{path}: more than {MOST_BYTES} bytes of text. Split the file.")
            if text := (line.removeprefix(BOM_UTF8) if number == 1 else line).strip():
                yield number, json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{number}: {str(error)[:200]}.") from None


def _parsed(record: Any, number: int, place: str) -> Dialogue:
    try:
        return Dialogue.model_validate(fields_of(record, number)) if is_chat(record) else from_episode(record)
    except ValidationError as error:
        raise InputError(f"{place}: {first_problem(error)}.") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{place}: {str(error)[:200]}.") from None


def write_dialogues(path: Path, dialogues: Iterable[Dialogue]) -> None:
    """Write the file atomically."""
    write_text(path, "".join(json.dumps(as_episode(each), ensure_ascii=False) + "\n" for each in dialogues))


def save_dataset(folder: Path, dialogues: Sequence[Dialogue]) -> None:
    """Write a folder that ``datasets.load_from_disk`` opens: one row per dialogue, turns as lists of equal length."""
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()

    rows = [each.model_dump(mode="json") for each in dialogues]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "turns"}
    for name in Turn.model_fields:
        columns[f"turn_{name}"] = [[turn[name] for turn in row["turns"]] for row in rows]
    with replacing(folder) as temporary:
        Dataset.from_dict(columns).save_to_disk(str(temporary))
