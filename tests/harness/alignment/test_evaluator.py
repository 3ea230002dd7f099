"""The evaluator: it pays for what it computes, and racing drops what would lose and decides nothing else."""

from dataclasses import replace

import numpy as np
import pytest
from culteval.errors import RunError
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.checkpoint import Checkpoint
from culteval.harness.alignment.evaluator import Evaluator
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.alignment.racing import RaceSchedule
from culteval.harness.registry import spec_of
from culteval.optimizers.de import DESettings, DifferentialEvolutionPrompt
from culteval.optimizers.soft_prompt import draw_prompts
from culteval.tasks.countries import country as country_of
from culteval.tasks.measure import MeasureOptions

from ...conftest import SHAPES

EVOLVED = {"space": "random", "refine": 0, "screening": 1}  # raced in every generation


def objective_of(scoring="expected", norm="sse", country="SA"):
    return fit_objective(spec_of("vsm13"), country_of(country), scoring, MeasureOptions(norm=norm), 1, 0)


class Memory(Checkpoint):
    """A checkpoint that keeps everything."""

    def __init__(self):
        self.states, self.best = [], []

    def save(self, state, best):
        self.states.append(state)
        self.best.append(best)


class ReadsOn(Evaluator):
    """The same race, in the same shapes, without dropping anybody."""

    def _going(self, lost):
        return np.arange(len(lost))


def trials(model, count=6, tokens=3, seed=0):
    rng = np.random.default_rng(seed)
    return draw_prompts(model, rng, count, tokens) + rng.normal(0, 0.3, (count, tokens, model.dim)).astype(np.float32)


@pytest.mark.parametrize("scoring", ["expected", "argmax"])
@pytest.mark.parametrize("norm", ["sse", "l2", "l1"])
def test_partial_losses_never_exceed_the_whole(norm, scoring):
    objective = objective_of(scoring, norm)
    assert RaceSchedule.of(objective.loss)
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
    whole = Evaluator(model, objective, Budget(10**6, 24)).losses(soft)
    limits = np.array([np.inf, *(whole[1:4] * 1.001), whole[4] * 0.9, 0.0])
    budget = Budget(10**6, 24)
    race = Evaluator(model, objective, budget, racing=True)
    race.schedule.lasting = np.array([1, 0.9, 0.5, 0.4, 0.3, 0.2])
    raced = race.losses(soft, limits)
    np.testing.assert_allclose(raced[:4], whole[:4], rtol=1e-4)
    assert np.isinf(raced[4:]).all()
    assert 4 * 48 < budget.spent < 6 * 48
    assert race.schedule.lasting[0] == 1 and race.schedule.lasting[5] < 0.7


def aligned(model, objective, budget, race, monkeypatch, **settings):
    monkeypatch.setattr("culteval.optimizers.black_box.Evaluator", race)
    checkpoint = Memory()
    search = DifferentialEvolutionPrompt(DESettings(tokens=3, population=6, generations=8, **EVOLVED, **settings))
    found = search.align(model, objective, budget, np.random.default_rng(3), checkpoint)
    return found, checkpoint


@pytest.mark.parametrize("scoring", ["expected", "argmax"])
def test_trajectory_is_bit_identical_to_one_that_reads_everything(load, monkeypatch, scoring):
    model, objective = load("llama", True), objective_of(scoring)
    monkeypatch.setattr(Evaluator, "_together", lambda *_: 1)  # one candidate a pass, so that shapes are equal
    monkeypatch.setattr("culteval.harness.alignment.racing.STEP", 0)  # steps wherever they save a term
    spent = []
    runs = []
    for race in (Evaluator, ReadsOn):
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
    raced, _ = aligned(model, objective, Budget(10**6, 24), Evaluator, monkeypatch)
    plain, _ = aligned(model, objective, Budget(10**6, 24), Evaluator, monkeypatch, racing=False)
    codes = [one.answer(objective.prompts).values("argmax") for one in (raced, plain)]
    np.testing.assert_array_equal(*codes)
    assert (codes[0] != model.answer(objective.prompts).values("argmax")).any()


def test_budget_is_kept_to_the_unit_and_buys_more_trials(load):
    model, objective = load("llama", True), objective_of()
    budget = Budget(40 * 48 + 7, 24)
    checkpoint = Memory()
    search = DifferentialEvolutionPrompt(DESettings(tokens=3, population=6, **EVOLVED))
    search.align(model, objective, budget, np.random.default_rng(3), checkpoint)
    assert budget.total - 48 < budget.spent <= budget.total
    assert checkpoint.states[-1]["race_begun"] > 40  # trials begun, with what 40 whole ones cost


def test_terms_come_largest_first_and_are_cut_where_it_pays():
    race = RaceSchedule(objective_of().loss)
    race.sums, race.counts = np.array([1.0, 9, 2, 8, 0, 4]), np.array([1.0, 9, 1, 2, 0, 1])
    assert [group.tolist() for group in race.groups(remembers=True)] == [
        [3, 5, 2, 0, 1, 4]
    ]  # nobody drops out: one pass
    race.lasting = np.array([1, 1, 0.2, 0.2, 0.2, 0.2])
    assert [group.tolist() for group in race.groups(remembers=True)] == [[3, 5], [2, 0, 1, 4]]
    race.lasting = np.array([1, 0.5, 0.5, 0.5, 0.1, 0.1])
    assert [group.tolist() for group in race.groups(remembers=True)] == [[3], [5, 2, 0], [1, 4]]
    race.lasting = np.array([1, 1, 1, 1, 1, 0.9])
    assert len(race.groups(remembers=True)) == 1  # a step would cost more than it saves


def test_a_race_goes_on_from_its_state(load):
    model, objective = load("llama", True), objective_of()
    soft = trials(model)
    race = Evaluator(model, objective, Budget(10**6, 24), racing=True)
    limits = race.losses(soft, np.full(6, np.inf)) * 0.99
    race.losses(soft, limits)
    other = Evaluator(model, objective, Budget(10**6, 24), racing=True)
    other.restore(race.state())
    assert race.schedule.lasting[5] < 1
    np.testing.assert_array_equal(race.losses(soft, limits), other.losses(soft, limits))
    for key, value in race.state().items():
        np.testing.assert_array_equal(value, other.state()[key])


def test_a_loss_that_is_not_a_number_ends_the_run(load, monkeypatch):
    model, objective = load("llama", True), objective_of()
    race = Evaluator(model, objective, Budget(10**6, 24), racing=True)
    monkeypatch.setattr(type(objective.loss), "terms", lambda self, probs: np.full((len(probs), 6), np.nan))
    with pytest.raises(RunError, match="not a number"):
        race.losses(trials(model, 1), np.array([np.inf]))


def test_objectives_whose_loss_has_no_terms_are_not_raced(load):
    objective = replace(objective_of(), loss=lambda probs: probs.sum((1, 2)))
    assert RaceSchedule.of(objective.loss) is None
    budget = Budget(2 * 6 * 48, 24)
    search = DifferentialEvolutionPrompt(DESettings(tokens=2, population=6, **EVOLVED))
    search.align(load("llama", True), objective, budget, np.random.default_rng(0), Memory())
    assert budget.spent == budget.total


@pytest.mark.parametrize("kind", ["losses", "text", "descent"])
def test_what_is_asked_is_paid_to_the_unit_before_it_is_computed(load, kind):
    """A candidate is 48 item forwards, a step down its gradient three times that; what is not there buys nothing."""
    model, objective = load("llama", True), objective_of()
    soft, taken = trials(model, 2), []

    def step(loss):
        import torch

        taken.append(float(loss(torch.from_numpy(soft[:1]).requires_grad_()).detach()))

    def ask(evaluator):
        if kind == "losses":
            return evaluator.losses(soft)
        if kind == "text":
            return evaluator.loss_of_text("You live in Riyadh.")
        return evaluator.descend(step, objective.prompts, lambda logs: -logs.mean())

    cost, tokens = {"losses": (96, 2), "text": (48, 1), "descent": (144, 3)}[kind]
    budget = Budget(cost + 20, 24)
    before = model.tokens
    found = ask(Evaluator(model, objective, budget))
    assert np.isfinite(found).all() and budget.spent == cost and budget.seconds > 0
    preamble = "You live in Riyadh." if kind == "text" else ""
    read = tokens * model.cost(objective.prompts, 0 if kind == "text" else 3, preamble)
    assert budget.tokens == model.tokens - before == read
    with pytest.raises(RunError, match=r"item forwards.*, 20 left"):
        ask(Evaluator(model, objective, budget))
    assert budget.spent == cost and taken == [found] * len(taken)


def test_a_step_is_not_taken_down_a_loss_that_is_not_a_number(load):
    import torch

    model, objective = load("llama", True), objective_of()
    stepped = []

    def step(loss):
        loss(torch.zeros(1, 3, model.dim))
        stepped.append(True)

    with pytest.raises(RunError, match=r"not a number.*lower rate"):
        Evaluator(model, objective, Budget(999, 24)).descend(step, objective.prompts, lambda logs: logs.sum() * np.nan)
    assert not stepped


def test_losses_that_are_not_numbers_are_refused(load):
    model, objective = load("llama", True), replace(objective_of(), loss=lambda probs: np.full(len(probs), np.nan))
    evaluator = Evaluator(model, objective, Budget(999, 24))
    for ask in (lambda: evaluator.losses(trials(model, 2)), lambda: evaluator.loss_of_text("Hello.")):
        with pytest.raises(RunError, match="candidate's loss is not a number"):
            ask()
