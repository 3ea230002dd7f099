"""Text of many rows at once: the tokens that transformers would write one row at a time, and sound draws."""

from itertools import product

import numpy as np
import pytest
import torch
from culteval.errors import RunError
from culteval.harness.engine import generate as generation
from culteval.harness.engine.generate import ConversationMemory, Row, Sampling, _draw, generate, generate_weighed
from culteval.harness.engine.packed import PackedForward
from culteval.harness.engine.tokenize import Encoded

IDS = [[5, 6, 7, 8, 9], [5, 6, 7, 30], [5, 6, 7, 30, 31, 32], [400], list(range(100, 140)), [5, 6, 7, 8, 9]]
ROWS = [*map(Row, IDS)]


@pytest.mark.parametrize("shape", ["llama", "qwen2", "qwen3"])
def test_greedy_text_is_that_of_transformers_row_by_row(load, shape):
    model = load(shape)
    found = generate(model.engine, ROWS, Sampling(7))
    for row, mine in zip(IDS, found, strict=True):
        ids = torch.tensor([row])
        expected = model.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=7, min_new_tokens=7, do_sample=False
        )
        assert mine == expected[0, len(row) :].tolist()


@pytest.mark.parametrize("shape", ["llama", "qwen2", "qwen3"])
def test_given_first_tokens_and_a_memory_change_no_text(load, shape):
    """A text goes on from forced tokens as from the same tokens in the row, whether rows are read together or not."""
    model = load(shape)
    memory, sampling = ConversationMemory(model.engine), Sampling(5)
    whole = generate(model.engine, [Row(ids + [17] * (at % 3)) for at, ids in enumerate(IDS)], sampling)
    forced = [Row(ids, (3, 30), (17,) * (at % 3)) for at, ids in enumerate(IDS)]
    assert generate(model.engine, forced, sampling) == whole
    assert generate(model.engine, forced, sampling, memory) == whole
    assert memory.tokens == 3 + 2 + 1 + 3 + 1 + 40  # the beginning 5, 6, 7 and the repeated row once
    assert generate(model.engine, forced, sampling, memory) == whole and memory.tokens == 50


@pytest.mark.parametrize("shape", ["llama", "qwen3"])
def test_options_are_weighed_in_the_reading_that_text_goes_on_from(load, shape, monkeypatch):
    """Options of one token and of two, in one tree and in several."""
    model = load(shape)
    options = [[[7], [8, 9]], [[31], [40], [40, 41]], [[9], [8]], [[5], [6]], [[7, 8, 9]], [[9], [10]]]
    encoded = Encoded(IDS, options)
    for most in (2048, 12):
        monkeypatch.setattr(type(model.engine), "most_tokens", lambda self, most=most: most)
        written, logs = generate_weighed(model.engine, encoded, Sampling(6))
        assert written == generate(model.engine, ROWS, Sampling(6))
        with torch.no_grad():
            torch.testing.assert_close(logs, PackedForward(model.engine, encoded).logprobs(None)[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("most", [1 << 30, 9000, 0])
def test_what_is_remembered_is_to_the_last_bit_what_is_read_again(load, monkeypatch, most):
    """Three turns of two conversations, in one memory and each in a new one; also where a memory has no more room."""
    monkeypatch.setattr(generation, "MOST_REMEMBERED", most)
    model, rng = load("qwen2"), np.random.default_rng(0)
    ids, marks = [rng.integers(5, 600, 70).tolist() for _ in range(2)], (20, 33, 60)
    memory, read = ConversationMemory(model.engine), []
    with torch.no_grad():
        for turn, mark in enumerate(marks, start=1):
            for one in ids:
                new = ConversationMemory(model.engine)
                kept, again = (each.read(one[:mark], marks[:turn]) for each in (memory, new))
                read.append(new.tokens)
                assert all(torch.equal(a, b) for a, b in zip(kept[0], again[0], strict=True))
                assert torch.equal(kept[1], again[1])
    assert read == [20, 20, 33, 33, 60, 60]
    assert memory.tokens == {1 << 30: 120, 0: 226}.get(most, memory.tokens) and 120 <= memory.tokens <= 226
    assert most != 9000 or 120 < memory.tokens < 226


def test_conversations_that_begin_alike_are_read_once_up_to_there(load, monkeypatch):
    """Two conversations that part within the first message, after 21 tokens: 16 are read once, in pieces of 8."""
    monkeypatch.setattr(generation, "STRIDE", 8)
    model, shared = load("llama"), list(range(100, 121))
    rows = [Row([*shared, *range(200 + 10 * at, 206 + 10 * at)], (25,)) for at in range(3)]
    memory = ConversationMemory(model.engine)
    assert generate(model.engine, rows, Sampling(5), memory) == generate(model.engine, rows, Sampling(5))
    assert memory.tokens == 16 + 3 * 11


def test_a_part_is_remembered_from_its_start(load):
    """Two conversations with the same beginning and other marks: the part up to 100 starts at 80 or 99, and at 90."""
    model, ids = load("llama"), np.random.default_rng(0).integers(5, 600, 120).tolist()
    for mark in (80, 99):
        memory, new = ConversationMemory(model.engine), ConversationMemory(model.engine)
        with torch.no_grad():
            memory.read(ids[:100], (mark,))
            for mine, expected in zip(memory.read(ids, (90, 100))[0], new.read(ids, (90, 100))[0], strict=True):
                assert torch.equal(mine, expected)


def test_a_text_ends_before_the_first_of_its_ends(load):
    model = load()
    whole = generate(model.engine, ROWS, Sampling(7))
    cut = generate(model.engine, ROWS, Sampling(7, ends=(whole[0][2], whole[3][0])))
    assert cut[0] == cut[5] == whole[0][: whole[0].index(whole[0][2])] and cut[3] == []
    for mine, all_of_it in zip(cut, whole, strict=True):
        assert mine == all_of_it[: len(mine)]


@pytest.mark.parametrize("top_p", [0, 0.9])
def test_rows_that_have_ended_leave_the_batch(load, monkeypatch, top_p):
    """Once they are half of it; the others go on with their own keys, values and random numbers."""
    model, kept = load(), []
    keep = generation._KVCache.keep
    monkeypatch.setattr(
        generation._KVCache, "keep", lambda cache, rows: kept.append(rows.tolist()) or keep(cache, rows)
    )
    whole = generate(model.engine, ROWS, Sampling(7, top_p, seed=2))
    assert not kept
    ends = {row[1] for row in whole[: len(ROWS) // 2]} | {whole[-1][3]}
    found = generate(model.engine, ROWS, Sampling(7, top_p, ends, seed=2))
    assert kept and len(kept[0]) <= len(ROWS) / 2
    for mine, all_of_it in zip(found, whole, strict=True):
        last = next((at for at, token in enumerate(all_of_it) if token in ends), len(all_of_it))
        assert mine == all_of_it[:last]
    assert max(map(len, found)) > 3


def test_no_ngram_occurs_twice(load):
    """Neither of the prompt nor of the text; what a text begins with counts as prompt."""
    model = load()
    rows = [Row([7, 8, 9, 7, 8, 9]), Row([7, 8], forced=(9,)), Row([5, 6, 7] * 4)]
    free = generate(model.engine, rows, Sampling(80))
    for n, top_p in product((1, 2, 3), (0, 0.9)):
        found = generate(model.engine, rows, Sampling(80, top_p, no_repeat_ngram=n))
        for row, text in zip(rows, found, strict=True):
            given, made = [*row.ids, *row.forced], []
            seen = {tuple(given[at : at + n]) for at in range(len(given) - n + 1)}
            for token in text:
                made.append(token)
                if len(made) >= n:
                    assert tuple(made[-n:]) not in seen
                    seen.add(tuple(made[-n:]))
        assert [len(text) for text in found] == [80] * 3
        assert top_p or found != free


def test_a_nucleus_is_of_what_may_be_said(load, monkeypatch):
    """The likeliest token is banned: without it, the next likeliest one has the mass of a small nucleus."""
    model, row = load(), Row([7, 8, 9])
    (likeliest, *_), *_ = generate(model.engine, [row], Sampling(1))
    row = Row([*row.ids, likeliest, *row.ids])
    logs = []
    draw = generation._draw
    monkeypatch.setattr(generation, "_draw", lambda *given: logs.append(given[0].exp().sum(-1)) or draw(*given))
    narrow = generate(model.engine, [row], Sampling(5, 1e-9, no_repeat_ngram=1))
    assert narrow == generate(model.engine, [row], Sampling(5, no_repeat_ngram=1))
    np.testing.assert_allclose(torch.cat(logs), 1, rtol=1e-5)


def test_the_same_seed_draws_the_same_text(load):
    model = load()
    one, same, other = (generate(model.engine, ROWS, Sampling(7, 0.9, seed=seed)) for seed in (1, 1, 2))
    assert one == same != other
    narrow = generate(model.engine, ROWS, Sampling(7, 1e-9, seed=3))
    assert narrow == generate(model.engine, ROWS, Sampling(7))


@pytest.mark.parametrize("size", [6, 600])
def test_draws_have_the_nucleus_shares(size):
    """Exactly the fewest most probable tokens with that mass, each as often as its share of theirs."""
    rng = np.random.default_rng(0)
    probs = np.concatenate([[0.4, 0.25, 0.2], np.full(size - 3, 0.15 / (size - 3))])
    rank = rng.permutation(size)  # of each token
    logs = torch.from_numpy(np.log(probs[rank])).float().expand(4_000, -1)
    shares = np.bincount(rank[_draw(logs, 0.6, rng.random(len(logs)))], minlength=size) / 4_000
    assert shares[2:].sum() == 0
    np.testing.assert_allclose(shares[:2], [0.4 / 0.65, 0.25 / 0.65], atol=0.03)


def test_a_flat_distribution_is_drawn_from_all_over():
    logs = torch.full((2000, 1000), -np.log(1000.0))
    drawn = _draw(logs, 0.9, np.random.default_rng(0).random(len(logs)))
    assert len(set(drawn.tolist())) > 500


def test_draws_are_those_of_all_tokens_in_order():
    """From peaked to flat: the token at a share of the nucleus's mass, wherever the search for the nucleus ends."""
    rng = np.random.default_rng(0)
    for sharp in (0.1, 1.0, 3.0, 20.0):
        for top_p in (1e-9, 0.5, 0.95, 1.0):
            logs = torch.from_numpy(sharp * rng.normal(size=(8, 5000))).log_softmax(-1).float()
            mass, order = logs.double().exp().sort(descending=True)
            mass = mass.cumsum(-1).numpy()
            nucleus = [min(np.searchsorted(row, top_p), 4999) for row in mass]  # the place of its last token
            wanted = np.random.default_rng(1).random(8) * mass[np.arange(8), nucleus]
            places = [min(*pair) for pair in zip(map(np.searchsorted, mass, wanted), nucleus, strict=True)]
            expected = order.numpy()[np.arange(8), places]
            assert _draw(logs, top_p, np.random.default_rng(1).random(len(logs))).tolist() == expected.tolist()


@pytest.mark.parametrize("top_p, value", [(0, torch.nan), (0, -torch.inf), (0.9, torch.nan)])
def test_a_model_that_gives_nothing_finite_is_refused(top_p, value):
    logs = torch.zeros(2, 50)
    logs[1] = value
    with pytest.raises(RunError, match="no finite probability for some token"):
        _draw(logs, top_p, np.array([0.2, 0.7]))
