"""The objective of the worst paraphrase: each paraphrase's loss by itself, near ties, racing, gradients, refusals."""

import numpy as np
import pytest
import torch
from culteval.errors import UsageError
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.evaluator import Evaluator
from culteval.harness.alignment.objective import fit_objective
from culteval.harness.alignment.worst_paraphrase import drawn as drawn_loss
from culteval.harness.alignment.worst_paraphrase import sharpened
from culteval.harness.registry import find, spec_of
from culteval.harness.runs.config import aligner_settings
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions, SeparableLoss


def objective_of(name="vsm13", scoring="expected", kind="worst_paraphrase", code="US"):
    return fit_objective(spec_of(name), country(code), scoring, MeasureOptions(), 0, 0, kind)


def random_answers(objective, seed=0, count=4, power=1.0):
    inside = objective.prompts.layout.inside
    weights = np.random.default_rng(seed).random((count, *inside.shape)) ** power * inside
    return weights / weights.sum(-1, keepdims=True)


def paraphrase_losses(objective, probs):
    """The task's own loss of each paraphrase alone, (paraphrases, population)."""
    task = objective_of(objective.task, objective.scoring, "task")
    paraphrase = objective.prompts.layout.paraphrase
    kept = [np.flatnonzero(paraphrase == number) for number in np.unique(paraphrase)]
    loss_of = task.measure.loss_function
    return np.stack([loss_of(task.prompts.layout.take(rows), task.scoring)(probs[:, rows]) for rows in kept])


@pytest.mark.parametrize("name", ["vsm13", "wvs"])
def test_it_is_the_largest_loss_of_a_paraphrase(name):
    objective = objective_of(name)
    probs = random_answers(objective, power=4)
    losses = paraphrase_losses(objective, probs)
    assert len(losses) == 2 and len(set(losses.argmax(0))) == 2  # now one, now the other
    np.testing.assert_allclose(objective.loss(probs), losses.max(0))


def test_one_paraphrase_cannot_make_up_for_the_other():
    """Errors of one step up in A and down in B cancel in the mean, which the task's own loss is of."""
    worst, task = objective_of(), objective_of(kind="task")
    layout, codes = task.prompts.layout, task.demonstrations
    step = np.where(layout.paraphrase == layout.paraphrase.min(), 1, -1) * ((codes > 1) & (codes < 5))
    right, wrong = ((layout.codes == given[:, None]).astype(float)[None] for given in (codes, codes + step))
    assert task.loss(wrong)[0] == pytest.approx(task.loss(right)[0])
    assert worst.loss(wrong)[0] > 2 * worst.loss(right)[0]


def test_confident_argmax_answers_count_as_they_are():
    objective = objective_of(scoring="argmax")
    probs = random_answers(objective)
    sure = (probs == probs.max(-1, keepdims=True)).astype(float) * 0.97 + 0.006 * objective.prompts.layout.inside
    np.testing.assert_allclose(objective.loss(sure), paraphrase_losses(objective, sure).max(0), rtol=1e-6)


def test_probabilities_are_sharpened():
    tied = np.array([[0.4, 0.4, 0.2], [0.42, 0.38, 0.2], [0.99, 0.01, 0.0], [0.0, 0.0, 0.0]])
    shares = sharpened(tied)
    np.testing.assert_allclose(shares[:2, :2], [[16 / 33, 16 / 33], [42**4 / 5356832, 38**4 / 5356832]])
    assert shares[2, 0] > 1 - 1e-7 and not shares[3].any()
    assert sharpened(torch.from_numpy(tied)).numpy() == pytest.approx(shares)


@pytest.mark.parametrize(("name", "norm"), [("vsm13", "sse"), ("vsm13", "l2"), ("vsm13", "l1"), ("iw_map", "sse")])
def test_the_loss_is_the_one_to_expect_of_drawn_answers(name, norm):
    """Squared errors are averaged exactly: against 20,000 draws."""
    task = fit_objective(spec_of(name), country("US"), "expected", MeasureOptions(norm=norm), 0, 0)
    probs, rng = random_answers(task, count=2, power=3), np.random.default_rng(1)
    drawn, loss = [], drawn_loss(task.loss)
    matrix, values = loss.matrix, getattr(loss, "values", task.prompts.layout.codes)
    for one in probs:
        picked = (rng.random((20_000, len(one), 1)) > one.cumsum(-1)).sum(-1)
        errors = np.take_along_axis(values[None], picked[..., None], -1)[..., 0] @ matrix.T + loss.offset
        square = (errors**2).mean(0)
        root = square**0.5 if norm == "l1" else square
        power = 1 if norm == "l1" or (name, norm) == ("vsm13", "sse") else 0.5
        drawn.append(root.sum() ** power)
    np.testing.assert_allclose(loss(probs), drawn, rtol=0.02)
    assert (loss(probs) > task.loss(probs)).all()
    found = torch.from_numpy(probs).requires_grad_()
    loss(found).sum().backward()
    assert found.grad.isfinite().all() and found.grad.abs().sum() > 0


def test_ties_around_the_right_answer_are_no_gain():
    """Half of the answers on either side has the right mean, and no argmax answer does."""
    objective = objective_of(scoring="argmax")
    inside = objective.prompts.layout.inside
    ends = (np.arange(5) == 0) | (np.arange(5) == 4)
    middle, split = (np.where(inside, share, 0.0)[None] for share in (np.arange(5) == 2, ends / 2))
    assert objective.loss(split)[0] > 5 * objective.loss(middle)[0]


def test_losses_that_do_not_know_it_are_of_shared_answers():
    loss = objective_of("wvs", kind="task").loss
    assert drawn_loss(loss) is loss


def test_candidates_are_raced_exactly(load):
    objective, model = objective_of(scoring="argmax"), load("llama", True)
    assert isinstance(objective.loss, SeparableLoss) and not isinstance(objective_of("wvs").loss, SeparableLoss)
    probs = random_answers(objective, power=8)
    terms, parts = objective.loss.terms(probs), objective.loss.parts
    assert sorted(np.concatenate(parts)) == list(range(len(objective.prompts))) and terms.shape == (4, len(parts))
    np.testing.assert_allclose(objective.loss.total(terms), objective.loss(probs))
    for part in range(len(parts)):
        known = terms.copy()
        known[:, part] = 0
        assert (objective.loss.total(known) <= objective.loss(probs) + 1e-9).all()
    soft = np.random.default_rng(0).normal(scale=0.1, size=(6, 3, model.dim)).astype(np.float32)
    whole = Evaluator(model, objective, Budget(6 * objective.cost, 24)).losses(soft)
    raced = Evaluator(model, objective, Budget(6 * objective.cost, 24), racing=True)
    found = raced.losses(soft, np.full(6, np.median(whole)))
    kept = np.isfinite(found)
    np.testing.assert_allclose(found[kept], whole[kept], rtol=1e-4)
    assert kept.any() and (whole[~kept] > np.median(whole) * 0.999).all()


def test_it_has_a_gradient():
    objective = objective_of()
    logs = torch.randn(1, *objective.prompts.layout.codes.shape, dtype=torch.float64, requires_grad=True)
    loss = objective.loss(logs.softmax(-1))[0]
    loss.backward()
    assert logs.grad.abs().sum() > 0
    np.testing.assert_allclose(float(loss.detach()), objective.loss(logs.detach().softmax(-1).numpy())[0])


@pytest.mark.parametrize("name", ["augmented", "sft", "dpo"])
def test_aligners_that_cannot_use_it_refuse(name):
    aligner = find("aligners", name)(aligner_settings(name, []))
    with pytest.raises(UsageError, match="objective"):
        aligner.check(objective_of(), Budget(10_000, 24))
