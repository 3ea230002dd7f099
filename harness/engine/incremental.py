"""Score prompts in steps with a KV cache, dropping candidates between steps.

The keys and values of the tokens read so far stay in memory, so that a later step reads its own tokens only. Engines
whose layers are run by transformers keep no cache; there every step is a separate packed pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from .packed import Engine, PackedForward, Readings, visible
from .padded import PlainForward
from .prefix_tree import PrefixTree
from .soft_prompt import prepend
from .tree_attention import TreeAttention

Steps = tuple[tuple[int, ...], ...]
"""Indices of the prompts of each step; every prompt belongs to exactly one step."""


class StepwiseScoring(Protocol):
    """The scoring of some candidates, step by step."""

    def advance(self) -> torch.Tensor:
        """Score the next step; return log-probabilities (candidates, prompts, options), valid for prompts so far."""

    def keep(self, rows: torch.Tensor) -> None:
        """Continue with some candidates only (indices)."""


@dataclass(frozen=True, eq=False)
class _Step:
    """Rows ``start`` to ``stop`` in the order of the steps; ``leaves`` are counted from ``start``."""

    start: int
    stop: int
    tokens: torch.Tensor
    positions: torch.Tensor
    sight: TreeAttention | None  # None: all of its prompts are prefixes of earlier ones
    leaves: torch.Tensor
    readings: Readings


class RememberedSteps:
    """Steps of a fused engine over one prefix tree after ``virtual`` soft tokens, computed once for all candidates."""

    def __init__(self, engine: Engine, tree: PrefixTree, options: int, steps: Steps, virtual: int) -> None:
        self.engine, self.virtual = engine, virtual
        self.rows = virtual + len(tree)
        turn = _turns(tree, steps)
        order = np.argsort(turn, kind="stable")  # within a step depth first, as in the tree
        row_of = np.concatenate([np.arange(virtual), virtual + order])
        sight = visible(tree, virtual)[np.ix_(row_of, row_of)]
        device = engine.model.device
        self.steps, start = [], 0
        for number in range(len(steps)):
            stop = virtual + int((turn <= number).sum())
            nodes = order[max(0, start - virtual) : stop - virtual]
            leaves, readings = Readings.of(tree, options, device, nodes)
            depth = tree.depth[nodes] + virtual
            positions = np.concatenate([np.arange(virtual), depth]) if start == 0 else depth
            self.steps.append(
                _Step(
                    start,
                    stop,
                    torch.from_numpy(tree.tokens[nodes]).to(device),
                    torch.from_numpy(positions).to(device),
                    TreeAttention(sight[start:stop, :stop]) if stop > start else None,
                    leaves + (virtual if start == 0 else 0),
                    readings,
                )
            )
            start = stop

    def begin(self, soft: torch.Tensor) -> StepwiseScoring:
        """Begin to score candidates (population, T, dim)."""
        return _CachedScoring(self, soft)

    @property
    def tokens(self) -> list[int]:
        """Number of tokens read per candidate in each step."""
        return [step.stop - step.start for step in self.steps]


class _CachedScoring:
    def __init__(self, plan: RememberedSteps, soft: torch.Tensor) -> None:
        self.plan, self.soft, self.next = plan, soft, 0
        like = plan.engine.embed.weight
        self.memory = plan.engine.fused.memory(len(soft), plan.rows, like)
        self.total: Any = None

    def advance(self) -> torch.Tensor:
        step, engine = self.plan.steps[self.next], self.plan.engine
        self.next += 1
        if step.sight is None:
            return step.readings.without_absent(self.total)
        embeds = engine.embed(step.tokens)[None].expand(len(self.memory[0]), -1, -1)
        if step.start == 0:
            embeds = prepend(self.soft, embeds)
        hidden = engine.fused(embeds, step.positions, step.sight, step.leaves, self.memory, step.start)
        logs, _ = step.readings.sums(engine.log_softmax(hidden))
        self.total = logs if self.total is None else self.total + logs
        return step.readings.without_absent(self.total)

    def keep(self, rows: torch.Tensor) -> None:
        self.memory = [layer[rows] for layer in self.memory]
        self.total = self.total[rows]


class RereadSteps:
    """Steps of any engine, each a separate pass; ``tokens`` is the number read per candidate in each step."""

    def __init__(self, passes: list[PackedForward | PlainForward], steps: Steps, virtual: int) -> None:
        self.passes, self.at = passes, [torch.tensor(step) for step in steps]
        self.shape = (sum(map(len, steps)), max(one.options for one in passes))
        self.tokens = [one.tokens(virtual) for one in passes]

    def begin(self, soft: torch.Tensor) -> StepwiseScoring:
        """Begin to score candidates (population, T, dim)."""
        return _UncachedScoring(self, soft)


class _UncachedScoring:
    def __init__(self, plan: RereadSteps, soft: torch.Tensor) -> None:
        self.plan, self.soft, self.next = plan, soft, 0
        self.total = soft.new_zeros(len(soft), *plan.shape, dtype=torch.float32)

    def advance(self) -> torch.Tensor:
        logs = self.plan.passes[self.next].logprobs(self.soft)
        at = self.plan.at[self.next].to(logs.device)
        self.total[:, at] = torch.nn.functional.pad(logs, (0, self.total.shape[2] - logs.shape[2]), value=-torch.inf)
        self.next += 1
        return self.total

    def keep(self, rows: torch.Tensor) -> None:
        self.soft, self.total = self.soft[rows], self.total[rows]


def _turns(tree: PrefixTree, steps: Steps) -> np.ndarray:
    """Compute the step (nodes,) in which each node is first needed."""
    step_of = np.zeros(tree.prompts, dtype=np.int64)
    for number, prompts in enumerate(steps):
        step_of[list(prompts)] = number
    turn = np.full(len(tree), len(steps), dtype=np.int64)
    np.minimum.at(turn, tree.read_node, step_of[tree.read_prompt])
    for node in range(len(tree) - 1, -1, -1):  # children follow their parent
        if (parent := tree.parent[node]) >= 0:
            turn[parent] = min(turn[parent], turn[node])
    return turn
