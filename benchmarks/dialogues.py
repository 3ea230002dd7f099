"""A round of CLCA's simulation: many dialogues together against one at a time, tokens written a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from culteval.harness.models import LanguageModel, load_model
from culteval.optimizers.clca.aligner import culture_of
from culteval.optimizers.clca.scenarios import adapted
from culteval.optimizers.clca.settings import CLCASettings
from culteval.optimizers.clca.simulate import Playing, begin, play_round
from culteval.optimizers.clca.writer import LocalWriter, Style

from .common import Row, Settings, alternate, ratio, say


def processor(work: Callable[[], Any]) -> float:
    """Seconds of processor time, which other work on the machine disturbs least."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(settings: Settings, scenarios: int = 20, alone: int = 3, before: int = 3, words: int = 48) -> list[Row]:
    """A row a dtype: seconds of processor time for a token written, ``ratio`` one dialogue at a time over all together.

    Args:
        scenarios: each is two dialogues.
        alone: dialogues of a timed round one at a time.
        before: turns that the dialogues have had.
        words: tokens of a turn.
    """
    rows = []
    for dtype in settings.dtypes:
        model = load_model(settings.model, dtype, settings.device, None, settings.threads, say)
        rows.append(_row(model, dtype, settings.repeats, scenarios, alone, before, words))
    return rows


def _row(model: LanguageModel, dtype: str, repeats: int, scenarios: int, alone: int, before: int, words: int) -> Row:
    clca, culture = CLCASettings(), culture_of("US")
    playing = begin(adapted("US", scenarios, np.random.default_rng(0)), clca.repeats)

    def play(some: list[Playing], number: int, batch: int) -> tuple[list[Playing], LocalWriter]:
        writer = LocalWriter(model, batch)
        return play_round(some, culture, writer, Style(words, clca.top_p), before + 1, number, True), writer

    for number in range(before):
        playing, _ = play(playing, number, 40)
    going = [each for each in playing if not each.ended]
    # A token's time, so that works of unequal size compare: texts end where the model ends them.
    written: dict[str, list[int]] = {"together": [], "alone": []}

    def work(name: str, some: list[Playing], batch: int) -> None:
        written[name].append(sum(play([each], before, 1)[1].tokens for each in some) if batch == 1 else
                             play(some, before, batch)[1].tokens)  # fmt: skip

    works = {"together": lambda: work("together", going, 40), "alone": lambda: work("alone", going[:alone], 1)}
    times = alternate(works, repeats, processor)
    each = {name: [t / n for t, n in zip(times[name], written[name][1:], strict=True)] for name in works}
    middle = {name: float(np.median(values)) for name, values in each.items()}
    speeds = [f"{1 / middle[name]:.1f} {name}" for name in works]
    note = f"{len(going)} dialogues; tokens a second of processor time: {', '.join(speeds)}"
    return Row(
        name="dialogues",
        dtype=dtype,
        seconds=middle["together"],
        seconds_peer=middle["alone"],
        ratio=ratio(each["alone"], each["together"]),
        note=note,
    )
