"""Search spaces: every coordinate of a soft prompt, or a subspace around a first prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ..errors import RunError, UsageError
from ..harness.alignment.evaluator import Evaluator
from ..harness.models.base import PASSES
from ..tasks.answers import item_means
from .embeddings import mean_and_scale, scatter
from .soft_prompt import SoftPromptSettings, draw_prompts, text_prompt
from .texts import persona

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ..harness.alignment.objective import Objective
    from ..harness.models.local import LanguageModel


SpaceName = Literal["full", "random", "embeddings", "active"]
Start = Literal["tokens", "persona", "mean", "text"]


class SpaceSettings(SoftPromptSettings):
    """The settings of a search space; ``tokens``: length of the soft prompt.

    ``space``: ``full`` (every coordinate), ``random`` (a Gaussian subspace of ``dimensions``, Sun et al. 2022),
    ``embeddings`` (each token moves along the embeddings' first principal directions, ``dimensions`` divided by the
    tokens of them per token, at least one) or ``active`` (the directions in which the items' expected answers change
    most at the start, Constantine et al. 2014: one gradient of each item, whatever the answer scoring, paid once from
    the budget; at most ``dimensions`` and one an item). ``start``: the prompt at the space's origin: random ``tokens``,
    the embedded ``persona`` sentence, the embeddings' ``mean``, or the embedded ``text`` of the setting of that name,
    such as one that ``evo_prompt`` found. ``sigma``: the first step, in standard deviations of
    the embeddings; in the full space around random tokens, first candidates are other random tokens instead.
    """

    space: SpaceName = "random"
    dimensions: int = Field(100, ge=1, le=5000)
    start: Start = "tokens"
    sigma: float = Field(1.0, gt=0, le=100)
    text: str = Field("", max_length=2000)

    @model_validator(mode="after")
    def _text_is_the_start(self) -> Self:
        if (self.start == "text") != bool(self.text.strip()):
            raise ValueError("text: the sentence to start from; give it with start=text, and only then")
        return self


@dataclass(frozen=True)
class Space:
    """A map ``prompts`` from vectors (n, dim) to soft prompts (n, T, width): ``centre + vectors @ basis``.

    ``basis`` is (dim, T * width), or None if every coordinate has its own dimension, times ``scale``.
    """

    centre: np.ndarray
    scale: float
    basis: np.ndarray | None

    @property
    def dim(self) -> int:
        """Return the number of coordinates of a vector."""
        return self.centre.size if self.basis is None else len(self.basis)

    def prompts(self, vectors: np.ndarray) -> np.ndarray:
        """Compute the soft prompts (n, T, width) float32 of vectors (n, dim)."""
        moved = vectors if self.basis is None else vectors @ self.basis
        return (self.centre + self.scale * moved.reshape(-1, *self.centre.shape)).astype(np.float32)

    def state(self) -> dict[str, np.ndarray]:
        """Return plain arrays for a checkpoint."""
        basis = np.zeros((0, 0)) if self.basis is None else self.basis
        return {
            "space_centre": self.centre,
            "space_scale": np.array(self.scale, dtype=np.float64),
            "space_basis": basis,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, np.ndarray]) -> Self:
        """Restore the space of ``state()``."""
        basis = state["space_basis"]
        return cls(state["space_centre"], float(state["space_scale"]), basis if basis.size else None)


def space_cost(objective: Objective, settings: SpaceSettings) -> int:
    """Compute the item forwards that laying a space costs."""
    return PASSES * objective.cost if settings.space == "active" else 0


def lay_space(
    evaluator: Evaluator, settings: SpaceSettings, rng: np.random.Generator, centre: np.ndarray | None = None
) -> Space:
    """Build the space of the settings; draws the centre first, then the basis, and pays ``space_cost``.

    Args:
        centre: the prompt (T, width) at the origin, instead of that of the settings.

    Raises:
        RunError: too little budget for an active space, or its gradients are not numbers.
        UsageError: the text to start from is longer than the prompt.
    """
    model = evaluator.model
    mean, scale = mean_and_scale(model)
    if centre is None:
        centre = {
            "tokens": lambda: draw_prompts(model, rng, 1, settings.tokens)[0],
            "persona": lambda: text_prompt(model, persona(evaluator.objective), settings.tokens),
            "mean": lambda: np.tile(mean, (settings.tokens, 1)),
            "text": lambda: _embedded(model, settings.text, settings.tokens),
        }[settings.start]()
    if settings.space == "active":
        return Space(centre, scale, _active(evaluator, centre, settings.dimensions))
    return Space(centre, scale, _basis(model, mean, settings, rng))


def first_vectors(
    model: LanguageModel, space: Space, settings: SpaceSettings, rng: np.random.Generator, count: int
) -> np.ndarray:
    """Return the vectors (count, dim) at which a search starts: the first prompt itself, and others around it."""
    vectors = draw_vectors(model, space, settings, rng, count)
    vectors[0] = 0
    return vectors


def draw_vectors(
    model: LanguageModel, space: Space, settings: SpaceSettings, rng: np.random.Generator, count: int
) -> np.ndarray:
    """Draw vectors (count, dim).

    Other random tokens in the full space around tokens, else with ``sigma`` per coordinate.
    """
    if settings.space == "full" and settings.start == "tokens":
        return ((draw_prompts(model, rng, count, settings.tokens) - space.centre) / space.scale).reshape(count, -1)
    return settings.sigma * rng.standard_normal((count, space.dim))


def _embedded(model: LanguageModel, text: str, tokens: int) -> np.ndarray:
    """Embed a text as a soft prompt (tokens, width) that holds all of it."""
    length = len(model.tokenizer(text, add_special_tokens=False)["input_ids"])
    if length > tokens:
        raise UsageError(f"`settings` text: has {length} tokens for a prompt of {tokens}. Add tokens={length}.")
    return text_prompt(model, text, tokens)


def _basis(
    model: LanguageModel, mean: np.ndarray, settings: SpaceSettings, rng: np.random.Generator
) -> np.ndarray | None:
    """Return directions (dim, T * width); a unit step moves a coordinate by one standard deviation on average."""
    tokens, width = settings.tokens, model.dim
    if settings.space == "full":
        return None
    if settings.space == "random":
        dim = min(settings.dimensions, tokens * width)
        return rng.standard_normal((dim, tokens * width)) / dim**0.5
    each = min(max(1, settings.dimensions // tokens), width)
    _, directions = np.linalg.eigh(scatter(model, mean))
    main = directions[:, ::-1][:, :each].T * (width / each) ** 0.5  # steps as long as in the other spaces
    basis = np.zeros((tokens, each, tokens, width))
    for token in range(tokens):
        basis[token, :, token] = main
    return basis.reshape(tokens * each, tokens * width)


def _active(evaluator: Evaluator, centre: np.ndarray, dimensions: int) -> np.ndarray:
    """Return the first principal directions (dim, T * width) of the gradients of the items' expected answers.

    Directions are as long as those of the other spaces, in the order of how much the answers change.
    """
    import torch

    prompts, gradients = evaluator.objective.prompts, []
    soft = torch.from_numpy(centre.astype(np.float32))[None].to(evaluator.model.model.device).requires_grad_()

    def differentiate(answer: Callable[[Tensor], Tensor]) -> None:
        (found,) = torch.autograd.grad(answer(soft), soft)
        if not found.isfinite().all():
            raise RunError("a gradient is not a number. Try `dtype` float32.")
        gradients.append(found.flatten().double().cpu().numpy())

    for row in range(len(prompts)):  # one by one: a gradient's memory grows with the prompts of a pass
        asked = prompts.take(np.array([row]))
        codes = torch.from_numpy(np.where(asked.layout.inside, asked.layout.codes, 0)).to(soft)

        def expected(logs: Tensor, codes: Tensor = codes) -> Tensor:
            return (logs.softmax(-1)[0] * codes[:, : logs.shape[-1]]).sum(-1).mean()  # logs end with the item's options

        evaluator.descend(differentiate, asked, expected)
    items = item_means(prompts.layout) @ np.stack(gradients)
    _, sizes, directions = np.linalg.svd(items, full_matrices=False)
    kept = directions[: max(1, min(dimensions, int((sizes > 1e-6 * sizes[0]).sum())))]
    active: np.ndarray = kept * (centre.size / len(kept)) ** 0.5
    return active
