"""Simulation of scenarios by two agents: common scene and profiles, private goals and secrets, one action per turn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ....tasks.schema import Strict
from ....tasks.spec import read_yaml
from ...writing.writer import Message, Style, Writer, merged
from .actions import (
    FORMAT,
    Action,
    draw_kinds,
    line_of_play,
    opening,
    parse_action,
    parse_line_of_play,
    written,
)
from .dialogue import Dialogue, Turn
from .scenarios import Scenario
from .sentences import whole_sentences

LEAST_STAY = 4  # turns before a departure may be drawn
TRIES = 3  # at one turn, before a dialogue is dropped as malformed
NO_REPEAT_NGRAM = 10  # longer than any name or place; small models echo the other person and recite their instructions
_TEXTS = Path(__file__).with_name("agents.yaml")


class Playing(Strict):
    """A running dialogue: ``malformed`` counts repeated requests; ``ended`` is the reason why it is over."""

    scenario: Scenario
    repeat: int
    turns: tuple[Turn, ...] = ()
    malformed: Annotated[int, Field(ge=0)] = 0
    ended: Literal["", "left", "turns", "malformed"] = ""

    @property
    def mover(self) -> int:
        """Return the index of the person to act, 0 or 1; in a repetition the other person begins."""
        return (len(self.turns) + self.repeat) % 2

    def dialogue(self) -> Dialogue:
        """Return the played turns as a dialogue."""
        one, two = self.scenario.people
        return Dialogue(
            id=f"{self.scenario.id}-r{self.repeat}",
            codename=self.scenario.codename,
            country=self.scenario.country,
            scenario=self.scenario.setting,
            people=(one.name, two.name),
            backgrounds=(f"{one.profile} Secret: {one.secret}", f"{two.profile} Secret: {two.secret}"),
            goals=(one.goal, two.goal),
            turns=self.turns,
        )


def begin(scenarios: Sequence[Scenario], repeats: int) -> list[Playing]:
    """Start every scenario the given number of times."""
    return [Playing(scenario=scene, repeat=repeat) for scene in scenarios for repeat in range(repeats)]


def chat_of(playing: Playing, culture: str) -> list[Message]:
    """Build the chat of the person to act: own actions as the assistant's, the other's as the user's."""
    texts = read_yaml(_TEXTS)
    scene, me = playing.scenario, playing.scenario.people[playing.mover]
    system = texts["system"].format(
        format=FORMAT, culture=culture, setting=scene.setting, customs=" ".join(scene.customs),
        people="\n".join(p.profile for p in scene.people), name=me.name, goal=me.goal, secret=me.secret,
    )  # fmt: skip
    return merged(_chat(playing, system, texts["begin"], lambda turn: written(Action(turn.kind, turn.text)), Turn.line))


def chat_of_play(playing: Playing, culture: str) -> list[Message]:
    """Build the chat of the person to act where kinds are drawn: the lines of both as those of a play.

    At each person's first turn it ends with a reminder of the goal.
    """
    texts, scene = read_yaml(_TEXTS), playing.scenario
    me, other = scene.people[playing.mover], scene.people[1 - playing.mover]
    system = texts["drawn"].format(
        culture=culture, setting=scene.setting, customs=" ".join(scene.customs),
        me=me.profile, other=other.profile, name=me.name, other_name=other.name, goal=me.goal, secret=me.secret,
    )  # fmt: skip
    begin = texts["drawn_begin"].format(other_name=other.name)
    chat = _chat(playing, system, begin, line_of_play, line_of_play)
    if len(playing.turns) < 2:
        chat.append({"role": "user", "content": texts["drawn_reminder"].format(name=me.name, goal=me.goal)})
    return merged(chat)


def _chat(
    playing: Playing, system: str, begin: str, own: Callable[[Turn], str], others: Callable[[Turn], str]
) -> list[Message]:
    """Return the mover's messages: own turns as the assistant's, the other's as the user's.

    The user says ``begin`` where the other person has not begun.
    """
    me = playing.scenario.people[playing.mover].name
    messages = [{"role": "system", "content": system}]
    if not playing.turns or playing.turns[0].speaker == me:
        messages.append({"role": "user", "content": begin})
    for turn in playing.turns:
        mine = turn.speaker == me
        messages.append({"role": "assistant" if mine else "user", "content": (own if mine else others)(turn)})
    return messages


def play_round(
    playing: Sequence[Playing], culture: str, writer: Writer, style: Style, turns: int, seed: int, drawn: bool = False
) -> list[Playing]:
    """Play one turn of every running dialogue, in one batch; malformed answers are requested again, then dropped.

    Args:
        turns: the number after which a dialogue is over.
        seed: of this round.
        drawn: whether the kind of each action is drawn, so that the agent writes only the words, as in a play.
    """
    now, waiting = list(playing), [i for i, each in enumerate(playing) if not each.ended]
    for attempt in range(TRIES):
        some = [now[i] for i in waiting]
        act = _drawn_actions if drawn else _free_actions
        actions = act(some, culture, writer, style, seed, attempt) if some else []
        for i, action in zip(waiting, actions, strict=True):
            now[i] = _after(now[i], action, turns)
        waiting = [i for i, action in zip(waiting, actions, strict=True) if action is None]
    for i in waiting:
        now[i] = now[i].model_copy(update={"ended": "malformed"})
    return now


def _free_actions(
    playing: Sequence[Playing], culture: str, writer: Writer, style: Style, seed: int, attempt: int
) -> list[Action | None]:
    """Ask for an action in each dialogue; None where the answer is malformed."""
    texts = writer.write([chat_of(each, culture) for each in playing], style, seed + attempt)
    return [parse_action(text) for text in texts]


def _drawn_actions(
    playing: Sequence[Playing], culture: str, writer: Writer, style: Style, seed: int, attempt: int
) -> list[Action | None]:
    """Draw the kind of an action in each dialogue, and ask for its words; a person who leaves says nothing.

    None where the answer is malformed, or says again what was said.
    """
    rng = np.random.default_rng([seed, attempt])
    kinds = draw_kinds(len(playing), len(playing[0].turns) >= LEAST_STAY, rng)
    found: list[Action | None] = [Action("leave", "")] * len(playing)
    asked = [k for k, kind in enumerate(kinds) if kind != "leave"]
    people = [tuple(one.name for one in each.scenario.people) for each in playing]
    begun = [opening(kinds[k], people[k][playing[k].mover]) for k in asked]
    chats = [chat_of_play(playing[k], culture) for k in asked]
    style = style._replace(no_repeat_ngram=NO_REPEAT_NGRAM)
    texts = writer.write(chats, style, seed + attempt, begun) if chats else []
    for k, text in zip(asked, texts, strict=True):
        action = parse_line_of_play(text, kinds[k], people[k], playing[k].mover)
        said = {turn.text for turn in playing[k].turns}
        found[k] = None if action is None or whole_sentences(action.text) in said else action
    return found


def _after(playing: Playing, action: Action | None, turns: int) -> Playing:
    if action is None:
        return playing.model_copy(update={"malformed": playing.malformed + 1})
    speaker = playing.scenario.people[playing.mover].name
    played = (*playing.turns, Turn(speaker=speaker, kind=action.kind, text=whole_sentences(action.text)))
    ended = "left" if action.kind == "leave" else "turns" if len(played) >= turns else ""
    return playing.model_copy(update={"turns": played, "ended": ended})


def count_answers(played: Sequence[Playing], drawn: bool) -> tuple[int, int]:
    """Return how many answers agents were asked for, repetitions included, and how many of them were malformed.

    Nobody is asked for a departure that was ``drawn``.
    """
    malformed = sum(each.malformed for each in played)
    turns = [turn for each in played for turn in each.turns if not (drawn and turn.kind == "leave")]
    return malformed + len(turns), malformed


def round_seeds(seed: int) -> Callable[[int], int]:
    """Return the seed of a round by its number, far from those of other rounds."""
    return lambda number: int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
