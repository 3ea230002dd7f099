"""The adapter while it is trained: logits where a label is, whole modules in float32, its size."""

import json

import numpy as np
import pytest
import torch
from culteval.harness.engine.chat import Chat
from culteval.harness.engine.padded import PlainForward
from culteval.harness.engine.select import TOLERANCE
from culteval.harness.engine.tokenize import encode
from culteval.harness.models.load import load_model
from culteval.harness.registry import spec_of
from culteval.optimizers.clca.settings import CLCASettings
from culteval.optimizers.clca.training import examples as ex
from culteval.optimizers.clca.training import train as module
from culteval.optimizers.lora import adapter
from culteval.tasks.prompts import render
from safetensors.torch import load_file

from ...clca_course import course, told
from ...conftest import SHAPES

SETTINGS = {"heldout": 0, "batch": 2, "rate": 1e-4, "alpha": 8, "dropout": 0.0}


def learned(tokenizer, parts=("dialogue", "intent")):
    return ex.examples([told()], Chat(tokenizer), parts, 900)


@pytest.fixture(scope="module")
def half(tiny):
    """A tiny model in bfloat16, as the embedded one is on most machines."""
    return load_model(str(tiny("llama", True)), dtype="bfloat16", threads=1)


def silent(*told):
    pass


# logits where a label is


@pytest.mark.parametrize("shape", SHAPES)
def test_logits_only_where_a_label_is_give_the_same_loss_and_gradients(load, shape):
    model = load(shape, True)
    assert module.picks(model.model)
    rows, found = module._rows(learned(model.tokenizer)), []
    for picks in (True, False):
        batch = module._Padding(module._pad(model.tokenizer), picks)(rows)
        fresh = model.fresh().train(False)
        loss = fresh(**batch).loss
        loss.backward()
        found.append((loss.detach(), {n: p.grad for n, p in fresh.named_parameters() if p.grad is not None}, batch))
    (one, grads, few), (other, same, _) = found
    assert 0 < len(few["logits_to_keep"]) < few["input_ids"].shape[1] / 2
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(grads, same, rtol=1e-4, atol=1e-5)


def test_models_that_give_all_logits_get_labels_as_before():
    class Old(torch.nn.Module):
        def forward(self, input_ids, labels=None):
            raise NotImplementedError

    rows = [{"input_ids": np.arange(4), "labels": np.array([ex.IGNORED, 1, ex.IGNORED, 3])}]
    assert not module.picks(Old())
    assert module._Padding(0, False)(rows)["labels"].tolist() == [[ex.IGNORED, 1, ex.IGNORED, 3]]
    picked = module._Padding(0, True)(rows)
    assert picked["logits_to_keep"].tolist() == [0, 2] and picked["labels"].tolist() == [[1, 3]]


# head and embeddings in full


def test_small_steps_of_whole_modules_do_not_round_away(half, tmp_path):
    """AdamW's first step moves every weight by the rate, where it has a gradient; in bfloat16 few would move."""
    settings = CLCASettings(**SETTINGS, save_embeddings=True)
    module.train(half, learned(half.tokenizer), settings, tmp_path, 0, silent)
    saved = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    heads = [value for name, value in saved.items() if "lm_head" in name]
    assert len(heads) == 1 and heads[0].dtype == torch.bfloat16
    size = json.loads((tmp_path / "lora" / adapter.SIZE).read_text())
    before = half.fresh().get_output_embeddings().weight.float()
    # Two steps of rates 1e-4 and 5e-5: each of a head's weights has a gradient.
    expected = 1.5e-4 * before.numel() ** 0.5 / float(before.norm())
    assert size["in full"] > 0.3 * expected


def test_a_head_trained_in_full_is_read_in_float32(half, tmp_path):
    settings = CLCASettings(**SETTINGS | {"rate": 0.01}, save_embeddings=True)
    module.train(half, learned(half.tokenizer), settings, tmp_path, 0, silent)
    model = half.adapted(tmp_path / "lora")
    assert model.engine is not None
    hidden = torch.randn(3, model.dim).bfloat16()
    weight = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    [head] = [value.float() for name, value in weight.items() if "lm_head" in name]
    expected = (hidden.float() @ head.T).log_softmax(-1)
    torch.testing.assert_close(model.engine.log_softmax(hidden), expected, rtol=1e-5, atol=1e-5)
    prompts = render(spec_of("vsm13"), "heldout").take(np.arange(0, 96, 24))
    plain = PlainForward(model.model, encode(model.chat, prompts)).logprobs(None)
    assert (model.logprobs(prompts) - plain).abs().max() < TOLERANCE["bfloat16"]


def test_whole_modules_stopped_in_training_end_the_same(half, tmp_path):
    def run(folder, tell):
        settings = CLCASettings(**SETTINGS, save_embeddings=True, epochs=3)
        module.train(half, learned(half.tokenizer), settings, folder, 0, tell)
        return (folder / "lora" / "adapter_model.safetensors").read_bytes()

    def stop(stage, done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", stop)
    assert run(tmp_path / "cut", silent) == run(tmp_path / "whole", silent)


# its size


def test_the_size_is_that_of_the_update_against_the_weights(load, tmp_path):
    one = course(tmp_path, load)
    one.run()
    saved = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    base, up, down = one.model_of().fresh(), 0.0, 0.0
    for name, value in saved.items():
        if "lora_A" in name:
            product = saved[name.replace("lora_A", "lora_B")].double() @ value.double() * (8 / 4)
            weight = base.get_parameter(name.removeprefix("base_model.model.").replace(".lora_A", ""))
            up, down = up + float(product.square().sum()), down + float(weight.detach().double().square().sum())
    size = json.loads((tmp_path / "lora" / adapter.SIZE).read_text())
    assert size == {"lora": pytest.approx((up / down) ** 0.5, rel=1e-5)} and size["lora"] > 1e-4
    assert one.report()["adapter size"] == {"lora": float(f"{size['lora']:.2g}")}


def test_no_tokenizer_is_read_to_train(load, monkeypatch):
    import transformers

    model = load()
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *a, **k: pytest.fail("read again"))
    assert model.fresh() is not model.model
