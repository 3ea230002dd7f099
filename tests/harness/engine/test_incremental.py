"""Prompts asked in steps: the same answers as by a whole pass, and survivors read on from what they have read."""

import numpy as np
import torch
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.registry import spec_of
from culteval.optimizers.soft_prompt import draw_prompts
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions
from hypothesis import given, settings
from hypothesis import strategies as st

from ...harness.engine.test_packing import free_prompts


def objective_of():
    return fit_objective(spec_of("vsm13"), country("SA"), "expected", MeasureOptions(), 1, 0)


def trials(model, count=6, tokens=3, seed=0):
    rng = np.random.default_rng(seed)
    return draw_prompts(model, rng, count, tokens) + rng.normal(0, 0.3, (count, tokens, model.dim)).astype(np.float32)


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
