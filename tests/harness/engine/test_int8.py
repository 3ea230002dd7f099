"""int8: products are those of the rounded numbers, and it is refused where it cannot work."""

import numpy as np
import pytest
import torch
from culteval.errors import UnavailableError, UsageError
from culteval.harness.engine import int8, onednn
from culteval.harness.engine.int8 import Int8Linear, largest_weight
from culteval.harness.models.load import load_model, wrap_model
from culteval.harness.registry import spec_path
from culteval.tasks.prompts import render
from culteval.tasks.spec import load_spec
from scipy.linalg import hadamard


@pytest.fixture(scope="module")
def survey():
    return render(load_spec(spec_path("vsm13")), "fit")


def rounded(rows, most):
    """Round rows to integers of at most ``most`` in absolute value."""
    unit = np.abs(rows).max(1, keepdims=True) / most
    return np.round(rows / unit) * unit


@pytest.mark.parametrize(("width", "order"), [(192, 64), (48, 16), (15, 1)])
@pytest.mark.parametrize("most", [127, 64])
def test_a_product_is_that_of_rotated_and_rounded_numbers(monkeypatch, width, order, most):
    rng = np.random.default_rng(width)
    weight, bias = rng.normal(size=(40, width)), rng.normal(size=40)
    x = rng.normal(size=(600, width)) * np.exp(3 * rng.normal(size=(600, 1)))  # more rows than are read at once
    x[7] = 0
    x[5, 3] = 1e3
    weight, bias, x = (array.astype(np.float32) for array in (weight, bias, x))
    monkeypatch.setattr(int8, "largest_weight", lambda: min(most, largest_weight()))
    layer = Int8Linear(torch.from_numpy(weight), torch.from_numpy(bias))

    turn = np.kron(np.eye(width // order), hadamard(order) / np.sqrt(order))
    with np.errstate(invalid="ignore"):
        numbers = np.nan_to_num(rounded(x @ turn, 127))
    expected = numbers @ rounded(weight @ turn, min(most, largest_weight())).T + bias
    got = layer(torch.from_numpy(x).view(3, 200, width)).numpy().reshape(600, 40)
    # A number half-way between two integers may be rounded either way: one unit of one input, or of one weight.
    unit = np.abs(x @ turn).max(1, keepdims=True) / 127 * np.abs(weight @ turn).max() * 2
    assert (np.abs(got - expected) <= unit + 1e-4).all()
    close = np.abs(got - expected) <= 1e-5 * np.abs(expected).max(1, keepdims=True) + 1e-6
    assert close.mean() > 0.9
    assert np.allclose(got[7], bias)


def test_rows_do_not_depend_on_each_other():
    torch.manual_seed(0)
    layer = Int8Linear(torch.randn(24, 64), None)
    x = torch.randn(1500, 64)
    together = layer(x)
    assert torch.equal(together[600:603], layer(x[600:603])) and torch.equal(together[9:10], layer(x[9:10]))


def test_what_follows_a_product_is_computed_with_it():
    torch.manual_seed(0)
    layer, x, other = Int8Linear(torch.randn(24, 64), torch.randn(24)), torch.randn(2, 100, 64), torch.randn(2, 100, 24)
    product = layer(x)
    with torch.no_grad():
        for given in (x, int8.shared(x, layer)):
            assert torch.allclose(onednn.silu(layer, given), product * torch.sigmoid(product), atol=1e-5)
            assert torch.allclose(onednn.times(layer, given, other), product * other, atol=1e-5)
            assert torch.allclose(onednn.plus(layer, given, other), product + other, atol=1e-5)


def test_the_largest_numbers_are_added_exactly():
    """Without instructions for int8, a product of numbers as large as these would be wrong by any amount."""
    most = largest_weight()
    assert most in (127, 64)
    rng = torch.Generator().manual_seed(0)
    for width in (64, 896, 4864):
        numbers = torch.randint(most // 2, most + 1, (96, width), generator=rng, dtype=torch.int8)
        given = torch.randint(60, 128, (130, width), generator=rng, dtype=torch.int8)
        inputs = (given.int() + int8.UNSIGNED).to(torch.uint8) if int8._unsigned() else given
        product = int8._product(inputs, int8._packed(numbers))
        # What is returned as float32 may be rounded once.
        exact = (given.long() @ numbers.long().t()).to(product.dtype)
        assert torch.equal(product, exact)
        weights = int8._packed(torch.full((96, width), most, dtype=torch.int8))
        inputs = Int8Linear(torch.ones(96, width), None).quantise(torch.zeros(130, width)).numbers + 127
        product = int8._product(inputs, weights)
        assert (product == 127 * most * width).all()


def test_both_products_are_the_same(monkeypatch):
    torch.manual_seed(0)
    weight, bias, x = torch.randn(40, 192), torch.randn(40), torch.randn(70, 192)
    monkeypatch.setattr(int8, "largest_weight", lambda: 64)
    found = []
    for unsigned in (True, False):
        monkeypatch.setattr(int8, "_unsigned", lambda unsigned=unsigned: unsigned)
        found.append(Int8Linear(weight, bias)(x))
    assert torch.equal(*found)


def test_a_torch_without_exact_products_is_named(monkeypatch):
    largest_weight.cache_clear()
    monkeypatch.setattr(int8, "_product", lambda a, b: torch.zeros(len(a), b.shape[1], dtype=torch.int32))
    with pytest.raises(UnavailableError, match=r"int8.*no exact int8 product"):
        largest_weight()
    largest_weight.cache_clear()


@pytest.mark.parametrize("shape", ["llama", "qwen2", "qwen3", "neox"])
def test_answers_are_close_to_those_in_float32_and_say_what_they_are(load, tiny, survey, shape):
    exact, notes = load(shape), []
    model = load_model(str(tiny(shape)), dtype="int8", threads=1, notify=notes.append)
    assert model.info.dtype == "int8" and model.info.forward == exact.info.forward
    assert ("seven bits" in " ".join(notes)) == (largest_weight() < 127)
    assert not any(type(layer) is torch.nn.Linear for layer in model.model.base_model.modules())
    soft = model.token_vectors(np.array([[5, 6, 7]]))
    most = 0.15 if largest_weight() == 127 else 0.3  # weights of seven bits round twice as much
    for given in (None, soft):
        one, other = model.answer(survey, given).probs, exact.answer(survey, given).probs
        assert 0 < np.abs(one - other).max() < most
        assert (one.argmax(-1) == other.argmax(-1)).mean() > 0.9


def test_it_is_refused_by_name_where_it_cannot_work(tiny, survey):
    model = load_model(str(tiny()), dtype="int8", threads=1)
    soft = torch.zeros(1, 3, model.dim, requires_grad=True)
    with pytest.raises(UsageError, match="int8 has no gradients"):
        model.logprobs(survey, soft)
    with pytest.raises(UsageError, match="int8 supports neither training nor adapters"):
        model.fresh()
    with pytest.raises(UsageError, match="CPU only"):
        int8.quantise_linears(torch.nn.Module.to(_on_meta(tiny()), "meta"))
    with pytest.raises(UsageError, match="no plain linear layers"):
        load_model(str(tiny("gpt2")), dtype="int8")


def _on_meta(folder):
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))


def test_a_model_in_memory_keeps_its_layers(tiny):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tiny()
    given = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert wrap_model(given, AutoTokenizer.from_pretrained(folder)).info.dtype == "float32"
    assert type(given.model.layers[0].mlp.up_proj) is torch.nn.Linear
