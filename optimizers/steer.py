"""Activation steering: a vector added to the residual stream, the difference of means between two sets of prompts.

The vector of a layer is the mean difference of its outputs between contrasting prompts (Marks & Tegmark 2023, arXiv
2310.06824; Rimsky et al. 2024, arXiv 2312.06681); a search finds layer and strength by the loss.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from pydantic import Field

from ..errors import CheckpointError, UsageError
from ..harness.adapters.steering import output_modules, set_steering, write_steering
from ..harness.alignment.aligner import Aligner, Card, Settings
from ..harness.alignment.budget import Budget
from ..harness.alignment.checkpoint import Checkpoint
from ..harness.alignment.evaluator import Evaluator, require_budget
from ..harness.alignment.objective import Objective
from ..harness.models.aligned import AlignedModel
from .preferences import nearest_and_farthest
from .texts import persona

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel

FOLDER = "steering"
STRENGTHS = (1.0, 2.0, 0.5, 4.0)  # of the grid, in differences of means; then steps around the best
LAYERS = 5  # layers, evenly spaced over the middle of the model
_READINGS = 2  # item forwards a prompt for the activations of both sides


class SteerSettings(Settings):
    """The settings of activation steering.

    ``contrast``: what the two sides of a difference are: the ``answers`` nearest to and farthest from the country's
    figure after the same question, or the question with and without the ``persona`` sentence. ``layers``: the layers,
    numbered from 0, that are tried [default: five over the middle of the model]. ``span``: how many layers, from the
    tried one on, are steered together.
    """

    contrast: Literal["answers", "persona"] = "answers"
    layers: tuple[int, ...] | None = Field(None, min_length=1)
    span: int = Field(1, ge=1, le=64)


class Steer(Aligner):
    """A vector, the difference of the mean activations of two sets of prompts, is added to a layer's output.

    Layer and strength are those with the lowest fitted loss.
    """

    Settings: ClassVar = SteerSettings
    summary: ClassVar = "steering vector (difference of mean activations), layer and strength by the fitted loss"
    card: ClassVar = Card(
        source=(
            "difference of means: Marks & Tegmark 2023 (arXiv 2310.06824); contrast of answers: Rimsky et al. 2024 "
            "(arXiv 2312.06681)"
        ),
        needs="the country's figures on `fit`; forward passes, no gradients",
        cost="two item forwards a fitted prompt for the activations, one a candidate and fitted prompt",
        gives="LoRA adapter whose bias is the vector",
        limits=(
            "Not for architectures that normalise a layer's product before adding it (Gemma 2 and 3), have experts, or"
            " are built as GPT-2. It also moves unrelated answers: add `--task general`."
        ),
    )
    settings: SteerSettings

    def check(self, objective: Objective, budget: Budget) -> None:
        """Raise UsageError unless the budget pays for the activations and a candidate."""
        require_budget(self._reading(objective) + objective.cost, "difference and candidate", budget)

    def align(
        self,
        model: LanguageModel,
        objective: Objective,
        budget: Budget,
        rng: np.random.Generator,
        checkpoint: Checkpoint,
    ) -> AlignedModel:
        """Read activations, then evaluate layers and strengths until the budget is used up; the best is kept.

        Raises:
            UsageError: the model's layers cannot be steered, or there is no such layer.
            RunError: too small a budget, or a loss that is not a number.
        """
        self.check(objective, budget)
        tried = self._layers(len(output_modules(model.model)))
        losses: list[float] = []
        if state := checkpoint.load():
            means, losses = np.array(state["means"]), state["losses"].tolist()
            expected = self._reading(objective) + len(losses) * objective.cost
            if budget.spent != expected or not np.isfinite(means).all():
                raise CheckpointError("the checkpoint's candidates do not match its budget. Start over with `fresh`.")
        else:
            started, tokens = time.perf_counter(), model.tokens
            budget.spend(self._reading(objective))
            means = self._means(model, objective)
            budget.record(model.tokens - tokens, started)
        folder = Path(checkpoint.folder) / FOLDER
        steered = self._steerable(model, means, folder)
        evaluator = Evaluator(steered, objective, budget)
        while evaluator.affordable:
            layer, strength = candidates(tried, losses)[-1]
            set_steering(steered.model, self._vectors(means, layer, strength))
            losses.append(evaluator.loss_of_text("").loss)
            checkpoint.save({"means": means, "losses": np.array(losses)}, min(losses))
        best = self._vectors(means, *candidates(tried, losses)[int(np.argmin(losses))])
        write_steering(folder, model.model, model.info.name, best)
        return AlignedModel(model, lora=folder)

    def _layers(self, count: int) -> tuple[int, ...]:
        """Return the layers to try; the last one of a model is followed by its norm and not among them."""
        if self.settings.layers is None:
            spaced = np.linspace(0.3, 0.8, LAYERS) * (count - 1)
            return tuple(dict.fromkeys(int(place) for place in spaced))
        if wrong := [layer for layer in self.settings.layers if not 0 <= layer < count - 1]:
            raise UsageError(f"`set` layers: {wrong[0]}, but layers 0 to {count - 2} of this model can be steered.")
        return self.settings.layers

    def _means(self, model: LanguageModel, objective: Objective) -> np.ndarray:
        """Compute the mean difference (layers, dim) of activations between the two sides."""
        prompts = objective.prompts
        if self.settings.contrast == "persona":
            after = model.activations(prompts, preamble=persona(objective) + "\n\n")
            return (after - model.activations(prompts)).mean(1)
        rows, near, far = nearest_and_farthest(objective)
        asked = prompts.take(rows)
        return (model.activations(asked, options=near) - model.activations(asked, options=far)).mean(1)

    def _reading(self, objective: Objective) -> int:
        """Compute the item forwards of the activations of both sides."""
        whole = self.settings.contrast == "persona"
        return _READINGS * (objective.cost if whole else len(nearest_and_farthest(objective).rows))

    def _vectors(self, means: np.ndarray, layer: int, strength: float) -> dict[int, np.ndarray]:
        last = min(layer + self.settings.span, len(means) - 1)
        return {number: strength * means[number] for number in range(layer, last)}

    def _steerable(self, model: LanguageModel, means: np.ndarray, folder: Path) -> LanguageModel:
        """Return a second model whose layers can be steered, not steered yet."""
        folder.mkdir(exist_ok=True)
        zeros = np.zeros(means.shape[1], dtype=np.float32)
        write_steering(folder, model.model, model.info.name, {number: zeros for number in range(len(means) - 1)})
        return model.adapted(folder)


def candidates(layers: tuple[int, ...], losses: list[float]) -> list[tuple[int, float]]:
    """Return the candidates (layer, strength) that gave ``losses``, and the next one.

    A grid of layers and strengths comes first, then ever smaller steps of strength, up and down, around the best.
    """
    grid = [(layer, strength) for strength in STRENGTHS for layer in layers]
    made = grid[: len(losses) + 1]
    for number in range(len(losses) + 1 - len(made)):
        layer, strength = made[int(np.argmin(losses[: len(made)]))]
        step = 0.5 ** (1 + number // 2)
        made.append((layer, strength * 2.0 ** (-step if number % 2 else step)))
    return made
