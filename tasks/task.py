"""The task object of the Python API: its spec, its prompts, its countries."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError, did_you_mean
from .measure import countries_of
from .prompts import Prompts, ProtocolOptions, render
from .schema import SplitName
from .spec import TaskSpec


@dataclass(frozen=True)
class Task:
    """A task by name; ``spec`` holds everything its YAML file says."""

    spec: TaskSpec

    def __repr__(self) -> str:
        return f"Task({self.name}: {self.spec.metadata.title})"

    @property
    def name(self) -> str:
        """Return the name under which it is registered."""
        return self.spec.name

    @property
    def hash(self) -> str:
        """Return the sha256 of the spec, the files it includes and its items, as submissions record it."""
        return self.spec.hash

    def countries(self, edition: str | None = None) -> tuple[str, ...]:
        """Return the codes of the countries that its reference has.

        Raises:
            UsageError: no such edition.
        """
        return tuple(sorted(countries_of(self.spec, edition)))

    def prompts(self, split: SplitName = "fit", personas: int = 0, seed: int = 0) -> Prompts:
        """Render the prompts of a split as a model receives them.

        Args:
            personas: how many are drawn from ``seed``, each of which answers every item; 0 for no persona.

        Raises:
            UsageError: no such split.
        """
        known = tuple(self.spec.metadata.splits.named)
        if split not in known:
            raise UsageError(f"split {split!r}: {self.name} has {', '.join(known)}.{did_you_mean(split, known)}")
        return render(self.spec, split, ProtocolOptions(personas, seed))
