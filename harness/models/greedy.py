"""Generate text greedily in batches of prompts, and tell how far a given text is from that.

The engine generates it where it runs the layers; with a soft prompt, and of other models, transformers does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any, Protocol

import numpy as np
import torch

from ..engine.chat import BLOCKS, Block, Chat, opened_block
from ..engine.generate import Row, Sampling, generate, most_probable
from ..engine.packed import Engine
from ..engine.soft_prompt import prepend
from ..util.display import Done

TOGETHER = 16  # prompts per batch of transformers, which pads them, in order
TOGETHER_PACKED = 48  # prompts per batch of the engine, which reads what they share once
LEADS = ("", " ", "\n", "\n\n")  # white space that ``write`` removes in front of an answer
LAST = 3  # tokens of a text that its end may be written with: ".\n" is one token in many vocabularies
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
    answer is the text after the block. ``tokens`` counts each prompt whole, also where the engine reads a common
    beginning once, so that it does not depend on batches.

    Args:
        soft: one soft prompt (1, T, dim) or None.
        most: maximum number of tokens per answer.
        done: is told the number of prompts of each batch, after it.

    Raises:
        RunError: the model gives no finite probability for some token.
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
        _soft_prompt_after(model.model, soft, padding),
    ):
        out = model.model.generate(
            input_ids=ids,
            attention_mask=real,
            max_new_tokens=most,
            do_sample=False,
            pad_token_id=pad,
            eos_token_id=list(ends) or None,
            logits_processor=[_require_finite],
        )
    written = [_up_to_end(row, ends) for row in out[:, ids.shape[1] :].tolist()]
    model.tokens += int(real.sum()) + sum(map(len, written))
    return written


def _require_finite(_: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    """Return the logits of the next tokens as they are; raises as ``most_probable``."""
    most_probable(scores)
    return scores


def _up_to_end(row: list[int], ends: Sequence[int]) -> list[int]:
    """Return a row up to its first end token, which is included; padding follows."""
    return row[: next((at for at, token in enumerate(row, start=1) if token in ends), len(row))]


@contextmanager
def _soft_prompt_after(model: Any, soft: np.ndarray | None, padding: Sequence[int]) -> Iterator[None]:
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


def shortfalls(
    model: TextModel, prompts: Sequence[str], answers: Sequence[str], soft: np.ndarray | None, most: int, lines: bool
) -> np.ndarray:
    """Compute for each answer to a rendered prompt how far it is from the greedy one, in nats.

    The largest difference, over its tokens and its end, between the log-probability of the most probable token and that
    of the given one: 0 for greedy text, unless the tokenizer would write it with other tokens; infinite for more tokens
    than ``most``, and where reasoning that is not part of the text came before it.

    Args:
        soft: one soft prompt (1, T, dim) or None.
        most: maximum number of tokens of an answer; a text of as many needs no end.
        lines: whether a text may have several lines; else a line break is its end.
    """
    ends, found = _ends(model, lines), []
    for prompt, row, answer in zip(prompts, model.chat.ids(prompts), answers, strict=True):
        tried = set() if opened_block(prompt) else _ways(answer)
        found.append(min((_shortfall(model, row, text, soft, most, ends) for text in tried), default=np.inf))
    return np.array(found)


def _ends(model: TextModel, lines: bool) -> Mapping[str, list[int]]:
    """Return the tokens that end a text, by what of the text they write before its end."""
    found = defaultdict(list, {"": list(model.ends)})
    if not lines:
        texts = model.tokenizer.batch_decode([[token] for token in range(len(model.tokenizer))])
        for token, text in enumerate(texts):
            before, line_break, _ = text.partition("\n")
            if line_break:
                found[before.rstrip()].append(token)
    return dict(found)


def _ways(answer: str) -> set[str]:
    """Return the texts that give an answer: white space before it is removed, and after it may belong to its end."""
    return {lead + text for text in (answer, answer.rstrip()) for lead in (LEADS if text else LEADS[:1])}


@torch.no_grad()
def _shortfall(
    model: TextModel, row: list[int], text: str, soft: np.ndarray | None, most: int, ends: Mapping[str, list[int]]
) -> float:
    written = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(written) > most:
        return float("inf")
    virtual = 0 if soft is None else soft.shape[1]
    pad = [row[0]] * virtual  # in whose place the soft prompt is put
    ids = torch.tensor([pad + row + written], device=model.model.device)
    with _soft_prompt_after(model.model, soft, [0]):
        logits = model.model(input_ids=ids, use_cache=False).logits[0, virtual + len(row) - 1 :]
    model.tokens += ids.shape[1]
    logs = logits.float().log_softmax(-1)
    short = [float(logs[at].max() - logs[at, token]) for at, token in enumerate(written)]
    found = [max(short, default=0.0)] if len(written) == most else []
    for at in range(max(0, len(written) - LAST), min(len(written), most - 1) + 1):
        before = model.tokenizer.decode(written[:at])
        if text.startswith(before) and (tokens := ends.get(text[len(before) :].rstrip())):
            found.append(max(*short[:at], float(logs[at].max() - logs[at, tokens].max()), 0.0))
    return min(found, default=float("inf"))
