"""Verbalized distributions: the shares of people for each option, read from generated text.

The model is asked how many of 100 people give each answer (Meister et al. 2024, "Benchmarking Distributional Alignment
of Large Language Models"), which needs no log-probabilities.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from .answers import UNPARSED, Answers, Layout
from .extraction import after_reasoning

MOST_READ = 4_000  # characters; later text is ignored
LEAST_SUM, MOST_SUM = 90.0, 110.0  # of the shares, in per cent; within them they are normalised

_SHARE = r"(?P<share>\d{1,3}(?:\.\d{1,6}|,\d{1,6}(?!\d*\s*[:=).–—-]))?)\s*(?:%|people|persons|percent)?"
# "2: 30%", "(2) 30", "2 = a little important: 30": an option, at most a label, a separator, and a number.
_PAIR = re.compile(
    rf"(?<![\w.%-])(?P<option>\d{{1,3}})\s*(?:[.)=:]\s+(?=[^\W\d])|\((?=[^\W\d]))?[^\d\n:;%]{{0,100}}?"
    rf"\s*[:=)–—-]\s*{_SHARE}(?![\w.%]*\d)",
    re.IGNORECASE,
)
_BARE = re.compile(rf"\s*{_SHARE}(?:\s*[,;/\n]\s*|\s+|\s*$)", re.IGNORECASE)


def read_shares(text: str, codes: Sequence[int]) -> list[float] | None:
    """Read the share of each option, in code order; they sum to 1.

    Either every option is named once with its number ("1: 20, 2: 80"), or the text has nothing but one number for each.
    Text inside ``<think>`` is ignored.

    Returns:
        None unless all numbers are 0 to 100 and sum to 90 to 110.
    """
    text = after_reasoning(text).strip()[:MOST_READ]
    pairs = [(int(found["option"]), _number(found["share"])) for found in _PAIR.finditer(text)]
    if pairs:
        named = dict(pairs)
        if len(named) < len(pairs) or set(named) != set(codes):
            return None
        shares = [named[code] for code in codes]
    else:
        shares = _bare(text)
    total = sum(shares)
    if len(shares) != len(codes) or max(shares) > 100 or not LEAST_SUM <= total <= MOST_SUM:
        return None
    return [share / total for share in shares]


def _bare(text: str) -> list[float]:
    """Read a text of nothing but numbers; empty for any other text."""
    shares, at = list[float](), 0
    while at < len(text):
        if (found := _BARE.match(text, at)) is None:
            return []
        shares.append(_number(found["share"]))
        at = found.end()
    return shares


def _number(text: str) -> float:
    return float(text.replace(",", "."))


def stated_answers(layout: Layout, texts: Sequence[str]) -> Answers:
    """Return answers whose probabilities are the shares that the texts state.

    Where a text states none, all options are equally probable and all probability is off the options, as for an answer
    without information elsewhere.
    """
    probs = layout.inside / np.maximum(layout.widths, 1)[:, None]
    outside = np.ones(len(layout))
    for row, codes in enumerate(layout.options):
        if codes and (shares := read_shares(texts[row], codes)) is not None:
            probs[row, : len(codes)], outside[row] = shares, 0
    return Answers(layout, probs[None], outside[None], tuple(texts), np.full(len(layout), UNPARSED))
