"""From spec to prompts: wordings x orders x respondents, shared text first and the item last."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .answers import Layout
from .schema import Split, Wording
from .spec import TaskSpec

ORDERS = ("natural", "reversed")


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts of one task: ``texts`` and ``choices`` (what may be answered, in code order) by row of ``layout``.

    Compared by identity, so that what was tokenised once is found again.
    """

    task: str
    texts: tuple[str, ...]
    choices: tuple[tuple[str, ...], ...]
    layout: Layout

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: np.ndarray) -> Prompts:
        """Some of the prompts, by row numbers or a mask."""
        pick = np.arange(len(self))[rows].tolist()
        return Prompts(
            self.task,
            tuple(self.texts[i] for i in pick),
            tuple(self.choices[i] for i in pick),
            self.layout.take(rows),
        )


def question(wording: Wording, item: str, spec: TaskSpec, order: str) -> str:
    """The text of one item: instruction and scale first (shared by neighbours), the question last.

    Reversed order lists the options from the last to the first; each keeps its digit.
    """
    key = spec.items.items[item]
    lines = [f"{code} = {label}" for code, label in enumerate(wording.scales[key.scale], start=1)]
    if order == "reversed":
        lines.reverse()
    stem = f"{wording.stems[key.stem]} " if key.stem else ""
    return "\n".join([wording.instruction, *lines, f"{stem}{wording.items[item]}"])


def render(spec: TaskSpec, split: Split, personas: Sequence[str] = ()) -> Prompts:
    """All prompts of a split: every item in every wording and order, asked of every respondent.

    Args:
        personas: one text a respondent, put before the question; none means one respondent without a description.
    """
    items, wordings = tuple(spec.items.items), spec.wordings
    texts, choices, rows = [], [], []
    for respondent, persona in enumerate(personas or ("",)):
        for name, order in itertools.product(split.wordings, split.orders):
            wording = spec.items.wordings[name]
            for index, item in enumerate(items):
                text = question(wording, item, spec, order)
                texts.append(f"{persona}\n{text}" if persona else text)
                size = len(wording.scales[spec.items.items[item].scale])
                choices.append(tuple(str(code) for code in range(1, size + 1)))
                rows.append((index, wordings.index(name), ORDERS.index(order), respondent))
    columns = np.array(rows, dtype=np.int32).T
    layout = Layout(items, wordings, ORDERS, max(1, len(personas)), *columns, code_table(choices))
    return Prompts(spec.name, tuple(texts), tuple(choices), layout)


def code_table(choices: Sequence[Sequence[str]]) -> np.ndarray:
    """Codes (prompts, options) as numbers, zero-padded to the widest scale."""
    width = max(map(len, choices))
    return np.array([[float(code) for code in row] + [0.0] * (width - len(row)) for row in choices])


def join(first: Prompts, second: Prompts) -> Prompts:
    """Two sets of prompts of one task as one, ``first`` before ``second``."""
    layout = first.layout.join(second.layout)
    return Prompts(first.task, first.texts + second.texts, first.choices + second.choices, layout)
