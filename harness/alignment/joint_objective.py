"""Multi-task objective: the prompts of several tasks, and the mean of their losses, each divided by its null loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import UsageError
from ...tasks.answers import COLUMNS, Layout
from ...tasks.countries import Country
from ...tasks.prompts import Prompts
from ...tasks.schema import FitObjective, Order, Scoring
from .objective import TaskObjective

if TYPE_CHECKING:
    from ...tasks.metrics.target_distributions import TargetDistributions


@dataclass(frozen=True, eq=False)
class JointObjective:
    """Several objectives of one country and one answer scoring as one (see ``Objective``)."""

    parts: tuple[TaskObjective, ...]
    null_loss: float = 1.0  # each part's loss is divided by its own null loss

    @property
    def task(self) -> str:
        """Return the names of the tasks, joined by ``+``."""
        return "+".join(part.task for part in self.parts)

    @property
    def country(self) -> Country:
        """Return the country to align to."""
        return self.parts[0].country

    @property
    def language(self) -> str:
        """Return the language of the first task."""
        return self.parts[0].language

    @property
    def scoring(self) -> Scoring:
        """Return the answer scoring of the losses."""
        return self.parts[0].scoring

    @property
    def kind(self) -> FitObjective:
        """Return what each part minimises."""
        return self.parts[0].kind

    @cached_property
    def prompts(self) -> Prompts:
        """Return the prompts of all parts, concatenated; items and paraphrases are named TASK/NAME."""
        prompts = [part.prompts for part in self.parts]
        if len(kinds := {(part.cloze, part.verbalized) for part in prompts}) > 1:
            raise UsageError(f"`fit` {self.task}: options read in different ways cannot be fitted together.")
        texts = tuple(text for part in prompts for text in part.texts)
        choices = tuple(choice for part in prompts for choice in part.choices)
        layout = _stacked([(part.task, part.layout) for part in prompts])
        return Prompts(self.task, texts, choices, layout, *kinds.pop())

    @property
    def demonstrations(self) -> np.ndarray:
        """Return the reference codes (prompts,) of the country."""
        return np.concatenate([part.demonstrations for part in self.parts])

    @property
    def distributions(self) -> TargetDistributions:
        """Return how the country's people answered each prompt.

        Raises:
            UsageError: a task without such data.
        """
        from ...tasks.metrics.target_distributions import stacked

        return stacked([part.distributions for part in self.parts])

    @property
    def cost(self) -> int:
        """Return the item forwards of one candidate."""
        return sum(part.cost for part in self.parts)

    @property
    def most_tokens(self) -> int:
        """Return the largest number of tokens of an answer in text; 0 where option probabilities are fitted."""
        return max(part.most_tokens for part in self.parts)

    def loss(self, probs: Any) -> Any:
        """Compute the mean of the parts' losses (population,), each divided by its ``null_loss``; see ``Objective``."""
        losses, start = [], 0
        for part in self.parts:
            stop, width = start + part.cost, part.prompts.layout.codes.shape[1]
            losses.append(part.loss(probs[:, start:stop, :width]) / part.null_loss)
            start = stop
        return sum(losses) / len(losses)

    def for_country(self, country: Country) -> JointObjective:
        """Return the objective of the same prompts for another country."""
        return self._each(lambda part: part.for_country(country))

    def read_as(self, scoring: Scoring) -> JointObjective:
        """Return the objective of the same prompts with the losses of another answer scoring."""
        return self._each(lambda part: part.read_as(scoring))

    def paraphrased(self, rng: np.random.Generator, order: Order) -> JointObjective:
        """Return the objective with each part paraphrased."""
        return self._each(lambda part: part.paraphrased(rng, order))

    def take(self, rows: np.ndarray) -> JointObjective:
        """Return the objective over some of its prompts, without the parts that have none of these."""
        chosen, start, parts = np.zeros(self.cost, dtype=bool), 0, []
        chosen[rows] = True
        for part in self.parts:
            of_part = chosen[start : start + part.cost]
            parts += [part.take(of_part)] if of_part.any() else []
            start += part.cost
        return replace(self, parts=tuple(parts))

    def _each(self, change: Callable[[TaskObjective], TaskObjective]) -> JointObjective:
        return replace(self, parts=tuple(map(change, self.parts)))


def _stacked(named: Sequence[tuple[str, Layout]]) -> Layout:
    """Concatenate layouts, with the name of each as a prefix of its items and paraphrases."""
    layouts = [layout for _, layout in named]
    width = max(layout.codes.shape[1] for layout in layouts)
    columns: dict[str, list[np.ndarray]] = {name: [] for name in COLUMNS}
    items: list[str] = []
    paraphrases: list[str] = []
    for name, layout in named:
        shifted = {"item": layout.item + len(items), "paraphrase": layout.paraphrase + len(paraphrases)}
        shifted["codes"] = np.pad(layout.codes, ((0, 0), (0, width - layout.codes.shape[1])))
        for column in COLUMNS:
            columns[column].append(shifted.get(column, getattr(layout, column)))
        items += [f"{name}/{item}" for item in layout.items]
        paraphrases += [f"{name}/{paraphrase}" for paraphrase in layout.paraphrases]
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    people = max(layout.personas for layout in layouts)
    return Layout(tuple(items), tuple(paraphrases), layouts[0].orders, people, **joined)
