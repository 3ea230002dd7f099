"""Intents: one sentence per turn on its speaker's intention."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ....tasks.spec import read_yaml
from ...writing.writer import Heard, Style, Writer, in_parts
from .dialogue import Dialogue
from .sentences import first_sentence

MOST = 400  # characters of an intent
# A dialogue of so many turns is shown from its beginning, so that all its prompts begin alike; of longer ones, the last
# turns are shown.
SHORT, LAST = 12, 4
_TEXTS = Path(__file__).with_name("agents.yaml")


def without_intent(dialogue: Dialogue) -> list[int]:
    """List the positions of turns with words and no intent."""
    return [k for k, turn in enumerate(dialogue.turns) if turn.text and not turn.intent]


def with_intents(dialogues: Sequence[Dialogue], writer: Writer, seed: int, heard: Heard) -> list[Dialogue]:
    """Add an intent to every turn with words that has none, from the most probable answers."""
    ask = read_yaml(_TEXTS)["intent"]
    places = [(i, k) for i, each in enumerate(dialogues) for k in without_intent(each)]
    chats = []
    for i, k in places:
        turns = dialogues[i].turns
        first = 0 if len(turns) <= SHORT else max(0, k - LAST)
        so_far = "\n".join(turn.line() for turn in turns[first:k]) or "(nothing yet)"
        words = {"scene": dialogues[i].scenario, "so_far": so_far, "turn": turns[k].line(), "speaker": turns[k].speaker}
        chats.append([{"role": "user", "content": ask.format_map(words)}])
    intents = [
        first_sentence(text)[:MOST].strip() for text in in_parts(writer, chats, Style(most=40, top_p=0), seed, heard)
    ]
    found = [list(each.turns) for each in dialogues]
    for (i, k), intent in zip(places, intents, strict=True):
        found[i][k] = found[i][k].model_copy(update={"intent": intent})
    return [each.model_copy(update={"turns": tuple(turns)}) for each, turns in zip(dialogues, found, strict=True)]
