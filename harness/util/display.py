"""Where work under way is shown to a person."""

from __future__ import annotations

from typing import Protocol, Self


class Display(Protocol):
    """Where a run tells what it is doing."""

    def say(self, text: str) -> None:
        """Show one line."""

    def advance(self, label: str, spent: float, allowed: float, best: float | None) -> None:
        """Show that a search has spent so many of its survey evaluations, and its best loss so far."""


class Quiet:
    """A display that shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        """Nothing to close."""

    def say(self, text: str) -> None:
        """Show nothing."""

    def advance(self, label: str, spent: float, allowed: float, best: float | None) -> None:
        """Show nothing."""
