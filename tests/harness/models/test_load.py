"""Models that are loaded or wrapped: defaults, the same answers, and nothing of the process changed."""

from __future__ import annotations

import copy
import functools
import sys
import types

import numpy as np
import pytest
import torch
from culteval.errors import RunError, UsageError
from culteval.harness.engine import onednn
from culteval.harness.models import greedy
from culteval.harness.models import load as loading
from culteval.harness.models.load import load_model, wrap_model
from culteval.harness.registry import spec_of
from culteval.tasks.chat_options import ChatOptions
from culteval.tasks.prompts import render
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging

PROMPTS = render(spec_of("vsm13"), "fit").take(np.arange(5))


def in_memory(folder):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def test_a_registered_name_is_enough(tiny_cache, monkeypatch):
    monkeypatch.setenv("CULTEVAL_CACHE", str(tiny_cache))
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    info = load_model("smollm2").info
    assert (info.name, info.dtype, info.device, info.threads) == ("smollm2", "float32", "cpu", torch.get_num_threads())


@pytest.mark.parametrize("shape", ["llama", "gemma3", "gpt2"])
def test_a_wrapped_model_answers_as_the_loaded_one(tiny, load, shape):
    model, tokenizer = in_memory(tiny(shape))
    wrapped, loaded = wrap_model(model, tokenizer, name="mine", threads=1), load(shape)
    soft = np.random.default_rng(0).normal(0, 0.3, (2, 3, wrapped.dim)).astype(np.float32)
    for given in (None, soft):
        np.testing.assert_array_equal(wrapped.answer(PROMPTS, given).probs, loaded.answer(PROMPTS, given).probs)
    assert wrapped.generate(PROMPTS, soft[:1]).texts == loaded.generate(PROMPTS, soft[:1]).texts
    own = {"name", "revision", "content_sha256"}
    assert wrapped.info.model_dump(exclude=own) == loaded.info.model_dump(exclude=own)
    assert wrapped.info.name == "mine" and wrapped.has_weights


def test_what_is_wrapped_stays_as_it_is(tiny):
    model, tokenizer = in_memory(tiny())
    model.train()
    model.generation_config.repetition_penalty = 1.5
    kinds, weights = [type(module) for module in model.modules()], copy.deepcopy(model.state_dict())
    template = tokenizer.chat_template
    notes = []
    wrapped = wrap_model(model, tokenizer, chat=ChatOptions(template="{{ messages[0].content }}"), notify=notes.append)
    wrapped.generate(PROMPTS)
    assert [type(module) for module in model.modules()] == kinds and onednn.PackedLinear not in kinds
    assert model.training and all(weight.requires_grad for weight in model.parameters())
    assert model.generation_config.repetition_penalty == 1.5 and "repetition_penalty=1.5" in notes[0]
    assert tokenizer.chat_template == template
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, weights[name])


def test_memory_of_the_weights_is_shared(tiny):
    model, tokenizer = in_memory(tiny())
    wrapped = wrap_model(model, tokenizer)
    own = model.get_input_embeddings().weight
    assert wrapped.model.get_input_embeddings().weight.data_ptr() == own.data_ptr()
    again = wrapped.fresh()
    assert again.get_input_embeddings().weight.data_ptr() != own.data_ptr()
    assert all(weight.requires_grad for weight in again.parameters()) and not again.training


def test_the_revision_of_a_wrapped_model_is_its_weights(tiny, tmp_path):
    infos = []
    for number in range(3):
        model, tokenizer = in_memory(tiny())
        if number == 2:
            with torch.no_grad():
                weight = model.get_decoder().layers[1].mlp.up_proj.weight
                weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(9.0))
        infos.append(wrap_model(model, tokenizer).info)
    first, same, other = infos
    assert first == same and len(first.revision) == 16 and len(first.content_sha256) == 64
    assert first.revision != other.revision and first.content_sha256 != other.content_sha256
    model, tokenizer = in_memory(tiny())
    tokenizer.chat_template += " "
    spoken = wrap_model(model, tokenizer).info
    assert spoken.revision == first.revision and spoken.content_sha256 != first.content_sha256
    model.save_pretrained(tmp_path / "moved")
    moved = AutoModelForCausalLM.from_pretrained(tmp_path / "moved", dtype=torch.float32)
    assert wrap_model(moved, tokenizer).info.revision == first.revision  # wherever it was loaded from


def test_what_is_no_model_is_refused(tiny):
    model, tokenizer = in_memory(tiny())
    with pytest.raises(UsageError, match=r"^`model`: Linear is not a causal"):
        wrap_model(torch.nn.Linear(2, 2), tokenizer)
    with pytest.raises(UsageError, match=r"^`model`: LlamaModel is not a causal"):
        wrap_model(model.model, tokenizer)
    with pytest.raises(UsageError, match=r"^`tokenizer`: str"):
        wrap_model(model, "tokenizer")


def test_a_model_with_layers_of_an_adapter_is_refused(tiny):
    """Neither weights nor configuration say which adapters are active."""
    from peft import LoraConfig, get_peft_model

    model, tokenizer = in_memory(tiny())
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    for one in (tuned, model):
        with pytest.raises(UsageError, match=r"^`model`: .*[Pp]ass merge_and_unload\(\)"):
            wrap_model(one, tokenizer)
    wrap_model(tuned.merge_and_unload(), tokenizer)


def added(_, args, out):
    return out + 0.1


class Adds:
    def __call__(self, _, args):
        return (args[0] + 0.1,)


def patched(forward):
    return lambda x: forward(x) + 0.1


def replace_forward(module):
    module.forward = functools.wraps(module.forward)(patched(module.forward))  # with the name of what it wraps


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.register_forward_hook(added),
        lambda module: module.register_forward_hook(functools.partial(added)),
        lambda module: module.register_forward_hook(torch.no_grad()(added)),
        lambda module: module.register_forward_hook(torch.inference_mode()(added)),
        lambda module: module.register_forward_pre_hook(Adds()),
        replace_forward,
    ],
)
@pytest.mark.parametrize("place", ["model.layers.1.mlp", "model", "lm_head"])
def test_a_model_with_hooks_is_refused(tiny, change, place):
    """Two strengths of steering would have one revision, and fused layers would run neither."""
    model, tokenizer = in_memory(tiny())
    change(model.get_submodule(place))
    with pytest.raises(UsageError, match=rf"^`model`: {place} has a hook or .*\n.*`lora_bias`.*`adapter`\.$"):
        wrap_model(model, tokenizer)


def test_hooks_of_libraries_change_nothing(tiny):
    """Of training, of captured outputs, and of devices."""
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    model, tokenizer = in_memory(tiny())
    expected = wrap_model(model, tokenizer)
    model.enable_input_require_grads()
    model(torch.tensor([[5, 6]]), output_hidden_states=True)
    for layer in model.model.layers:
        add_hook_to_module(layer, AlignDevicesHook("cpu", io_same_device=True))
    assert "forward" in vars(model.model.layers[0]) and model.model.layers[0]._forward_hooks
    wrapped = wrap_model(model, tokenizer)
    assert wrapped.info == expected.info
    np.testing.assert_array_equal(wrapped.answer(PROMPTS).probs, expected.answer(PROMPTS).probs)


def test_a_process_stays_as_it_is(tiny):
    threads, stdout = torch.get_num_threads(), sys.stdout
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        model = load_model(str(tiny()), dtype="float32", threads=threads + 1)
        seen = []
        model.model.register_forward_hook(lambda *_: seen.append(torch.get_num_threads()))
        model.engine.decoder.norm.register_forward_hook(
            lambda *_: seen.append((torch.get_num_threads(), logging.get_verbosity()))
        )
        soft = np.zeros((1, 2, model.dim), np.float32)
        model.answer(PROMPTS, soft)
        model.stepwise(PROMPTS, ((0, 1), (2, 3, 4)), soft).advance()
        model.generate(PROMPTS, soft, most=2)
        assert model.info.threads == threads + 1
        assert set(seen) == {threads + 1, (threads + 1, logging.ERROR)}
        assert (torch.get_num_threads(), sys.stdout, logging.get_verbosity()) == (threads, stdout, logging.INFO)
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity(level)
        if not bars:
            logging.disable_progress_bar()


def test_tokens_are_counted_where_they_are_read(load):
    model = load()
    soft = torch.zeros(2, 3, model.dim)
    each = model.cost(PROMPTS, 3)
    before = model.tokens
    with torch.no_grad():
        model.logprobs(PROMPTS, soft)
    assert model.tokens - before == 2 * each
    model.logprobs(PROMPTS, soft.requires_grad_())
    assert model.tokens - before == 2 * each + 3 * 2 * each  # forward and backward


@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_tokens_of_text_do_not_depend_on_batches(tiny, shape):
    """Some rows end early; what transformers puts after their ends is not counted."""
    model, most = loading.load_model(str(tiny(shape)), dtype="float32", threads=1), 12
    soft = np.random.default_rng(0).normal(0, 0.3, (1, 3, model.dim)).astype(np.float32)
    rows = model.chat.ids([model.chat.render_prompt(text) for text in PROMPTS.texts])
    written = greedy._by_transformers(model, rows, soft, most)
    end = next(row[2] for row in written if not all(row[2] in other for other in written))
    model.model.generation_config.eos_token_id = [end]

    def read(*batches):
        before = model.tokens
        texts = [text for batch in batches for text in greedy._by_transformers(model, batch, soft, most)]
        return model.tokens - before, texts

    cut = [row[: row.index(end) + 1] if end in row else row for row in written]
    assert min(map(len, cut)) < max(map(len, cut)) == most
    expected = sum(map(len, rows)) + 3 * len(rows) + sum(map(len, cut)), cut
    assert read(rows) == read(*([row] for row in rows)) == expected


@pytest.mark.parametrize("virtual", [0, 2])
@pytest.mark.parametrize("shape", ["llama", "gpt2"])
def test_text_of_a_model_that_gives_nothing_finite_is_refused(tiny, shape, virtual):
    """The engine's text and that of transformers: no token is the most probable one."""
    model, tokenizer = in_memory(tiny(shape))
    model.get_input_embeddings().weight.data.fill_(torch.nan)
    model = wrap_model(model, tokenizer)
    soft = np.zeros((1, virtual, model.dim), np.float32) if virtual else None
    stated = render(spec_of("vsm13_verbalized"), "fit").take(np.arange(2))
    for prompts, weighed in ((stated, True), (PROMPTS, False)):
        with pytest.raises(RunError, match="no finite probability for some token"):
            model.generate(prompts, soft, most=4, weighed=weighed)


# ---------------------------------------------------------------- a torch without its private functions


@pytest.mark.parametrize("lost", ["all", "_linear_pointwise", "changed"])
def test_a_torch_without_packed_products_falls_back_with_a_note(tiny, load, monkeypatch, lost):
    right = load().answer(PROMPTS).probs
    mkldnn = torch.ops.mkldnn
    given = {name: getattr(mkldnn, name) for name in ("_reorder_linear_weight", "_is_mkldnn_bf16_supported")}
    if lost == "changed":
        given["_linear_pointwise"] = lambda x: x  # as in a torch that takes other arguments
    monkeypatch.setattr(torch.ops, "mkldnn", types.SimpleNamespace(**({} if lost == "all" else given)))
    notes = []
    model = load_model(str(tiny()), dtype="float32", threads=1, notify=notes.append)
    assert not any(isinstance(module, onednn.PackedLinear) for module in model.model.modules())
    assert len(notes) == 1 and "oneDNN" in notes[0] and torch.__version__ in notes[0]
    np.testing.assert_allclose(model.answer(PROMPTS).probs, right, atol=1e-4)


def test_a_torch_that_does_not_tell_of_bfloat16_gives_float32_with_a_note(monkeypatch):
    notes = []
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, name)
    assert loading.default_dtype("cpu", notes.append) == "float32"
    assert len(notes) == 1 and "bfloat16" in notes[0]
