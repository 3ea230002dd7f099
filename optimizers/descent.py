"""Common parts of aligners that use gradients: the start of a soft prompt, and Adam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from ..errors import UsageError
from ..harness.alignment.budget import Budget
from ..harness.alignment.evaluator import require_budget
from ..harness.alignment.objective import Objective
from ..harness.alignment.worst_paraphrase import TEMPERATURE, sharpened
from ..tasks.answers import UNPARSED
from ..tasks.measure import LossFunction
from .soft_prompt import SoftPromptSettings, draw_prompts, text_prompt
from .texts import persona

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class DescentSettings(SoftPromptSettings):
    """The settings of every gradient descent.

    ``target``: the loss of the ``objective``, or the cross-entropy of ``labels``, the integer answers nearest to the
    country's figures. ``start``: random ``tokens``, the embedded
    ``persona`` sentence, the embeddings' ``mean`` with a tenth of their scale, or ``noise`` at their scale. ``rate``:
    Adam's step in standard deviations of the embeddings.
    """

    target: Literal["objective", "labels"] = "objective"
    start: Literal["tokens", "persona", "mean", "noise"] = "tokens"
    rate: float = Field(0.1, gt=0, le=10)


def start_prompt(
    model: LanguageModel,
    objective: Objective,
    settings: DescentSettings,
    rng: np.random.Generator,
    moments: tuple[np.ndarray, float],
) -> np.ndarray:
    """Return the soft prompt (tokens, width) float32 at which the settings start.

    Args:
        moments: mean and scale of the model's embeddings (``mean_and_scale``).
    """
    kind, tokens = settings.start, settings.tokens
    if kind == "persona":
        return text_prompt(model, persona(objective), tokens)
    if kind in ("mean", "noise"):
        mean, scale = moments
        noise = rng.standard_normal((tokens, model.dim)) * scale
        return (mean + 0.1 * noise if kind == "mean" else noise).astype(np.float32)
    return draw_prompts(model, rng, 1, tokens)[0]


def require_gradient(objective: Objective, budget: Budget, step: int, target: str) -> None:
    """Raise UsageError for an answer scoring without a gradient, or a budget too small for one step.

    Args:
        step: item forwards of a step.
        target: the function to descend; ``labels`` have a gradient for every answer scoring.
    """
    if objective.scoring not in ("expected", "argmax") and target != "labels":
        remedy = "Use `settings` target=labels, `scoring` expected, or a search."
        raise UsageError(f"`scoring` {objective.scoring}: it has no gradient. {remedy}")
    require_budget(step, "step", budget)


def label_places(objective: Objective) -> np.ndarray:
    """Return the option (prompts,) of the reference answer: the index of the measure's code in code order.

    ``UNPARSED`` for prompts without one, such as questions that were not asked in the country.

    Raises:
        UsageError: no prompt has such an answer.
    """
    layout = objective.prompts.layout
    codes = objective.demonstrations
    matches = (layout.codes == codes[:, None]) & layout.inside
    if not (known := matches.any(1)).any():
        raise UsageError(f"`settings` target=labels: {objective.task} has no labels of the country.")
    return np.where(known, matches.argmax(1), UNPARSED)


def cross_entropy(logs: Any, places: np.ndarray) -> Any:
    """Compute the mean -log share of the labelled options among all options, from logs (1, prompts, options).

    Prompts without a label do not count; 0 if none has one.

    Probability off the options does not count: on a model that tends to write a sentence, nine tenths of the gradient
    would reduce that probability, without any change in which option is the most probable.
    """
    known = np.flatnonzero(places != UNPARSED)
    return -logs.log_softmax(-1)[0, known, places[known]].sum() / max(len(known), 1)


def smooth_loss(objective: Objective) -> LossFunction:
    """Return the loss of an objective with a gradient: argmax answers are shared among near options.

    The shares are the option probabilities at ``TEMPERATURE``; at lower ones few answers have a gradient.
    """
    return _smooth(objective)[1]


def _smooth(objective: Objective) -> tuple[Objective, LossFunction]:
    """Return the objective that says what uninformative answers lose, and the loss with a gradient."""
    if objective.scoring != "argmax" or objective.kind == "worst_paraphrase":  # which shares answers already
        return objective, objective.loss
    read = objective.read_as("expected")
    return read, lambda probs: read.loss(sharpened(probs, TEMPERATURE))


def penalised(objective: Objective, logs: Any, off_options: float, places: np.ndarray | None = None) -> Any:
    """Compute the loss of log-probabilities, 1 for answers without information, plus the probability off the options.

    Args:
        logs: log-probabilities (1, prompts, options).
        off_options: weight of the probability off the options.
        places: labelled options, whose cross-entropy is then the loss.
    """
    off = (1 - logs.exp().sum(-1)).mean()
    if places is not None:
        return cross_entropy(logs, places) + off_options * off
    read, loss = _smooth(objective)
    return loss(logs.softmax(-1).double())[0] / read.null_loss + off_options * off


class SoftPromptAdam:
    """A soft prompt and the moments of Adam (Kingma & Ba 2015).

    Args:
        start: (T, width) float32.
        rate: of the first step, in the units of the embeddings.
        beta2: the decay of the squared gradients' mean per step.
        clip: the largest norm of a gradient; longer ones are shortened to it.
    """

    def __init__(
        self,
        model: LanguageModel,
        start: np.ndarray,
        rate: float,
        beta2: float = 0.999,
        clip: float | None = None,
    ) -> None:
        import torch

        self.model = model
        self.soft = torch.nn.Parameter(torch.from_numpy(start)[None].to(model.model.device))
        self.adam = torch.optim.Adam([self.soft], lr=rate, betas=(0.9, beta2))
        self.rate, self.steps, self.clip = rate, 0, clip

    @property
    def prompt(self) -> np.ndarray:
        """Return the current soft prompt, (T, width) float32."""
        return self.soft.detach()[0].float().cpu().numpy().copy()

    def step(self, loss_of: Callable[[Any], Any], done: float = 0.0) -> None:
        """Descend ``loss_of(soft)`` by one step, soft (1, T, width) with gradients.

        Args:
            done: share of the descent that is behind, over which a cosine takes the rate to zero.
        """
        import torch

        for group in self.adam.param_groups:
            group["lr"] = self.rate * (1 + np.cos(np.pi * done)) / 2
        with self.model.at_work():
            loss = loss_of(self.soft)
            self.adam.zero_grad(set_to_none=True)
            loss.backward()
            if self.clip is not None:
                torch.nn.utils.clip_grad_norm_([self.soft], self.clip)
            self.adam.step()
        self.steps += 1

    def state(self) -> dict[str, np.ndarray]:
        """Return plain arrays for a checkpoint."""
        memory = self.adam.state[self.soft]
        arrays = {"soft": self.soft.detach(), "mean": memory["exp_avg"], "square": memory["exp_avg_sq"]}
        found = {f"adam_{name}": value.float().cpu().numpy() for name, value in arrays.items()}
        return found | {"adam_steps": np.int64(self.steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a checkpoint."""
        import torch

        tensors = {
            name: torch.from_numpy(state[f"adam_{name}"]).to(self.soft.device) for name in ("soft", "mean", "square")
        }
        self.soft.data = tensors["soft"]
        self.steps = int(state["adam_steps"])
        memory = {"step": torch.tensor(float(self.steps)), "exp_avg": tensors["mean"], "exp_avg_sq": tensors["square"]}
        self.adam.state[self.soft] = memory
