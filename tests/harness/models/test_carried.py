"""Adapters made elsewhere, given with --adapter: soft prompts, tokenizers and templates beside them."""

import json
import shutil

import culteval
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from culteval.errors import InputError, UsageError
from culteval.harness.adapters.peft_files import CONFIG, WEIGHTS, carried_hash
from culteval.harness.cli.main import cli
from culteval.harness.engine.chat import Chat
from culteval.harness.models.load import load_model
from culteval.harness.models.prompted import PromptedModel
from culteval.harness.registry import spec_of
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from safetensors.torch import load_file, save_file

from ...submission_files import rows_of

ASKED = render_protocol(spec_of("vsm13"), ProtocolOptions(limit=1))
TEMPLATE = "{% for m in messages %}Q: {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}A:{% endif %}"


def base(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder)


@pytest.fixture(scope="module")
def soft(tiny, tmp_path_factory):
    """``soft(shape)``: the folder of a soft prompt of seven tokens, as peft saves it."""
    from peft import PromptTuningConfig, get_peft_model

    def make(shape="llama", tokens=7):
        torch.manual_seed(4)
        config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=tokens)
        tuned = get_peft_model(base(tiny(shape)), config)
        torch.nn.init.normal_(tuned.prompt_encoder.default.embedding.weight, std=0.5)
        folder = tmp_path_factory.mktemp("soft")
        tuned.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="module")
def lora(tiny, tmp_path_factory):
    """``lora(**settings)``: the folder of a LoRA adapter, as peft saves it."""
    from peft import LoraConfig, get_peft_model

    def make(**settings):
        torch.manual_seed(1)
        given = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "init_lora_weights": False}
        tuned = get_peft_model(base(tiny()), LoraConfig(task_type="CAUSAL_LM", **(given | settings)))
        folder = tmp_path_factory.mktemp("lora")
        tuned.save_pretrained(folder)
        return folder

    return make


def run(model, out, adapter, *more, aligner="naive"):
    given = ["run", "--aligner", aligner, "--task", "vsm13", "--limit", "1", "--no-compare", "--model", model]
    given += ["--dtype", "float32", "--threads", "1", "--out", out, "--json", "--adapter", adapter, *more]
    return CliRunner().invoke(cli, [str(one) for one in given])


def answered(done):
    """Probabilities in the order of ``ASKED``, and the manifest, of a run's submission."""
    from pathlib import Path

    assert done.exit_code == 0, (done.output, done.exception)
    folder = Path(json.loads(done.stdout)["submission"])
    rows = rows_of(folder)
    found = {(row["item"], row["paraphrase"], row["order"]): row["probs"] for row in rows}
    layout = ASKED.layout
    keys = zip(layout.item, layout.paraphrase, layout.order, strict=True)
    probs = [found[layout.items[i], layout.paraphrases[w], layout.orders[o]] for i, w, o in keys]
    return np.array(probs), json.loads((folder / "manifest.json").read_text())


def by_hand(model, tokenizer, preamble=""):
    """Option probabilities by a stock model of peft, one unpadded prompt at a time."""
    rows = []
    for text, choices in zip(ASKED.texts, ASKED.choices, strict=True):
        turn = [{"role": "user", "content": preamble + text}]
        prompt = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokenizer(prompt)["input_ids"]])).logits[0, -1]
        logs = logits.double().log_softmax(-1)
        ids = [tokenizer(choice, add_special_tokens=False)["input_ids"] for choice in choices]
        found = np.exp([float(logs[token]) for (token,) in ids])
        rows.append(found / found.sum())
    return np.array(rows)


def tokenizer_of(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("shape", ["llama", "qwen3", "gemma3", "gpt2"])
@pytest.mark.parametrize("aligner", ["naive", "icl"])
def test_a_run_behind_a_soft_prompt_answers_as_peft(tiny, soft, tmp_path, shape, aligner):
    from peft import PeftModel

    folder = soft(shape)
    probs, manifest = answered(run(tiny(shape), tmp_path, folder, aligner=aligner))
    (preamble,) = {path.read_text() for path in tmp_path.glob("*/adapter/preamble.txt")}
    assert bool(preamble) == (aligner == "icl")
    expected = by_hand(PeftModel.from_pretrained(base(tiny(shape)), folder).eval(), tokenizer_of(tiny(shape)), preamble)
    np.testing.assert_allclose(probs, expected, atol=1e-4, rtol=0)
    assert manifest["model"]["adapter_sha256"] == carried_hash(folder)
    assert np.abs(probs - by_hand(base(tiny(shape)), tokenizer_of(tiny(shape)), preamble)).max() > 0.01


def test_log_likelihoods_are_those_of_lm_eval_at_batch_one(tiny, load, soft):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    folder, prompts = soft(), ASKED.take(np.arange(0, len(ASKED), 5))
    theirs = HFLM(pretrained=str(tiny("llama", False)), peft=str(folder), dtype="float32", device="cpu", batch_size=1)
    pairs = [(text, f" {choice}") for text, row in zip(prompts.texts, prompts.choices, strict=True) for choice in row]
    asked = [Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i) for i, pair in enumerate(pairs)]
    expected = np.array([logs for logs, _ in theirs.loglikelihood(asked, disable_tqdm=True)]).reshape(len(prompts), -1)
    found = PromptedModel(load("llama", False), folder).answer(prompts)
    logs = np.log(found.probs[0] * (1 - found.off_options[0])[:, None])
    np.testing.assert_allclose(logs, expected, atol=1e-4, rtol=0)


def test_text_behind_a_soft_prompt_is_that_of_peft(tiny, load, soft):
    from culteval.harness.engine.tokenize import encode
    from peft import PeftModel

    folder, prompts = soft(), ASKED.take(np.arange(3))
    stock, model = PeftModel.from_pretrained(base(tiny()), folder).eval(), PromptedModel(load(), folder)
    expected = []
    for context in encode(Chat(tokenizer_of(tiny())), prompts).contexts:
        ids = torch.tensor([context])
        with torch.no_grad():
            for _ in range(6):
                ids = torch.cat([ids, stock(input_ids=ids).logits[:, -1:].argmax(-1)], dim=1)
        text = tokenizer_of(tiny()).decode(ids[0, len(context) :], skip_special_tokens=True)
        expected.append(text.lstrip().partition("\n")[0])
    assert list(model.generate(prompts, most=6).texts) == expected


@pytest.mark.parametrize("aligner", ["gd", "de", "random", "random_prefix", "clca"])
def test_nothing_is_put_before_a_soft_prompt(tiny, soft, tmp_path, aligner):
    done = run(tiny(), tmp_path / "runs", soft(), aligner=aligner)
    assert isinstance(done.exception, UsageError)
    assert "Use naive, icl, best_of_n, evo_prompt." in str(done.exception)
    assert len(str(done.exception).splitlines()) == 1 and not (tmp_path / "runs").exists()


def test_a_prompted_model_takes_no_second_adapter(load, soft):
    model = PromptedModel(load(), soft())
    with pytest.raises(UsageError, match="no second"):
        model.fresh()
    with pytest.raises(UsageError, match="no second"):
        model.answer(ASKED, np.zeros((1, 2, model.info and load().dim), np.float32))
    assert model.longest(ASKED) == load().longest(ASKED) + 7


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"num_transformer_submodules": 2}, "num_transformer_submodules"),
        ({"num_virtual_tokens": 8}, "8 virtual tokens.*holds 7"),
        ({"task_type": "SEQ_2_SEQ_LM"}, "SEQ_2_SEQ_LM"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"of_tomorrow": 1}, "of_tomorrow"),
        ({"peft_type": "MULTITASK_PROMPT_TUNING"}, "MULTITASK_PROMPT_TUNING"),
    ],
)
def test_soft_prompts_that_mean_something_else_are_refused(load, soft, tmp_path, config, told):
    folder = shutil.copytree(soft(), tmp_path / "soft")
    (folder / CONFIG).write_text(json.dumps(json.loads((folder / CONFIG).read_text()) | config))
    with pytest.raises(InputError, match=told) as raised:
        carried_hash(folder)
        PromptedModel(load(), folder)
    assert len(str(raised.value).splitlines()) == 1


def test_a_soft_prompt_in_bfloat16_is_read(load, soft, tmp_path):
    from peft import PeftModel

    folder = shutil.copytree(soft(), tmp_path / "soft")
    half = load_file(folder / WEIGHTS)["prompt_embeddings"].bfloat16()
    save_file({"prompt_embeddings": half}, folder / WEIGHTS)
    model, asked = load(), ASKED.take(np.arange(3))
    expected = by_hand(PeftModel.from_pretrained(load().fresh(), folder).eval(), model.tokenizer)[:3]
    np.testing.assert_allclose(PromptedModel(model, folder).answer(asked).probs[0], expected, atol=1e-4, rtol=0)


def test_a_soft_prompt_of_another_width_is_refused(tiny, soft, tmp_path):
    folder = shutil.copytree(soft(), tmp_path / "soft")
    save_file({"prompt_embeddings": load_file(folder / WEIGHTS)["prompt_embeddings"][:, :-1].clone()}, folder / WEIGHTS)
    done = run(tiny(), tmp_path / "runs", folder)
    assert isinstance(done.exception, InputError) and "has shape [7, 31]" in str(done.exception)


def test_an_alignment_of_two_parts_is_not_taken_for_its_soft_prompt(load, soft, tmp_path):
    folder = shutil.copytree(soft(), tmp_path / "soft")
    (folder / "preamble.txt").write_text("")
    carried_hash(folder)
    (folder / "preamble.txt").write_text("Hello. ")
    with pytest.raises(InputError, match=r"preamble\.txt belongs to this soft prompt"):
        carried_hash(folder)


@pytest.mark.parametrize("kind", ["lora", "soft"])
def test_the_adapters_own_tokenizer_and_template_are_used(tiny, soft, lora, tmp_path, kind):
    from peft import PeftModel

    folder = shutil.copytree(soft() if kind == "soft" else lora(), tmp_path / "adapter")
    before = carried_hash(folder)
    plain, without = answered(run(tiny(), tmp_path / "runs", folder))
    own = tokenizer_of(tiny())
    own.chat_template = TEMPLATE
    own.save_pretrained(folder)
    done = run(tiny(), tmp_path / "runs", folder)
    probs, manifest = answered(done)
    assert (
        "its own tokenizer or chat template is used (tokenizer.json"
        in run(tiny(), tmp_path / "again", folder, "--verbose").stderr
    )
    expected = by_hand(PeftModel.from_pretrained(base(tiny()), folder).eval(), own)
    np.testing.assert_allclose(probs, expected, atol=1e-4, rtol=0)
    assert np.abs(probs - plain).max() > 0.01
    assert manifest["model"]["chat_template"] != without["model"]["chat_template"]
    assert manifest["model"]["adapter_sha256"] == carried_hash(folder) != before
    assert len(list((tmp_path / "runs").glob("vsm13*"))) == 2


def test_a_chat_template_alone_is_used_with_the_models_tokenizer(tiny, lora, tmp_path):
    from peft import PeftModel

    folder = shutil.copytree(lora(), tmp_path / "adapter")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    probs, _ = answered(run(tiny(), tmp_path / "runs", folder))
    own = tokenizer_of(tiny())
    own.chat_template = TEMPLATE
    expected = by_hand(PeftModel.from_pretrained(base(tiny()), folder).eval(), own)
    np.testing.assert_allclose(probs, expected, atol=1e-4, rtol=0)


def test_a_tokenizer_with_more_tokens_than_embeddings_is_refused(tiny, lora, tmp_path):
    folder = shutil.copytree(lora(), tmp_path / "adapter")
    own = tokenizer_of(tiny())
    own.add_tokens(["<one>", "<two>"])
    own.save_pretrained(folder)
    done = run(tiny(), tmp_path / "runs", folder)
    assert isinstance(done.exception, InputError), done.exception
    assert "702 tokens, but the embeddings have 700 rows" in str(done.exception) and "Remove token" in str(
        done.exception
    )
    (folder / "tokenizer.json").write_text("{")
    done = run(tiny(), tmp_path / "runs", folder)
    assert isinstance(done.exception, InputError) and "cannot be read" in str(done.exception)


def test_added_tokens_with_their_embeddings_and_tokenizer(tiny, tmp_path):
    """As trl saves what it trained with new tokens."""
    from peft import LoraConfig, get_peft_model

    own, model = tokenizer_of(tiny()), base(tiny())
    own.add_tokens(["<one>", "<two>"])
    model.resize_token_embeddings(len(own))
    config = LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    tuned = get_peft_model(model, config)
    with torch.no_grad():
        for value in tuned.parameters():
            value += 0.1 * value.requires_grad * torch.randn_like(value)
    tuned.eval().save_pretrained(tmp_path / "adapter")
    own.chat_template = "<one>" + TEMPLATE
    own.save_pretrained(tmp_path / "adapter")
    probs, _ = answered(run(tiny(), tmp_path / "runs", tmp_path / "adapter"))
    np.testing.assert_allclose(probs, by_hand(tuned, own), atol=1e-4, rtol=0)


def test_a_tokenizer_that_brings_code_is_not_run(tiny, lora, tmp_path):
    folder = shutil.copytree(lora(), tmp_path / "adapter")
    tokenizer_of(tiny()).save_pretrained(folder)
    given = json.loads((folder / "tokenizer_config.json").read_text())
    given |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(given))
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    run(tiny(), tmp_path / "runs", folder)
    assert not (tmp_path / "ran").exists()


def test_an_adapter_given_as_the_model_is_told_what_it_is(tiny, lora, tmp_path):
    folder = lora()
    with pytest.raises(UsageError, match=r"a PEFT adapter .* made for ") as raised:
        load_model(str(folder), dtype="float32", threads=1, notify=print)
    assert f"`model` {tiny()} `adapter` {folder}" in str(raised.value) and len(str(raised.value).splitlines()) == 2
    beside = shutil.copytree(tiny(), tmp_path / "beside")  # transformers would load what the adapter names
    shutil.copyfile(folder / CONFIG, beside / CONFIG)
    with pytest.raises(UsageError, match=r"if it was merged, take adapter_config\.json out"):
        load_model(str(beside), dtype="float32", threads=1, notify=print)


def test_a_changed_adapter_is_another_run(tiny, lora, tmp_path):
    folder = shutil.copytree(lora(), tmp_path / "adapter")
    first, _ = answered(run(tiny(), tmp_path / "runs", folder))
    given = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(given | {"alpha_pattern": {"v_proj": 64}}))
    second, _ = answered(run(tiny(), tmp_path / "runs", folder))
    assert np.abs(first - second).max() > 0.01 and len(list((tmp_path / "runs").glob("vsm13*"))) == 2


def test_a_model_in_memory_with_an_adapter_is_another_run(load, lora, tmp_path):
    given, model = {"aligner": "naive", "tasks": "vsm13", "limit": 1, "progress": False, "out": tmp_path}, load()
    culteval.run(model=model, **given)
    adapted = model.adapted(lora(), carried=True)
    assert not culteval.run(model=adapted, **given).reused and culteval.run(model=adapted, **given).reused
