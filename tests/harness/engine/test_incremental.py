"""Racing drops what would lose, decides nothing else, and spends what it computes."""

import numpy as np
import pytest
import torch
from culteval.errors import RunError
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.registry import spec_path
from culteval.optimizers.de import DESettings, DifferentialEvolutionPrompt
from culteval.optimizers.racing import Race, can_race
from culteval.optimizers.soft_prompt import draw_prompts, evaluate
from culteval.tasks.countries import country as country_of
from culteval.tasks.measure import MeasureOptions
from culteval.tasks.spec import load_spec
from hypothesis import given, settings
from hypothesis import strategies as st

from ...conftest import SHAPES
from ...harness.engine.test_packing import free_prompts


def objective_of(readout="expected", norm="sse", country="SA"):
    spec = load_spec(spec_path("vsm13"))
    return fit_objective(spec, country_of(country), readout, MeasureOptions(norm=norm), 1, 0)


class Memory:
    """A checkpoint that keeps everything."""

    def __init__(self):
        self.states, self.best = [], []

    def load(self):
        return None

    def save(self, state, best):
        self.states.append(state)
        self.best.append(best)


class ReadsOn(Race):
    """The same race, in the same shapes, without dropping anybody."""

    def _going(self, lost):
        return np.arange(len(lost))


def trials(model, count=6, tokens=3, seed=0):
    rng = np.random.default_rng(seed)
    return draw_prompts(model, rng, count, tokens) + rng.normal(0, 0.3, (count, tokens, model.dim)).astype(np.float32)


@pytest.mark.parametrize("readout", ["expected", "argmax"])
@pytest.mark.parametrize("norm", ["sse", "l2", "l1"])
def test_partial_losses_never_exceed_the_whole(norm, readout):
    objective = objective_of(readout, norm)
    assert can_race(objective)
    probs = np.random.default_rng(0).dirichlet(np.full(5, 0.4), (50, len(objective.prompts)))
    terms = objective.loss.terms(probs)
    np.testing.assert_array_equal(objective.loss.total(terms), objective.loss(probs))
    for count in range(7):
        known = np.arange(6) < count
        assert (objective.loss.total(np.where(known, terms, 0)) <= objective.loss(probs)).all()


def test_a_term_rests_on_its_own_prompts_alone():
    objective = objective_of()
    parts = objective.loss.parts
    assert [len(part) for part in parts] == [8] * 6 and len(set(np.concatenate(parts))) == 48
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(5), (4, 48))
    for number, part in enumerate(parts):
        other = rng.dirichlet(np.ones(5), (4, 48))
        other[:, part] = probs[:, part]
        np.testing.assert_array_equal(objective.loss.terms(other)[:, number], objective.loss.terms(probs)[:, number])


@pytest.mark.parametrize("shape", SHAPES)
def test_raced_losses_are_those_of_whole_passes(load, shape):
    model, objective = load(shape, True), objective_of()
    soft = trials(model)
    whole = evaluate(model, objective, soft, Budget(10**6, 24))
    limits = np.array([np.inf, *(whole[1:4] * 1.001), whole[4] * 0.9, 0.0])
    budget = Budget(10**6, 24)
    race = Race(model, objective, budget)
    race.lasting = np.array([1, 0.9, 0.5, 0.4, 0.3, 0.2])
    raced = race.run(soft, limits)
    np.testing.assert_allclose(raced[:4], whole[:4], rtol=1e-4)
    assert np.isinf(raced[4:]).all()
    assert 4 * 48 < budget.spent < 6 * 48
    assert race.lasting[0] == 1 and race.lasting[5] < 0.7


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5), min_size=48, max_size=48))
def test_steps_of_any_shape_give_the_whole_pass(load, turns):
    model, objective = load("llama", False), objective_of()
    steps = tuple(tuple(int(i) for i in np.flatnonzero(np.array(turns) == t)) for t in range(6) if t in turns)
    soft = trials(model, 2)
    asked = model.stepwise(objective.prompts, steps, soft)
    whole = model.answer(objective.prompts, soft).probs
    done = []
    for step in steps:
        probs = asked.advance()
        done += step
        np.testing.assert_allclose(probs[:, done], whole[:, done], atol=1e-5)


def test_steps_of_options_of_several_tokens_and_of_prompts_inside_others(load):
    model = load("llama", False)
    longer = "Is it so? 1 2 and then some"
    choices = [("1", "2"), ("1 2 and", "1 3"), ("yes",), ("1", "2")]
    prompts = free_prompts(["Is it so?", "Is it so?", longer, "Is it so?"], choices)
    soft = trials(model, 2)
    for steps in (((2,), (0,), (1,), (3,)), ((1, 3), (0, 2)), ((0,), (2, 1, 3))):
        asked = model.stepwise(prompts, steps, soft)
        with torch.no_grad():
            whole = model.logprobs(prompts, torch.from_numpy(soft)).numpy()
        found = [asked._asking.advance() for _ in steps][-1].numpy()
        np.testing.assert_allclose(found, whole, atol=1e-4)


def test_survivors_go_on_from_what_they_have_read(load):
    model, objective = load("qwen3", True), objective_of()
    soft = trials(model, 5)
    steps = (tuple(range(10)), tuple(range(10, 30)), tuple(range(30, 48)))
    whole = model.answer(objective.prompts, soft).probs
    asked = model.stepwise(objective.prompts, steps, soft)
    before = model.tokens
    asked.advance()
    first = model.tokens - before
    asked.keep(np.array([1, 3, 4]))
    asked.advance()
    asked.keep(np.array([0, 2]))
    np.testing.assert_allclose(asked.advance(), whole[[1, 4]], atol=1e-5)
    assert model.tokens - before - first < 3 / 5 * (5 * model.cost(objective.prompts, 3) - first)


def aligned(model, objective, budget, race, monkeypatch, **settings):
    monkeypatch.setattr("culteval.optimizers.black_box.Race", race)
    checkpoint = Memory()
    search = DifferentialEvolutionPrompt(DESettings(tokens=3, population=6, generations=8, **settings))
    found = search.align(model, objective, budget, np.random.default_rng(3), checkpoint)
    return found, checkpoint


@pytest.mark.parametrize("readout", ["expected", "argmax"])
def test_trajectory_is_bit_identical_to_one_that_reads_everything(load, monkeypatch, readout):
    model, objective = load("llama", True), objective_of(readout)
    monkeypatch.setattr(Race, "_most", lambda *_: 1)  # one candidate a pass, so that shapes are equal
    monkeypatch.setattr("culteval.optimizers.racing.STEP", 0)  # steps wherever they save a term
    spent = []
    runs = []
    for race in (Race, ReadsOn):
        budget = Budget(10**6, 24)
        found, checkpoint = aligned(model, objective, budget, race, monkeypatch)
        runs.append((found, checkpoint))
        spent.append(budget.spent)
    (raced, one), (read, other) = runs
    assert one.best == other.best and len(set(one.best)) > 1
    for a, b in zip(one.states, other.states, strict=True):
        assert a.keys() == b.keys()
        for key in a:
            np.testing.assert_array_equal(a[key], b[key], err_msg=key)
    np.testing.assert_array_equal(raced.soft, read.soft)
    assert spent[0] < 0.9 * spent[1] and spent[1] == 48 * 48


def test_racing_finds_what_the_unraced_search_finds(load, monkeypatch):
    model, objective = load("llama", True), objective_of()
    raced, _ = aligned(model, objective, Budget(10**6, 24), Race, monkeypatch)
    plain, _ = aligned(model, objective, Budget(10**6, 24), Race, monkeypatch, racing=False)
    codes = [one.answer(objective.prompts).values("argmax") for one in (raced, plain)]
    np.testing.assert_array_equal(*codes)
    assert (codes[0] != model.answer(objective.prompts).values("argmax")).any()


def test_budget_is_kept_to_the_unit_and_buys_more_trials(load, monkeypatch):
    model, objective = load("llama", True), objective_of()
    budget = Budget(40 * 48 + 7, 24)
    monkeypatch.setattr("culteval.optimizers.black_box.Race", Race)
    checkpoint = Memory()
    search = DifferentialEvolutionPrompt(DESettings(tokens=3, population=6))
    search.align(model, objective, budget, np.random.default_rng(3), checkpoint)
    assert budget.total - 48 < budget.spent <= budget.total
    assert checkpoint.states[-1]["race_begun"] > 40  # trials begun, with what 40 whole ones cost


def test_terms_come_largest_first_and_are_cut_where_it_pays(load):
    model, objective = load("llama", True), objective_of()
    race = Race(model, objective, Budget(10**6, 24))
    race.sums, race.counts = np.array([1.0, 9, 2, 8, 0, 4]), np.array([1.0, 9, 1, 2, 0, 1])
    assert [group.tolist() for group in race._groups()] == [[3, 5, 2, 0, 1, 4]]  # nobody drops out: one pass
    race.lasting = np.array([1, 1, 0.2, 0.2, 0.2, 0.2])
    assert [group.tolist() for group in race._groups()] == [[3, 5], [2, 0, 1, 4]]
    race.lasting = np.array([1, 0.5, 0.5, 0.5, 0.1, 0.1])
    assert [group.tolist() for group in race._groups()] == [[3], [5, 2, 0], [1, 4]]
    race.lasting = np.array([1, 1, 1, 1, 1, 0.9])
    assert len(race._groups()) == 1  # a step would cost more than it saves


def test_a_race_goes_on_from_its_state(load):
    model, objective = load("llama", True), objective_of()
    soft = trials(model)
    race = Race(model, objective, Budget(10**6, 24))
    limits = race.run(soft, np.full(6, np.inf)) * 0.99
    race.run(soft, limits)
    other = Race(model, objective, Budget(10**6, 24))
    other.restore(race.state())
    assert race.lasting[5] < 1
    np.testing.assert_array_equal(race.run(soft, limits), other.run(soft, limits))
    for key, value in race.state().items():
        np.testing.assert_array_equal(value, other.state()[key])


def test_a_loss_that_is_not_a_number_ends_the_run(load, monkeypatch):
    model, objective = load("llama", True), objective_of()
    race = Race(model, objective, Budget(10**6, 24))
    monkeypatch.setattr(type(objective.loss), "terms", lambda self, probs: np.full((len(probs), 6), np.nan))
    with pytest.raises(RunError, match="not a number"):
        race.run(trials(model, 1), np.array([np.inf]))


def test_goals_whose_loss_has_no_terms_are_not_raced(load):
    from dataclasses import replace

    objective = replace(objective_of(), objective=lambda probs: probs.sum((1, 2)))
    assert not can_race(objective)
    budget = Budget(2 * 6 * 48, 24)
    search = DifferentialEvolutionPrompt(DESettings(tokens=2, population=6))
    search.align(load("llama", True), objective, budget, np.random.default_rng(0), Memory())
    assert budget.spent == budget.total
