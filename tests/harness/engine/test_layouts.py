"""Weights in oneDNN's layout replace the plain ones, whatever the model's size; answers are those of transformers."""

import sys

import numpy as np
import pytest
import torch
from culteval.harness.engine import fused_decoder, onednn
from culteval.harness.engine.onednn import PackedLinear, lacking
from culteval.harness.models.load import load_model, wrap_model
from culteval.harness.registry import spec_path
from culteval.tasks.prompts import render
from culteval.tasks.spec import load_spec
from transformers import AutoModelForCausalLM, AutoTokenizer

pytestmark = pytest.mark.skipif(
    bool(lacking()) or not torch.backends.mkldnn.is_available(), reason="this torch has no such layouts"
)


@pytest.fixture(scope="module")
def survey():
    return render(load_spec(spec_path("vsm13")), "fit")


@pytest.fixture(scope="module")
def untied(tiny, tmp_path_factory):
    """A Qwen 2 with biases in its attention and an output matrix of its own."""
    folder, made = tiny("qwen2"), tmp_path_factory.mktemp("untied")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.3)
    assert all(float(layer.self_attn.k_proj.bias.abs().sum()) > 0 for layer in model.model.layers)
    model.save_pretrained(made)
    AutoTokenizer.from_pretrained(folder).save_pretrained(made)
    return made


def plain(model):
    return [layer for layer in model.base_model.modules() if type(layer) is torch.nn.Linear]


def in_transformers(folder, model, prompts, soft):
    """Option log-likelihoods, prompt by prompt, of the first option tokens; unpadded, by transformers alone."""
    other = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    encoded = model.tokenised(prompts, "")
    rows = []
    for context, options in zip(encoded.contexts, encoded.options, strict=True):
        embeds = torch.cat([torch.from_numpy(soft), other.get_input_embeddings()(torch.tensor([context]))], dim=1)
        with torch.inference_mode():
            logs = other(inputs_embeds=embeds).logits[0, -1].log_softmax(-1)
        rows.append([float(logs[ids[0]]) for ids in options])
    return np.array(rows)


def test_an_untied_head_and_biases_answer_as_in_transformers(untied, survey):
    model = load_model(str(untied), dtype="float32", threads=1)
    soft = model.token_vectors(np.array([[9, 8, 7, 6]]))
    assert model.info.forward == "fused" and not plain(model.model)
    head = model.model.get_output_embeddings()
    assert type(head) is PackedLinear and model.engine._head is head  # not a second one beside the model's
    few = survey.take(np.arange(0, len(survey), 6))
    got = model.logprobs(few, torch.from_numpy(soft)).detach().numpy()[0]
    assert np.abs(got - in_transformers(untied, model, few, soft)).max() < 1e-4
    assert model.generate(few.take(np.arange(2))).texts  # transformers' own path uses the packed head


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere every head is packed")
def test_a_large_head_is_read_from_its_file_and_answers_as_in_transformers(untied, survey, monkeypatch):
    monkeypatch.setattr(onednn, "MOST_HEAD", 0)
    monkeypatch.setattr(onednn, "HEAD_BLOCK", 1 << 14)
    model = load_model(str(untied), dtype="float32", threads=1)
    soft = torch.from_numpy(model.token_vectors(np.array([[9, 8, 7, 6]])))
    head = model.model.get_output_embeddings()
    assert type(head) is onednn.MappedHead and model.engine._head is head and not plain(model.model)
    few = survey.take(np.arange(0, len(survey), 6))
    with torch.no_grad():
        got = model.logprobs(few, soft).numpy()[0]
    assert np.abs(got - in_transformers(untied, model, few, soft.numpy())).max() < 1e-4

    monkeypatch.setattr(onednn, "MOST_HEAD", 1 << 40)
    other = load_model(str(untied), dtype="float32", threads=1)
    assert type(other.model.get_output_embeddings()) is PackedLinear
    gradients = []
    for one in (model, other):
        given = soft.clone().requires_grad_()
        one.logprobs(few, given).sum().backward()
        gradients.append(given.grad)
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4 * float(gradients[1].abs().max()))
    two = few.take(np.arange(2))
    assert model.generate(two).texts == other.generate(two).texts


def test_the_rows_of_an_mlp_do_not_depend_on_how_many_it_reads_at_once(load, survey, monkeypatch):
    whole = load("qwen2").answer(survey).probs
    monkeypatch.setattr(fused_decoder, "MOST_GATED", 1 << 14)
    assert np.abs(load("qwen2").answer(survey).probs - whole).max() < 1e-6


def test_a_tied_head_is_the_embedding_matrix_still(load):
    model = load("qwen2").model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_size_does_not_matter_unless_somebody_else_keeps_the_weights(untied, survey, monkeypatch):
    monkeypatch.setattr(onednn, "MOST_SHARED", 0)
    loaded = load_model(str(untied), dtype="float32", threads=1)
    assert not plain(loaded.model)
    given = AutoModelForCausalLM.from_pretrained(untied, dtype=torch.float32)
    kept = wrap_model(given, AutoTokenizer.from_pretrained(untied), threads=1)
    for one, other in zip(plain(given), plain(kept.model), strict=True):
        assert one.weight.data_ptr() == other.weight.data_ptr()
    assert kept.model.lm_head.weight.data_ptr() == given.lm_head.weight.data_ptr()
    assert np.abs(kept.answer(survey).probs - loaded.answer(survey).probs).max() < 1e-5


def test_a_small_model_in_memory_is_packed_and_its_owner_keeps_the_weights(untied, survey):
    given = AutoModelForCausalLM.from_pretrained(untied, dtype=torch.float32)
    before = {name: weight.clone() for name, weight in given.state_dict().items()}
    packed = wrap_model(given, AutoTokenizer.from_pretrained(untied), threads=1)
    packed.answer(survey)
    assert not plain(packed.model) and len(plain(given)) == 14
    assert all(torch.equal(weight, before[name]) for name, weight in given.state_dict().items())


def test_training_reads_the_weights_again(untied):
    model = load_model(str(untied), dtype="float32", threads=1)
    fresh = model.fresh()
    assert len(plain(fresh)) == 14 and type(fresh.lm_head) is torch.nn.Linear
    first = model.model.model.layers[0].mlp.up_proj
    assert torch.equal(first.weight, fresh.model.layers[0].mlp.up_proj.weight)
