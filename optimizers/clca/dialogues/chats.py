"""Dialogues as chats, in OpenAI's format (``messages``) or ShareGPT's (``conversations``), and files with one array.

A chat becomes a dialogue of two persons: ``User`` (roles user, human) and ``Assistant`` (assistant, gpt, chatgpt, bot,
model). System messages become the assistant's background, which the user does not see. There are no goals, and the
scene is only that they talk.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

PEOPLE = ("User", "Assistant")
SCENE = "A conversation."
_ROLES = {"user": 0, "human": 0, "assistant": 1, "gpt": 1, "chatgpt": 1, "bot": 1, "model": 1}
_SYSTEM = ("system", "developer")


def is_chat(record: Any) -> bool:
    """Return whether a line of a file is a chat, in either format."""
    return isinstance(record, dict) and ("messages" in record or "conversations" in record)


def fields_of(record: dict[str, Any], number: int) -> dict[str, Any]:
    """Convert a chat to the fields of a ``Dialogue``; its ``number`` in the file is its id if it has none.

    Raises:
        ValueError: not a list of messages, an unknown role or content, or fewer than two speakers.
    """
    name = "messages" if "messages" in record else "conversations"
    if not isinstance(record[name], list):
        raise ValueError(f"{name}: not a list")
    turns: list[dict[str, str]] = []
    background: list[str] = []
    for place, message in enumerate(record[name], start=1):
        role, text = _read(message, f"{name}, {place}")
        if role in _SYSTEM:
            background.append(text)
        else:
            turns.append({"speaker": PEOPLE[_ROLES[role]], "kind": "speak", "text": text})
    if silent := [person for person in PEOPLE if person not in {turn["speaker"] for turn in turns}]:
        raise ValueError(f"{name}: {' and '.join(silent)} said nothing; a dialogue has two who speak")
    ids = (record.get(key) for key in ("episode_id", "id", "conversation_id"))
    named = next((one for one in ids if one is not None), number)
    return {
        "id": str(named),
        "country": record.get("country", ""),
        "scenario": SCENE,
        "people": PEOPLE,
        "backgrounds": ("", "\n".join(background)),
        "goals": ("", ""),
        "turns": turns,
    }


def _read(message: Any, where: str) -> tuple[str, str]:
    """Return the role and text of a message, without empty lines, which end a turn in the file format."""
    if not isinstance(message, dict):
        raise ValueError(f"{where}: not an object with role and content")
    role, content = message.get("role", message.get("from")), message.get("content", message.get("value"))
    if role not in (*_ROLES, *_SYSTEM):
        raise ValueError(f"{where}: role {str(role)[:20]!r} is not one of {', '.join((*_ROLES, *_SYSTEM))}")
    if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        content = "\n".join(str(part.get("text", "")) for part in content)
    if not isinstance(content, str) or not content.strip():
        raise ValueError(f"{where}: content is not a text, or is empty")
    return role, re.sub(r"\s*\n\s*", "\n", content.strip())


def elements(text: str) -> Iterator[tuple[int, Any]]:
    """Yield the elements of a JSON array, each with the line on which it begins.

    Raises:
        ValueError: not such an array; names the line.
    """
    gap, read = re.compile(r"[ \t\n\r]*"), json.JSONDecoder().raw_decode
    at, line, counted = _after(gap, text, text.index("[") + 1), 1, 0
    if text[at : at + 1] == "]":
        raise ValueError("an empty list")
    while text[at : at + 1] != "]":
        line, counted = line + text.count("\n", counted, at), at
        value, end = read(text, at)
        yield line, value
        at = _after(gap, text, end)
        if text[at : at + 1] == ",":
            at = _after(gap, text, at + 1)
        elif text[at : at + 1] != "]":
            raise ValueError(f"line {line}: no comma after this dialogue")
    if text[at + 1 :].strip():
        raise ValueError("more after the end of the array")


def _after(gap: re.Pattern[str], text: str, at: int) -> int:
    found = gap.match(text, at)
    assert found, "the pattern also matches an empty text"
    return found.end()
