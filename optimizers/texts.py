"""Sentences that ask for a country's answers, by language, read from ``texts.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..harness.alignment.objective import Objective
from ..tasks.countries import name_of
from ..tasks.spec import read_yaml


def texts(language: str) -> dict[str, Any]:
    """Return all texts of a language by name; English if there are none in the language."""
    known = _all()
    return known.get(language, known["en"])


def sentence(objective: Objective, name: str) -> str:
    """Return a sentence that names the country, in the language of the task."""
    text: str = texts(objective.language)[name]
    return text.format(country=name_of(objective.country.code, objective.language))


def persona(objective: Objective) -> str:
    """Return the sentence that gives the model its persona, in the language of the task."""
    return sentence(objective, "persona")


def language_cue(objective: Objective) -> str:
    """Return a sentence in the language of most people of the country, without its name.

    Raises:
        UsageError: no text in that language.
    """
    for known in _all().values():
        if objective.country.code in known["countries"]:
            text: str = known["language"]
            return text
    listed = " ".join(code for known in _all().values() for code in known["countries"])
    raise UsageError(
        f"`settings` elicitation=language: no text in the language of {objective.country.name}; known: {listed}."
    )


def _all() -> dict[str, dict[str, Any]]:
    return read_yaml(Path(__file__).with_name("texts.yaml"))
