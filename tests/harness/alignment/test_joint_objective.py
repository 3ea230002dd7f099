"""Several tasks or countries fitted as one: what a joint objective asks and loses, and prompts that countries share."""

import numpy as np
import pytest
from culteval.errors import UsageError
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.joint_objective import JointObjective
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.registry import find, spec_of
from culteval.harness.runs.config import aligner_settings
from culteval.harness.runs.plan import RunRequest, plan
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions

from ...optimizers.test_aligners import Memory, made

TASKS = ("vsm13", "cdeval_idv", "synthetic_survey")


def objective_of(name, code="US", scoring="expected"):
    return fit_objective(spec_of(name), country(code), scoring, MeasureOptions(), 0, 0)


def joint(code="US", names=TASKS):
    return JointObjective(tuple(objective_of(name, code) for name in names))


def uniform(objective):
    inside = objective.prompts.layout.inside
    return (inside / inside.sum(1, keepdims=True))[None]


def random_answers(objective, seed=0, count=3):
    inside = objective.prompts.layout.inside
    weights = np.random.default_rng(seed).random((count, *inside.shape)) * inside
    return weights / weights.sum(-1, keepdims=True)


def test_a_joint_objective_asks_the_prompts_of_its_parts():
    objective, parts = joint(), [objective_of(name) for name in TASKS]
    assert objective.prompts.texts == tuple(text for part in parts for text in part.prompts.texts)
    assert objective.cost == len(objective.prompts) == sum(part.cost for part in parts)
    layout = objective.prompts.layout
    assert layout.items[layout.item[0]] == "vsm13/m01"
    assert layout.items[layout.item[-1]].startswith("synthetic_survey/")
    assert layout.paraphrases[layout.paraphrase[0]] == "vsm13/A"
    assert layout.inside.sum() == sum(part.prompts.layout.inside.sum() for part in parts)
    np.testing.assert_array_equal(objective.demonstrations, np.concatenate([part.demonstrations for part in parts]))


def test_its_loss_is_the_mean_of_losses_in_units_of_no_information():
    objective = joint()
    assert objective.loss(uniform(objective)) == pytest.approx([1.0])
    probs, start, expected = random_answers(objective), 0, []
    for part in objective.parts:
        mine = probs[:, start : start + part.cost, : part.prompts.layout.codes.shape[1]]
        expected.append(part.loss(mine) / part.loss(uniform(part))[0])
        start += part.cost
    np.testing.assert_allclose(objective.loss(probs), np.mean(expected, axis=0))
    assert objective.loss(probs).shape == (3,)


def test_rows_taken_from_it_lose_as_much_there():
    objective = joint()
    only = objective.take(np.arange(objective.parts[0].cost))
    assert only.task == "vsm13" and only.cost == objective.parts[0].cost
    probs = random_answers(objective.parts[0])
    np.testing.assert_allclose(only.loss(probs), objective.parts[0].loss(probs) / objective.parts[0].null_loss)
    some = objective.take(np.r_[: objective.parts[0].cost, objective.cost - 5 : objective.cost])
    assert some.task == "vsm13+synthetic_survey" and some.cost == objective.parts[0].cost + 5


@pytest.mark.parametrize("name", ["synthetic_survey", "cdeval_core"])
def test_what_was_taken_out_stays_out_when_told_anew(name):
    objective = objective_of(name)
    some = objective.take(objective.groups < 5)
    told = some.paraphrased(np.random.default_rng(0), "natural")
    assert set(told.prompts.layout.item.tolist()) == set(some.prompts.layout.item.tolist())
    whole = JointObjective((objective_of("vsm13"), objective)).take(np.r_[:48, 50:60])
    assert whole.paraphrased(np.random.default_rng(0), "natural").cost < 24 + 11


def test_told_anew_and_toward_another_country_it_stays_joint():
    objective = joint()
    told = objective.paraphrased(np.random.default_rng(0), "reversed")
    assert told.task == objective.task and set(told.prompts.layout.order.tolist()) == {1}
    other = objective.for_country(country("SA"))
    assert other.prompts.texts == objective.prompts.texts and other.country.code == "SA"
    probs = random_answers(objective)
    np.testing.assert_allclose(other.loss(probs), joint("SA").loss(probs))
    assert not np.allclose(other.loss(probs), objective.loss(probs))


@pytest.mark.parametrize("name", ["random", "de", "gd", "augmented", "icl"])
def test_every_aligner_takes_several_tasks(name, load):
    model, objective = load("llama", True), joint()
    budget = Budget(12 * objective.cost, objective.cost)
    flags = ["demonstrations=3"] if name == "icl" else ["tokens=3"]
    aligned = find("aligners", name)(aligner_settings(name, flags)).align(
        model, objective, budget, np.random.default_rng(0), Memory(budget)
    )
    assert aligned.preamble or np.isfinite(aligned.soft).all()
    assert (budget.spent > 0) == (name != "icl") and budget.spent <= budget.total


def align(settings, objective, model, evaluations=30, stop=None, state=None):
    budget = Budget(evaluations * 24, 24)
    aligner = find("aligners", "augmented")(aligner_settings("augmented", settings))
    checkpoint = Memory(budget, state, stop)
    return aligner.align(model, objective, budget, np.random.default_rng(0), checkpoint), budget, checkpoint


def test_countries_share_the_first_tokens_and_not_the_last(load):
    model = load("llama", True)
    flags = ["tokens=5", "own=2", "countries=[SA,CN]", "averaged=0.01", "start=persona"]
    found, budget, checkpoint = align(flags, objective_of("vsm13"), model)
    assert found.soft.shape == (1, 5, model.dim)
    assert budget.spent == budget.total // (3 * 3 * 24) * 3 * 3 * 24
    whole = checkpoint.kept[0]["adam_soft"][0]
    assert whole.shape == (5 + 2 + 2, model.dim)  # shared 3, then 2 for each of three countries
    np.testing.assert_allclose(found.soft[0], whole[:5], atol=1e-6)
    assert not np.allclose(whole[3:5], whole[5:7]) and not np.allclose(whole[5:7], whole[7:9])


def test_own_tokens_learn_from_their_country_alone(load):
    """With every token a country's own, another country beside it changes the steps' number and nothing else."""
    model = load("llama", True)
    alone, _, _ = align(["tokens=4"], objective_of("vsm13"), model, evaluations=6)
    beside, _, _ = align(["tokens=4", "own=4", "countries=[SA]"], objective_of("vsm13"), model, evaluations=12)
    np.testing.assert_allclose(alone.soft, beside.soft, atol=2e-5)


def test_the_run_s_own_country_named_again_is_fitted_once(load):
    model = load("llama", True)
    once, _, _ = align(["tokens=4", "own=2", "countries=[SA]"], objective_of("vsm13"), model, evaluations=12)
    twice, _, _ = align(["tokens=4", "own=2", "countries=[SA,US,SA]"], objective_of("vsm13"), model, evaluations=12)
    np.testing.assert_array_equal(once.soft, twice.soft)


def test_several_countries_go_on_where_they_were(load):
    model, flags = load("llama", True), ["tokens=4", "own=1", "countries=[SA]"]
    whole, _, _ = align(flags, objective_of("vsm13"), model, evaluations=40)
    budget = Budget(40 * 24, 24)
    aligner = find("aligners", "augmented")(aligner_settings("augmented", flags))
    first = Memory(budget, stop=1)
    with pytest.raises(KeyboardInterrupt):
        aligner.align(model, objective_of("vsm13"), budget, np.random.default_rng(0), first)
    again = Budget(40 * 24, 24)
    resumed = aligner.align(model, objective_of("vsm13"), again, np.random.default_rng(9), Memory(again, first.kept))
    assert made(resumed) == made(whole)


@pytest.mark.parametrize("flags", [["own=2"], ["countries=[SA]"], ["own=41", "countries=[SA]"]])
def test_own_tokens_and_other_countries_come_together(flags):
    with pytest.raises(UsageError, match="own: 1 to `tokens`"):
        aligner_settings("augmented", flags)


def test_countries_are_checked_before_a_model_is_loaded(load):
    with pytest.raises(UsageError, match="Atlantis"):
        aligner_settings("augmented", ["own=1", "countries=[Atlantis]"])
    with pytest.raises(UsageError):  # a country of the world that the scores do not have
        align(["own=1", "countries=[AQ]"], objective_of("vsm13"), load("llama", True))


def planned(**flags):
    return plan(RunRequest.of(**{"aligner": "de", "tasks": ("vsm13",)} | flags))


def test_fit_names_tasks_and_one_country():
    assert planned(fit=()).fit == ("vsm13",)
    config = planned(fit=("wvs:CN", "vsm13"))
    assert config.fit == ("wvs", "vsm13") and config.fit_country == "CN" and config.country == "CN"
    wrong = planned(fit=("vsm13:CN",), country="SA")
    assert wrong.fit_country == "CN" and wrong.country == "SA"
    assert planned().country == "SA"
    assert planned(fit="vsm13:US").fit == ("vsm13",)
    with pytest.raises(UsageError, match="CN and US"):
        planned(fit=("wvs:CN", "vsm13:US"))
    assert planned(fit=("vsm13", "vsm13")).fit == ("vsm13",)


def test_the_least_budget_is_that_of_all_tasks_together():
    with pytest.raises(UsageError, match="Give at least 2"):
        planned(aligner="random", fit=("vsm13", "cdeval_core"), country="US", budget=1)
    with pytest.raises(UsageError, match="Give at least 8"):
        planned(fit=("vsm13", "cdeval_core"), country="US", budget=2)
    assert planned(aligner="random", fit=("vsm13", "cdeval_core"), country="US", budget=2).budget == 2


def test_one_country_by_two_names_is_one_country():
    config = planned(aligner="random", fit=("vsm13:US", "probes:United States"))
    assert (config.fit, config.fit_country) == (("vsm13", "probes"), "US")


def test_letters_and_texts_are_not_fitted_together():
    both = joint(names=("vsm13", "vsm13_cloze"))
    with pytest.raises(UsageError, match="read in different ways"):
        _ = both.prompts
    assert joint(names=("vsm13_cloze", "general_cloze")).prompts.cloze
