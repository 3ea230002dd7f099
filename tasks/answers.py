"""Answers as arrays: the factors of every prompt and the probability of every option."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

COLUMNS = ("item", "paraphrase", "order", "persona", "codes", "widths")
BY_SHARES = ("expected", "cloze", "verbalized")  # scorings that weight options by their shares
IN_TEXT = ("text", "verbalized")  # scorings of generated text, which need no option probabilities
UNPARSED = -1  # a generated text in which no option code was found; a valid code is >= 0


@dataclass(frozen=True)
class Layout:
    """The columns of a set of prompts: one row per prompt, each factor as an index into its levels.

    ``item``, ``paraphrase``, ``order``, ``persona`` are int32 arrays of shape (prompts,); ``codes`` is a float64 array
    (prompts, options) of the options' codes in code order, zero-padded where an item has fewer options, and ``widths``
    (prompts,) int32 says how many it has.
    """

    items: tuple[str, ...]
    paraphrases: tuple[str, ...]
    orders: tuple[str, ...]
    personas: int
    item: np.ndarray
    paraphrase: np.ndarray
    order: np.ndarray
    persona: np.ndarray
    codes: np.ndarray
    widths: np.ndarray

    def __len__(self) -> int:
        return len(self.item)

    @property
    def inside(self) -> np.ndarray:
        """Return which options each prompt has, a boolean mask (prompts, options)."""
        return np.arange(self.codes.shape[1]) < self.widths[:, None]

    @property
    def options(self) -> list[tuple[int, ...]]:
        """Return the codes of each prompt's options, in code order."""
        return [tuple(map(int, row[:n])) for row, n in zip(self.codes, self.widths, strict=True)]

    @property
    def asked_paraphrases(self) -> tuple[str, ...]:
        """Return the paraphrases that occur in some row."""
        return tuple(name for i, name in enumerate(self.paraphrases) if (self.paraphrase == i).any())

    @property
    def asked_orders(self) -> tuple[str, ...]:
        """Return the option orders that occur in some row."""
        return tuple(name for i, name in enumerate(self.orders) if (self.order == i).any())

    def where(self, paraphrases: tuple[str, ...], orders: tuple[str, ...]) -> np.ndarray:
        """Return a boolean mask (prompts,) of the rows in these paraphrases and option orders."""
        in_paraphrases = np.isin(self.paraphrase, [i for i, name in enumerate(self.paraphrases) if name in paraphrases])
        in_orders = np.isin(self.order, [i for i, name in enumerate(self.orders) if name in orders])
        return in_paraphrases & in_orders

    def take(self, rows: np.ndarray) -> Layout:
        """Return the layout of some rows (mask or indices); the levels stay as they are."""
        return replace(self, **{name: getattr(self, name)[rows] for name in COLUMNS})

    def join(self, other: Layout) -> Layout:
        """Return the rows of both layouts, which have the same levels."""
        columns: dict[str, Any] = {
            name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in COLUMNS
        }
        return replace(self, personas=max(self.personas, other.personas), **columns)


@dataclass(frozen=True)
class Answers:
    """The answers of a population of aligned models to the same prompts.

    ``probs`` (population, prompts, options) are the options' probabilities in code order, normalised over the options;
    ``off_options`` (population, prompts) is the probability mass on anything else. Where text was generated, ``texts``
    has one string a prompt and ``parsed`` (prompts,) the code read from it, or ``UNPARSED``. A presentation in reversed
    order changes nothing here: answers are always in code order. Where no probabilities are known, ``probs`` are zeros
    and ``off_options`` is one.
    """

    layout: Layout
    probs: np.ndarray
    off_options: np.ndarray
    texts: tuple[str, ...] | None = None
    parsed: np.ndarray | None = None

    @property
    def weighed(self) -> bool:
        """Return whether there are option probabilities; an endpoint may give none, and then there are only texts."""
        closed = self.layout.widths > 0
        return not closed.any() or bool(self.probs[:, closed].any())

    def take(self, rows: np.ndarray) -> Answers:
        """Return the answers to some prompts (mask or indices)."""
        texts = None if self.texts is None else tuple(np.asarray(self.texts, dtype=object)[rows])
        parsed = None if self.parsed is None else self.parsed[rows]
        return Answers(self.layout.take(rows), self.probs[:, rows], self.off_options[:, rows], texts, parsed)

    def values(self, scoring: str) -> np.ndarray:
        """Return the answers as numbers on the scale, (population, prompts) float64.

        NaN where a text could not be parsed, and for ``argmax`` where an endpoint told nothing.
        """
        if scoring == "text":
            if self.parsed is None:
                raise ValueError("these answers hold no generated text")
            return np.where(self.parsed == UNPARSED, np.nan, self.parsed.astype(float))[None]
        values: np.ndarray = read(self.probs, self.layout.codes, scoring)
        known = {"verbalized": self.stated, "argmax": self.decided}.get(scoring)
        return values if known is None else np.where(known, values, np.nan)

    @property
    def stated(self) -> np.ndarray:
        """Return which prompts of the first candidate were answered at all, boolean (prompts,).

        Without information all probability is off the options: a first token that begins no option, shares that a text
        does not state.
        """
        stated: np.ndarray = self.off_options[0] < 1
        return stated

    @property
    def decided(self) -> np.ndarray:
        """Return for which prompts the first candidate has a most probable option, boolean (prompts,).

        There is none where all probability is off the options and they have equal shares: an endpoint told of none.
        """
        probs, inside = self.probs[0], self.layout.inside
        most = np.where(inside, probs, 0).max(-1, initial=0)
        equal = most == np.where(inside, probs, 1).min(-1, initial=1)
        decided: np.ndarray = self.stated | ~equal
        return decided


def unweighed(layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities (1, prompts, options) and those off the options (1, prompts) where none are known."""
    return np.zeros((1, *layout.codes.shape)), np.ones((1, len(layout)))


def shares(mass: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalise probability mass (..., options) over the options.

    Returns:
        Shares (..., options), zero where there is no mass, and the mass (...) that lies on none of the options.
    """
    total = mass.sum(-1, keepdims=True)
    return mass / np.where(total > 0, total, 1), np.clip(1 - total[..., 0], 0, 1)


def read(probs: Any, codes: Any, scoring: str) -> Any:
    """Compute numbers on the scale from option probabilities: (..., prompts, options) -> (..., prompts).

    ``expected``, like the other scorings of ``BY_SHARES``, is the probability-weighted code; it works on numpy arrays
    and torch tensors alike and is differentiable. So is ``text``, whose probabilities are all on the parsed option
    (``chosen``). ``argmax`` is the code of the most probable option (the first of equals).
    """
    if scoring in (*BY_SHARES, "text"):
        return (probs * codes).sum(-1)
    if scoring == "argmax":
        best = np.asarray(probs).argmax(-1)
        return np.take_along_axis(np.broadcast_to(codes, probs.shape), best[..., None], -1)[..., 0]
    raise ValueError(f"unknown answer scoring {scoring!r}")


def item_means(layout: Layout) -> np.ndarray:
    """Compute the averaging matrix (items, prompts): row i averages item i over paraphrases, orders and personas."""
    matrix: np.ndarray = (layout.item[None] == np.arange(len(layout.items))[:, None]).astype(np.float64)
    matrix /= np.maximum(matrix.sum(1, keepdims=True), 1)
    return matrix


def chosen(answers: Answers, scoring: str) -> np.ndarray:
    """Compute how the first candidate's answers are distributed over the options, (prompts, options) in code order.

    ``expected``, ``cloze``: the probabilities; ``argmax``: all mass on the most probable option, zeros where none is
    (``Answers.decided``); ``text``: all mass on the option that was parsed, ``verbalized``: the shares that were
    parsed, zeros where none were.
    """
    codes, inside = answers.layout.codes, answers.layout.inside
    spread: np.ndarray = answers.probs[0]
    if scoring == "text":
        if answers.parsed is None:
            raise ValueError("these answers hold no generated text")
        spread = ((codes == answers.parsed[:, None]) & inside).astype(float)
    elif scoring == "verbalized":
        spread = spread * answers.stated[:, None]
    elif scoring not in BY_SHARES:
        spread = (np.arange(codes.shape[1]) == spread.argmax(-1)[:, None]) & inside & answers.decided[:, None]
    return spread
