"""LoRA adapters: refused where they do not fit, the same numbers as stock peft, alone and behind a soft prompt."""

import gc
import json
import shutil
import weakref

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from culteval.errors import InputError, RunError
from culteval.harness.adapters.lora import with_lora
from culteval.harness.adapters.peft_files import CONFIG, WEIGHTS, read_lora_config
from culteval.harness.cli.main import cli
from culteval.harness.engine.chat import Chat
from culteval.harness.engine.tokenize import encode
from culteval.harness.models.aligned import AlignedModel, adapter_hash
from culteval.harness.registry import spec_of
from culteval.optimizers.soft_prompt import draw_prompts
from culteval.tasks.prompts import render
from safetensors.torch import load_file, save_file

PROMPTS = render(spec_of("vsm13"), "heldout").take(np.arange(0, 96, 12))


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """``made(shape)``: an adapter with weights that are not zero, as peft saves it."""
    found = {}

    def make(shape="llama", **changed):
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        key = (shape, str(changed))
        if key not in found:
            torch.manual_seed(1)
            base = AutoModelForCausalLM.from_pretrained(tiny(shape))
            settings = {"r": 3, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]} | changed
            tuned = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
            for name, value in tuned.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(value, std=0.3)
            found[key] = tmp_path_factory.mktemp("lora")
            tuned.save_pretrained(found[key])
        return found[key]

    return make


def reference(folder, shape, tokenizer, soft, tiny):
    """Option log-probabilities by peft and plain forward passes, one prompt at a time."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny(shape)), folder).eval()
    encoded, rows = encode(Chat(tokenizer), PROMPTS), []
    embed = model.get_input_embeddings()
    for context, options in zip(encoded.contexts, encoded.options, strict=True):
        own = embed(torch.tensor([context]))
        if soft is not None:
            own = torch.cat([torch.from_numpy(soft), own], dim=1)
        with torch.no_grad():
            logs = model(inputs_embeds=own).logits[0, -1].log_softmax(-1)
        rows.append([float(logs[token]) for (token,) in options])
    return np.array(rows)


@pytest.mark.parametrize("shape", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("behind", [False, True])
def test_answers_are_those_of_stock_peft(load, tiny, made, shape, behind):
    model, folder = load(shape), made(shape)
    soft = draw_prompts(model, np.random.default_rng(0), 1, 4) if behind else None
    expected = reference(folder, shape, model.tokenizer, soft, tiny)
    aligned = AlignedModel(model, soft, lora=folder)
    probs = aligned.answer(PROMPTS).probs[0]
    chosen = np.exp(expected - expected.max(1, keepdims=True))
    np.testing.assert_allclose(probs, chosen / chosen.sum(1, keepdims=True), atol=1e-5)
    bare = AlignedModel(model, soft).answer(PROMPTS).probs[0]
    assert np.abs(bare - probs).max() > 1e-3


def test_saved_and_loaded_it_is_the_same(load, made, tmp_path):
    model = load()
    soft = draw_prompts(model, np.random.default_rng(0), 1, 4)
    aligned = AlignedModel(model, soft, "Hello. ", made())
    aligned.save(tmp_path / "adapter")
    again = AlignedModel.load(model, tmp_path / "adapter")
    np.testing.assert_array_equal(again.answer(PROMPTS).probs, aligned.answer(PROMPTS).probs)
    assert again.lora == tmp_path / "adapter" / "lora"
    for part in ("", "lora"):  # it may be published: no folder of this machine, where peft writes one
        config = json.loads((tmp_path / "adapter" / part / CONFIG).read_text())
        assert config["base_model_name_or_path"] == model.info.name
    hashes = {adapter_hash(tmp_path / "adapter")}
    for lora, name in ((made(lora_alpha=5), "alpha"), (made("llama", r=2), "rank"), (None, "none")):
        AlignedModel(model, soft, "Hello. ", lora).save(tmp_path / name)
        hashes.add(adapter_hash(tmp_path / name))
    assert len(hashes) == 4


def test_only_an_adapter_alone_has_a_hash_too(load, made, tmp_path):
    AlignedModel(load(), lora=made()).save(tmp_path / "adapter")
    assert adapter_hash(tmp_path / "adapter")
    AlignedModel(load()).save(tmp_path / "bare")
    assert adapter_hash(tmp_path / "bare") is None


def broken(made, tmp_path, config=None, weights=None):
    folder = tmp_path / "broken"
    shutil.copytree(made(), folder)
    if config is not None:
        given = json.loads((folder / CONFIG).read_text())
        (folder / CONFIG).write_text(json.dumps(given | config) if isinstance(config, dict) else config)
    if weights is not None:
        tensors = load_file(folder / WEIGHTS)
        weights(tensors)
        save_file({name: value.contiguous() for name, value in tensors.items()}, folder / WEIGHTS)
    return folder


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ("{", "cannot be read"),
        ("[]", "peft_type"),
        ('{"peft_type": "LORA"}', "r: Field required"),
        ({"peft_type": "PROMPT_TUNING"}, "peft_type"),
        ({"r": 10**9}, "r: .* less than or equal to 1024"),
        ({"r": 2.5}, "r: "),
        ({"lora_alpha": "x"}, "lora_alpha"),
        ({"target_modules": [".*"]}, "target_modules"),
        ({"target_modules": []}, "target_modules"),
        ({"modules_to_save": 5}, "modules_to_save"),
        ({"modules_to_save": ["(.*.*)*x"]}, "modules_to_save"),
        ({"modules_to_save": [{}]}, "modules_to_save"),
        ({"lora_alpha": 10**400}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"bias": "some"}, "bias"),
        ({"target_modules": ["nothing"]}, "nothing"),
        ({"peft_type": "PREFIX_TUNING"}, "PREFIX_TUNING.*LORA and PROMPT_TUNING"),
        ({"peft_type": "P_TUNING"}, "P_TUNING"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": {}}, "peft_type"),
        ({"task_type": "SEQ_CLS"}, "SEQ_CLS"),
        ({"init_lora_weights": "pissa_niter_16"}, "path_initial_model_for_weight_conversion"),
        ({"init_lora_weights": "corda"}, "corda.*path_initial_model"),
        ({"init_lora_weights": "loftq", "loftq_config": {"loftq_bits": 4}}, "loftq"),
        ({"init_lora_weights": "lora_ga"}, "lora_ga"),
        ({"megatron_config": {"a": 1}, "megatron_core": "os"}, "megatron_config"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens"),
        ({"use_qalora": True}, "use_qalora"),
        ({"arrow_config": {"top_k": 2}}, "arrow_config"),
        ({"kasa_config": {"beta": 1e-4}}, "kasa_config"),
        ({"velora_config": {"num_groups": 4}}, "velora_config"),
        ({"use_bdlora": {"nblocks": 2}}, "use_bdlora"),
        ({"monteclora_config": {"num_samples": 2}}, "monteclora_config"),
        ({"a_field_of_tomorrow": 0.5}, "a_field_of_tomorrow"),
        ({"rank_pattern": {"v_proj": 10**6}}, "rank_pattern"),
        ({"rank_pattern": {"v_proj": "2"}}, "rank_pattern"),
        ({"alpha_pattern": {"v_proj": float("inf")}}, "alpha_pattern"),
        ({"alpha_pattern": ["v_proj"]}, "alpha_pattern"),
        ({"layer_replication": [[0, 900], [0, 900]]}, "layer_replication"),
        ({"layer_replication": [[0]]}, "layer_replication"),
        ({"trainable_token_indices": [-1]}, "trainable_token_indices"),
        ({"trainable_token_indices": [5000]}, "trainable_token_indices: 5000"),
        ({"target_parameters": "q_proj.weight"}, "target_parameters"),
        ({"target_modules": "(.*.*.*)*x"}, "too long to match"),
        ({"exclude_modules": "((a|.)*.)*!"}, "too long to match"),
        ({"rank_pattern": {"((a|.)*.)*!": 2}}, "too long to match"),
        ({"target_modules": "(q_proj"}, "not regular expressions"),
        ({"target_modules": "(" * 4000}, "not regular expressions"),
        ({"target_modules": "q" * 10_000}, "target_modules"),
        ({"layers_to_transform": [0], "layers_pattern": "(a*)*"}, "layers_pattern"),
    ],
)
def test_bad_configurations_are_told_in_a_line(load, made, tmp_path, config, told):
    folder = broken(made, tmp_path, config)
    with pytest.raises(InputError, match=told) as raised:
        load().adapted(folder)
    assert CONFIG in str(raised.value) and len(str(raised.value).splitlines()) == 1


def drop(tensors):
    tensors.pop(next(iter(tensors)))


def add(tensors):
    tensors["evil"] = torch.zeros(1)


def reshape(tensors):
    name = next(iter(tensors))
    tensors[name] = tensors[name][:, :-1].clone()


def spoil(tensors):
    tensors[next(iter(tensors))][0, 0] = float("nan")


def count(tensors):
    name = next(iter(tensors))
    tensors[name] = tensors[name].to(torch.complex64)


def embed(tensors):
    """Rows without width: a file of no bytes must not make an embedding of a million rows."""
    tensors["base_model.model.model.embed_tokens.weight"] = torch.zeros(1_000_000, 0)


@pytest.mark.parametrize(
    ("weights", "told"),
    [
        (drop, "is missing"),
        (add, "evil"),
        (reshape, "has shape"),
        (spoil, "NaN"),
        (count, "instead of floating-point numbers"),
        (embed, "embed_tokens.* is not a tensor|has shape"),
    ],
)
def test_weights_that_do_not_fit_are_told_in_a_line(load, made, tmp_path, weights, told):
    folder = broken(made, tmp_path, weights=weights)
    with pytest.raises(InputError, match=told) as raised:
        load().adapted(folder)
    assert WEIGHTS in str(raised.value) and len(str(raised.value).splitlines()) == 1


def test_bytes_that_are_no_adapter_are_told(load, made, tmp_path):
    folder = broken(made, tmp_path)
    (folder / WEIGHTS).write_bytes(b"\x80\x04.")  # a pickle
    with pytest.raises(InputError, match="not a safetensors adapter"):
        load().adapted(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match="not a safetensors adapter"):
        load().adapted(folder)
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(InputError, match="can run code and are not read") as raised:
        load().adapted(folder)
    assert len(str(raised.value).splitlines()) == 2
    with pytest.raises(InputError, match="hf download"):
        read_lora_config(tmp_path / "nowhere")


def test_an_adapter_may_not_name_another_base_or_code(load, made, tmp_path):
    """What peft would follow (base model, revision, auto mapping, runtime options) is not passed on to it."""
    folder = broken(made, tmp_path, {"base_model_name_or_path": "/etc", "auto_mapping": {"parent_library": "os"}})
    found = read_lora_config(folder)
    assert set(found) <= {"r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "bias",
                          "fan_in_fan_out", "use_rslora"}  # fmt: skip
    assert with_lora(load().fresh(), folder) is not None


@pytest.mark.parametrize("aligner", ["naive", "random_prefix"])
@pytest.mark.parametrize("size", [0.0, 1e-9])
def test_an_adapter_that_does_nothing_is_refused(tiny, made, tmp_path, aligner, size):
    """As peft begins them: B is zero, or so small that rounding swallows it."""

    def nil(tensors):
        for name, value in tensors.items():
            if "lora_B" in name:
                value.mul_(size)

    given = ["run", "--aligner", aligner, "--task", "vsm13", "--model", str(tiny()), "--dtype", "float32"]
    given += ["--threads", "1", "--no-compare", "--out", str(tmp_path / "runs"), "--json", "--adapter"]
    done = CliRunner().invoke(cli, [*given, str(broken(made, tmp_path, weights=nil))])
    assert isinstance(done.exception, RunError) and "no effect" in str(done.exception), done.output
    assert done.exception.exit_code == 5 and len(str(done.exception).splitlines()) == 1
    assert not (tmp_path / "runs").exists()
    assert CliRunner().invoke(cli, [*given, str(made())]).exit_code == 0


def test_a_model_given_up_is_gone_before_the_next_is_loaded(load):
    """Adapted models hold themselves in cycles, and the collector may not come for as long as a study takes."""
    model = load()
    first = model.fresh()
    first.__dict__["itself"] = first
    kept = weakref.ref(first)
    gc.disable()
    try:
        del first
        assert kept() is not None
        model.fresh()
        assert kept() is None
    finally:
        gc.enable()
