"""Random search: the best of independent random soft prompts, the baseline for every search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..harness.alignment.aligner import CANDIDATE_COST, Card
from .black_box import BlackBox, BlackBoxSettings
from .search.random import Draw, RandomDraws
from .spaces import Space, SpaceName, draw_vectors, first_vectors

if TYPE_CHECKING:
    from ..harness.alignment.evaluator import Evaluator
    from ..harness.models.local import LanguageModel

BATCH = 10  # candidates between checkpoints


class RandomSettings(BlackBoxSettings):
    """The settings of random search.

    In the full space, the default, every candidate consists of its own random tokens.
    """

    space: SpaceName = "full"


class RandomSearch(BlackBox):
    """The best of as many random soft prompts as the budget pays for; candidate k is the same for every budget.

    It is the baseline that a search has to beat at the same budget.
    """

    Settings: ClassVar = RandomSettings
    summary: ClassVar = "best of as many random token prompts as the budget pays for"
    card: ClassVar = Card(
        source="random search: Bergstra & Bengio 2012 (JMLR 13:281-305)",
        needs="the country's figures on `fit` as a loss; forward passes, no gradients",
        cost=CANDIDATE_COST,
        gives="soft prompt (PEFT prompt tuning)",
        limits=(
            "The minimum of many noisy losses is biased downwards: compare `heldout`. Use it as the baseline, not as "
            "the method."
        ),
    )

    def begin(self, evaluator: Evaluator, space: Space, rng: np.random.Generator) -> RandomDraws:
        """Start with the first prompt, followed by others drawn around it."""
        return RandomDraws(
            first_vectors(evaluator.model, space, self.settings, rng, BATCH),
            self._draw(evaluator.model, space),
            rng=rng,
        )

    def restore(self, evaluator: Evaluator, space: Space, state: Mapping[str, np.ndarray]) -> RandomDraws:
        """Restore the search of a checkpoint."""
        return RandomDraws.from_state(state, self._draw(evaluator.model, space))

    def _draw(self, model: LanguageModel, space: Space) -> Draw:
        return lambda rng, count: draw_vectors(model, space, self.settings, rng, count)
