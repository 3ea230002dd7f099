"""One packed forward pass gives what plain forwards give, for several architectures."""

import numpy as np
import pytest
import torch
from culteval.errors import UsageError
from culteval.harness.encoding import Encoded, encode
from culteval.harness.models import load_model
from culteval.harness.packing import PackedForward, PlainForward, build_trees
from culteval.harness.registry import spec_path
from culteval.tasks.answers import Layout
from culteval.tasks.prompts import Prompts, render
from culteval.tasks.spec import load_spec

from .conftest import SHAPES


@pytest.fixture(scope="module")
def survey():
    spec = load_spec(spec_path("vsm13"))
    return render(spec, spec.metadata.splits.fit)


def free_prompts(texts, choices):
    zeros = np.zeros(len(texts), dtype=np.int32)
    width = max(map(len, choices))
    codes = np.array([[*range(1, len(c) + 1)] + [0] * (width - len(c)) for c in choices], dtype=float)
    layout = Layout(("x",), ("A",), ("natural",), 1, zeros, zeros, zeros, np.arange(len(texts)), codes)
    return Prompts("free", tuple(texts), tuple(choices), layout)


def one_by_one(model, encoded, soft):
    """Log-likelihoods by the plainest means: one unpadded sequence an option, the model's own logits."""
    result = np.full((len(encoded.contexts), max(map(len, encoded.options))), -np.inf)
    for p, context in enumerate(encoded.contexts):
        for o, option in enumerate(encoded.options[p]):
            ids = torch.tensor([context + option])
            embeds = model.model.get_input_embeddings()(ids)
            if soft is not None:
                embeds = torch.cat([torch.from_numpy(soft)[None], embeds], dim=1)
            with torch.inference_mode():
                logs = model.model(inputs_embeds=embeds).logits[0].float().log_softmax(-1)
            start = embeds.shape[1] - len(option) - 1
            result[p, o] = sum(float(logs[start + i, token]) for i, token in enumerate(option))
    return result


@pytest.mark.parametrize("virtual", [0, 1, 60])
@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_equals_one_by_one(load, survey, shape, chat, virtual):
    model = load(shape, chat)
    assert model.identity.forward == "packed"
    some = survey.take(np.array([0, 1, 13, 14, 23, 24, 30, 47]))
    encoded = encode(model.tokenizer, some)
    rng = np.random.default_rng(0)
    soft = rng.normal(0, 0.3, (virtual, model.dim)).astype(np.float32) if virtual else None
    expected = one_by_one(model, encoded, soft)
    batch = None if soft is None else torch.from_numpy(np.stack([soft, soft * 0.5]))
    with torch.inference_mode():
        packed = PackedForward(model.model, encoded, most_nodes=200).logprobs(batch)
        plain = PlainForward(model.model, encoded).logprobs(batch)
    assert np.ptp(expected) > 0.1  # the model tells the options apart, so that equality means something
    np.testing.assert_allclose(packed[0].numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(plain.numpy(), packed.numpy(), atol=1e-4)
    if virtual:
        assert float((packed[0] - packed[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_options_of_several_tokens_and_prefixes_of_one_another(load, shape):
    model = load(shape, True)
    prompts = free_prompts(
        ["Which is it?", "An altogether different question\n\n", "Which is it, then?"],
        [("1", "10", "100 and more"), ("yes", "no"), ("1", "2", "12")],
    )
    encoded = encode(model.tokenizer, prompts)
    assert max(len(ids) for row in encoded.options for ids in row) > 2
    with torch.inference_mode():
        packed = PackedForward(model.model, encoded).logprobs(None)[0].numpy()
        plain = PlainForward(model.model, encoded).logprobs(None)[0].numpy()
    expected = one_by_one(model, encoded, None)
    np.testing.assert_allclose(packed, expected, atol=1e-4)
    np.testing.assert_allclose(plain, expected, atol=1e-4)
    assert np.isneginf(packed[1, 2])


def test_tree_shares_prefixes_and_covers_every_prompt_once():
    encoded = Encoded([[1, 2, 3], [1, 2, 4], [5]], [[[7], [8]], [[7], [8, 9]], [[7], [8]]])
    (tree,) = build_trees(encoded, 100)
    assert sorted(tree.tokens.tolist()) == [1, 2, 3, 4, 5, 8]  # 8 of "8, 9" is the only option token that is read on
    assert tree.depth[tree.tokens.tolist().index(8)] == 3
    ancestors = tree.ancestors()
    assert ancestors.sum(1).tolist() == (tree.depth + 1).tolist()
    split = build_trees(encoded, 3)
    assert sum(t.prompts for t in split) == 3
    assert [t.first for t in split] == list(np.cumsum([0, *[t.prompts for t in split[:-1]]]))


def test_chunks_do_not_change_answers(load, survey):
    model = load("llama", True)
    encoded = encode(model.tokenizer, survey)
    soft = torch.randn(5, 3, model.dim, generator=torch.Generator().manual_seed(1)) * 0.3
    with torch.inference_mode():
        whole = PackedForward(model.model, encoded, most_nodes=10**6, most_tokens=10**6).logprobs(soft)
        small = PackedForward(model.model, encoded, most_nodes=150, most_tokens=400).logprobs(soft)
    np.testing.assert_allclose(whole.numpy(), small.numpy(), atol=1e-4)


def test_packed_forward_is_differentiable(load, survey):
    model = load("llama", True)
    soft = (torch.randn(1, 3, model.dim, generator=torch.Generator().manual_seed(1)) * 0.3).requires_grad_()
    model.logprobs(survey, soft).logsumexp(-1).sum().backward()
    assert float(soft.grad.abs().min()) >= 0 and float(soft.grad.abs().max()) > 1e-4
    direction = torch.zeros_like(soft)
    direction[0, 1, 5] = 1e-2
    with torch.no_grad():
        ahead = model.logprobs(survey, soft + direction).logsumexp(-1).sum()
        behind = model.logprobs(survey, soft - direction).logsumexp(-1).sum()
    assert float((ahead - behind) / 2e-2) == pytest.approx(float(soft.grad[0, 1, 5]), rel=0.05, abs=1e-2)


def test_packing_saves_tokens(load, survey):
    model = load("llama", True)
    plain = sum(map(len, encode(model.tokenizer, survey).contexts))
    assert model.cost(survey, 10) < plain / 2


def test_a_model_that_cannot_be_packed_falls_back_aloud(tiny, survey, monkeypatch):
    from culteval.harness import packing

    right = load_model(str(tiny("llama", True)), "float32", "cpu", None, 2, lambda text: None).answer(survey)
    real = packing._allowed
    monkeypatch.setattr(packing, "_allowed", lambda tree, virtual: torch.ones_like(real(tree, virtual)))
    notes = []
    model = load_model(str(tiny("llama", True)), "float32", "cpu", None, 2, notes.append)
    assert model.identity.forward == "plain" and "differ" in notes[0]
    np.testing.assert_allclose(model.answer(survey).probs, right.probs, atol=1e-5)


def test_prompts_beyond_the_context_are_refused_before_any_work(load, survey):
    model = load("llama", True)
    before = model.tokens
    with pytest.raises(UsageError, match="context is 2048"):
        model.answer(survey, np.zeros((1, 2040, model.dim), dtype=np.float32))
    assert model.tokens == before


def test_generated_text_does_not_depend_on_the_batch(load):
    model = load("llama", True)
    prompts = free_prompts(
        ["Short?", "A question that is a good deal longer than the other one", "Hm"], [("1", "2")] * 3
    )
    soft = np.random.default_rng(0).normal(0, 0.3, (4, model.dim)).astype(np.float32)
    together = model.generate(prompts, soft).texts
    alone = [model.generate(prompts.take(np.array([i])), soft).texts[0] for i in range(3)]
    assert list(together) == alone and len(set(alone)) > 1
