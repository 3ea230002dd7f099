"""Best of n preambles: as many sentences that tell the model the country as the budget pays for, the best one kept."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from ..errors import RunError
from ..harness.alignment.aligner import Journal
from ..harness.alignment.aligner import Settings as Base
from ..harness.alignment.budget import Budget
from ..harness.alignment.objective import Goal
from ..harness.models.aligned import AlignedModel
from ..tasks.countries import name_of
from ..tasks.spec import read_yaml
from .soft_prompt import require_candidate
from .texts import persona

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class BestOfNSettings(Base):
    """``n``: preambles at most, None for as many as the budget pays for; ``middles``: sentences in between, at most."""

    n: int | None = Field(None, ge=1)
    middles: int = Field(2, ge=0, le=8)


class BestOfN:
    """Judges preambles put together at random and keeps the best; the first is the persona of ``icl``."""

    Settings: ClassVar = BestOfNSettings
    summary: ClassVar = "best of as many preambles in words as the budget pays for"
    budgeted: ClassVar = True

    def __init__(self, settings: BestOfNSettings) -> None:
        self.settings = settings

    def check(self, goal: Goal, budget: Budget) -> None:
        """Raise UsageError unless the budget pays for a candidate."""
        require_candidate(goal, budget)

    def longest_preamble(self, goal: Goal) -> str:
        """The longest text (in characters) that may be put together."""
        parts = {name: sorted(texts, key=len) for name, texts in _parts().items()}
        middles = parts["middles"][-self.settings.middles :] if self.settings.middles else []
        built = _joined([parts["openings"][-1], *middles, parts["closings"][-1]], goal)
        return max(built, _persona(goal), key=len)

    def align(
        self, model: LanguageModel, goal: Goal, budget: Budget, rng: np.random.Generator, journal: Journal
    ) -> AlignedModel:
        """Judge preambles until the budget or ``n`` ends; preamble k is the same whatever the budget.

        Raises:
            RunError: too little budget, or a loss that is not a number.
        """
        require_candidate(goal, budget)
        texts = preambles(goal, rng, self.settings.middles)
        judged, best, loss = 0, 0, np.inf
        if state := journal.load():
            judged, best, loss = int(state["judged"]), int(state["best"]), float(state["loss"])
            if judged * goal.cost != budget.spent or not 0 <= best < judged:
                raise ValueError("another number of preambles than was paid for")
        kept: list[str] = [next(texts) for _ in range(judged)]
        most = np.inf if self.settings.n is None else self.settings.n
        while budget.affordable(goal.cost) and judged < most:
            kept.append(next(texts))
            value = self._judge(model, goal, kept[-1], budget)
            if value < loss:
                best, loss = judged, value
            judged += 1
            journal.save({"judged": np.array(judged), "best": np.array(best), "loss": np.array(loss)}, loss)
        return AlignedModel(model, preamble=kept[best])

    @staticmethod
    def _judge(model: LanguageModel, goal: Goal, text: str, budget: Budget) -> float:
        budget.spend(goal.cost)
        started, tokens = time.perf_counter(), model.tokens
        loss = float(goal.objective(model.answer(goal.prompts, None, text).probs)[0])
        budget.record(model.tokens - tokens, started)
        if np.isnan(loss):
            raise RunError("a candidate's loss is not a number. Try --dtype float32.")
        return loss


def preambles(goal: Goal, rng: np.random.Generator, middles: int) -> Iterator[str]:
    """Preambles without end, the persona first: an opening, up to ``middles`` sentences, a closing, no text twice."""
    parts = _parts()
    seen = {_persona(goal)}
    inner = sum(math.perm(len(parts["middles"]), count) for count in range(middles + 1))
    every = 1 + len(parts["openings"]) * len(parts["closings"]) * inner
    yield from seen
    while True:
        picked = rng.choice(parts["middles"], rng.integers(middles + 1), replace=False).tolist()
        text = _joined([str(rng.choice(parts["openings"])), *picked, str(rng.choice(parts["closings"]))], goal)
        if text not in seen or len(seen) == every:  # when all were there, repeats rather than a search without end
            seen.add(text)
            yield text


def _parts() -> dict[str, list[str]]:
    return read_yaml(Path(__file__).with_name("preambles.yaml"))


def _joined(sentences: list[str], goal: Goal) -> str:
    return " ".join(sentences).format(country=name_of(goal.country.code)) + "\n\n"


def _persona(goal: Goal) -> str:
    return persona(goal) + "\n\n"
