"""From spec to prompts: items x wordings x orders x respondents, shared text first and the item last."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from .answers import Layout
from .extraction import parse_code
from .items import free_id
from .personas import panel
from .schema import Split, SplitName
from .spec import TaskSpec

if TYPE_CHECKING:
    import pandas as pd

ORDERS = ("natural", "reversed")


@dataclass(frozen=True)
class Asking:
    """How much of a task's protocol is asked, and of whom.

    ``respondents`` people are drawn for each split from ``seed``; none means one answer without a description.
    ``limit`` keeps that many wordings a split, and respondents, at most. With ``calibrate`` the content-free item of
    every scale is asked too, in each wording, order and respondent.
    """

    respondents: int = 0
    seed: int = 0
    limit: int | None = None
    calibrate: bool = False

    def people(self) -> int:
        """Respondents a split, after the limit."""
        return self.respondents if self.limit is None else min(self.respondents, self.limit)

    def part(self, split: Split) -> Split:
        """A split after the limit."""
        return split if self.limit is None else split.model_copy(update={"wordings": split.wordings[: self.limit]})


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

    def to_frame(self) -> pd.DataFrame:
        """Return one row a prompt: item, paraphrase, option order, persona, the text, and what may be answered."""
        import pandas as pd

        layout = self.layout
        columns = {
            "item": [layout.items[i] for i in layout.item],
            "paraphrase": [layout.wordings[i] for i in layout.wording],
            "order": [layout.orders[i] for i in layout.order],
            "persona": layout.respondent,
            "text": self.texts,
            "choices": self.choices,
        }
        return pd.DataFrame(columns)

    def _repr_html_(self) -> str:
        html: str = self.to_frame().to_html(max_rows=20, border=0, escape=True)
        return html

    def parse(self, texts: Sequence[str]) -> np.ndarray:
        """The code (prompts,) that each prompt's answer in words gives, ``UNPARSED`` where it gives none."""
        cells = zip(texts, self.choices, self.layout.options, strict=True)
        return np.array([parse_code(*cell) for cell in cells])

    def take(self, rows: np.ndarray) -> Prompts:
        """Some of the prompts, by row numbers or a mask."""
        pick = np.arange(len(self))[rows].tolist()
        return Prompts(
            self.task,
            tuple(self.texts[i] for i in pick),
            tuple(self.choices[i] for i in pick),
            self.layout.take(rows),
        )


def render(spec: TaskSpec, split: SplitName, asking: Asking = Asking()) -> Prompts:
    """All prompts of a split: every item of it in every wording and order, asked of every respondent."""
    shown = [spec.items.present(item, name, order) for name, order, item in _cells(spec, split, asking)]
    texts: list[str] = []
    for persona in panel(spec, asking.people(), asking.seed, split) or ("",):
        texts += [f"{persona}\n{text}" if persona else text for text, _ in shown]
    choices = tuple(may for _, may in shown) * max(1, asking.people())
    return Prompts(spec.name, tuple(texts), choices, _split_layout(spec, split, asking))


def _split_layout(spec: TaskSpec, split: SplitName, asking: Asking) -> Layout:
    """The columns of ``render``'s prompts: one respondent's cells, as often as there are respondents."""
    names, wordings, people = all_items(spec, asking), spec.wordings, max(1, asking.people())
    number = {name: index for index, name in enumerate(names)}
    cells = [
        (number[item], wordings.index(name), ORDERS.index(order)) for name, order, item in _cells(spec, split, asking)
    ]
    item, wording, order = np.tile(np.array(cells, dtype=np.int32).T, people)
    respondent = np.repeat(np.arange(people, dtype=np.int32), len(cells))
    codes = [spec.items.codes(names[i]) for i, _, _ in cells]
    sizes = np.tile(np.array([len(row) for row in codes], dtype=np.int32), people)
    table = np.tile(_padded(codes), (people, 1))
    return Layout(names, wordings, ORDERS, people, item, wording, order, respondent, table, sizes)


def _cells(spec: TaskSpec, split: SplitName, asking: Asking) -> Iterator[tuple[str, str, str]]:
    """Wording, order and item of what one respondent is asked; an open question has no options to turn round."""
    part = asking.part(spec.metadata.splits.named[split])
    items = split_items(spec, split, asking)
    for name, order in itertools.product(part.wordings, part.orders):
        for item in items:
            if spec.items.codes(item) or order == part.orders[0]:
                yield name, order, item


def all_items(spec: TaskSpec, asking: Asking) -> tuple[str, ...]:
    """The items of a layout: those of the file, then the content-free ones of each split where they are asked."""
    kinds = tuple(dict.fromkeys(spec.items.free.values())) if asking.calibrate else ()
    return spec.items.ids + tuple(free_id(split, kind) for split in spec.metadata.splits.named for kind in kinds)


def split_items(spec: TaskSpec, split: SplitName, asking: Asking) -> tuple[str, ...]:
    """Ids of what a split asks."""
    tag = spec.metadata.splits.named[split].items
    items = tuple(item for item in spec.items.ids if tag in ("all", spec.items.tag(item)))
    if not asking.calibrate:
        return items
    kinds = dict.fromkeys(spec.items.free[item] for item in items if item in spec.items.free)
    return items + tuple(free_id(split, kind) for kind in kinds)


def of_split(spec: TaskSpec, layout: Layout, split: SplitName) -> np.ndarray:
    """Boolean mask (prompts,) of the rows of a layout that belong to a split."""
    part = spec.metadata.splits.named[split]
    names = set(split_items(spec, split, Asking(calibrate=True)))
    return layout.where(part.wordings, part.orders) & np.array([name in names for name in layout.items])[layout.item]


def protocol(spec: TaskSpec, asking: Asking) -> Prompts:
    """All prompts that a submission answers, ``fit`` first."""
    parts = [render(spec, name, asking) for name in spec.metadata.splits.named]
    result = parts[0]
    for part in parts[1:]:
        result = join(result, part)
    return result


def layout_of(spec: TaskSpec, asking: Asking) -> Layout:
    """The layout of ``protocol``, without a text being written."""
    first, *others = _equally_wide([_split_layout(spec, name, asking) for name in spec.metadata.splits.named])
    for other in others:
        first = first.join(other)
    return first


def asked(spec: TaskSpec, asking: Asking) -> int:
    """How many answers ``protocol`` asks for, without building it."""
    return max(1, asking.people()) * sum(1 for name in spec.metadata.splits.named for _ in _cells(spec, name, asking))


def _padded(codes: Sequence[Sequence[int]]) -> np.ndarray:
    """Codes (prompts, options) as numbers, zero-padded to the widest scale."""
    width = max(map(len, codes))
    return np.array([[*map(float, row), *[0.0] * (width - len(row))] for row in codes]).reshape(len(codes), width)


def join(first: Prompts, second: Prompts) -> Prompts:
    """Two sets of prompts of one task as one, ``first`` before ``second``."""
    one, other = _equally_wide([first.layout, second.layout])
    return Prompts(first.task, first.texts + second.texts, first.choices + second.choices, one.join(other))


def _equally_wide(layouts: Sequence[Layout]) -> list[Layout]:
    width = max(each.codes.shape[1] for each in layouts)
    return [replace(each, codes=np.pad(each.codes, ((0, 0), (0, width - each.codes.shape[1])))) for each in layouts]
