"""Persona and demonstration texts by language, kept in ``texts.yaml``."""

from __future__ import annotations

from pathlib import Path

from ..harness.alignment.objective import Objective
from ..tasks.countries import name_of
from ..tasks.spec import read_yaml


def texts(language: str) -> dict[str, str]:
    """All texts of a language by name; English where there are none of it."""
    known = read_yaml(Path(__file__).with_name("texts.yaml"))
    return known.get(language, known["en"])


def persona(objective: Objective) -> str:
    """The sentence that tells the model whom to answer as, in the language of the task."""
    return texts(objective.language)["persona"].format(country=name_of(objective.country.code, objective.language))
