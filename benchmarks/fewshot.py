"""A stock few-shot multiple-choice task in lm-eval: culteval's model class against HFLM, on the same requests."""

from __future__ import annotations

import itertools
import statistics
from typing import TYPE_CHECKING

import numpy as np

from .common import Row, Settings, alternate, ratio, say, source_of
from .peer import loglikelihoods, requests_of, stock, use_best_batch

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

SHOTS, LETTERS, SEARCHED = 5, "ABCD", 64
PEOPLE = ("a baker", "a farmer", "a teacher", "a sailor", "a nurse", "a carpenter", "a painter", "a clerk")
PLACES = ("the market", "the old mill", "the harbour", "the school", "the station", "the garden", "the library")
THINGS = ("bread", "two lamps", "a basket of pears", "some rope", "a wooden chair", "warm coats", "a clock", "seeds")
TIMES = ("before sunrise", "at noon", "after the rain", "on market day", "late in the evening", "in early spring")
PRICES = ("four coins", "nine coins", "a silver ring", "half a day of work", "three hens", "a jar of honey")


def measure(settings: Settings, questions: int = 200) -> list[Row]:
    """Measure one row per dtype."""
    requests = requests_of(contexts(questions), [[f" {letter}" for letter in LETTERS]] * questions)
    return [_measure(settings, dtype, requests) for dtype in settings.dtypes]


def contexts(questions: int, seed: int = 0) -> list[str]:
    """Build questions about one subject, each after a heading and the same five answered questions, as in MMLU."""
    rng = np.random.default_rng(seed)
    heading = "The following are multiple choice questions (with answers) about a small town.\n\n"
    shots = "".join(f"{_question(rng)} {rng.choice(list(LETTERS))}\n\n" for _ in range(SHOTS))
    return [heading + shots + _question(rng) for _ in range(questions)]


def _question(rng: np.random.Generator) -> str:
    who, place, thing, when = (str(rng.choice(words)) for words in (PEOPLE, PLACES, THINGS, TIMES))
    options = rng.choice(PRICES, len(LETTERS), replace=False)
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=True)]
    # A number first, so that questions have little in common after the examples, as real ones do.
    start = f"{rng.integers(2, 1000)} days ago {who} came to {place} for {thing}"
    story = f"{start} and found a seller {when}. What did they most likely agree on?"
    return "\n".join([story, *lines, "Answer:"])


def _measure(settings: Settings, dtype: str, requests: list[Instance]) -> Row:
    say(f"fewshot, {dtype}: loading")
    peer, ours = stock(settings, dtype), _ours(settings, dtype)
    batch = use_best_batch(peer, requests[:SEARCHED], len(LETTERS))
    say(f"fewshot, {dtype}: {len(requests)} requests")
    found: dict[str, list[float]] = {}
    works = {
        "ours": lambda: found.update(ours=loglikelihoods(ours, requests)),
        "peer": lambda: found.update(peer=loglikelihoods(peer, requests)),
    }
    times = alternate(works, settings.repeats)
    tokens = _tokens(peer, requests)
    return Row(
        name=f"{SHOTS} shots, {len(requests) // len(LETTERS)} questions",
        dtype=dtype,
        seconds=statistics.median(times["ours"]),
        seconds_peer=statistics.median(times["peer"]),
        ratio=ratio(times["peer"], times["ours"]),
        max_abs_diff=float(np.abs(np.subtract(found["ours"], found["peer"])).max()),
        note=f"{tokens:,} tokens in the questions' prompts; peer batch size {batch}",
    )


def _ours(settings: Settings, dtype: str) -> HFLM:
    from culteval.harness.integrations.lm_eval_model import CultevalLM

    return CultevalLM(pretrained=source_of(settings.model), dtype=dtype, device=settings.device)


def _tokens(lm: HFLM, requests: list[Instance]) -> int:
    return sum(len(lm.tok_encode(context)) for context, _ in itertools.groupby(r.args[0] for r in requests))
