"""Greedy texts fall short by nothing; others by the least likely of their tokens, or of their end."""

import numpy as np
import pytest
import torch
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.models.greedy import LEADS, _generate, shortfalls
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
            ways.append(max(float(row.max() - one) for row, one in zip(logs, given, strict=True)))
        wanted.append(min(ways))
    found = aligned.shortfalls(prompts.take(np.arange(2)), texts, 20)
    assert found == pytest.approx(wanted, abs=1e-4) and found.min() > 0.5


def test_more_tokens_than_were_allowed_are_no_greedy_text(load, prompts):
    aligned = AlignedModel(load())
    texts = aligned.answer(prompts, most_tokens=MOST).texts
    assert np.isinf(aligned.shortfalls(prompts, [f"{text} forged, forged" for text in texts], MOST)).all()


def test_a_text_may_end_within_a_token(prompts, load):
    """Tokens such as a full stop with a line break: the text ends with the full stop, and not before it."""
    model = load()

    class Logits:
        """A model that writes "yes" and then the token of a full stop and a line break."""

        device = "cpu"

        def __init__(self, first, second):
            self.first, self.second = first, second

        def __call__(self, input_ids, use_cache):
            logits = torch.zeros(1, input_ids.shape[1], 800)
            logits[0, :, self.second] = 9.0
            logits[0, len(row) - 1, self.first] = 20.0
            return type("Output", (), {"logits": logits})

        def get_input_embeddings(self):
            return torch.nn.Embedding(1, 1)

    class Writer:
        ends, tokens, chat = (0,), 0, model.chat

        class tokenizer:
            words = ("<end>", "yes", ".", ".\n", "\n", "no", " ")

            def __len__(self):
                return len(self.words)

            def batch_decode(self, rows):
                return ["".join(self.words[i] for i in row) for row in rows]

            def decode(self, row):
                return self.batch_decode([row])[0]

            def __call__(self, text, add_special_tokens):
                ids = []
                while text:
                    ids.append(next(i for i in (1, 3, 2, 4, 5, 6) if text.startswith(self.words[i])))
                    text = text[len(self.words[ids[-1]]) :]
                return {"input_ids": ids}

    writer = Writer()
    writer.tokenizer, writer.model = Writer.tokenizer(), Logits(1, 3)
    (row,) = model.chat.ids([prompts.texts[0]])

    def short(text):
        return shortfalls(writer, [prompts.texts[0]], [text], None, 8, False)[0]

    assert short("yes.") == 0 and short("yes") == pytest.approx(9, abs=1e-4) and short("no.") > 10


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
