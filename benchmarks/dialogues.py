"""CLCA's simulation: many dialogues in one batch against one at a time, in tokens per second."""

from __future__ import annotations

import time
from contextlib import nullcontext

import numpy as np
from culteval.harness.models.load import load_model
from culteval.harness.models.local import LanguageModel
from culteval.optimizers.clca.aligner import culture_of
from culteval.optimizers.clca.dialogues.scenarios import adapted
from culteval.optimizers.clca.dialogues.simulate import Playing, begin, play_round
from culteval.optimizers.clca.settings import CLCASettings
from culteval.optimizers.writing.writer import LocalWriter, Style

from .common import Row, Settings, ratio, say

TRIED = 2  # dialogues of the warm-up


def measure(settings: Settings, scenarios: int = 20, alone: int = 2, turns: int = 8, words: int = 48) -> list[Row]:
    """Measure three rows per dtype: wall-clock and processor time, which other processes affect less, and re-reading.

    Seconds are per written token. ``ratio`` is one dialogue at a time over all in one batch; in the last row, a batch
    whose chats are read as a whole every turn over one that reads what is new.

    With little of ``settings.minutes``, fewer dialogues and rounds are played, at least two dialogues and one round.

    Args:
        scenarios: each gives two dialogues.
        alone: dialogues that are played one at a time.
        turns: turns of each dialogue.
        words: tokens per turn.
    """
    rows = []
    for dtype in settings.dtypes:
        model = load_model(settings.model, dtype=dtype, device=settings.device, threads=settings.threads, notify=say)
        rows += _rows(model, dtype, settings, scenarios, alone, turns, words)
    return rows


def fitting(seconds: float, count: int, left: float, alone: int) -> int:
    """Return how many of ``count`` dialogues can be played in the time left, where one of few took ``seconds``.

    A round plays them together, then once more with chats read as a whole, each taken to be no slower than few are, and
    ``alone`` one at a time.
    """
    return max(2, min(count, int((left - alone * seconds) / (2 * seconds))))


def _rows(
    model: LanguageModel, dtype: str, settings: Settings, scenarios: int, alone: int, turns: int, words: int
) -> list[Row]:
    clca, culture = CLCASettings(), culture_of("US")
    begun, allowed = time.perf_counter(), 60 * settings.minutes / len(settings.dtypes)
    playing = begin(adapted("US", scenarios, np.random.default_rng(0)), clca.repeats)

    def play(some: list[Playing], batch: int, remembering: bool = True) -> int:
        writer = LocalWriter(model, batch)
        with writer.remembering() if remembering else nullcontext():
            for number in range(turns):
                some = play_round(some, culture, writer, Style(words, clca.top_p), turns, number, True)
        return writer.tokens

    play(playing[:TRIED], TRIED)
    each = (time.perf_counter() - begun) / TRIED
    playing = playing[: fitting(each, len(playing), allowed - (time.perf_counter() - begun), alone)]
    works = {
        "together": lambda: play(playing, len(playing)),
        "alone": lambda: sum(play([one], 1) for one in playing[:alone]),
        "read as a whole every turn": lambda: play(playing, len(playing), remembering=False),
    }
    # Time per token, so that works of unequal size are comparable: the model decides where texts end.
    taken: dict[str, list[tuple[float, float]]] = {work: [] for work in works}
    start = time.perf_counter()
    for done in range(settings.repeats):
        spent = time.perf_counter() - start
        if done and spent * (done + 1) / done > allowed - (start - begun):
            break
        for name, work in works.items():
            before = time.perf_counter(), time.process_time()
            tokens = work()
            after = time.perf_counter(), time.process_time()
            taken[name].append(((after[0] - before[0]) / tokens, (after[1] - before[1]) / tokens))
    compared = [("clock", 0, "alone"), ("processors", 1, "alone"), ("reading", 0, "read as a whole every turn")]
    return [_row(name, dtype, taken, column, peer, len(playing)) for name, column, peer in compared]


def _row(name: str, dtype: str, taken: dict[str, list[tuple[float, float]]], column: int, peer: str, count: int) -> Row:
    mine, theirs = ([round_[column] for round_ in taken[work]] for work in ("together", peer))
    seconds, seconds_peer = float(np.median(mine)), float(np.median(theirs))
    note = f"{count} dialogues; tokens a second: {1 / seconds:.1f} together, {1 / seconds_peer:.1f} {peer}"
    return Row(name=name, dtype=dtype, seconds=seconds, seconds_peer=seconds_peer, ratio=ratio(theirs, mine), note=note)
