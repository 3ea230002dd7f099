"""One packed forward pass gives what plain forwards give, for several architectures."""

import shutil
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from culteval.errors import UsageError
from culteval.harness.engine.model_config import steady_length
from culteval.harness.engine.packed import PackedForward
from culteval.harness.engine.padded import PlainForward
from culteval.harness.engine.prefix_tree import build_trees
from culteval.harness.engine.select import engine_for
from culteval.harness.engine.tokenize import Encoded, encode
from culteval.harness.models.load import load_model
from culteval.harness.registry import spec_path
from culteval.tasks.answers import Layout
from culteval.tasks.prompts import Prompts, render
from culteval.tasks.spec import load_spec
from transformers import AutoModelForCausalLM, AutoTokenizer

from ...conftest import FUSED, SHAPES


@pytest.fixture(scope="module")
def survey():
    spec = load_spec(spec_path("vsm13"))
    return render(spec, "fit")


def free_prompts(texts, choices):
    zeros = np.zeros(len(texts), dtype=np.int32)
    width = max(map(len, choices))
    codes = np.array([[*range(1, len(c) + 1)] + [0] * (width - len(c)) for c in choices], dtype=float)
    people, widths = np.arange(len(texts), dtype=np.int32), np.array([len(c) for c in choices], dtype=np.int32)
    layout = Layout(("x",), ("A",), ("natural",), 1, zeros, zeros, zeros, people, codes, widths)
    return Prompts("free", tuple(texts), tuple(choices), layout)


@pytest.fixture(scope="module")
def one_by_one(tiny):
    """Log-likelihoods by the plainest means: one unpadded sequence an option through transformers' own model."""
    return lambda shape, chat, encoded, soft=None: reference(transformers_model(tiny(shape, chat)), encoded, soft)


@cache
def transformers_model(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def reference(model, encoded, soft):
    result = np.full((len(encoded.contexts), max(map(len, encoded.options))), -np.inf)
    for p, context in enumerate(encoded.contexts):
        for o, option in enumerate(encoded.options[p]):
            ids = torch.tensor([context + option])
            embeds = model.get_input_embeddings()(ids)
            if soft is not None:
                embeds = torch.cat([torch.from_numpy(soft)[None], embeds], dim=1)
            with torch.inference_mode():
                logs = model(inputs_embeds=embeds).logits[0].float().log_softmax(-1)
            start = embeds.shape[1] - len(option) - 1
            result[p, o] = sum(float(logs[start + i, token]) for i, token in enumerate(option))
    return result


@pytest.mark.parametrize("virtual", [0, 1, 60])
@pytest.mark.parametrize("chat", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_packed_equals_one_by_one(load, one_by_one, survey, shape, chat, virtual):
    model = load(shape, chat)
    assert model.info.forward == ("fused" if shape in FUSED else "packed")
    some = survey.take(np.array([0, 1, 13, 14, 23, 24, 30, 47]))
    encoded = encode(model.chat, some)
    rng = np.random.default_rng(0)
    soft = rng.normal(0, 0.3, (virtual, model.dim)).astype(np.float32) if virtual else None
    expected = one_by_one(shape, chat, encoded, soft)
    batch = None if soft is None else torch.from_numpy(np.stack([soft, -soft]))
    with torch.inference_mode():
        packed = PackedForward(model.engine, encoded, most_tokens=200).logprobs(batch)
        plain = PlainForward(model.model, encoded).logprobs(batch)
    assert np.ptp(expected) > 0.1  # the model tells the options apart, so that equality means something
    np.testing.assert_allclose(packed[0].numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(plain.numpy(), packed.numpy(), atol=1e-4)
    if virtual:
        assert float((packed[0] - packed[1]).abs().max()) > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_options_of_several_tokens_and_prefixes_of_one_another(load, one_by_one, shape):
    model = load(shape, True)
    prompts = free_prompts(
        ["Which is it?", "An altogether different question\n\n", "Which is it, then?"],
        [("1", "10", "100 and more"), ("yes", "no"), ("1", "2", "12")],
    )
    encoded = encode(model.chat, prompts)
    assert max(len(ids) for row in encoded.options for ids in row) > 2
    with torch.inference_mode():
        packed = PackedForward(model.engine, encoded).logprobs(None)[0].numpy()
        plain = PlainForward(model.model, encoded).logprobs(None)[0].numpy()
    expected = one_by_one(shape, True, encoded)
    np.testing.assert_allclose(packed, expected, atol=1e-4)
    np.testing.assert_allclose(plain, expected, atol=1e-4)
    assert np.isneginf(packed[1, 2])


@pytest.mark.parametrize("virtual", [0, 3])
@pytest.mark.parametrize("shape", ["llama", "gemma3"])
@pytest.mark.parametrize("count", [1, 1000])
def test_trees_of_one_and_of_a_thousand_items(load, one_by_one, shape, count, virtual):
    model = load(shape, False)
    rng = np.random.default_rng(1)
    head = "Answer with a number.\n" if count > 1 else ""
    texts = [f"{head}Item {i}: {' '.join(rng.choice(['work', 'life', 'boss', 'time'], 3))}?" for i in range(count)]
    encoded = encode(model.chat, free_prompts(texts, [("1", "2", "3")] * count))
    soft = rng.normal(0, 0.3, (virtual, model.dim)).astype(np.float32) if virtual else None
    with torch.inference_mode():
        packed = PackedForward(model.engine, encoded).logprobs(None if soft is None else torch.from_numpy(soft)[None])
    assert packed.shape == (1, count, 3)
    some = np.unique(np.linspace(0, count - 1, 12).astype(int))
    part = Encoded([encoded.contexts[i] for i in some], [encoded.options[i] for i in some])
    np.testing.assert_allclose(packed[0][some].numpy(), one_by_one(shape, False, part, soft), atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_prompts_that_share_nothing(load, one_by_one, shape):
    model = load(shape, False)
    rng = np.random.default_rng(2)
    contexts = [[int(t), *rng.integers(3, 500, int(rng.integers(1, 60)))] for t in range(10, 24)]
    encoded = Encoded([[int(t) for t in c] for c in contexts], [[[5], [6, 7]]] * len(contexts))
    with torch.inference_mode():
        packed = PackedForward(model.engine, encoded, most_tokens=150).logprobs(None)[0].numpy()
    np.testing.assert_allclose(packed, one_by_one(shape, False, encoded), atol=1e-4)


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_side_a_tokenizer_pads_on_changes_nothing(tiny, one_by_one, tmp_path, side):
    folder = tmp_path / "model"
    shutil.copytree(tiny("llama", True), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side=side)
    tokenizer.save_pretrained(folder)
    model = load_model(str(folder), dtype="float32", threads=2)
    assert model.tokenizer.padding_side == side
    prompts = free_prompts(["Short?", "A question that is a good deal longer", "Hm"], [("1", "2")] * 3)
    encoded = encode(model.chat, prompts)
    with torch.inference_mode():
        packed = PackedForward(model.engine, encoded).logprobs(None)[0].numpy()
        plain = PlainForward(model.model, encoded).logprobs(None)[0].numpy()
    np.testing.assert_allclose(packed, one_by_one("llama", True, encoded), atol=1e-4)
    np.testing.assert_allclose(plain, packed, atol=1e-4)
    assert (
        model.generate(prompts).texts
        == load_model(str(tiny("llama", True)), dtype="float32", threads=2).generate(prompts).texts
    )


def test_greedy_says_what_decoding_would_write(load):
    model = load("llama", True)
    prompts = free_prompts(["Which is it?", "Well?"], [("1", "2"), ("1", "2")])
    encoded = encode(model.chat, prompts)
    with torch.inference_mode():
        first = []
        for context in encoded.contexts:
            logits = model.model(torch.tensor([context])).logits[0, -1]
            first.append(int(logits.argmax()))
        asked = Encoded(encoded.contexts, [[[token], [token + 1]] for token in first])
        logs, greedy = PackedForward(model.engine, asked).read(None)
    assert greedy[0].tolist() == [[True, False]] * 2
    assert bool((logs[0, :, 0] > logs[0, :, 1]).all())


@pytest.mark.parametrize("shape", SHAPES)
def test_gradients_are_those_of_transformers(load, tiny, shape):
    model = load(shape, True)
    context, option = [5, 6, 7, 8], 9
    soft = torch.randn(1, 3, model.dim, generator=torch.Generator().manual_seed(1)) * 0.3
    theirs, ours = soft.clone().requires_grad_(), soft.clone().requires_grad_()
    plain = transformers_model(tiny(shape, True))
    embeds = torch.cat([theirs, plain.get_input_embeddings()(torch.tensor([context]))], dim=1)
    plain(inputs_embeds=embeds).logits[0, -1].log_softmax(-1)[option].backward()
    PackedForward(model.engine, Encoded([context], [[[option]]])).logprobs(ours).sum().backward()
    assert float(theirs.grad.abs().max()) > 1e-4
    np.testing.assert_allclose(ours.grad.numpy(), theirs.grad.numpy(), atol=1e-4, rtol=1e-3)


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
    encoded = encode(model.chat, survey)
    soft = torch.randn(5, 3, model.dim, generator=torch.Generator().manual_seed(1)) * 0.3
    with torch.inference_mode():
        whole = PackedForward(model.engine, encoded, most_tokens=10**6).logprobs(soft)
        small = PackedForward(model.engine, encoded, most_tokens=200).logprobs(soft)
    np.testing.assert_allclose(whole.numpy(), small.numpy(), atol=1e-4)


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_packed_forward_is_differentiable(load, survey, shape):
    model = load(shape, True)
    model.answer(survey, np.zeros((1, 3, model.dim), dtype=np.float32))  # what this makes is used with gradients below
    soft = (torch.randn(1, 3, model.dim, generator=torch.Generator().manual_seed(1)) * 0.3).requires_grad_()
    model.logprobs(survey, soft).logsumexp(-1).sum().backward()
    assert float(soft.grad.abs().max()) > 1e-4
    direction = torch.zeros_like(soft)
    direction[0, 1, 5] = 1e-2
    with torch.no_grad():
        ahead = model.logprobs(survey, soft + direction).logsumexp(-1).sum()
        behind = model.logprobs(survey, soft - direction).logsumexp(-1).sum()
    assert float((ahead - behind) / 2e-2) == pytest.approx(float(soft.grad[0, 1, 5]), rel=0.05, abs=1e-2)


def test_packing_saves_tokens(load, survey):
    model = load("llama", True)
    plain = sum(map(len, encode(model.chat, survey).contexts))
    assert model.cost(survey, 10) < plain / 2


def test_a_model_that_cannot_be_packed_falls_back_aloud(tiny, survey, monkeypatch):
    from culteval.harness.engine import packed as packing

    right = load_model(str(tiny("llama", True)), dtype="float32", threads=2).answer(survey)
    real = packing.visible
    monkeypatch.setattr(packing, "visible", lambda tree, virtual: np.ones_like(real(tree, virtual)))
    notes = []
    model = load_model(str(tiny("llama", True)), dtype="float32", threads=2, notify=notes.append)
    assert model.info.forward == "plain" and "differ" in notes[0]
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
    soft = np.random.default_rng(0).normal(0, 0.3, (1, 4, model.dim)).astype(np.float32)
    together = model.generate(prompts, soft).texts
    alone = [model.generate(prompts.take(np.array([i])), soft).texts[0] for i in range(3)]
    assert list(together) == alone and len(set(alone)) > 1


def test_the_head_is_given_no_slice_of_what_was_read(load):
    """Of one, torch multiplies each row by its own copy of the head's weights."""
    model, whole = load("llama", True), []
    head = model.model.get_output_embeddings()
    head.register_forward_hook(lambda _, given, out: whole.append(given[0].is_contiguous()))
    model.generate(free_prompts(["Short?", "Hm", "Well?"], [("1", "2")] * 3))
    assert len(whole) > 1 and all(whole)


def test_layers_other_than_full_and_sliding_attention_are_not_packed(tiny):
    """A recurrence over the tokens of a tree would run from one prompt into the next."""
    model = AutoModelForCausalLM.from_pretrained(tiny(), dtype=torch.float32)
    model.config.layer_types = ["full_attention", "linear_attention"]
    engine, problem = engine_for(model, AutoTokenizer.from_pretrained(tiny()))
    assert engine is None and "linear_attention layers" in problem


LENGTHS = {"max_position_embeddings": 512}
SHORT = LENGTHS | {"original_max_position_embeddings": 64}


@pytest.mark.parametrize(
    "config, length",
    [
        ({"rope_parameters": {"rope_type": "default"}} | LENGTHS, None),
        ({"rope_parameters": None, "rope_scaling": None} | LENGTHS, None),
        ({"rope_parameters": {"rope_type": "longrope", "original_max_position_embeddings": 64}} | LENGTHS, 64),
        ({"rope_scaling": {"rope_type": "longrope"}} | SHORT, 64),  # of transformers 4
        ({"rope_scaling": {"type": "longrope"}} | SHORT, 64),
        ({"rope_scaling": {"type": "longrope"}} | LENGTHS, 512),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}} | LENGTHS, None),
        ({"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}} | LENGTHS, 512),
        ({"rope_parameters": {"sliding_attention": {"rope_type": "default"},
                              "full_attention": {"rope_type": "dynamic"}}} | LENGTHS, 512),
    ],
)  # fmt: skip
def test_positions_are_steady_up_to_the_length_that_a_configuration_gives(config, length):
    assert steady_length(SimpleNamespace(**config)) == length
