"""Read generated texts again: stored codes and shares must be those that the texts give."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..harness.submissions.manifest import MOST_TEXT
from ..tasks.answers import Answers, Layout
from ..tasks.extraction import parse_code
from ..tasks.spec import TaskSpec
from ..tasks.verbalized import stated_answers

NEAR = 1e-6  # between two shares; stored ones have nine decimals
MOST_OTHER = 0.02  # of a task's answers: an earlier version of the parser reads a few texts in another way


def misread(spec: TaskSpec, answers: Answers) -> Iterator[str]:
    """Yield a problem if a task is scored by text and stored codes or shares are not what the texts give.

    ``MOST_OTHER`` of the answers to items with options may differ. Texts that were cut to ``MOST_TEXT`` are not
    compared: the answer may be in the part that is not stored.
    """
    texts, layout = answers.texts, answers.layout
    if texts is None:
        if spec.verbalized:
            yield f"{spec.name}: not every answer has a text, but its shares are read from texts; run the task again"
        return
    if spec.verbalized:
        field, again = "probs", stated_answers(layout, texts)
        off = np.abs(again.probs[0] - answers.probs[0]).max(1) > NEAR
        off |= np.abs(again.off_options[0] - answers.off_options[0]) > NEAR
    elif "text" in spec.metadata.scorings:
        field, off = "parsed", _parsed(spec, layout, texts) != answers.parsed
    else:
        return
    off &= np.array([len(text) != MOST_TEXT for text in texts])
    if off.sum() > MOST_OTHER * (layout.widths > 0).sum():
        first = _prompt(layout, int(off.argmax()))
        yield f"{spec.name}: {off.sum()} answers have another `{field}` than their text gives; the first is {first}"


def _parsed(spec: TaskSpec, layout: Layout, texts: tuple[str, ...]) -> np.ndarray:
    """Parse the code (prompts,) of each text; personas do not change what may be answered."""
    cells = list(zip(*(column.tolist() for column in (layout.item, layout.paraphrase, layout.order)), strict=True))
    choices = {
        cell: spec.items.present(layout.items[cell[0]], layout.paraphrases[cell[1]], layout.orders[cell[2]])[1]
        for cell in set(cells)
    }
    rows = zip(texts, cells, layout.options, strict=True)
    return np.array([parse_code(text, choices[cell], codes) for text, cell, codes in rows])


def _prompt(layout: Layout, row: int) -> str:
    item, paraphrase = layout.items[layout.item[row]], layout.paraphrases[layout.paraphrase[row]]
    return f"item {item}, paraphrase {paraphrase}, {layout.orders[layout.order[row]]}, persona {layout.persona[row]}"
