"""Screened Differential Evolution on known answers, without a model: it learns from them, goes on exactly, refuses."""

import numpy as np
import pytest
from culteval.optimizers.search.answer_model import AnswerModel
from culteval.optimizers.search.de import DifferentialEvolution
from culteval.optimizers.search.interface import AnswerSearch
from culteval.optimizers.search.screened_de import EVALUATED, Breeding, ScreenedEvolution

DIM, PROMPTS, OPTIONS = 8, 10, 3
HOW = Breeding(population=8, mutation=(0.5, 1.0), recombination=0.9, sigma=1.0, bound=3.0, screening=40)


def answers(vectors):
    """Option probabilities (n, prompts, options) that depend smoothly on vectors."""
    rng = np.random.default_rng(7)
    hidden = np.tanh(vectors @ rng.standard_normal((DIM, 30)) / 3)
    logits = (hidden @ rng.standard_normal((30, PROMPTS * OPTIONS)) / 3).reshape(-1, PROMPTS, OPTIONS)
    probs = np.exp(logits)
    return probs / probs.sum(-1, keepdims=True)


def loss(probs):
    """Squared distance of the mean answers to targets, and a step for each most probable answer that is wrong."""
    codes = np.arange(OPTIONS)
    targets = np.random.default_rng(8).uniform(0.5, 1.5, PROMPTS)
    wrong = probs.argmax(-1) != np.arange(PROMPTS) % OPTIONS
    return ((probs @ codes - targets) ** 2).sum(-1) + 0.1 * wrong.sum(-1)


def start(seed, count=8):
    return np.random.default_rng(seed).standard_normal((count, DIM)).clip(-3, 3)


def screened(seed):
    return ScreenedEvolution(start(seed), loss, HOW, rng=np.random.default_rng(seed))


def run(search, evaluations):
    asked = []
    while len(asked) < evaluations:
        trials = search.ask()[: evaluations - len(asked)]
        asked.extend(trials)
        probs = answers(trials)
        search.tell_answers(probs, loss(probs))
    return search, np.array(asked)


def test_predictions_are_those_of_the_textbook_s_formulas():
    """Mean and deviation of one length scale and noise, from the textbook's formulas (2.25) and (2.26)."""
    rng = np.random.default_rng(0)
    known, new = rng.standard_normal((12, 2)), rng.standard_normal((3, 2))
    outputs = np.stack([np.sin(known[:, 0]), known[:, 1] ** 2 + 5], 1)
    model = AnswerModel(known, outputs)
    length = model._fit.length
    for noise in (0.001, 0.03, 0.1, 0.3):
        square = ((known[:, None] - known) ** 2).sum(-1)
        inverse = np.linalg.inv(np.exp(-square / (2 * length**2)) + noise * np.eye(12))
        scaled = (outputs - outputs.mean(0)) / outputs.std(0)
        near = np.exp(-((new[:, None] - known) ** 2).sum(-1) / (2 * length**2))
        mean = near @ inverse @ scaled * outputs.std(0) + outputs.mean(0)
        amplitude = np.sqrt(np.einsum("no,nm,mo->o", scaled, inverse, scaled) / 12) * outputs.std(0)
        deviation = np.sqrt(1 - np.einsum("qn,nm,qm->q", near, inverse, near))[:, None] * amplitude
        drawn = model.sample(new, 4000, np.random.default_rng(1))
        if np.allclose(drawn.mean(0), mean, atol=0.05) and np.allclose(drawn.std(0), deviation, rtol=0.1, atol=0.01):
            return
    raise AssertionError("no noise of the grid gives these predictions")


def test_it_needs_fewer_evaluations_than_plain_evolution():
    rng = np.random.default_rng
    for seed in range(3):
        best = run(screened(seed), 60)[0].best[1]
        plain = DifferentialEvolution(start(seed), rng=rng(seed), strategy="best1bin", mutation=(0.5, 1.0))
        for _ in range(60 // 8 + 1):
            plain.tell(loss(answers(plain.ask())))
        assert best < 0.7 * plain.best[1]


def test_what_it_asks():
    search, asked = run(screened(0), 8 + 3 * EVALUATED)
    np.testing.assert_array_equal(asked[:8], start(0))
    assert np.abs(asked).max() <= HOW.bound and len(np.unique(asked, axis=0)) == len(asked)
    losses = loss(answers(asked))
    assert search.best[1] == losses.min() and isinstance(search, AnswerSearch) and search.limits is None


def test_the_state_goes_on_exactly(tmp_path):
    whole, asked = run(screened(3), 31)
    for stop, pending in ((8, False), (13, True)):  # the ends of generations
        search, first = run(screened(3), stop)
        if pending:
            search.ask()
        np.savez(tmp_path / "s.npz", **search.state())
        with np.load(tmp_path / "s.npz", allow_pickle=False) as file:
            again = ScreenedEvolution.from_state({name: file[name] for name in file.files}, loss)
        again, rest = run(again, 31 - stop)
        np.testing.assert_array_equal(np.concatenate([first, rest]), asked)
        assert again.best[1] == whole.best[1]


def test_answers_are_needed_whole():
    search = screened(0)
    probs = answers(search.ask())
    with pytest.raises(TypeError, match="tell_answers"):
        search.tell(loss(probs))
    with pytest.raises(ValueError, match="losses must be numbers"):
        search.tell_answers(probs, np.full(8, np.nan))
    with pytest.raises(ValueError, match="one for each"):
        search.tell_answers(probs[:3], loss(probs))
    search.tell_answers(probs, loss(probs))
    with pytest.raises(RuntimeError, match="call ask first"):
        search.tell_answers(probs, loss(probs))
