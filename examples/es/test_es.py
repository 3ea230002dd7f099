"""Test the search on a function, without a model: it converges, and continues exactly from its state."""

import numpy as np
from culteval_es import EvolutionStrategy


def begun():
    rng = np.random.default_rng(3)
    return EvolutionStrategy(rng.standard_normal((10, 8)), 1.0, rng)


def run(search, generations):
    for _ in range(generations):
        search.tell(((search.ask() - 1) ** 2).sum(axis=1))
    return search


def test_it_goes_down():
    assert run(begun(), 200).best[1] < 1e-6


def test_its_state_goes_on_exactly():
    whole, stopped = run(begun(), 20), run(begun(), 7)
    stopped.ask()  # pending trials are part of the state
    again = run(EvolutionStrategy.from_state(stopped.state()), 13)
    assert np.array_equal(again.best[0], whole.best[0]) and again.best[1] == whole.best[1]
