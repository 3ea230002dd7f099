"""Several tasks fitted as one: prompts side by side, each loss in units of that of answers without information."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ...tasks.answers import COLUMNS, Layout
from ...tasks.countries import Country
from ...tasks.prompts import Prompts
from ...tasks.schema import Order, Readout
from .objective import TaskObjective


@dataclass(frozen=True, eq=False)
class JointObjective:
    """Objectives of one country in one read-out; to an aligner it looks like one (see ``Objective``)."""

    parts: tuple[TaskObjective, ...]
    null_loss: float = 1.0  # each part's loss is relative already

    @property
    def task(self) -> str:
        """The tasks' names."""
        return "+".join(part.task for part in self.parts)

    @property
    def country(self) -> Country:
        """Whom to answer like."""
        return self.parts[0].country

    @property
    def language(self) -> str:
        """The language of the first task."""
        return self.parts[0].language

    @property
    def readout(self) -> Readout:
        """The read-out that losses are of."""
        return self.parts[0].readout

    @cached_property
    def prompts(self) -> Prompts:
        """The prompts of every part, one after another; items and wordings are called TASK/NAME."""
        prompts = [part.prompts for part in self.parts]
        texts = tuple(text for each in prompts for text in each.texts)
        choices = tuple(choice for each in prompts for choice in each.choices)
        return Prompts(self.task, texts, choices, _stacked([(each.task, each.layout) for each in prompts]))

    @property
    def demonstrations(self) -> np.ndarray:
        """The reference code (prompts,) of the country."""
        return np.concatenate([part.demonstrations for part in self.parts])

    @property
    def cost(self) -> int:
        """Item forwards of one candidate."""
        return sum(part.cost for part in self.parts)

    def loss(self, probs: Any) -> Any:
        """Mean of the parts' losses (population,), each in units of its ``null_loss``; see ``Objective``."""
        losses, start = [], 0
        for part in self.parts:
            stop, width = start + part.cost, part.prompts.layout.codes.shape[1]
            losses.append(part.loss(probs[:, start:stop, :width]) / part.null_loss)
            start = stop
        return sum(losses) / len(losses)

    def for_country(self, country: Country) -> JointObjective:
        """The same prompts with another country to answer like."""
        return self._each(lambda part: part.for_country(country))

    def paraphrased(self, rng: np.random.Generator, order: Order) -> JointObjective:
        """The same objective in a paraphrase, part by part."""
        return self._each(lambda part: part.paraphrased(rng, order))

    def take(self, rows: np.ndarray) -> JointObjective:
        """The same objective over some of its prompts; parts of which none is left are left out."""
        chosen, start, found = np.zeros(self.cost, dtype=bool), 0, []
        chosen[rows] = True
        for part in self.parts:
            mine = chosen[start : start + part.cost]
            found += [part.take(mine)] if mine.any() else []
            start += part.cost
        return replace(self, parts=tuple(found))

    def _each(self, change: Callable[[TaskObjective], TaskObjective]) -> JointObjective:
        return replace(self, parts=tuple(map(change, self.parts)))


def _stacked(named: Sequence[tuple[str, Layout]]) -> Layout:
    """One layout of several, the levels of each kept apart by its name."""
    layouts = [layout for _, layout in named]
    width = max(layout.codes.shape[1] for layout in layouts)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    items: list[str] = []
    wordings: list[str] = []
    for name, layout in named:
        moved = {"item": layout.item + len(items), "wording": layout.wording + len(wordings)}
        moved["codes"] = np.pad(layout.codes, ((0, 0), (0, width - layout.codes.shape[1])))
        for column in COLUMNS:
            columns[column].append(moved.get(column, getattr(layout, column)))
        items += [f"{name}/{item}" for item in layout.items]
        wordings += [f"{name}/{wording}" for wording in layout.wordings]
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    people = max(layout.respondents for layout in layouts)
    return Layout(tuple(items), tuple(wordings), layouts[0].orders, people, **joined)
