"""Text of many rows at once: the tokens that transformers would write one row at a time, and sound draws."""

import numpy as np
import pytest
import torch
from culteval.harness.engine.generate import _draw, generate

ROWS = [[5, 6, 7, 8, 9], [5, 6, 7, 30], [5, 6, 7, 30, 31, 32], [400], list(range(100, 140)), [5, 6, 7, 8, 9]]


@pytest.mark.parametrize("shape", ["llama", "qwen2", "qwen3"])
def test_greedy_text_is_that_of_transformers_row_by_row(load, shape):
    model = load(shape)
    found = generate(model.engine, ROWS, 7, 0, (), 0)
    for row, mine in zip(ROWS, found, strict=True):
        ids = torch.tensor([row])
        expected = model.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=7, min_new_tokens=7, do_sample=False
        )
        assert mine == expected[0, len(row) :].tolist()


def test_a_text_ends_before_the_first_of_its_ends(load):
    model = load()
    whole = generate(model.engine, ROWS, 7, 0, (), 0)
    cut = generate(model.engine, ROWS, 7, 0, (whole[0][2], whole[3][0]), 0)
    assert cut[0] == cut[5] == whole[0][: whole[0].index(whole[0][2])] and cut[3] == []
    for mine, all_of_it in zip(cut, whole, strict=True):
        assert mine == all_of_it[: len(mine)]


def test_the_same_seed_draws_the_same_text(load):
    model = load()
    one, same, other = (generate(model.engine, ROWS, 7, 0.9, (), seed) for seed in (1, 1, 2))
    assert one == same != other
    narrow = generate(model.engine, ROWS, 7, 1e-9, (), 3)
    assert narrow == generate(model.engine, ROWS, 7, 0, (), 0)


@pytest.mark.parametrize("size", [6, 600])
def test_draws_have_the_nucleus_shares(size):
    """Exactly the fewest most probable tokens with that mass, each as often as its share of theirs."""
    rng = np.random.default_rng(0)
    probs = np.concatenate([[0.4, 0.25, 0.2], np.full(size - 3, 0.15 / (size - 3))])
    rank = rng.permutation(size)  # of each token
    logs = torch.from_numpy(np.log(probs[rank])).float().expand(4_000, -1)
    shares = np.bincount(rank[_draw(logs, 0.6, rng)], minlength=size) / 4_000
    assert shares[2:].sum() == 0
    np.testing.assert_allclose(shares[:2], [0.4 / 0.65, 0.25 / 0.65], atol=0.03)


def test_a_flat_distribution_is_drawn_from_all_over():
    logs = torch.full((2000, 1000), -np.log(1000.0))
    drawn = _draw(logs, 0.9, np.random.default_rng(0))
    assert len(set(drawn.tolist())) > 500
