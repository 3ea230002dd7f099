"""Text written greedily by transformers' own generation, many prompts at once, with and without a soft prompt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, Protocol

import numpy as np
import torch

from ..engine.chat import BLOCKS, Block, Chat, opened_block
from ..engine.soft_prompt import prepend

TOGETHER = 16  # prompts that text is written for at once, in order
# What a published generation configuration may hold that changes greedy text.
_ACTING = (
    "bad_words_ids",
    "begin_suppress_tokens",
    "encoder_repetition_penalty",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "guidance_scale",
    "min_length",
    "min_new_tokens",
    "no_repeat_ngram_size",
    "num_beams",
    "penalty_alpha",
    "repetition_penalty",
    "sequence_bias",
    "suppress_tokens",
)


class TextModel(Protocol):
    """What greedy text needs of a model in memory; ``LanguageModel`` has it."""

    model: Any
    tokenizer: Any
    chat: Chat
    steady: int | None
    tokens: int

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids of the tokens that end a text."""


def take_defaults(model: Any) -> dict[str, str]:
    """Take what a model's publisher set for generation out of it, but for the ids of tokens: greedy means greedy.

    Returns:
        What of it would have changed greedy text, by name.
    """
    from transformers import GenerationConfig

    given, usual = model.generation_config, GenerationConfig()
    if given is None:
        return {}
    acting = {name: getattr(given, name, None) for name in _ACTING}
    kept = {name: getattr(given, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**kept)
    return {name: str(value)[:200] for name, value in acting.items() if value not in (None, getattr(usual, name, None))}


def write(model: TextModel, texts: Sequence[str], soft: np.ndarray | None, most: int) -> list[str]:
    """What a model answers to rendered prompts: at most so many tokens, up to the first line break.

    A model that thinks aloud first has a budget of its own for that (``ChatOptions.thinking_tokens``); where it comes
    to no end, its thoughts are ended for it. The answer is what stands behind them.

    Args:
        soft: one soft prompt (1, T, dim) or None.
    """
    together = TOGETHER if model.steady is None else 1  # the length of one prompt would move the positions of others
    answers = []
    for at in range(0, len(texts), together):
        answers += _batch(model, texts[at : at + together], soft, most)
    return answers


def _batch(model: TextModel, texts: Sequence[str], soft: np.ndarray | None, most: int) -> list[str]:
    rows = model.chat.ids(texts)
    new = _continued(model, rows, soft, most)
    thinks = {i: block for i in range(len(rows)) if (block := opened_block(texts[i]) or _begun(model, new[i]))}
    if thinks:
        heads = [rows[i] for i in thinks]
        thoughts = _continued(model, heads, soft, model.chat.options.thinking_tokens)
        ended = [_ended(model, row, block) for row, block in zip(thoughts, thinks.values(), strict=True)]
        said = _continued(model, [head + row for head, row in zip(heads, ended, strict=True)], soft, most)
        for i, row in zip(thinks, said, strict=True):
            new[i] = row
    plain = [model.tokenizer.decode(row, skip_special_tokens=True) for row in new]
    return [text.lstrip().partition("\n")[0] for text in plain]


def _begun(model: TextModel, new: Sequence[int]) -> Block | None:
    """The block of thinking aloud that a text begins with, if any."""
    text = model.tokenizer.decode(new, skip_special_tokens=False).lstrip()
    return next((block for block in BLOCKS if text.startswith(block.start)), None)


def _ended(model: TextModel, thoughts: list[int], block: Block) -> list[int]:
    """Thoughts up to their end, which is put there where there is none."""
    thoughts = list(takewhile(lambda token: token not in model.ends, thoughts))
    for size in range(1, len(thoughts) + 1):
        if block.stop.strip() in model.tokenizer.decode(thoughts[max(0, size - 16) : size], skip_special_tokens=False):
            return thoughts[:size]
    return thoughts + model.tokenizer(block.stop, add_special_tokens=False)["input_ids"]


@torch.no_grad()
def _continued(model: TextModel, rows: list[list[int]], soft: np.ndarray | None, most: int) -> list[list[int]]:
    """Tokens that greedy decoding writes after each row, padded with whatever ends a text.

    Padding stands left of the soft prompt, so that a batch gives what each prompt alone would give.
    """
    virtual, width, ends = 0 if soft is None else soft.shape[1], max(map(len, rows)), model.ends
    pad = model.tokenizer.pad_token_id if model.tokenizer.pad_token_id is not None else (ends[0] if ends else 0)
    padding = [width - len(row) for row in rows]
    device = model.model.device
    ids = torch.tensor([[pad] * (n + virtual) + row for n, row in zip(padding, rows, strict=True)], device=device)
    real = torch.tensor([[0] * n + [1] * (width - n + virtual) for n in padding], device=device)
    # Given a slice of what was read, torch would copy the head's weights once for every row.
    head = model.model.get_output_embeddings()
    with head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),)), _behind(model.model, soft, padding):
        out = model.model.generate(
            input_ids=ids,
            attention_mask=real,
            max_new_tokens=most,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=list(ends) or None,
        )
    model.tokens += int(real.sum()) + out[:, ids.shape[1] :].numel()
    return out[:, ids.shape[1] :].tolist()


@contextmanager
def _behind(model: Any, soft: np.ndarray | None, padding: Sequence[int]) -> Iterator[None]:
    """Put a soft prompt (1, T, dim) behind each row's padding, in place of T more, where a pass reads whole prompts.

    Not every class of transformers generates from embeddings; all do from ids.
    """
    if soft is None:
        yield
        return

    virtual = soft.shape[1]

    def put(_: Any, args: tuple[Any, ...], embeds: torch.Tensor) -> torch.Tensor:
        if embeds.shape[1] <= virtual:  # a step of one token
            return embeds
        return prepend(torch.from_numpy(soft), embeds[:, virtual:], padding)  # the padding is T longer than it says

    with model.get_input_embeddings().register_forward_hook(put):
        yield
