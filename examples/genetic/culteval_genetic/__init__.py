"""A genetic algorithm over soft prompts: parents by tournament, crossover by tokens, Gaussian mutation."""

from typing import ClassVar

import numpy as np
from culteval.harness.aligned import AlignedModel
from culteval.harness.aligner import Settings
from culteval.optimizers.search.interface import pack_rng, unpack_rng
from culteval.optimizers.soft_prompt import draw_prompts, evaluate, require_candidate
from pydantic import Field


class GeneticSettings(Settings):
    """``rate``: share of coordinates that mutate, by ``step`` standard deviations of the population."""

    tokens: int = Field(10, ge=1, le=1000)
    population: int = Field(20, ge=2, le=1000)
    rate: float = Field(0.1, ge=0, le=1)
    step: float = Field(0.5, gt=0)


class Genetic:
    """Breeds soft prompts; of parents and children the best live on."""

    Settings: ClassVar = GeneticSettings
    summary: ClassVar = "soft prompt by a genetic algorithm, model frozen"
    budgeted: ClassVar = True

    def __init__(self, settings):
        self.settings = settings

    def align(self, model, goal, budget, rng, journal):
        """Breed until the budget pays for no further candidate; a checkpoint after every generation."""
        require_candidate(goal, budget)
        if state := journal.load():
            people, losses, rng = state["people"], state["losses"], unpack_rng(state["rng"])
        else:
            count = min(self.settings.population, budget.affordable(goal.cost))
            people = draw_prompts(model, rng, count, self.settings.tokens)
            losses = evaluate(model, goal, people, budget)
        while count := min(len(people), budget.affordable(goal.cost)):
            children = self.breed(people, losses, rng)[:count]
            people = np.concatenate([people, children])
            losses = np.concatenate([losses, evaluate(model, goal, children, budget)])
            best = np.argsort(losses, kind="stable")[: self.settings.population]
            people, losses = people[best], losses[best]
            journal.save({"people": people, "losses": losses, "rng": pack_rng(rng)}, float(losses[0]))
        return AlignedModel(model, people[np.argmin(losses)])

    def breed(self, people, losses, rng):
        """As many children (n, T, width) as there are people: each token from either of two tournament winners."""
        rivals = rng.integers(len(people), size=(2, len(people), 2))
        one, other = (np.where(losses[a] <= losses[b], a, b) for a, b in np.moveaxis(rivals, 2, 1))
        from_one = rng.random((len(people), self.settings.tokens, 1)) < 0.5
        children = np.where(from_one, people[one], people[other])
        noise = rng.standard_normal(children.shape) * self.settings.step * people.std()
        return (children + noise * (rng.random(children.shape) < self.settings.rate)).astype(np.float32)
