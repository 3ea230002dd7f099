"""A (1+lambda) evolution strategy (Rechenberg 1973) with the one-fifth rule for the length of its steps."""

from typing import ClassVar

import numpy as np
from culteval.optimizers.black_box import BlackBox, BlackBoxSettings
from culteval.optimizers.search.interface import pack_rng, unpack_rng
from culteval.optimizers.spaces import first_vectors
from pydantic import Field

SUCCESS = 1 / 5  # share of trials that improve on their parent: above it, steps may be longer
ARRAYS = ("trials", "count", "parent", "loss", "sigma")


class EvolutionStrategy:
    """A minimiser from ``start`` (n, dim), its first generation, with steps of ``sigma``.

    Later generations have n trials.
    """

    def __init__(self, start, sigma, rng):
        self.trials, self.count, self.sigma, self.rng = np.array(start, dtype=float), len(start), sigma, rng
        self.parent, self.loss = self.trials[0], np.inf

    @property
    def best(self):
        return self.parent.copy(), float(self.loss)

    @property
    def limits(self):
        return np.full(self.count, self.loss)  # a trial no better than the parent has no effect

    def ask(self):
        if not len(self.trials):
            self.trials = self.parent + self.sigma * self.rng.standard_normal((self.count, self.parent.size))
        return self.trials.copy()

    def tell(self, losses):
        if np.isnan(losses).any() or not 1 <= len(losses) <= len(self.trials):
            raise ValueError("losses must be numbers, one at most for each trial that was asked")
        if np.isfinite(self.loss):  # Igel, Hansen & Roth 2007, Evol. Comput. 15:1-28, without its average
            share, damping = np.mean(losses < self.loss), 1 + self.parent.size / (2 * self.count)
            self.sigma *= np.exp((share - SUCCESS) / (1 - SUCCESS) / damping)
        if min(losses) < self.loss:
            self.parent, self.loss = self.trials[np.argmin(losses)], min(losses)
        self.trials = self.trials[:0]

    def state(self):
        return {name: np.array(getattr(self, name)) for name in ARRAYS} | {"rng": pack_rng(self.rng)}

    @classmethod
    def from_state(cls, state):
        search = cls(state["parent"][None], 1.0, unpack_rng(state["rng"]))
        for name in ARRAYS:
            setattr(search, name, state[name][()])
        return search


class ESSettings(BlackBoxSettings):
    """The settings of the evolution strategy, in addition to those of every search.

    ``population``: trials per generation.
    """

    population: int = Field(10, ge=1, le=1000)


class ES(BlackBox):
    """A (1+lambda) evolution strategy of soft prompts on a loss without gradients."""

    Settings: ClassVar = ESSettings
    summary: ClassVar = "soft prompt by a (1+lambda) evolution strategy, model frozen, no gradients"

    def begin(self, evaluator, space, rng):
        start = first_vectors(evaluator.model, space, self.settings, rng, self.settings.population)
        return EvolutionStrategy(start, self.settings.sigma, rng)

    def restore(self, evaluator, space, state):
        return EvolutionStrategy.from_state(state)
