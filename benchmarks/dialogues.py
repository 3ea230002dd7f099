"""A round of CLCA's simulation: many dialogues together against one at a time, tokens written a second."""

from __future__ import annotations

import time

import numpy as np
from culteval.harness.models.load import load_model
from culteval.harness.models.local import LanguageModel
from culteval.optimizers.clca.aligner import culture_of
from culteval.optimizers.clca.dialogues.scenarios import adapted
from culteval.optimizers.clca.dialogues.simulate import Playing, begin, play_round
from culteval.optimizers.clca.settings import CLCASettings
from culteval.optimizers.clca.writer import LocalWriter, Style

from .common import Row, Settings, alternate, ratio, say


def measure(settings: Settings, scenarios: int = 20, alone: int = 3, before: int = 3, words: int = 48) -> list[Row]:
    """Two rows a dtype, by the clock and by processor time, which other work on the machine disturbs less.

    Seconds are those for a token written; ``ratio`` is one dialogue at a time over all together.

    Args:
        scenarios: each is two dialogues.
        alone: dialogues of a timed round one at a time.
        before: turns that the dialogues have had.
        words: tokens of a turn.
    """
    rows = []
    for dtype in settings.dtypes:
        model = load_model(settings.model, dtype=dtype, device=settings.device, threads=settings.threads, notify=say)
        rows += _rows(model, dtype, settings.repeats, scenarios, alone, before, words)
    return rows


def _rows(
    model: LanguageModel, dtype: str, repeats: int, scenarios: int, alone: int, before: int, words: int
) -> list[Row]:
    clca, culture = CLCASettings(), culture_of("US")
    playing = begin(adapted("US", scenarios, np.random.default_rng(0)), clca.repeats)

    def play(some: list[Playing], number: int, batch: int) -> tuple[list[Playing], LocalWriter]:
        writer = LocalWriter(model, batch)
        return play_round(some, culture, writer, Style(words, clca.top_p), before + 1, number, True), writer

    for number in range(before):
        playing, _ = play(playing, number, 40)
    going = [each for each in playing if not each.ended]
    # A token's time, so that works of unequal size compare: texts end where the model ends them.
    taken: dict[str, list[tuple[float, float]]] = {"together": [], "alone": []}

    def timed(name: str, parts: list[list[Playing]], batch: int) -> None:
        start = time.perf_counter(), time.process_time()
        tokens = sum(play(part, before, batch)[1].tokens for part in parts)
        taken[name].append(((time.perf_counter() - start[0]) / tokens, (time.process_time() - start[1]) / tokens))

    works = {
        "together": lambda: timed("together", [going], 40),
        "alone": lambda: timed("alone", [[each] for each in going[:alone]], 1),
    }
    alternate(works, repeats)
    rows = []
    for column, name in enumerate(("clock", "processors")):
        each = {work: [one[column] for one in rounds[1:]] for work, rounds in taken.items()}  # the first warmed up
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
