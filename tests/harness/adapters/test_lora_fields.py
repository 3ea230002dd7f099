"""Every field of peft's LoraConfig: the trained model in memory, what stock peft loads, and what answers here."""

import dataclasses
import hashlib
import json
import math
import shutil

import numpy as np
import pytest
import torch
from culteval.errors import InputError
from culteval.harness.adapters.peft_files import CONFIG, carried_hash, lora_hash, read_lora_config
from culteval.harness.engine.chat import Chat
from culteval.harness.engine.tokenize import encode
from culteval.harness.models.load import load_model
from culteval.harness.registry import spec_of
from culteval.tasks.prompts import render
from safetensors.torch import load_file, save_file

PROMPTS = render(spec_of("vsm13"), "heldout").take(np.arange(0, 96, 16))
COMMON = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}
SAVED_WEIGHTS = "adapter_model.safetensors"
# Name: what is trained, the model's shape, and how its passes are run.
ROWS = {
    "vanilla": ({}, "llama", "fused"),
    "rslora": ({"use_rslora": True}, "llama", "fused"),
    "alpha_pattern": ({"alpha_pattern": {"v_proj": 64}}, "llama", "fused"),
    "alpha_pattern of a layer": ({"alpha_pattern": {"layers.0.self_attn.q_proj": 64}}, "llama", "fused"),
    "alpha_pattern by expression": ({"alpha_pattern": {r"layers\.[01]\..*v_proj": 64}}, "qwen2", "fused"),
    "rank_pattern": ({"rank_pattern": {"v_proj": 8}}, "llama", "fused"),
    "both patterns": (
        {"rank_pattern": {"^model.layers.1.self_attn.q_proj": 2}, "alpha_pattern": {"q_proj": 3}, "use_rslora": True},
        "qwen3",
        "fused",
    ),
    "pissa": ({"init_lora_weights": "pissa"}, "llama", "fused"),
    "pissa with ranks": ({"init_lora_weights": "pissa", "rank_pattern": {"v_proj": 2}}, "qwen2", "fused"),
    "pissa of GPT-2": (
        {"init_lora_weights": "pissa", "target_modules": ["c_attn"], "fan_in_fan_out": True},
        "gpt2",
        "packed",
    ),
    "olora": ({"init_lora_weights": "OLoRA"}, "llama", "fused"),
    "orthogonal": ({"init_lora_weights": "orthogonal"}, "llama", "fused"),
    "mica": ({"init_lora_weights": "mica", "target_modules": ["q_proj", "embed_tokens"]}, "llama", "fused"),
    "gaussian": ({"init_lora_weights": "gaussian"}, "llama", "fused"),
    "dora": ({"use_dora": True}, "llama", "fused"),
    "dora of GPT-2": ({"use_dora": True, "target_modules": ["c_attn"], "fan_in_fan_out": True}, "gpt2", "packed"),
    "all-linear": ({"target_modules": "all-linear"}, "llama", "fused"),
    "expression": ({"target_modules": r".*self_attn\.(q_proj|v_proj)"}, "llama", "fused"),
    "expression without a layer": (
        {"target_modules": r".*\.(q_proj|down_proj)", "exclude_modules": r".*layers\.0\..*"},
        "llama",
        "fused",
    ),
    "dotted": ({"target_modules": ["self_attn.q_proj", "layers.1.self_attn.v_proj"]}, "llama", "fused"),
    "layers_to_transform": ({"layers_to_transform": [0]}, "llama", "fused"),
    "layers_pattern": ({"layers_to_transform": 1, "layers_pattern": "layers"}, "llama", "fused"),
    "exclude_modules": ({"exclude_modules": ["layers.0.self_attn.q_proj"]}, "llama", "fused"),
    "head": ({"modules_to_save": ["lm_head"]}, "llama", "fused"),
    "head and embeddings": ({"modules_to_save": ["lm_head", "embed_tokens"]}, "llama", "fused"),
    "embeddings, tied": ({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, "llama", "fused"),
    "norm": ({"modules_to_save": ["norm"]}, "llama", "fused"),
    "mlp": ({"modules_to_save": ["mlp", "score"]}, "llama", "fused"),  # the latter is in no such model
    "LoRA of embeddings": ({"target_modules": ["embed_tokens", "q_proj"]}, "llama", "fused"),
    "bias lora_only": ({"bias": "lora_only"}, "qwen2", "fused"),
    "bias all": ({"bias": "all", "target_modules": ["c_attn"], "fan_in_fan_out": True}, "gpt2", "packed"),
    "lora_bias": ({"lora_bias": True}, "llama", "fused"),
    "tokens": ({"trainable_token_indices": [3, 400, 401]}, "llama", "fused"),
    "parameters": ({"target_parameters": ["q_proj.weight"], "target_modules": ["v_proj"]}, "llama", "fused"),
    "layer_replication": ({"layer_replication": [[0, 2], [1, 2]]}, "llama", "fused"),
    "windows": ({"use_dora": True, "alpha_pattern": {"q_proj": 20}}, "gemma3", "packed"),
    "GPT-NeoX": ({"target_modules": "all-linear", "bias": "all"}, "neox", "packed"),
}


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """``trained(shape, settings)``: a model with an adapter moved as by training, and the folder peft saves it to."""

    def make(shape, settings, tokens=0, base=None):
        from peft import LoraConfig, get_peft_model

        base = stock(base or tiny(shape))
        if tokens:
            torch.manual_seed(2)
            base.resize_token_embeddings(base.config.vocab_size + tokens)
        torch.manual_seed(1)
        tuned = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **(COMMON | settings)))
        draw = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for value in tuned.parameters():
                if value.requires_grad:
                    value += 0.2 * torch.randn(value.shape, generator=draw)
        folder = tmp_path_factory.mktemp("trained")
        tuned.eval().save_pretrained(folder)
        return tuned, folder

    return make


def stock(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


def by_hand(model, tokenizer, prompts=PROMPTS):
    """Option probabilities by unpadded forward passes of a model, one prompt at a time."""
    encoded, rows = encode(Chat(tokenizer), prompts), []
    for context, options in zip(encoded.contexts, encoded.options, strict=True):
        with torch.no_grad():
            logs = model(input_ids=torch.tensor([context])).logits[0, -1].double().log_softmax(-1)
        found = torch.stack([logs[token] for (token,) in options]).exp()
        rows.append((found / found.sum()).numpy())
    return np.array(rows)


@pytest.mark.parametrize("row", ROWS)
def test_answers_are_those_of_the_trained_model_and_of_stock_peft(load, tiny, trained, row):
    from peft import PeftModel

    settings, shape, forward = ROWS[row]
    tuned, folder = trained(shape, settings)
    bare = load(shape)
    expected = by_hand(tuned, bare.tokenizer)
    torch.manual_seed(99)
    again = PeftModel.from_pretrained(stock(tiny(shape)), folder).eval()
    np.testing.assert_allclose(by_hand(again, bare.tokenizer), expected, atol=1e-6)
    adapted = bare.adapted(folder)
    np.testing.assert_allclose(adapted.answer(PROMPTS).probs[0], expected, atol=1e-4, rtol=0)
    assert adapted.info.forward == forward
    assert np.abs(bare.answer(PROMPTS).probs[0] - expected).max() > 0.01


def test_greedy_text_is_that_of_the_trained_model(load, trained):
    for settings in ({"use_dora": True}, {"layer_replication": [[0, 2], [0, 2]]}, {"init_lora_weights": "pissa"}):
        tuned, folder = trained("llama", settings)
        model, one = load().adapted(folder), PROMPTS.take(np.arange(3))
        expected = []
        for context in encode(model.chat, one).contexts:
            ids = torch.tensor([context])
            with torch.no_grad():
                for _ in range(6):
                    ids = torch.cat([ids, tuned(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
            text = model.tokenizer.decode(ids[0, len(context) :], skip_special_tokens=True)
            expected.append(text.lstrip().partition("\n")[0])
        assert list(model.generate(one, most=6).texts) == expected


def test_peft_converts_what_cannot_be_repeated(load, trained, tmp_path):
    """PiSSA by iterations draws at random: refused as it is, right when it was saved as plain LoRA."""
    from peft import LoraConfig, get_peft_model

    base = load().fresh()
    tuned = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", init_lora_weights="pissa_niter_4", **COMMON))
    tuned.save_pretrained(tmp_path / "initial")
    with torch.no_grad():
        for name, value in tuned.named_parameters():
            if "lora_" in name:
                value += 0.2 * torch.randn(value.shape, generator=torch.Generator().manual_seed(3))
    expected = by_hand(tuned.eval(), load().tokenizer)
    tuned.save_pretrained(tmp_path / "as it is")
    tuned.save_pretrained(tmp_path / "plain", path_initial_model_for_weight_conversion=str(tmp_path / "initial"))
    with pytest.raises(InputError, match="path_initial_model_for_weight_conversion"):
        load().adapted(tmp_path / "as it is")
    found = load().adapted(tmp_path / "plain").answer(PROMPTS).probs[0]
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "settings", [{"modules_to_save": ["embed_tokens", "lm_head"]}, {"target_modules": ["embed_tokens", "q_proj"]}, {}]
)
@pytest.mark.parametrize("tokens", [5, -20])
def test_embeddings_of_another_size(tiny, trained, tmp_path, settings, tokens):
    """peft saves them with the adapter, of added tokens or without padding; the model gets as many rows."""
    shutil.copytree(tiny(), tmp_path / "base")
    padded = stock(tiny())
    padded.resize_token_embeddings(padded.config.vocab_size + 32)
    padded.save_pretrained(tmp_path / "base")
    tuned, folder = trained("llama", settings, tokens, tmp_path / "base")
    model = load_model(str(tmp_path / "base"), dtype="float32", threads=1, notify=print).adapted(folder)
    assert len(model.model.get_input_embeddings().weight) == tuned.config.vocab_size
    np.testing.assert_allclose(model.answer(PROMPTS).probs[0], by_hand(tuned, model.tokenizer), atol=1e-4, rtol=0)
    outside = model.answer(PROMPTS).off_options[0]
    with torch.no_grad():
        context, options = (each[0] for each in dataclasses.astuple(encode(model.chat, PROMPTS)))
        logs = tuned(input_ids=torch.tensor([context])).logits[0, -1].double().log_softmax(-1)
    assert outside[0] == pytest.approx(1 - sum(math.exp(logs[token]) for (token,) in options), abs=1e-4)


def test_embeddings_of_fewer_tokens_than_the_tokenizer_has_are_refused(load, trained):
    _, folder = trained("llama", {}, -20)
    with pytest.raises(InputError, match=r"700 tokens.*680 rows.*\n.*tokenizer that it was trained with"):
        load().adapted(folder)


def test_added_tokens_of_which_a_part_is_missing_are_refused(load, trained):
    _, folder = trained("qwen2", {"modules_to_save": ["embed_tokens"]}, 5)
    tensors = load_file(folder / SAVED_WEIGHTS)
    kept = {name: value for name, value in tensors.items() if "lora_" in name or "original" not in name}
    kept = {name: value for name, value in kept.items() if "lm_head" not in name}
    save_file(kept, folder / SAVED_WEIGHTS)
    with pytest.raises(InputError, match=r"not all of them.*\n.*save_embedding_layers"):
        load("qwen2").adapted(folder)


def test_adapters_for_experts_one_by_one_fit_experts_in_one(tmp_path):
    """As saved where transformers had a layer an expert; peft joins them, and so do we."""
    from culteval.harness.adapters.lora import with_lora
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(vocab_size=50, num_key_value_heads=1, num_local_experts=2, initializer_range=0.3, **sizes)
    MixtralForCausalLM(config).save_pretrained(tmp_path / "base")
    tuned = get_peft_model(stock(tmp_path / "base"), LoraConfig(task_type="CAUSAL_LM", **COMMON))
    tuned.save_pretrained(tmp_path / "lora")
    given = json.loads((tmp_path / "lora" / CONFIG).read_text())
    (tmp_path / "lora" / CONFIG).write_text(json.dumps(given | {"target_modules": ["q_proj", "w1", "w2", "w3"]}))
    moe, draw = "base_model.model.model.layers.0.block_sparse_moe.experts", torch.Generator().manual_seed(0)
    tensors = {name: value for name, value in load_file(tmp_path / "lora" / SAVED_WEIGHTS).items() if "q_proj" in name}
    for expert in range(2):
        for name, (into, out) in {"w1": (16, 24), "w3": (16, 24), "w2": (24, 16)}.items():
            tensors[f"{moe}.{expert}.{name}.lora_A.weight"] = torch.randn(4, into, generator=draw)
            tensors[f"{moe}.{expert}.{name}.lora_B.weight"] = torch.randn(out, 4, generator=draw)
    save_file(tensors, tmp_path / "lora" / SAVED_WEIGHTS)
    expected = PeftModel.from_pretrained(stock(tmp_path / "base"), tmp_path / "lora").eval()
    found, ids = with_lora(stock(tmp_path / "base"), tmp_path / "lora"), torch.arange(12)[None]
    with torch.no_grad():
        np.testing.assert_allclose(found(ids).logits, expected(ids).logits, atol=1e-5)
        assert (found(ids).logits - stock(tmp_path / "base")(ids).logits).abs().max() > 0.01


def test_every_field_that_decides_numbers_is_in_the_hash(trained):
    """And none else: adapters published so far keep theirs."""
    _, folder = trained("llama", {})
    given, known = json.loads((folder / CONFIG).read_text()), {lora_hash(folder)}

    def changed(**fields):
        (folder / CONFIG).write_text(json.dumps(given | fields))
        return lora_hash(folder)

    same = [{"lora_dropout": 0.5}, {"peft_version": "9"}, {"revision": "x"}, {"base_model_name_or_path": "y"},
            {"init_lora_weights": "gaussian"}, {"task_type": None}, {"loftq_config": {"loftq_bits": 4}},
            {"exclude_modules": []}, {"of tomorrow": None}, {"use_dora": None}, {"rank_pattern": None}]  # fmt: skip
    for one in same:
        assert changed(**one) in known, one
    new = [{"r": 5}, {"lora_alpha": 9}, {"alpha_pattern": {"v_proj": 1}}, {"rank_pattern": {"v_proj": 1}},
           {"use_dora": True}, {"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}, {"use_rslora": True},
           {"target_modules": "all-linear"}, {"exclude_modules": ["q_proj"]}, {"layers_to_transform": 0},
           {"layers_to_transform": 0, "layers_pattern": "h"}, {"bias": "all"}, {"lora_bias": True},
           {"fan_in_fan_out": True}, {"modules_to_save": ["norm"]}, {"trainable_token_indices": [1]},
           {"target_parameters": ["a.b"]}, {"layer_replication": [[0, 1]]}, {"ensure_weight_tying": True}]  # fmt: skip
    hashes = [changed(**one) for one in new]
    assert len({*hashes, *known}) == len(new) + 1
    (folder / CONFIG).write_text(json.dumps(given))
    (folder / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    assert lora_hash(folder) in known and carried_hash(folder) != lora_hash(folder).hex()


def test_hashes_of_published_adapters_stay(tmp_path):
    """Of seven fields as they were written, with the weights: what submissions were published with."""
    fields = {"r": 4, "lora_alpha": 0.1, "target_modules": ["v_proj", "q_proj"], "bias": "none"}
    fields |= {"fan_in_fan_out": False, "use_rslora": False}
    written = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "init_lora_weights": True, "modules_to_save": None}
    written |= {"rank_pattern": {}, "alpha_pattern": {}, "use_dora": False, "lora_bias": False, "qalora_group_size": 16}
    (tmp_path / CONFIG).write_text(json.dumps(fields | written | {"lora_dropout": 0.5}))
    (tmp_path / SAVED_WEIGHTS).write_bytes(b"weights")
    counted = json.dumps(fields | {"lora_dropout": 0.0}, sort_keys=True).encode()
    expected = hashlib.sha256(counted + b"\0weights").hexdigest()
    assert lora_hash(tmp_path).hex() == carried_hash(tmp_path) == expected


def test_fields_of_peft_are_all_known_or_refused():
    """A release with a new field: decide what it does, and add it here."""
    from culteval.harness.adapters.peft_files import _NEUTRAL_LORA, _LoraFields
    from peft import LoraConfig

    refused = {"megatron_config", "velora_config", "alora_invocation_tokens", "use_qalora", "monteclora_config",
               "use_bdlora", "arrow_config", "kasa_config"}  # fmt: skip
    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    assert fields <= set(_LoraFields.model_fields) | _NEUTRAL_LORA | refused
    assert not refused & (set(_LoraFields.model_fields) | _NEUTRAL_LORA)


def test_defaults_of_peft_are_accepted(trained):
    _, folder = trained("llama", {})
    assert read_lora_config(folder)["r"] == 4
