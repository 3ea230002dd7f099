"""Differential Evolution with 300 survey evaluations, with and without racing, against a loop over stock lm-eval."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from culteval.harness.alignment.budget import Budget
from culteval.harness.alignment.checkpoint import Checkpoint
from culteval.harness.alignment.objective import Objective, fit_objective
from culteval.harness.models.aligned import AlignedModel
from culteval.harness.models.local import LanguageModel
from culteval.harness.registry import spec_of
from culteval.optimizers.de import DESettings, DifferentialEvolutionPrompt
from culteval.tasks.countries import country
from culteval.tasks.measure import MeasureOptions

from .common import Row, Settings, say, wall
from .packing import VIRTUAL, as_requests, loaded, soft_prompts
from .peer import loglikelihoods, stock, use_best_batch


def measure(settings: Settings, evaluations: int = 300, population: int = 20) -> list[Row]:
    """Measure rows of each dtype.

    The search with and without racing, in seconds per candidate, averaged over the run.
    """
    return [row for dtype in settings.dtypes for row in _measure(settings, dtype, evaluations, population)]


def _measure(settings: Settings, dtype: str, evaluations: int, population: int) -> list[Row]:
    say(f"racing, {dtype}: loading")
    model, objective = loaded(settings, dtype), _objective()
    requests = as_requests(model.tokenizer, objective.prompts)
    with TemporaryDirectory() as temporary:
        adapter = Path(temporary) / "adapter"
        AlignedModel(model, soft_prompts(model, 1)).save(adapter)
        peer = stock(settings, dtype, adapter)
        batch = use_best_batch(peer, requests, len(objective.prompts.choices[0]))

    def pass_of_peer(soft: np.ndarray) -> None:
        weight = peer.model.prompt_encoder["default"].embedding.weight
        with torch.no_grad():
            weight.copy_(torch.from_numpy(soft))
        loglikelihoods(peer, requests)

    return [
        _search(model, objective, racing, evaluations, population, pass_of_peer, f"peer batch size {batch}")
        for racing in (True, False)
    ]


def _objective() -> Objective:
    spec = spec_of("vsm13")
    return fit_objective(spec, country("SA"), "expected", MeasureOptions(), 1, 0)


class _Clock(Checkpoint):
    """A checkpoint that times each generation, followed by one pass of the peer, so that drift affects both equally."""

    def __init__(self, peer: Callable[[np.ndarray], None]) -> None:
        self.peer = peer
        self.ours, self.theirs = 0.0, []
        self.state: Mapping[str, np.ndarray] = {}
        self.started = time.perf_counter()

    def save(self, state: Mapping[str, np.ndarray], best: float) -> None:
        """End a generation."""
        self.ours += time.perf_counter() - self.started
        self.state = state
        self.theirs.append(wall(lambda: self.peer(state["best"])))
        say(f"  generation {int(state['generation'])}: best {best:.1f}, peer {self.theirs[-1]:.3g} s")
        self.started = time.perf_counter()


def _search(
    model: LanguageModel,
    objective: Objective,
    racing: bool,
    evaluations: int,
    population: int,
    peer: Callable[[np.ndarray], None],
    about_peer: str,
) -> Row:
    name = "raced" if racing else "not raced"
    say(f"racing, {model.info.dtype}: {name}")
    budget = Budget(evaluations * 24, 24)
    evolved: Any = {"space": "full", "start": "tokens", "sigma": 1, "refine": 0, "screening": 1}
    settings = DESettings(tokens=VIRTUAL, population=population, racing=racing, **evolved)
    clock = _Clock(peer)
    DifferentialEvolutionPrompt(settings).align(model, objective, budget, np.random.default_rng(0), clock)
    tried = int(clock.state["race_begun"]) if racing else budget.spent // objective.cost
    whole = tried * model.cost(objective.prompts, VIRTUAL)
    theirs = statistics.median(clock.theirs)
    note = (
        f"{tried} candidates with {budget.evaluations:.0f} survey evaluations; read "
        f"{budget.spent / tried / objective.cost:.0%} of their items, {budget.tokens / whole:.0%} of their tokens; "
        f"best loss {float(clock.state['loss']):.1f}; {about_peer}"
    )
    seconds = clock.ours / tried
    return Row(
        name=name,
        dtype=model.info.dtype,
        seconds=seconds,
        seconds_peer=theirs,
        ratio=theirs / seconds,
        note=note,
    )
