"""The actions of an agent in a turn, and their parsing from a model's text."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .dialogue import Kind, Turn

FORMAT = """Each of your answers is one line. It begins with SPEAK: and goes on with what you say, in your own words.
In place of words it may be ACT: and a gesture, NONE to wait once, or LEAVE to end the scene. Answer what the other
says, and move towards what you want."""
MOST = 1200  # characters of one action
_TAGS: dict[str, Kind] = {"speak": "speak", "act": "non-verbal", "none": "none", "leave": "leave"}
_CLOSING: dict[Kind, str] = {"speak": '"', "non-verbal": "]"}
_LINE = re.compile(r"\W*(speak|act|none|leave)\b\W*?(?::\s*(.*))?$", re.IGNORECASE)
_JSON_KINDS: dict[str, Kind] = {
    "speak": "speak",
    "non-verbal communication": "non-verbal",
    "action": "non-verbal",
    "none": "none",
    "leave": "leave",
}


class Action(NamedTuple):
    """The kind and text of an action; the text is empty for ``none`` and ``leave``."""

    kind: Kind
    text: str


def parse_action(written: str) -> Action | None:
    """Parse the action that a model wrote; None if it is malformed.

    The first non-empty line counts: one of the four forms, or a JSON object with ``action_type`` and ``argument`` as
    Sotopia's agents write it.
    """
    line = next((line.strip() for line in written.split("\n") if line.strip()), "")
    return _from_json(line) if line.startswith("{") else _from_line(line)


def _from_line(line: str) -> Action | None:
    found = _LINE.match(line)
    return _checked(_TAGS[found[1].lower()], found[2] or "") if found else None


def _from_json(line: str) -> Action | None:
    try:
        given = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kind, text = given.get("action_type"), given.get("argument", "")
    if not isinstance(kind, str) or kind not in _JSON_KINDS or not isinstance(text, str):
        return None
    return _checked(_JSON_KINDS[kind], text)


def _checked(kind: Kind, text: str) -> Action | None:
    """Check an action: words without surrounding quotes; None if words are missing, or are given where none belong."""
    if kind in ("none", "leave"):
        return Action(kind, "")
    words = " ".join(text.split()).strip('"“”* ')[:MOST].strip()
    return Action(kind, words) if words else None


def written(action: Action) -> str:
    """Format an action in the form requested from agents; ``parse_action`` is the inverse."""
    tag = {kind: tag for tag, kind in _TAGS.items()}[action.kind].upper()
    return f"{tag}: {action.text}" if action.text else tag


def draw_kinds(count: int, may_leave: bool, rng: np.random.Generator) -> list[Kind]:
    """Draw the kinds of actions: mostly speech, some gestures and, where leaving is allowed, some departures."""
    weights = np.array([0.8, 0.1, 0.1 * may_leave])
    return rng.choice(["speak", "non-verbal", "leave"], count, p=weights / weights.sum()).tolist()


def opening(kind: Kind, name: str) -> str:
    """Return how a line of a drawn kind begins, as in a play: the person speaks, or the line tells a gesture."""
    return f'{name}: "' if kind == "speak" else f"{name} ["


def line_of_play(turn: Turn) -> str:
    """Format a turn of words as a line of a play; ``parse_line_of_play`` is the inverse."""
    return f"{opening(turn.kind, turn.speaker)}{turn.text}{_CLOSING[turn.kind]}"


def parse_line_of_play(written: str, kind: Kind, people: Sequence[str], mover: int) -> Action | None:
    """Parse the line that ``opening`` began for one of two persons.

    None if it is malformed: without words, or with the other's words.
    """
    line = next((line.strip() for line in written.split("\n") if line.strip()), "")
    words = line.removeprefix(opening(kind, people[mover])[:-1].rstrip()).lstrip(' "“[')
    words = re.split(r"[\"”]" if kind == "speak" else r"\]", words)[0]
    speaks = re.compile(rf"(?:{'|'.join(re.escape(part) for name in people for part in (name, name.split()[0]))}) *:")
    return None if speaks.match(words) else _checked(kind, words)
