"""How far given texts are from greedy ones: rounding decides between two tokens of about equal probability."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from ..engine.chat import opened_block
from .greedy import TextModel, soft_prompt_after

LEADS = ("", " ", "\n", "\n\n")  # white space that ``write`` removes in front of an answer
LAST = 3  # tokens of a text that its end may be written with: ".\n" is one token in many vocabularies


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
    with soft_prompt_after(model.model, soft, [0]):
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
