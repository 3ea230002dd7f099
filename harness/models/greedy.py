"""Generate text greedily in batches of prompts.

The engine generates it where it runs the layers; with a soft prompt, and of other models, transformers does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, Protocol

import numpy as np
import torch

from ..engine.chat import BLOCKS, Block, Chat, opened_block
from ..engine.generate import Row, Sampling, generate
from ..engine.packed import Engine
from ..engine.soft_prompt import prepend
from ..util.display import Done

TOGETHER = 16  # prompts per batch of transformers, which pads them, in order
TOGETHER_PACKED = 48  # prompts per batch of the engine, which reads what they share once
# Fields of a published generation configuration that change greedy text.
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
    """The interface that greedy generation needs of a model in memory; ``LanguageModel`` has it."""

    model: Any
    tokenizer: Any
    chat: Chat
    engine: Engine | None
    steady: int | None
    tokens: int

    @property
    def ends(self) -> tuple[int, ...]:
        """Ids of the end tokens."""


def take_defaults(model: Any) -> dict[str, str]:
    """Reset a model's published generation configuration except token ids, so that decoding is purely greedy.

    Returns:
        The removed settings that would have changed greedy text, by name.
    """
    from transformers import GenerationConfig

    given, usual = model.generation_config, GenerationConfig()
    if given is None:
        return {}
    acting = {name: getattr(given, name, None) for name in _ACTING}
    kept = {name: getattr(given, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.generation_config = GenerationConfig(**kept)
    return {name: str(value)[:200] for name, value in acting.items() if value not in (None, getattr(usual, name, None))}


def end_tokens(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the ids of the end tokens of a transformers model and its tokenizer."""
    given = getattr(model.generation_config, "eos_token_id", None)
    own = given if isinstance(given, list) else [given]
    return tuple(dict.fromkeys(i for i in (*own, tokenizer.eos_token_id) if i is not None))


def write(
    model: TextModel, texts: Sequence[str], soft: np.ndarray | None, most: int, done: Done | None = None
) -> list[str]:
    """Generate answers to rendered prompts: at most ``most`` tokens each, without white space before them.

    A reasoning block has a separate budget (``ChatOptions.thinking_tokens``); a block that exceeds it is closed. The
    answer is the text after the block.

    Args:
        soft: one soft prompt (1, T, dim) or None.
        most: maximum number of tokens per answer.
        done: is told the number of prompts of each batch, after it.
    """
    together = TOGETHER if model.steady is None else 1  # a prompt's length would change the positions of others
    if packs_text(model, soft):
        together = TOGETHER_PACKED
    answers = []
    for at in range(0, len(texts), together):
        answers += _batch(model, batch := texts[at : at + together], soft, most)
        if done:
            done(len(batch))
    return answers


def _batch(model: TextModel, texts: Sequence[str], soft: np.ndarray | None, most: int) -> list[str]:
    rows = model.chat.ids(texts)
    new = _generate(model, rows, soft, most)
    thinks = {i: block for i in range(len(rows)) if (block := opened_block(texts[i]) or _block_at_start(model, new[i]))}
    if thinks:
        heads = [rows[i] for i in thinks]
        thoughts = _generate(model, heads, soft, model.chat.options.thinking_tokens)
        ended = [_close(model, row, block) for row, block in zip(thoughts, thinks.values(), strict=True)]
        answered = _generate(model, [head + row for head, row in zip(heads, ended, strict=True)], soft, most)
        for i, row in zip(thinks, answered, strict=True):
            new[i] = row
    answers = [model.tokenizer.decode(row, skip_special_tokens=True) for row in new]
    return [text.lstrip() for text in answers]


def _block_at_start(model: TextModel, new: Sequence[int]) -> Block | None:
    """Return the reasoning block that a text begins with, if any."""
    text = model.tokenizer.decode(new, skip_special_tokens=False).lstrip()
    return next((block for block in BLOCKS if text.startswith(block.start)), None)


def _close(model: TextModel, thoughts: list[int], block: Block) -> list[int]:
    """Return reasoning tokens up to the end of the block, which is appended if missing."""
    thoughts = list(takewhile(lambda token: token not in model.ends, thoughts))
    for size in range(1, len(thoughts) + 1):
        if block.stop.strip() in model.tokenizer.decode(thoughts[max(0, size - 16) : size], skip_special_tokens=False):
            return thoughts[:size]
    return thoughts + model.tokenizer(block.stop, add_special_tokens=False)["input_ids"]


def packs_text(model: TextModel, soft: np.ndarray | None) -> bool:
    """Return whether the engine generates a model's text."""
    return soft is None and model.steady is None and model.engine is not None and model.engine.decoder is not None


def _generate(model: TextModel, rows: list[list[int]], soft: np.ndarray | None, most: int) -> list[list[int]]:
    """Generate tokens greedily after each row."""
    if not packs_text(model, soft):
        return _by_transformers(model, rows, soft, most)
    assert model.engine is not None
    order = sorted(range(len(rows)), key=lambda at: rows[at])  # common beginnings side by side
    written = generate(model.engine, [Row(rows[at]) for at in order], Sampling(most, ends=model.ends))
    model.tokens += sum(map(len, [*rows, *written]))
    found = dict(zip(order, written, strict=True))
    return [found[at] for at in range(len(rows))]


@torch.no_grad()
def _by_transformers(model: TextModel, rows: list[list[int]], soft: np.ndarray | None, most: int) -> list[list[int]]:
    """Generate by transformers; shorter rows are padded at their end.

    Padding stands left of the soft prompt, so that a batch gives the same text as each prompt alone.
    """
    virtual, width, ends = 0 if soft is None else soft.shape[1], max(map(len, rows)), model.ends
    pad = model.tokenizer.pad_token_id if model.tokenizer.pad_token_id is not None else (ends[0] if ends else 0)
    padding = [width - len(row) for row in rows]
    device = model.model.device
    ids = torch.tensor([[pad] * (n + virtual) + row for n, row in zip(padding, rows, strict=True)], device=device)
    real = torch.tensor([[0] * n + [1] * (width - n + virtual) for n in padding], device=device)
    # Given a non-contiguous slice, torch would copy the head's weights once for every row.
    head = model.model.get_output_embeddings()
    with (
        head.register_forward_pre_hook(lambda _, args: (args[0].contiguous(),)),
        soft_prompt_after(model.model, soft, padding),
    ):
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
def soft_prompt_after(model: Any, soft: np.ndarray | None, padding: Sequence[int]) -> Iterator[None]:
    """Insert a soft prompt (1, T, dim) after each row's padding, in place of T pad tokens, when whole prompts are read.

    All classes of transformers generate from ids, but not all from embeddings.
    """
    if soft is None:
        yield
        return

    virtual = soft.shape[1]

    def put(_: Any, args: tuple[Any, ...], embeds: torch.Tensor) -> torch.Tensor:
        if embeds.shape[1] <= virtual:  # a decoding step of one token
            return embeds
        return prepend(
            torch.from_numpy(soft), embeds[:, virtual:], padding
        )  # the rows have T pad tokens more than ``padding``

    with model.get_input_embeddings().register_forward_hook(put):
        yield
