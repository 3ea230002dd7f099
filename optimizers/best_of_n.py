"""Best of n preambles: the best of as many sentences that name the country as the budget allows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from pydantic import Field

from ..errors import CheckpointError
from ..harness.alignment.aligner import CANDIDATE_COST, Aligner, Card, Settings
from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.evaluator import Evaluator, require_budget, require_readable
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel
from ..tasks.countries import name_of
from ..tasks.spec import read_yaml
from .texts import persona

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


EARLY = 8  # texts


class BestOfNSettings(Settings):
    """Settings: ``n``, the largest number of preambles, None for as many as the budget allows.

    ``middles``, the largest number of sentences between opening and closing.
    """

    n: int | None = Field(None, ge=1)
    middles: int = Field(2, ge=0, le=8)


class BestOfN(Aligner):
    """Random preambles that name the country are evaluated one after another, the persona of ``icl`` first.

    The one with the lowest loss is kept.
    """

    Settings: ClassVar = BestOfNSettings
    summary: ClassVar = "best of as many preambles in words as the budget pays for"
    card: ClassVar = Card(
        source="future work in Masoud et al. 2025 (arXiv 2503.16094); sentences are ours",
        needs="the country's figures on `fit` as a loss; text alone is enough",
        cost=CANDIDATE_COST,
        gives="preamble",
        limits=(
            "English only. The sentences name no trait of a country; where `heldout` is not better than `icl`, they "
            "had no effect."
        ),
    )
    needs_weights: ClassVar = False
    settings: BestOfNSettings

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError unless the budget pays for a candidate."""
        require_budget(objective.cost, "candidate", budget)

    def longest_preamble(self, objective: Objective) -> str:
        """Return the longest text (in characters) that may be drawn."""
        parts = {name: sorted(texts, key=len) for name, texts in _parts().items()}
        middles = parts["middles"][-self.settings.middles :] if self.settings.middles else []
        built = _joined([parts["openings"][-1], *middles, parts["closings"][-1]], objective)
        return max(built, _persona(objective), key=len)

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Evaluate preambles until the budget or ``n`` is used up; preamble k is the same for every budget.

        Raises:
            RunError: too small a budget, a loss that is not a number, or no answer that can be read.
        """
        self.check(objective, budget)
        evaluator = Evaluator(model, objective, budget)
        texts = preambles(objective, rng, self.settings.middles)
        judged, best, loss, unread = 0, 0, np.inf, objective.cost
        if state := checkpoint.load():
            judged, best, loss = int(state["judged"]), int(state["best"]), float(state["loss"])
            unread = int(state["unread"])
            if judged * objective.cost != budget.spent or not 0 <= best < judged:
                raise CheckpointError("the checkpoint's preambles do not match its budget. Start over with `fresh`.")
        kept: list[str] = [next(texts) for _ in range(judged)]
        most = np.inf if self.settings.n is None else self.settings.n
        while evaluator.affordable and judged < most:
            kept.append(next(texts))
            value = evaluator.loss_of_text(kept[-1])
            if value.loss < loss:
                best, loss = judged, value.loss
            judged, unread = judged + 1, min(unread, value.unread)
            numbers = {"judged": judged, "best": best, "loss": loss, "unread": unread}
            checkpoint.save({name: np.array(number) for name, number in numbers.items()}, loss)
            if judged == EARLY:  # not only when the whole budget is spent on a model that never names an option
                require_readable([unread] * judged, objective)
        require_readable([unread], objective)
        return AlignedModel(model, preamble=kept[best])


def preambles(objective: Objective, rng: np.random.Generator, middles: int) -> Iterator[str]:
    """Yield preambles without end, the persona first.

    An opening, up to ``middles`` sentences, a closing, without repeats.
    """
    parts = _parts()
    seen = {_persona(objective)}
    inner = sum(math.perm(len(parts["middles"]), count) for count in range(middles + 1))
    every = 1 + len(parts["openings"]) * len(parts["closings"]) * inner
    yield from seen
    while True:
        picked = rng.choice(parts["middles"], rng.integers(middles + 1), replace=False).tolist()
        text = _joined([str(rng.choice(parts["openings"])), *picked, str(rng.choice(parts["closings"]))], objective)
        if text not in seen or len(seen) == every:  # repeat once all combinations occurred
            seen.add(text)
            yield text


def _parts() -> dict[str, list[str]]:
    return read_yaml(Path(__file__).with_name("preambles.yaml"))


def _joined(sentences: list[str], objective: Objective) -> str:
    return " ".join(sentences).format(country=name_of(objective.country.code)) + "\n\n"


def _persona(objective: Objective) -> str:
    return persona(objective) + "\n\n"
