"""Budget of a fit, counted in item forwards and never exceeded."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ...errors import RunError


@dataclass
class Budget:
    """Budget in item forwards: one item answered by one candidate costs 1, with a backward pass 3.

    Args:
        total: item forwards that may be spent.
        per_survey: items of the survey; users see ``spent / per_survey`` survey evaluations.
    """

    total: int
    per_survey: int
    spent: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Return the item forwards that may still be spent."""
        return self.total - self.spent

    @property
    def share(self) -> float:
        """Return the share of the budget spent, 0 to 1."""
        return self.spent / self.total

    @property
    def evaluations(self) -> float:
        """Return the survey evaluations spent."""
        return self.spent / self.per_survey

    def affordable(self, cost: int) -> int:
        """Return how many candidates of ``cost`` item forwards each can still be evaluated."""
        return self.left // cost

    def spend(self, item_forwards: int) -> None:
        """Subtract item forwards from the budget, before they are computed.

        Raises:
            RunError: fewer are left.
        """
        if item_forwards > self.left:
            raise RunError(f"budget: {item_forwards} item forwards asked, {self.left} left.")
        self.spent += item_forwards

    def record(self, tokens: int, started: float) -> None:
        """Add tokens read and the seconds since ``started`` (``time.perf_counter()``)."""
        self.tokens += tokens
        self.seconds += time.perf_counter() - started

    def state(self) -> dict[str, float]:
        """Return the item forwards, tokens and seconds spent, for a checkpoint."""
        return {"spent": self.spent, "tokens": self.tokens, "seconds": self.seconds}

    def restore(self, state: dict[str, float]) -> None:
        """Restore the state of a checkpoint.

        Raises:
            ValueError: more item forwards than the budget allows, or numbers out of bounds.
        """
        spent, tokens, seconds = int(state["spent"]), int(state["tokens"]), float(state["seconds"])
        if not (0 <= spent <= self.total and tokens >= 0 and 0 <= seconds < float("inf")):
            raise ValueError("more spent than there was")
        self.spent, self.tokens, self.seconds = spent, tokens, seconds
