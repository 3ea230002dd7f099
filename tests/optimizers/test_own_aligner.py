"""The guide's aligner, ``examples/es``: a search by ask and tell, and what it gets from ``BlackBox`` for it."""

from pathlib import Path

import numpy as np
import pytest
from culteval.errors import UsageError
from culteval.harness.alignment.budget import Budget
from culteval.optimizers.black_box import BlackBox

from ..optimizers.test_aligners import Memory, made, objective_of

ES = Path(__file__).parents[2] / "examples" / "es"
SPACES = {
    "full, around tokens": {"space": "full"},
    "full, around the mean": {"space": "full", "start": "mean", "sigma": 0.5},
    "random": {"space": "random", "dimensions": 12},
    "embeddings": {"space": "embeddings", "dimensions": 12, "start": "persona"},
    "begun anew": {"space": "random", "dimensions": 4, "restart": 1},
    "a single trial": {"space": "random", "dimensions": 12, "population": 1},
}


@pytest.fixture
def es(monkeypatch):
    """The example's module, importable as for who installed it."""
    monkeypatch.syspath_prepend(str(ES))
    import culteval_es

    return culteval_es


@pytest.fixture
def align(es, load):
    """``align(checkpoint or None, seed, **settings)``: what it made, its budget and checkpoint, 45 evaluations."""
    model, (objective, items) = load("llama", True), objective_of()

    def run(checkpoint=None, seed=4, **settings):
        budget = Budget(45 * items, items) if checkpoint is None else checkpoint.budget
        checkpoint = checkpoint or Memory(budget)
        aligner = es.ES(es.ESSettings(**({"tokens": 3, "population": 6} | settings)))
        return aligner.align(model, objective, budget, np.random.default_rng(seed), checkpoint), budget, checkpoint

    run.objective, run.items = objective, items
    return run


def test_its_own_tests_pass(es):
    import test_es

    tests = [test for name, test in vars(test_es).items() if name.startswith("test_")]
    assert len(tests) == 2
    for test in tests:
        test()


def test_it_asks_the_same_until_it_is_told(es):
    search = es.EvolutionStrategy(np.ones((4, 3)), 1.0, np.random.default_rng(0))
    assert search.best[1] == np.inf and (search.limits == np.inf).all()
    np.testing.assert_array_equal(search.ask(), np.ones((4, 3)))
    for wrong in (np.full(4, np.nan), np.zeros(5), np.zeros(0)):
        with pytest.raises(ValueError, match="losses must be"):
            search.tell(wrong)
    search.tell(np.full(4, np.inf))  # nothing is known yet, and nothing is learned from it
    assert search.sigma == 1.0 and search.best[1] == np.inf
    search.tell(np.arange(4.0)[: len(search.ask())])
    trials = search.ask()
    np.testing.assert_array_equal(trials, search.ask())
    search.tell(np.array([5.0, -2.0]))  # the budget paid for two of four
    np.testing.assert_array_equal(search.best[0], trials[1])
    assert search.best[1] == -2.0 and (search.limits == -2.0).all() and search.ask().shape == (4, 3)
    with pytest.raises(ValueError, match="that was asked"):
        for _ in range(2):
            search.tell(np.zeros(4))


@pytest.mark.parametrize(("successes", "change"), [(0, -1), (1, 0), (2, 1), (5, 1)])
def test_steps_are_as_long_as_one_in_five_succeeds(es, successes, change):
    search = es.EvolutionStrategy(np.zeros((5, 3)), 2.0, np.random.default_rng(0))
    for losses in (np.ones(5), np.where(np.arange(5) < successes, 0.0, 9.0)):
        search.ask()
        search.tell(losses)
    assert np.sign(round(search.sigma - 2.0, 9)) == change


@pytest.mark.parametrize("case", SPACES)
def test_in_every_space_budget_and_seed_hold_and_it_goes_down(case, align):
    (one, budget, checkpoint), (same, *_), (other, *_) = (align(seed=seed, **SPACES[case]) for seed in (4, 4, 5))
    assert budget.total - align.objective.cost < budget.spent <= budget.total
    assert made(one) == made(same) != made(other)
    assert one.soft.shape[:2] == (1, 3) and checkpoint.best[-1] < checkpoint.best[0]
    found = align.objective.loss(one.answer(align.objective.prompts).probs)[0]
    assert found == pytest.approx(checkpoint.best[-1], rel=1e-4)


@pytest.mark.parametrize("case", SPACES)
@pytest.mark.parametrize("stop", [1, 3])
def test_stopped_anywhere_it_ends_the_same(case, stop, align):
    whole, spent, undisturbed = align(**SPACES[case])
    items, total = align.items, spent.total
    checkpoint = Memory(Budget(total, items), stop=stop)
    with pytest.raises(KeyboardInterrupt):
        align(checkpoint, **SPACES[case])
    resumed, again, after = align(Memory(Budget(total, items), checkpoint.kept), **SPACES[case])
    assert made(resumed) == made(whole) and again.spent == spent.spent > checkpoint.budget.spent
    assert after.kept[0].keys() == undisturbed.kept[0].keys()
    for name, value in undisturbed.kept[0].items():
        np.testing.assert_array_equal(after.kept[0][name], value, err_msg=name)


def test_racing_changes_what_it_costs_alone(align):
    few = {"space": "random", "dimensions": 12, "generations": 3}
    (raced, paid, _), (whole, full, _) = (align(racing=racing, **few) for racing in (True, False))
    np.testing.assert_allclose(raced.soft, whole.soft, rtol=1e-5)
    assert paid.spent < full.spent == 3 * 6 * align.objective.cost


def test_a_budget_for_no_candidate_is_refused(es, align):
    assert issubclass(es.ES, BlackBox)
    with pytest.raises(UsageError, match="one candidate costs 2"):
        align(Memory(Budget(align.items, align.items)))
