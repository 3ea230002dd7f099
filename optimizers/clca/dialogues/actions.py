"""The actions of an agent in a turn, and their parsing from a model's text."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import numpy as np

from .dialogue import Kind

FORMAT = """Each of your answers is one line. It begins with SPEAK: and goes on with what you say, in your own words.
In place of words it may be ACT: and a gesture, NONE to wait once, or LEAVE to end the scene. Answer what the other
says, and move towards what you want."""
MOST = 1200  # characters of one action
_TAGS: dict[str, Kind] = {"speak": "speak", "act": "non-verbal", "none": "none", "leave": "leave"}
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


def draw_openings(count: int, may_leave: bool, rng: np.random.Generator) -> list[str]:
    """Draw the beginnings of actions: mostly speech, some gestures and, where leaving is allowed, some departures."""
    weights = np.array([0.8, 0.1, 0.1 * may_leave])
    return rng.choice(["SPEAK:", "ACT:", "LEAVE"], count, p=weights / weights.sum()).tolist()
