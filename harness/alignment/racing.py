"""Exact racing: a candidate is dropped as soon as the known terms of its loss exceed its limit.

Terms can only increase a loss, so a dropped candidate would have lost in any case, and the search takes the same
decisions as without racing. Terms are evaluated in order of their past size, the largest first, in one to three steps:
every step reads all weights of the model again, and where nearly every candidate survives to its last term one step is
cheapest.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import numpy as np

from ...tasks.measure import LossFunction, SeparableLoss

STEP = 0.04  # cost of another step in full passes, measured on a CPU: see benchmarks/README.md
REREAD = 0.2  # the same where a step reads again the prefixes that its prompts share with earlier ones

_LEARNED = ("sums", "counts", "lasting", "begun")


class RaceSchedule:
    """Order and grouping of a loss's terms, estimated from their sizes and from when candidates were dropped.

    ``lasting[k]`` is the share of candidates still in the race after ``k`` terms, with more weight on recent
    generations; ``begun`` counts candidates.
    """

    def __init__(self, loss: SeparableLoss) -> None:
        self.loss, self.parts = loss, loss.parts
        self.sums, self.counts = np.zeros(len(self.parts)), np.zeros(len(self.parts))
        self.lasting, self.begun = np.ones(len(self.parts)), np.zeros((), dtype=np.int64)

    @classmethod
    def of(cls, loss: LossFunction) -> RaceSchedule | None:
        """Make the schedule for a loss; return None where the loss is not a sum of separate terms."""
        return cls(loss) if isinstance(loss, SeparableLoss) else None

    def groups(self, remembers: bool) -> list[np.ndarray]:
        """Return the terms of each step, the largest first, in the one to three steps of the least expected cost.

        Args:
            remembers: whether the model keeps its KV cache between steps, so that no prefix is read twice.
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
        """Return the prompts of each step, out of ``prompts``; those that belong to no term are in the last step."""
        steps = [tuple(sorted(int(prompt) for part in new for prompt in self.parts[part])) for new in groups]
        free = set(range(prompts)).difference(*steps)
        return (*steps[:-1], (*steps[-1], *sorted(free)))

    def learn_terms(self, terms: np.ndarray, new: np.ndarray) -> None:
        """Add the sizes of the terms ``new`` of the candidates (n, parts) that are still in the race."""
        self.sums[new] += terms[:, new].sum(0)
        self.counts[new] += len(terms)

    def learn_ends(self, ended: np.ndarray) -> None:
        """Add after how many terms (n,) the candidates of a generation were dropped."""
        self.begun += len(ended)
        if len(ended):
            lasted = ended[:, None] > np.arange(len(self.parts))
            self.lasting = (self.lasting + lasted.mean(0)) / 2

    def state(self) -> dict[str, np.ndarray]:
        """Return the statistics as plain arrays, for a checkpoint."""
        return {f"race_{name}": getattr(self, name).copy() for name in _LEARNED}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Restore the statistics of a checkpoint."""
        self.sums, self.counts, self.lasting, self.begun = (state[f"race_{name}"].copy() for name in _LEARNED)
