"""The meter: exact to the unit, refuses before it spends, goes on from a checkpoint."""

import dataclasses
import json

import pytest
from culteval.errors import RunError
from culteval.harness.alignment.budget import Budget
from hypothesis import given, settings
from hypothesis import strategies as st


def test_exact_to_the_unit():
    budget = Budget(total=100, per_survey=24)
    budget.spend(48)
    assert (budget.spent, budget.left, budget.evaluations) == (48, 52, 2.0)
    assert [budget.affordable(cost) for cost in (1, 26, 48, 52, 53)] == [52, 2, 1, 1, 0]
    budget.spend(52)
    assert (budget.spent, budget.left, budget.affordable(1)) == (100, 0, 0)
    budget.spend(0)
    assert budget.spent == 100


@pytest.mark.parametrize("too_much", [53, 10**9])
def test_spending_beyond_is_refused_before_anything_is_taken(too_much):
    budget = Budget(total=100, per_survey=24, spent=48, tokens=5, seconds=1.0)
    before = dataclasses.asdict(budget)
    with pytest.raises(RunError) as caught:
        budget.spend(too_much)
    assert str(too_much) in str(caught.value) and "52" in str(caught.value)
    assert caught.value.exit_code == 5
    assert dataclasses.asdict(budget) == before
    budget.spend(52)  # what is left is still there


def test_no_budget_pays_for_nothing():
    budget = Budget(total=0, per_survey=24)
    assert budget.affordable(48) == 0
    with pytest.raises(RunError):
        budget.spend(1)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**12), st.lists(st.integers(0, 10**11), max_size=30))
def test_never_more_than_there_is_and_nothing_lost(total, orders):
    budget, paid = Budget(total=total, per_survey=24), 0
    for order in orders:
        if order <= total - paid:
            budget.spend(order)
            paid += order
        else:
            with pytest.raises(RunError):
                budget.spend(order)
        assert budget.spent == paid and budget.left == total - paid


def test_candidates_bought_one_by_one_or_together():
    one, together = Budget(total=1000, per_survey=24), Budget(total=1000, per_survey=24)
    count = 0
    while one.affordable(48):
        one.spend(48)
        count += 1
    together.spend(48 * together.affordable(48))
    assert count == 20 and one.left == together.left == 40


def test_tokens_and_seconds_add_up(monkeypatch):
    from culteval.harness.alignment import budget as module

    monkeypatch.setattr(module.time, "perf_counter", lambda: 12.5)
    budget = Budget(total=10, per_survey=1)
    budget.record(7, 10.0)
    budget.record(3, 12.0)
    assert (budget.tokens, budget.seconds, budget.spent) == (10, 3.0, 0)


def test_restored_through_json_it_goes_on():
    first = Budget(total=100, per_survey=24)
    first.spend(60)
    first.tokens, first.seconds = 1234, 5.25
    state = json.loads(json.dumps(first.state()))
    second = Budget(total=100, per_survey=24)
    second.restore(state)
    assert second == first
    assert all(type(value) is int for value in (second.spent, second.tokens))
    with pytest.raises(RunError):
        second.spend(41)
    second.spend(40)
    assert second.left == 0


def test_a_larger_budget_goes_on_from_the_same_state():
    state = {"spent": 96, "tokens": 1, "seconds": 0.5}
    budget = Budget(total=200, per_survey=24)
    budget.restore(state)
    assert budget.left == 104 and budget.evaluations == 4.0
    assert budget.state() == state
