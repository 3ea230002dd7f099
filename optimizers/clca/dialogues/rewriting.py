"""Rewriting of scenes by a teacher, so that more of their content belongs to the country than the data provide."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ....tasks.countries import name_of
from ....tasks.spec import read_yaml
from ...writing.writer import Heard, Style, Writer, in_parts
from .scenarios import Scenario

STYLE = Style(most=160, top_p=0.7)
TEXTS = 5  # a scene: the setting, two backgrounds, two goals
LONGER = 3  # factor: a text longer than three times the old one plus 200 characters has started another play
_TEXTS = Path(__file__).with_name("agents.yaml")


def rewrite(
    scenes: Sequence[Scenario], culture: str, writer: Writer, seed: int, heard: Heard
) -> tuple[list[Scenario], int]:
    """Rewrite setting, backgrounds and goals of every scene; return also the number of texts left unchanged.

    A text is left unchanged if the new one is empty, much longer, or lacks a name: the roles are already assigned.
    """
    template = read_yaml(_TEXTS)["rewrite"]
    requests = [
        template.format(culture=culture, country=name_of(scene.country), text=text)
        for scene in scenes
        for text in _texts(scene)
    ]
    replies = in_parts(writer, [[{"role": "user", "content": each}] for each in requests], STYLE, seed, heard)
    found, stayed = [], 0
    for number, scene in enumerate(scenes):
        names = [part for one in scene.people for part in one.name.split()]
        texts = []
        for text, reply in zip(_texts(scene), replies[TEXTS * number : TEXTS * (number + 1)], strict=True):
            new = reply.strip().strip('"')
            usable = _usable(text, new, names)
            texts.append(new if usable else text)
            stayed += not usable
        found.append(_with(texts, scene))
    return found, stayed


def _texts(scene: Scenario) -> list[str]:
    return [scene.setting, *(text for one in scene.people for text in (one.background, one.goal))]


def _usable(old: str, new: str, names: Sequence[str]) -> bool:
    kept = all(name in new for name in names if name in old)
    return bool(new) and "\n\n" not in new and len(new) <= LONGER * len(old) + 200 and kept


def _with(texts: Sequence[str], scene: Scenario) -> Scenario:
    people = [
        one.model_copy(update={"background": background, "goal": goal})
        for one, background, goal in zip(scene.people, texts[1::2], texts[2::2], strict=True)
    ]
    return scene.model_copy(update={"setting": texts[0], "people": tuple(people)})
