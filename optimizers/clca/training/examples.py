"""Training examples of a dialogue: both perspectives, each also with intents as answers; own tokens only."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np

from ....errors import InputError
from ....harness.engine.chat import Chat, Message
from ...writing.writer import merged
from ..dialogues.actions import Action, written
from ..dialogues.dialogue import Dialogue

IGNORED = -100  # the label of a token that is not trained on
Part = Literal["dialogue", "intent"]


class Example(NamedTuple):
    """Token ids (n,) and labels (n,), ``IGNORED`` except for the assistant's own tokens; and their origin."""

    ids: np.ndarray
    labels: np.ndarray
    source: str


def perspectives(dialogue: Dialogue, parts: Sequence[Part]) -> Iterator[list[Message]]:
    """Yield the chats of a dialogue from each person's view: own turns as the assistant's, as actions or as intents."""
    for part in parts:
        for number, name in enumerate(dialogue.people):
            chat = merged(_chat(dialogue, number, name, part))
            if any(message["role"] == "assistant" for message in chat):
                yield chat


def _chat(dialogue: Dialogue, number: int, name: str, part: Part) -> Iterator[Message]:
    background = f"{dialogue.scenario}\nYou are {name}. {dialogue.backgrounds[number]}\n{dialogue.goals[number]}"
    yield {"role": "system", "content": background}
    if dialogue.turns and dialogue.turns[0].speaker == name:
        yield {"role": "user", "content": "The scene begins."}
    for turn in dialogue.turns:
        if turn.speaker != name:
            yield {"role": "user", "content": turn.line()}
        elif part == "dialogue":
            yield {"role": "assistant", "content": written(Action(turn.kind, turn.text))}
        elif turn.intent:
            yield {"role": "assistant", "content": f"Intent: {turn.intent}"}


def encode(spoken: Chat, chat: Sequence[Message], most: int, source: str = "") -> Example | None:
    """Encode a chat as ids and labels, cut after ``most`` tokens; None if no token to train on is left.

    The assistant's tokens are those that the template adds to the chat before them, including the generation prompt, so
    that headers and other persons' words are never trained on.

    Raises:
        InputError: the chat template rewrites earlier messages, so that tokens cannot be assigned to a role.
    """
    whole = spoken.chat_ids(chat, opened=False)
    labels = np.full(len(whole), IGNORED, dtype=np.int64)
    for place, message in enumerate(chat):
        if message["role"] != "assistant":
            continue
        # Templates of reasoning models write an empty block of thoughts before a new turn, not before old ones.
        heads = (spoken.chat_ids(chat[:place], thoughts=thoughts) for thoughts in (True, False))
        before = next((head for head in heads if whole[: len(head)] == head), None)
        after = spoken.chat_ids(chat[: place + 1], opened=False)
        if before is None or whole[: len(after)] != after:
            raise InputError("the chat template rewrites earlier messages; its tokens cannot be assigned to a role.")
        labels[len(before) : len(after)] = whole[len(before) : len(after)]
    ids = np.array(whole[:most], dtype=np.int64)
    return Example(ids, labels[:most], source) if (labels[:most] != IGNORED).any() else None


def examples(dialogues: Iterable[Dialogue], spoken: Chat, parts: Sequence[Part], most: int) -> list[Example]:
    """Return every example of some dialogues, in order."""
    found = (
        encode(spoken, chat, most, dialogue.id) for dialogue in dialogues for chat in perspectives(dialogue, parts)
    )
    return [each for each in found if each is not None]


def unrelated(spoken: Chat, like: Sequence[Example], most: int, rng: np.random.Generator) -> list[Example]:
    """Build as many examples of arithmetic with about as many trained tokens each: the effect of any training.

    They replace the rows of mathematics and of an encyclopedia in the published ablation.
    """
    found = []
    for example in like:
        wanted = int((example.labels != IGNORED).sum())
        chat = [{"role": "system", "content": "You are good at sums."}]
        made, learned = None, 0
        while learned < wanted and (made is None or len(made.ids) < most):
            chat += [message for _ in range(1 + (wanted - learned) // 20) for message in _sum(rng)]
            made = encode(spoken, chat, most, example.source)
            if made is None:
                break  # `most` is shorter than the question
            learned = int((made.labels != IGNORED).sum())
        found += [made] if made else []
    return found


def _sum(rng: np.random.Generator) -> list[Message]:
    one, two = rng.integers(10, 1000, 2).tolist()
    sign, result = ("+", one + two) if rng.random() < 0.5 else ("-", one - two)
    asked = {"role": "user", "content": f"What is {one} {sign} {two}?"}
    return [asked, {"role": "assistant", "content": f"{one} {sign} {two} = {result}."}]
