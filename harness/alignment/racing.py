"""Exact racing: a trial is dropped once the part of its loss that is known exceeds what it has to beat.

Terms of a loss can only add to it, so a dropped trial would have lost anyway and the search decides as it would have
decided without. Prompts are asked term by term, those first whose terms have been largest, in as few steps as pay: a
step reads all weights of the model again, and where nearly every trial lasts to its last term one pass is cheapest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from ...tasks.measure import LossFunction, SeparableLoss

STEP = 0.04  # what another step costs, in whole passes: measured on a processor, see benchmarks/README.md
REREAD = 0.2  # the same where prompts of a step must read what they share with earlier ones again

_LEARNED = ("sums", "counts", "lasting", "begun")


class RaceSchedule:
    """In which order terms are asked, by what is learned about their size and about when trials drop out.

    ``lasting[k]`` is the share of trials that still ran after ``k`` terms, recent generations counting more; ``begun``
    counts trials.
    """

    def __init__(self, loss: SeparableLoss) -> None:
        self.loss, self.parts = loss, loss.parts
        self.sums, self.counts = np.zeros(len(self.parts)), np.zeros(len(self.parts))
        self.lasting, self.begun = np.ones(len(self.parts)), np.zeros((), dtype=np.int64)

    @classmethod
    def of(cls, loss: LossFunction) -> RaceSchedule | None:
        """The schedule for a loss; None where it is not made of terms that can be had one by one."""
        return cls(loss) if isinstance(loss, SeparableLoss) else None

    def groups(self, remembers: bool) -> list[np.ndarray]:
        """The terms of each step, largest first, cut where it pays at most: nowhere, once or twice.

        Args:
            remembers: whether a step of the model reads nothing that an earlier one has read.
        """
        order = np.argsort(-self.sums / np.maximum(self.counts, 1), kind="stable")
        count, step = len(order), STEP if remembers else REREAD
        cuts = [(), *itertools.combinations(range(1, count), 1), *itertools.combinations(range(1, count), 2)]

        def cost(at: tuple[int, ...]) -> float:
            ends = (0, *at, count)
            read = sum(self.lasting[start] * (stop - start) for start, stop in itertools.pairwise(ends))
            return float(read / count + step * len(at))

        return np.split(order, min(cuts, key=cost))

    def steps(self, groups: list[np.ndarray], prompts: int) -> tuple[tuple[int, ...], ...]:
        """The prompts of each step, of so many; those on which no term rests come last."""
        steps = [tuple(sorted(int(prompt) for part in new for prompt in self.parts[part])) for new in groups]
        free = set(range(prompts)).difference(*steps)
        return (*steps[:-1], (*steps[-1], *sorted(free)))

    def learn_terms(self, terms: np.ndarray, new: np.ndarray) -> None:
        """Note the terms ``new`` of trials (n, parts) that are still in the race."""
        self.sums[new] += terms[:, new].sum(0)
        self.counts[new] += len(terms)

    def learn_ends(self, ended: np.ndarray) -> None:
        """Note after how many terms (n,) the trials of a generation were dropped."""
        self.begun += len(ended)
        if len(ended):
            lasted = ended[:, None] > np.arange(len(self.parts))
            self.lasting = (self.lasting + lasted.mean(0)) / 2

    def state(self) -> dict[str, np.ndarray]:
        """Plain arrays for a checkpoint."""
        return {f"race_{name}": getattr(self, name).copy() for name in _LEARNED}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a checkpoint."""
        self.sums, self.counts, self.lasting, self.begun = (state[f"race_{name}"].copy() for name in _LEARNED)
