"""Score prompts in right-padded batches: slower than packed passes, for any causal language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from .soft_prompt import prepend
from .tokenize import Encoded


class PlainForward:
    """Forward passes over right-padded rows: for models whose masks cannot be packed, and as the reference.

    Args:
        alone: put one row in each pass, for rotary positions that depend on the longest row.
    """

    def __init__(self, model: Any, encoded: Encoded, most_tokens: int = 4096, alone: bool = False) -> None:
        self.model, self.encoded, self.most_tokens, self.alone = model, encoded, most_tokens, alone
        self.prompts = len(encoded.contexts)
        self.options = max(map(len, encoded.options))
        # Options of one token share one row; each longer option has its own.
        self.rows = [row for prompt in range(self.prompts) for row in _rows(encoded, prompt)]

    def tokens(self, soft_tokens: int) -> int:
        """Return the number of tokens read per candidate, without padding."""
        return sum(len(ids) + soft_tokens for ids, _ in self.rows)

    def logprobs(self, soft: torch.Tensor | None, done: Callable[[int], None] | None = None) -> torch.Tensor:
        """Compute the same log-probabilities as ``PackedForward.logprobs``; ``done`` hears of the last candidate."""
        candidates: list[Any] = [None] if soft is None else [part[None] for part in soft]
        first = [self._candidate(one, None) for one in candidates[:-1]]
        return torch.cat([*first, self._candidate(candidates[-1], done)])

    def _candidate(self, soft: torch.Tensor | None, done: Callable[[int], None] | None) -> torch.Tensor:
        total = torch.full((self.prompts, self.options), -torch.inf, device=self.model.device)
        told = 0
        for batch in self._batches(0 if soft is None else soft.shape[1]):
            for (_, reads), logs in zip(batch, self._logs([ids for ids, _ in batch], soft), strict=True):
                for prompt, option, at, tokens in reads:
                    total[prompt, option] = sum(logs[at + i, token] for i, token in enumerate(tokens))
            if done:
                through = batch[-1][1][0][0] + (batch[-1] is self.rows[-1])  # later rows may be of the last prompt
                done(through - told)
                told = through
        return total[None]

    def _batches(self, virtual: int) -> Iterator[list[Any]]:
        width = max(len(ids) for ids, _ in self.rows) + virtual
        size = 1 if self.alone else max(1, self.most_tokens // (4 * width))  # logits are kept at every position
        for start in range(0, len(self.rows), size):
            yield self.rows[start : start + size]

    def _logs(self, rows: list[list[int]], soft: torch.Tensor | None) -> torch.Tensor:
        """Compute log-probabilities (rows, length, vocabulary) after each token of right-padded rows."""
        device, longest = self.model.device, max(map(len, rows))
        ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows], device=device)
        real = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], device=device)
        given = {"input_ids": ids}
        if soft is not None:
            embeds = self.model.get_input_embeddings()(ids)
            given = {"inputs_embeds": prepend(soft, embeds)}
            real = torch.cat([real.new_ones(len(rows), soft.shape[1]), real], dim=1)
        logits = self.model(**given, attention_mask=real, use_cache=False).logits
        return logits[:, -longest:].float().log_softmax(-1)


def _rows(encoded: Encoded, prompt: int) -> Iterator[tuple[list[int], list[tuple[int, int, int, list[int]]]]]:
    """Yield the rows of one prompt with their readings: (prompt, option, position before its tokens, its tokens)."""
    context, at = encoded.contexts[prompt], len(encoded.contexts[prompt]) - 1
    short = [(prompt, option, at, ids) for option, ids in enumerate(encoded.options[prompt]) if len(ids) == 1]
    if short:
        yield context, short
    for option, ids in enumerate(encoded.options[prompt]):
        if len(ids) > 1:
            yield context + ids[:-1], [(prompt, option, at, ids)]
