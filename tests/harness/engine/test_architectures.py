"""Probabilities and texts of many architectures beside transformers' own, one unpadded prompt at a time."""

from __future__ import annotations

from functools import partial
from itertools import takewhile
from operator import ne
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from culteval.errors import UsageError
from culteval.harness.models.load import load_model
from culteval.harness.registry import spec_of
from culteval.tasks.prompts import ProtocolOptions, render

from ...architectures import ARCHITECTURES, make
from ...conftest import _tokenizer

pytestmark = pytest.mark.slow
NO_SOFT = ("gemma3n_text", "gemma4_text")  # embeddings of their own in every layer
ALLOWED = {"float32": 1e-4, "bfloat16": 0.06}
MOST = 6  # tokens of text


class Made(NamedTuple):
    """One architecture's folder, and its models once they are loaded."""

    name: str
    folder: Path
    loaded: dict

    def ours(self, dtype):
        """As culteval has it."""
        if ("ours", dtype) not in self.loaded:
            model = load_model(str(self.folder), dtype=dtype, threads=1)
            self.loaded["ours", dtype] = model
        return self.loaded["ours", dtype]

    def theirs(self, dtype):
        """As transformers has it, and its tokenizer."""
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        if ("theirs", dtype) not in self.loaded:
            model = AutoModelForCausalLM.from_pretrained(self.folder, dtype=getattr(torch, dtype))
            self.loaded["theirs", dtype] = model.eval(), AutoTokenizer.from_pretrained(self.folder)
        return self.loaded["theirs", dtype]


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def made(request, tmp_path_factory):
    folder = make(request.param, _tokenizer(chat=True), tmp_path_factory.mktemp(request.param))
    return Made(request.param, folder, {})


def some_prompts():
    """Four prompts, longer than every window, of different lengths."""
    prompts = render(spec_of("vsm13_text"), "heldout", ProtocolOptions(limit=1))
    return prompts.take(np.array([0, 1, 14, 23]))


def ids_of(tokenizer, text):
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
    )
    return tokenizer(chat, add_special_tokens=False)["input_ids"]


def given_to(model, ids, soft):
    import torch

    tokens = torch.tensor([ids])
    if soft is None:
        return {"input_ids": tokens}
    own = model.get_input_embeddings()(tokens)
    return {"inputs_embeds": torch.cat([torch.from_numpy(soft).to(own), own], dim=1)}


@pytest.mark.parametrize("dtype", list(ALLOWED))
@pytest.mark.parametrize("virtual", [0, 10])
def test_probabilities_are_those_of_unpadded_transformers(made, dtype, virtual):
    ours, prompts, soft = made.ours(dtype), some_prompts(), None
    if virtual:
        soft = ours.token_vectors(np.random.default_rng(0).choice(ours.ordinary_tokens(), (1, virtual)))
        if made.name in NO_SOFT:
            with pytest.raises(UsageError, match="soft prompt"):
                ours.answer(prompts, soft)
            return
    answers = ours.answer(prompts, soft)
    for row, text in enumerate(prompts.texts):
        theirs, outside = expected(made, dtype, text, prompts.choices[row], soft)
        exact, _ = expected(made, "float32", text, prompts.choices[row], soft)
        allowed = ALLOWED[dtype] + 2 * np.abs(theirs - exact).max()  # what rounding does to transformers itself
        off = np.abs(answers.probs[0, row] - theirs).max()
        assert off <= allowed, f"{ours.info.forward}: {answers.probs[0, row]} for {theirs}"
        assert abs(answers.off_options[0, row] - outside) <= allowed


def expected(made, dtype, text, choices, soft):
    """Option probabilities, and what lies outside of them, by transformers alone."""
    import torch

    model, tokenizer = made.theirs(dtype)
    with torch.no_grad():
        logs = model(**given_to(model, ids_of(tokenizer, text), soft)).logits[0, -1].double().log_softmax(-1)
    mass = np.exp([float(logs[tokenizer(choice, add_special_tokens=False)["input_ids"][0]]) for choice in choices])
    return mass / mass.sum(), 1 - mass.sum()


@pytest.mark.parametrize("virtual", [0, 10])
def test_text_is_that_of_unpadded_transformers(made, virtual):
    import torch

    if virtual and made.name in NO_SOFT:
        return
    ours, prompts, soft = made.ours("float32"), some_prompts(), None
    if virtual:
        soft = ours.token_vectors(np.random.default_rng(0).choice(ours.ordinary_tokens(), (1, virtual)))
    texts = ours.generate(prompts, soft, most=MOST).texts
    for row, text in enumerate(prompts.texts):
        model, tokenizer = made.theirs("float32")
        ids, new = ids_of(tokenizer, text), []
        for _ in range(MOST):  # everything is read anew for every token
            with torch.no_grad():
                new.append(int(model(**given_to(model, ids + new, soft)).logits[0, -1].argmax()))
        new = takewhile(partial(ne, tokenizer.eos_token_id), new)
        assert texts[row] == tokenizer.decode(list(new), skip_special_tokens=True).lstrip().partition("\n")[0]
