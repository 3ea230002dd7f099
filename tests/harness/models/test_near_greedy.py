"""Greedy texts fall short by nothing; others by the least likely of their tokens, or of their end."""

import numpy as np
import pytest
import torch
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.models.greedy import _generate
from culteval.harness.models.near_greedy import LEADS, shortfalls
from culteval.harness.registry import spec_of
from culteval.tasks.prompts import ProtocolOptions, render_protocol

MOST = 3


@pytest.fixture(scope="module")
def prompts():
    return render_protocol(spec_of("vsm13_text"), ProtocolOptions(limit=1)).take(np.arange(24))


@pytest.fixture(params=["engine", "soft prompt", "no template"])
def aligned(request, load):
    model = load(chat=request.param != "no template")
    soft = np.random.default_rng(0).normal(0, 0.3, (1, 3, model.dim)).astype(np.float32)
    return AlignedModel(model, soft if request.param == "soft prompt" else None, "Please. ")


def by_hand(aligned, prompt, tokens):
    """Log-probabilities (tokens + 1, vocabulary) where each token is given, and after the last, by transformers."""
    model = aligned.model
    [row] = model.chat.ids([model.chat.render_prompt(aligned.preamble + prompt)])
    embeds = model.model.get_input_embeddings()(torch.tensor([row + tokens]))
    if aligned.soft is not None:
        embeds = torch.cat([torch.from_numpy(aligned.soft), embeds], 1)
    with torch.no_grad():
        logits = model.model(inputs_embeds=embeds).logits[0]
    return logits[-len(tokens) - 1 :].log_softmax(-1)


def breaks(tokenizer):
    return [token for token in range(len(tokenizer)) if "\n" in tokenizer.decode([token])]


def begins(model, row, text):
    """Whether generated tokens are those of a text, and then its end."""
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids == row[: len(ids)] and (len(ids) == MOST or row[len(ids)] in [*model.ends, *breaks(model.tokenizer)])


def test_greedy_texts_are_their_own(aligned, prompts):
    """Of this random model, those that its tokenizer would write with the same tokens."""
    model, texts = aligned.model, aligned.answer(prompts, most_tokens=MOST).texts
    rows = model.chat.ids([model.chat.render_prompt(aligned.preamble + text) for text in prompts.texts])
    written = _generate(model, rows, aligned.soft, MOST)
    pairs = zip(written, texts, strict=True)
    own = np.array([any(begins(model, row, lead + text) for lead in LEADS) for row, text in pairs])
    found = aligned.shortfalls(prompts, texts, MOST)
    assert own.sum() > 3 and found[own].max() < 1e-4


def test_another_text_falls_short_by_its_least_likely_token(aligned, prompts):
    texts, tokenizer = ["12, yes", "no"], aligned.model.tokenizer
    wanted = []
    for prompt, text in zip(prompts.texts, texts, strict=False):
        ways = []
        for lead in LEADS:
            tokens = tokenizer(lead + text, add_special_tokens=False)["input_ids"]
            logs = by_hand(aligned, prompt, tokens)
            given = [logs[at, token] for at, token in enumerate(tokens)]
            given.append(logs[-1, [*aligned.model.ends, *breaks(tokenizer)]].max())
            assert len(tokens) < 20
            ways.append(max(float(row.max() - one) for row, one in zip(logs, given, strict=True)))
        wanted.append(min(ways))
    found = aligned.shortfalls(prompts.take(np.arange(2)), texts, 20)
    assert found == pytest.approx(wanted, abs=1e-4) and found.min() > 0.5


def test_a_text_that_ends_early_falls_short_by_its_end(load, prompts):
    aligned = AlignedModel(load())
    texts = [text[: len(text) // 2] for text in aligned.answer(prompts, most_tokens=MOST).texts]
    assert aligned.shortfalls(prompts, texts, MOST).min() > 0.1
    assert aligned.shortfalls(prompts, [""] * 24, MOST).min() > 0.1


def test_in_texts_of_several_lines_a_line_break_is_no_end(load, prompts):
    model = load()
    rendered = [model.chat.render_prompt(text) for text in prompts.texts]
    one, several = (shortfalls(model, rendered, [""] * 24, None, MOST, lines) for lines in (False, True))
    assert (several >= one).all() and (several > one).any()


def test_after_reasoning_that_is_not_there_nothing_is_near(load):
    model = load()
    assert shortfalls(model, ["Why?<think>\n"], ["Yes"], None, MOST, False) == np.inf
