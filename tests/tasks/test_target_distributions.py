"""The divergence from a country's answer distributions, by scipy from the file of shares: merged codes, gaps, means."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import UsageError
from culteval.harness.alignment.joint_objective import JointObjective
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.registry import spec_of
from culteval.harness.runs.config import RunConfig
from culteval.harness.runs.plan import RunRequest, plan
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions
from culteval.tasks.metrics.target_distributions import LEAST
from scipy import stats

SHARES = Path(__file__).parents[2] / "tasks" / "wvs" / "shares.csv"
SHORT = {"US": ("Q33", "Q34", "Q35")}  # asked on a scale of three: 1 counts as 2, 5 as 4


def objective_of(name="wvs", code="US", scoring="expected", personas=0):
    return fit_objective(spec_of(name), country(code), scoring, MeasureOptions(), personas, 0, "distribution")


def people(code):
    """The shares of each question's codes, as the file has them."""
    table = defaultdict(dict)
    with SHARES.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["country"] == code:
                table[row["question"]][int(row["code"])] = float(row["share"])
    return table


def drawn(objective, seed=0, count=2):
    inside = objective.prompts.layout.inside
    weights = np.random.default_rng(seed).random((count, *inside.shape)) * inside
    return weights / weights.sum(-1, keepdims=True)


def by_hand(code, layout, probs):
    """The mean over questions of the mean over their prompts of scipy's KL(people || model)."""
    table, found = people(code), defaultdict(list)
    for row, options in enumerate(layout.options):
        question = layout.items[layout.item[row]]
        if question not in table:
            continue
        mine = defaultdict(float)
        for option, share in zip(options, probs[row], strict=False):
            merged = {1: 2, 5: 4}.get(option, option) if question in SHORT.get(code, ()) else option
            mine[merged] += share
        theirs = [table[question].get(one, 0.0) for one in sorted(mine)]
        found[question].append(stats.entropy(theirs, [mine[one] for one in sorted(mine)]))
    return np.mean([np.mean(values) for values in found.values()]), len(found)


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("code, asked", [("US", 44), ("EG", 42), ("DE", 44)])
def test_the_loss_is_scipy_s_divergence_from_the_shares_of_the_file(code, asked, library):
    objective = objective_of(code=code, personas=2)
    probs = drawn(objective)
    given = probs if library == "numpy" else pytest.importorskip("torch").tensor(probs)
    losses = np.asarray(objective.loss(given))
    for loss, own in zip(losses, probs, strict=True):
        expected, questions = by_hand(code, objective.prompts.layout, own)
        assert questions == asked and loss == pytest.approx(expected, rel=1e-9)


def test_the_people_s_own_answers_have_none():
    objective = objective_of(code="DE")
    assert objective.kind == "distribution" and objective.distributions.known.all()
    target = objective.distributions
    assert target.shares.sum(1) == pytest.approx(1)
    np.testing.assert_array_equal(target.counts_as.sum(2), objective.prompts.layout.inside)  # each counts as one code
    assert objective.loss(target.shares[None]) == pytest.approx([0], abs=1e-12)  # no scale is shortened in Germany
    certain = (np.arange(target.shares.shape[1]) == target.shares.argmax(1)[:, None])[None].astype(float)
    others = 1 - target.shares.max(1)
    entropy = stats.entropy(target.shares, axis=1)
    assert objective.loss(certain) == pytest.approx(np.mean(-others * np.log(LEAST) - entropy), rel=1e-9)


def test_the_gradient_in_the_logits_is_model_minus_people():
    """That of the cross-entropy of soft labels."""
    torch = pytest.importorskip("torch")
    objective = objective_of(code="DE")
    inside = torch.tensor(objective.prompts.layout.inside)
    logits = torch.tensor(np.random.default_rng(3).normal(size=inside.shape)).masked_fill(~inside, -torch.inf)
    probs = logits.requires_grad_().softmax(-1)
    objective.loss(probs[None]).sum().backward()
    wanted = (probs.detach().numpy() - objective.distributions.shares) / len(objective.prompts)
    np.testing.assert_allclose(logits.grad.numpy(), wanted, atol=1e-12)


def test_items_weigh_alike_whichever_prompts_are_taken():
    objective = objective_of(code="US")
    rows = np.r_[0:44, 50:53]  # three questions twice
    some, probs = objective.take(rows), drawn(objective)[:, rows]
    assert some.kind == "distribution"
    for loss, own in zip(some.loss(probs), probs, strict=True):
        assert loss == pytest.approx(by_hand("US", some.prompts.layout, own)[0], rel=1e-9)
    told = objective.paraphrased(np.random.default_rng(0), "reversed")
    probs = drawn(told)
    assert told.loss(probs)[0] == pytest.approx(by_hand("US", told.prompts.layout, probs[0])[0], rel=1e-9)
    assert told.prompts.texts != objective.prompts.texts
    other = objective.for_country(country("DE"))
    probs = drawn(other)
    assert other.loss(probs)[0] == pytest.approx(by_hand("DE", other.prompts.layout, probs[0])[0], rel=1e-9)


def test_several_tasks_have_the_distributions_of_each():
    parts = (objective_of("wvs"), objective_of("wvs_themes"))
    joint = JointObjective(parts)
    assert joint.kind == "distribution" and len(joint.distributions.shares) == joint.cost
    probs, start = drawn(joint), 0
    apart = joint.distributions.divergence(probs)
    for part in parts:
        mine = probs[:, start : start + part.cost, : part.prompts.layout.codes.shape[1]]
        np.testing.assert_allclose(apart[:, start : start + part.cost], part.distributions.divergence(mine))
        start += part.cost
    inside = joint.prompts.layout.inside
    assert joint.loss((inside / inside.sum(1, keepdims=True))[None]) == pytest.approx([1.0])


TASKS = ("vsm13", "iw_map", "cdeval_core", "culture_core", "synthetic_survey", "probes")


@pytest.mark.parametrize("task", TASKS)
def test_a_task_without_distributions_is_refused_with_a_remedy(task):
    with pytest.raises(UsageError) as found:
        plan(RunRequest.of(aligner="gd", tasks=task, country="US", objective="distribution"))
    told = str(found.value)
    assert len(told.splitlines()) == 1 and f"`objective` distribution: {task} " in told and "such as wvs" in told


def test_one_answer_of_each_is_no_distribution():
    with pytest.raises(UsageError, match="`scoring` argmax leaves one answer of each"):
        plan(RunRequest.of(aligner="de", tasks="wvs", objective="distribution", scoring="argmax"))
    with pytest.raises(UsageError, match="`objective` 'shares'"):
        RunRequest.of(aligner="de", tasks="wvs", objective="shares")


def test_questions_that_were_not_asked_there_have_no_loss():
    objective = objective_of(code="EG")
    unasked = np.flatnonzero(~objective.distributions.known)
    assert len(unasked) == 4  # two questions in two paraphrases
    probs = drawn(objective)
    changed = probs.copy()
    changed[:, unasked] = objective.prompts.layout.inside[unasked] / 9
    np.testing.assert_array_equal(objective.loss(probs), objective.loss(changed))
    with pytest.raises(UsageError, match="none of these questions of wvs was asked"):
        objective.take(unasked)


def test_names_of_runs_change_with_the_objective_alone():
    usual, other = (plan(RunRequest.of(aligner="gd", tasks="wvs", objective=name)) for name in ("task", "distribution"))
    assert usual.digest != other.digest and usual.objective == "task"
    before = {name: value for name, value in usual.model_dump().items() if name != "objective"}
    assert RunConfig.model_validate(before).digest == usual.digest  # a run of before the setting
