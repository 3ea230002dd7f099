"""Probabilities and texts of many architectures beside transformers' own, one unpadded prompt at a time."""

from __future__ import annotations

from functools import partial
from itertools import takewhile
from operator import ne

import numpy as np
import pytest
from culteval.errors import UsageError
from culteval.harness.models import load_model
from culteval.harness.registry import spec_of
from culteval.tasks.prompts import Asking, render

from .architectures import ARCHITECTURES, make
from .conftest import _tokenizer

pytestmark = pytest.mark.slow
NO_SOFT = ("gemma3n_text", "gemma4_text")  # embeddings of their own in every layer
ALLOWED = {"float32": 1e-4, "bfloat16": 0.06}
MOST = 6  # tokens of text


@pytest.fixture(scope="module", params=list(ARCHITECTURES))
def folder(request, tmp_path_factory):
    return request.param, make(request.param, _tokenizer(chat=True), tmp_path_factory.mktemp(request.param))


def some_prompts():
    """Four prompts, longer than every window, of different lengths."""
    prompts = render(spec_of("vsm13_text"), "heldout", Asking(limit=1))
    return prompts.take(np.array([0, 1, 14, 23]))


def unpadded(folder, dtype):
    """The model as transformers has it, loaded anew since it has read nothing yet."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    return model.eval(), AutoTokenizer.from_pretrained(folder)


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
    return {"inputs_embeds": torch.cat([torch.from_numpy(soft)[None].to(own), own], dim=1)}


@pytest.mark.parametrize("dtype", list(ALLOWED))
@pytest.mark.parametrize("virtual", [0, 10])
def test_probabilities_are_those_of_unpadded_transformers(folder, dtype, virtual):
    name, path = folder
    ours, prompts, soft = load_model(str(path), dtype, "cpu", None, 1, lambda text: None), some_prompts(), None
    if virtual:
        soft = ours.token_vectors(np.random.default_rng(0).choice(ours.ordinary_tokens(), virtual))
        if name in NO_SOFT:
            with pytest.raises(UsageError, match="soft prompt"):
                ours.answer(prompts, soft[None])
            return
    answers = ours.answer(prompts, None if soft is None else soft[None])
    for row, text in enumerate(prompts.texts):
        theirs, outside = expected(path, dtype, text, prompts.choices[row], soft)
        exact, _ = expected(path, "float32", text, prompts.choices[row], soft)
        allowed = ALLOWED[dtype] + 2 * np.abs(theirs - exact).max()  # what rounding does to transformers itself
        off = np.abs(answers.probs[0, row] - theirs).max()
        assert off <= allowed, f"{ours.identity.forward}: {answers.probs[0, row]} for {theirs}"
        assert abs(answers.outside[0, row] - outside) <= allowed


def expected(path, dtype, text, choices, soft):
    """Option probabilities, and what lies outside of them, by transformers alone."""
    import torch

    model, tokenizer = unpadded(path, dtype)
    with torch.no_grad():
        logs = model(**given_to(model, ids_of(tokenizer, text), soft)).logits[0, -1].double().log_softmax(-1)
    mass = np.exp([float(logs[tokenizer(choice, add_special_tokens=False)["input_ids"][0]]) for choice in choices])
    return mass / mass.sum(), 1 - mass.sum()


@pytest.mark.parametrize("virtual", [0, 10])
def test_text_is_that_of_unpadded_transformers(folder, virtual):
    import torch

    name, path = folder
    if virtual and name in NO_SOFT:
        return
    ours, prompts, soft = load_model(str(path), "float32", "cpu", None, 1, lambda text: None), some_prompts(), None
    if virtual:
        soft = ours.token_vectors(np.random.default_rng(0).choice(ours.ordinary_tokens(), virtual))
    texts = ours.generate(prompts, soft, most=MOST).texts
    for row, text in enumerate(prompts.texts):
        model, tokenizer = unpadded(path, "float32")
        ids, new = ids_of(tokenizer, text), []
        for _ in range(MOST):  # everything is read anew for every token
            with torch.no_grad():
                new.append(int(model(**given_to(model, ids + new, soft)).logits[0, -1].argmax()))
        new = takewhile(partial(ne, tokenizer.eos_token_id), new)
        assert texts[row] == tokenizer.decode(list(new), skip_special_tokens=True).lstrip().partition("\n")[0]
