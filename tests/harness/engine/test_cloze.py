"""Options of many tokens: log-likelihoods of whole texts are those of single sequences and of lm-eval."""

import numpy as np
import pytest
import torch
from culteval.harness.engine.packed import Engine, PackedForward
from culteval.harness.engine.padded import PlainForward
from culteval.harness.engine.tokenize import encode
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.registry import spec_of
from culteval.tasks.cloze import lengths_of, log_likelihoods
from culteval.tasks.prompts import render

from ...conftest import SHAPES
from .test_packing import reference, transformers_model

PREAMBLE = "You are from there.\n\n"


@pytest.fixture(scope="module")
def prompts():
    """Questions with options of one to many tokens, several scales and shared beginnings of options."""
    return render(spec_of("vsm13_cloze"), "fit").take(np.array([0, 14, 16, 17, 24, 40]))


def drawn(model, virtual):
    return np.random.default_rng(0).normal(0, 0.3, (virtual, model.dim)).astype(np.float32)


@pytest.mark.parametrize("virtual", [0, 3])
@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_whole_texts_equal_single_sequences(load, tiny, monkeypatch, prompts, shape, chat, virtual):
    model = load(shape, chat)
    soft = drawn(model, virtual) if virtual else None
    encoded = encode(model.chat, prompts, PREAMBLE)
    assert max(len(ids) for row in encoded.options for ids in row) > 4
    expected = reference(transformers_model(tiny(shape, chat)), encoded, soft)
    batch = None if soft is None else torch.from_numpy(np.stack([soft, -soft]))
    monkeypatch.setattr(Engine, "most_tokens", lambda engine: 96)  # trees are cut, and logits are read in parts
    with torch.no_grad():
        packed = PackedForward(model.engine, encoded).logprobs(batch)
        plain = PlainForward(model.model, encoded).logprobs(batch)
    np.testing.assert_allclose(packed[0].numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(plain[0].numpy(), expected, atol=1e-4)


@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_answers_hold_the_log_likelihoods_of_stock_lm_eval(load, tiny, prompts, shape, chat):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    stock = HFLM(pretrained=str(tiny(shape, chat)), device="cpu", dtype="float32", batch_size=4)
    texts = prompts.texts
    if chat:
        texts = [stock.apply_chat_template([{"role": "user", "content": text}]) for text in texts]
    space = "" if chat else " "  # lm-eval's target_delimiter
    pairs = [(text, space + choice) for text, row in zip(texts, prompts.choices, strict=True) for choice in row]
    results = stock.loglikelihood([Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)])
    theirs = np.array([log for log, _ in results]).reshape(len(texts), -1)
    answers = AlignedModel(load(shape, chat)).answer(prompts)
    found = log_likelihoods(answers, lengths_of(spec_of("vsm13_cloze"), prompts.layout))[0]
    np.testing.assert_allclose(found, theirs, atol=1e-4)
    assert np.ptp(theirs) > 1


def test_steps_of_a_race_read_as_a_whole_pass(load, prompts):
    model = load("llama", True)
    soft = np.stack([drawn(model, 2), -drawn(model, 2)])
    whole = model.answer(prompts, soft).probs
    asked = model.stepwise(prompts, ((0, 3), (1, 2, 4, 5)), soft)
    np.testing.assert_allclose(asked.advance()[:, [0, 3]], whole[:, [0, 3]], atol=1e-5)
    np.testing.assert_allclose(asked.advance(), whole, atol=1e-5)


def test_a_gradient_descends_the_loss_of_words(load):
    from culteval.harness.alignment.objective import fit_objective
    from culteval.tasks.countries import country
    from culteval.tasks.measure import MeasureOptions

    model = load("llama", True)
    objective = fit_objective(spec_of("vsm13_cloze"), country("SA"), "expected", MeasureOptions(), 0, 0)
    soft = torch.from_numpy(drawn(model, 2)[None]).requires_grad_()

    def loss(prompt):
        return objective.loss(model.logprobs(objective.prompts, prompt).softmax(-1).double())[0]

    before = loss(soft)
    before.backward()
    with torch.no_grad():
        after = loss(soft - 1e-3 * soft.grad / soft.grad.norm())
    assert after < before
    same = objective.loss(model.answer(objective.prompts, soft.detach().numpy()).probs)[0]
    assert same == pytest.approx(float(before.detach()), rel=1e-4)
