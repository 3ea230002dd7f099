"""Attention in low precision: exact where scores are so large that bfloat16 could not tell them apart."""

import pytest
import torch
from culteval.harness.engine.tree_attention import attend


@pytest.mark.parametrize("size", [1, 1000])
def test_attention_is_exact_where_scores_are_large(size):
    """Keys share a large part, as those of Qwen 2 do, which shifts all scores of a query by the same 16 x ``size``."""
    rng = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(3, many, 64, generator=rng).bfloat16() for many in (5, 40, 40))
    queries[..., 0], keys[..., 0] = 16.0, float(size)
    mask = torch.zeros(3, 5, 40).masked_fill(torch.rand(3, 5, 40, generator=rng) < 0.3, -torch.inf)
    found = attend(queries, keys, values, mask, 0.125)
    weights = (mask.double() + queries.double() @ keys.double().transpose(1, 2) / 8).softmax(-1)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), weights @ values.double(), atol=0.02, rtol=0)
