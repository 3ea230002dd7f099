"""Soft prompts before embeddings: where the vectors stand, and that gradients reach them."""

import pytest
import torch
from culteval.harness.engine.soft_prompt import prepend

SOFT = torch.arange(12.0).view(2, 3, 2)
TEXT = -torch.arange(1.0, 9.0).view(1, 4, 2)


def test_one_text_is_put_behind_every_candidate():
    found = prepend(SOFT, TEXT)
    assert found.shape == (2, 7, 2)
    for row in range(2):
        assert found[row].tolist() == SOFT[row].tolist() + TEXT[0].tolist()


def test_one_candidate_is_put_before_every_text_behind_its_padding():
    texts = torch.cat([TEXT, 2 * TEXT])
    found = prepend(SOFT[:1], texts, padding=[0, 3])
    assert found[0].tolist() == SOFT[0].tolist() + TEXT[0].tolist()
    assert found[1].tolist() == (2 * TEXT[0, :3]).tolist() + SOFT[0].tolist() + (2 * TEXT[0, 3:]).tolist()


def test_it_takes_the_dtype_of_the_text_and_keeps_the_graph():
    soft = SOFT.clone().requires_grad_()
    found = prepend(soft, TEXT.bfloat16())
    assert found.dtype == torch.bfloat16
    found[:, 1].sum().backward()
    assert soft.grad.tolist() == [[[0, 0], [1, 1], [0, 0]]] * 2


def test_other_numbers_of_candidates_and_texts_are_refused():
    with pytest.raises(RuntimeError):
        prepend(SOFT, torch.zeros(3, 4, 2))
