"""The budget meter: every aligner draws item forwards from it, and cannot draw more than there are."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ...errors import RunError


@dataclass
class Budget:
    """Item forwards: one item answered by one candidate is 1, forward and backward is 3.

    Args:
        total: item forwards that may be spent.
        per_survey: items of the survey; people are shown ``spent / per_survey`` survey evaluations.
    """

    total: int
    per_survey: int
    spent: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def left(self) -> int:
        """Item forwards that may still be spent."""
        return self.total - self.spent

    @property
    def evaluations(self) -> float:
        """Survey evaluations spent."""
        return self.spent / self.per_survey

    def affordable(self, cost: int) -> int:
        """How many candidates of ``cost`` item forwards are left."""
        return self.left // cost

    def spend(self, item_forwards: int) -> None:
        """Take item forwards off the meter, before they are computed.

        Raises:
            RunError: there are not that many left.
        """
        if item_forwards > self.left:
            raise RunError(f"budget: {item_forwards} item forwards asked, {self.left} left.")
        self.spent += item_forwards

    def record(self, tokens: int, started: float) -> None:
        """Note tokens read and seconds since ``started`` (``time.perf_counter()``)."""
        self.tokens += tokens
        self.seconds += time.perf_counter() - started

    def state(self) -> dict[str, float]:
        """What was spent, for a checkpoint."""
        return {"spent": self.spent, "tokens": self.tokens, "seconds": self.seconds}

    def restore(self, state: dict[str, float]) -> None:
        """Go on from a checkpoint; ValueError for what no meter said."""
        spent, tokens, seconds = int(state["spent"]), int(state["tokens"]), float(state["seconds"])
        if not (0 <= spent <= self.total and tokens >= 0 and 0 <= seconds < float("inf")):
            raise ValueError("more spent than there was")
        self.spent, self.tokens, self.seconds = spent, tokens, seconds
