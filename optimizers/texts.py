"""Persona and demonstration texts, kept in ``texts.yaml``."""

from __future__ import annotations

from pathlib import Path

from ..tasks.spec import read_yaml


def texts() -> dict[str, str]:
    """All texts by name."""
    return read_yaml(Path(__file__).with_name("texts.yaml"))


def persona(country: str) -> str:
    """The sentence that tells the model whom to answer as."""
    return texts()["persona"].format(country=country)
