"""Rendering of specs to prompts: items x paraphrases x orders x personas, common text first and the item last."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from .answers import Layout
from .cloze import byte_lengths, per_byte
from .extraction import parse_code
from .items import free_id
from .personas import draw_personas
from .schema import Split, SplitName
from .spec import TaskSpec

if TYPE_CHECKING:
    import pandas as pd

ORDERS = ("natural", "reversed")


@dataclass(frozen=True)
class ProtocolOptions:
    """How much of a task's protocol is presented, and to which personas.

    ``personas`` personas are drawn for each split from ``seed``; none means one answer without a description.
    ``limit`` is the largest number of paraphrases per split, and of personas. With ``calibrate`` the content-free item
    of every scale is presented too, in each paraphrase, order and persona. With ``heldout_only`` no other split is.
    """

    personas: int = 0
    seed: int = 0
    limit: int | None = None
    calibrate: bool = False
    heldout_only: bool = False

    def splits(self, spec: TaskSpec) -> tuple[SplitName, ...]:
        """Return the splits that are presented, ``fit`` first."""
        return ("heldout",) if self.heldout_only else tuple(spec.metadata.splits.named)

    def people(self) -> int:
        """Return the number of personas per split, after the limit."""
        return self.personas if self.limit is None else min(self.personas, self.limit)

    def part(self, split: Split) -> Split:
        """Return a split after the limit."""
        return (
            split if self.limit is None else split.model_copy(update={"paraphrases": split.paraphrases[: self.limit]})
        )


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts of one task: ``texts`` and ``choices`` (possible answers, in code order) by row of ``layout``.

    ``cloze``: the possible answers are texts of different lengths, read by their likelihood per byte. ``verbalized``:
    shares of the options are read from generated text, and option probabilities are not asked.
    Compared by identity, so that tokenised prompts can be cached.
    """

    task: str
    texts: tuple[str, ...]
    choices: tuple[tuple[str, ...], ...]
    layout: Layout
    cloze: bool = False
    verbalized: bool = False

    def __len__(self) -> int:
        return len(self.texts)

    def to_frame(self) -> pd.DataFrame:
        """Return one row a prompt: item, paraphrase, option order, persona, the text, and what may be answered."""
        import pandas as pd

        layout = self.layout
        columns = {
            "item": [layout.items[i] for i in layout.item],
            "paraphrase": [layout.paraphrases[i] for i in layout.paraphrase],
            "order": [layout.orders[i] for i in layout.order],
            "persona": layout.persona,
            "text": self.texts,
            "choices": self.choices,
        }
        return pd.DataFrame(columns)

    def _repr_html_(self) -> str:
        html: str = self.to_frame().to_html(max_rows=20, border=0, escape=True)
        return html

    @cached_property
    def _lengths(self) -> np.ndarray:
        return byte_lengths(self.choices, self.layout.codes.shape[1])

    def read_logs(self, logs: Any) -> Any:
        """Map log-likelihoods of the possible answers (..., prompts, options) to those that answers hold.

        They are the same but for ``cloze`` (see ``tasks/cloze.py``). Torch in, torch out, and differentiable.
        """
        if not self.cloze:
            return logs
        return per_byte(logs, self._lengths[:, : logs.shape[-1]], self.layout.widths)

    def parse(self, texts: Sequence[str]) -> np.ndarray:
        """Parse the code (prompts,) of each prompt's text answer; ``UNPARSED`` if it gives none."""
        cells = zip(texts, self.choices, self.layout.options, strict=True)
        return np.array([parse_code(*cell) for cell in cells])

    def take(self, rows: np.ndarray) -> Prompts:
        """Return some of the prompts, by row numbers or a mask."""
        pick = np.arange(len(self))[rows].tolist()
        return Prompts(
            self.task,
            tuple(self.texts[i] for i in pick),
            tuple(self.choices[i] for i in pick),
            self.layout.take(rows),
            self.cloze,
            self.verbalized,
        )


def render(spec: TaskSpec, split: SplitName, protocol: ProtocolOptions = ProtocolOptions()) -> Prompts:
    """Render all prompts of a split: every item in every paraphrase and order, for every persona."""
    shown = [spec.items.present(item, name, order) for name, order, item in _cells(spec, split, protocol)]
    texts: list[str] = []
    for persona in draw_personas(spec, protocol.people(), protocol.seed, split) or ("",):
        texts += [f"{persona}\n{text}" if persona else text for text, _ in shown]
    choices = tuple(may for _, may in shown) * max(1, protocol.people())
    layout = _split_layout(spec, split, protocol)
    return Prompts(spec.name, tuple(texts), choices, layout, spec.cloze, spec.verbalized)


def _split_layout(spec: TaskSpec, split: SplitName, protocol: ProtocolOptions) -> Layout:
    """Build the columns of ``render``'s prompts: one persona's cells, repeated for each persona."""
    names, paraphrases, people = all_items(spec, protocol), spec.paraphrases, max(1, protocol.people())
    number = {name: index for index, name in enumerate(names)}
    cells = [
        (number[item], paraphrases.index(name), ORDERS.index(order))
        for name, order, item in _cells(spec, split, protocol)
    ]
    item, paraphrase, order = np.tile(np.array(cells, dtype=np.int32).T, people)
    persona = np.repeat(np.arange(people, dtype=np.int32), len(cells))
    codes = [spec.items.codes(names[i]) for i, _, _ in cells]
    sizes = np.tile(np.array([len(row) for row in codes], dtype=np.int32), people)
    table = np.tile(_padded(codes), (people, 1))
    return Layout(names, paraphrases, ORDERS, people, item, paraphrase, order, persona, table, sizes)


def _cells(spec: TaskSpec, split: SplitName, protocol: ProtocolOptions) -> Iterator[tuple[str, str, str]]:
    """Yield paraphrase, order and item of one persona's prompts; an open question has no options to reverse."""
    part = protocol.part(spec.metadata.splits.named[split])
    items = split_items(spec, split, protocol)
    for name, order in itertools.product(part.paraphrases, part.orders):
        for item in items:
            if spec.items.codes(item) or order == part.orders[0]:
                yield name, order, item


def all_items(spec: TaskSpec, protocol: ProtocolOptions) -> tuple[str, ...]:
    """Return the items of a layout: those of the file, then the content-free ones of each split under calibration."""
    kinds = tuple(dict.fromkeys(spec.items.free.values())) if protocol.calibrate else ()
    return spec.items.ids + tuple(free_id(split, kind) for split in spec.metadata.splits.named for kind in kinds)


def split_items(spec: TaskSpec, split: SplitName, protocol: ProtocolOptions) -> tuple[str, ...]:
    """Return the ids of a split's items."""
    tag = spec.metadata.splits.named[split].items
    items = tuple(item for item in spec.items.ids if tag in ("all", spec.items.tag(item)))
    if not protocol.calibrate:
        return items
    kinds = dict.fromkeys(spec.items.free[item] for item in items if item in spec.items.free)
    return items + tuple(free_id(split, kind) for kind in kinds)


def of_split(spec: TaskSpec, layout: Layout, split: SplitName) -> np.ndarray:
    """Return a boolean mask (prompts,) of the rows of a layout that belong to a split."""
    part = spec.metadata.splits.named[split]
    names = set(split_items(spec, split, ProtocolOptions(calibrate=True)))
    return layout.where(part.paraphrases, part.orders) & np.array([name in names for name in layout.items])[layout.item]


def render_protocol(spec: TaskSpec, protocol: ProtocolOptions) -> Prompts:
    """Render all prompts that a submission answers, ``fit`` first."""
    parts = [render(spec, name, protocol) for name in protocol.splits(spec)]
    result = parts[0]
    for part in parts[1:]:
        result = join(result, part)
    return result


def layout_of(spec: TaskSpec, protocol: ProtocolOptions) -> Layout:
    """Build the layout of ``render_protocol`` without rendering texts."""
    first, *others = _equally_wide([_split_layout(spec, name, protocol) for name in protocol.splits(spec)])
    for other in others:
        first = first.join(other)
    return first


def count_answers(spec: TaskSpec, protocol: ProtocolOptions) -> int:
    """Count the answers that ``render_protocol`` requires, without building it."""
    return max(1, protocol.people()) * sum(1 for name in protocol.splits(spec) for _ in _cells(spec, name, protocol))


def _padded(codes: Sequence[Sequence[int]]) -> np.ndarray:
    """Return codes (prompts, options) as numbers, zero-padded to the widest scale."""
    width = max(map(len, codes))
    return np.array([[*map(float, row), *[0.0] * (width - len(row))] for row in codes]).reshape(len(codes), width)


def join(first: Prompts, second: Prompts) -> Prompts:
    """Join two sets of prompts of one task, ``first`` before ``second``."""
    one, other = _equally_wide([first.layout, second.layout])
    texts, choices = first.texts + second.texts, first.choices + second.choices
    return replace(first, texts=texts, choices=choices, layout=one.join(other))


def _equally_wide(layouts: Sequence[Layout]) -> list[Layout]:
    width = max(each.codes.shape[1] for each in layouts)
    return [replace(each, codes=np.pad(each.codes, ((0, 0), (0, width - each.codes.shape[1])))) for each in layouts]
