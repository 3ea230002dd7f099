"""Random search: independent random soft prompts, the best one kept. The baseline a search must beat."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from .black_box import BlackBox, BlackBoxSettings
from .search.random import Draw, RandomDraws
from .spaces import Space, draw_vectors, first_vectors

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel

BATCH = 10  # candidates between checkpoints


class RandomSettings(BlackBoxSettings):
    """In the full space, the default, every candidate is made of random tokens of its own."""

    space: Literal["full", "random", "embeddings"] = "full"


class RandomSearch(BlackBox):
    """Keeps the best of as many random prompts as the budget pays for; candidate k is the same whatever the budget.

    With a budget of one candidate it is an unselected random prompt: the random-prefix control.
    """

    Settings: ClassVar = RandomSettings
    summary: ClassVar = "best of as many random token prompts as the budget pays for"

    def begin(self, model: LanguageModel, space: Space, rng: np.random.Generator) -> RandomDraws:
        """The first prompt, then others drawn around it."""
        return RandomDraws(first_vectors(model, space, self.settings, rng, BATCH), self._draw(model, space), rng=rng)

    def restore(self, model: LanguageModel, space: Space, state: Mapping[str, np.ndarray]) -> RandomDraws:
        """The search of a checkpoint."""
        return RandomDraws.from_state(state, self._draw(model, space))

    def _draw(self, model: LanguageModel, space: Space) -> Draw:
        return lambda rng, count: draw_vectors(model, space, self.settings, rng, count)
