"""Interface for showing the progress of a run to the user."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Done = Callable[[int], None]
"""Receive the number of prompts answered since the last call."""


class Display(Protocol):
    """Receiver of messages and progress of a run."""

    def say(self, text: str) -> None:
        """Show one line."""

    def advance(self, label: str, spent: float, allowed: float, best: float | None) -> None:
        """Show the survey evaluations that a search has spent, of those allowed, and its best loss so far."""


class Quiet:
    """A display that shows nothing."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def advance(self, label: str, spent: float, allowed: float, best: float | None) -> None:
        """Show nothing."""
