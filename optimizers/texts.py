"""Persona and demonstration texts by language, read from ``texts.yaml``."""

from __future__ import annotations

from pathlib import Path

from ..harness.alignment.objective import Objective
from ..tasks.countries import name_of
from ..tasks.spec import read_yaml


def texts(language: str) -> dict[str, str]:
    """Return all texts of a language by name; English if there are none in the language."""
    known = read_yaml(Path(__file__).with_name("texts.yaml"))
    return known.get(language, known["en"])


def persona(objective: Objective) -> str:
    """Return the sentence that gives the model its persona, in the language of the task."""
    return texts(objective.language)["persona"].format(country=name_of(objective.country.code, objective.language))
