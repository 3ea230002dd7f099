"""One round of CLCA's simulation: many dialogues in one batch against one at a time, in tokens per second."""

from __future__ import annotations

import time

import numpy as np
from culteval.harness.models.load import load_model
from culteval.harness.models.local import LanguageModel
from culteval.optimizers.clca.aligner import culture_of
from culteval.optimizers.clca.dialogues.scenarios import adapted
from culteval.optimizers.clca.dialogues.simulate import Playing, begin, play_round
from culteval.optimizers.clca.settings import CLCASettings
from culteval.optimizers.writing.writer import LocalWriter, Style

from .common import Row, Settings, alternate, ratio, say


def measure(settings: Settings, scenarios: int = 20, alone: int = 3, before: int = 3, words: int = 48) -> list[Row]:
    """Measure two rows per dtype, in wall-clock time and in processor time, which other processes affect less.

    Seconds are per written token; ``ratio`` is one dialogue at a time over all in one batch.

    With little of ``settings.minutes``, fewer dialogues and rounds are played, at least two dialogues and one round.

    Args:
        scenarios: each gives two dialogues.
        alone: dialogues of a timed round that runs one at a time.
        before: turns already played in the dialogues.
        words: tokens per turn.
    """
    rows = []
    for dtype in settings.dtypes:
        model = load_model(settings.model, dtype=dtype, device=settings.device, threads=settings.threads, notify=say)
        rows += _rows(model, dtype, settings, scenarios, alone, before, words)
    return rows


def _fitting(seconds: float, count: int, left: float, rounds: int, alone: int) -> int:
    """Return how many dialogues can be played in the time left, where one round of ``count`` took ``seconds``.

    Rounds are those of all together; a dialogue alone is taken to be three times as slow, in a warm-up and one timed
    round.
    """
    each = seconds / count
    return max(2, min(count, int((left - 6 * alone * each) / (rounds * each))))


def _rows(
    model: LanguageModel, dtype: str, settings: Settings, scenarios: int, alone: int, before: int, words: int
) -> list[Row]:
    clca, culture = CLCASettings(), culture_of("US")
    begun, allowed = time.perf_counter(), 60 * settings.minutes / len(settings.dtypes)
    playing = begin(adapted("US", scenarios, np.random.default_rng(0)), clca.repeats)

    def play(some: list[Playing], number: int, batch: int) -> tuple[list[Playing], LocalWriter]:
        writer = LocalWriter(model, batch)
        return play_round(some, culture, writer, Style(words, clca.top_p), before + 1, number, True), writer

    for number in range(before):
        playing, _ = play(playing, number, 40)
        if not number:
            spent = time.perf_counter() - begun
            playing = playing[: _fitting(spent, len(playing), allowed - spent, before + 1, alone)]
    going = [each for each in playing if not each.ended]
    # Time per token, so that works of unequal size are comparable: the model decides where texts end.
    taken: dict[str, list[tuple[float, float]]] = {"together": [], "alone": []}

    def timed(name: str, parts: list[list[Playing]], batch: int) -> None:
        start = time.perf_counter(), time.process_time()
        tokens = sum(play(part, before, batch)[1].tokens for part in parts)
        taken[name].append(((time.perf_counter() - start[0]) / tokens, (time.process_time() - start[1]) / tokens))

    works = {
        "together": lambda: timed("together", [going], 40),
        "alone": lambda: timed("alone", [[each] for each in going[:alone]], 1),
    }
    alternate(works, settings.repeats, seconds=begun + allowed - time.perf_counter())
    rows = []
    for column, name in enumerate(("clock", "processors")):
        each = {work: [one[column] for one in rounds[1:]] for work, rounds in taken.items()}  # the first is the warm-up
        middle = {work: float(np.median(values)) for work, values in each.items()}
        speeds = ", ".join(f"{1 / seconds:.1f} {work}" for work, seconds in middle.items())
        note = f"{len(going)} dialogues; tokens a second: {speeds}"
        rows.append(
            Row(
                name=name,
                dtype=dtype,
                seconds=middle["together"],
                seconds_peer=middle["alone"],
                ratio=ratio(each["alone"], each["together"]),
                note=note,
            )
        )
    return rows
