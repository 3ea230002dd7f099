"""Search spaces: every coordinate of a soft prompt, or a subspace around a first prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self

import numpy as np
from pydantic import Field

from ..harness.alignment.objective import Objective
from .embeddings import mean_and_scale, scatter
from .soft_prompt import SoftPromptSettings, draw_prompts, text_prompt
from .texts import persona

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


class SpaceSettings(SoftPromptSettings):
    """The settings of a search space; ``tokens``: length of the soft prompt.

    ``space``: ``full`` (every coordinate), ``random`` (a Gaussian subspace of ``dimensions``, Sun et al. 2022) or
    ``embeddings`` (each token moves along the embeddings' first principal directions, ``dimensions`` divided by the
    tokens of them per token, at least one). ``start``: the prompt at the space's origin: random ``tokens``, the
    embedded ``persona`` sentence, or the embeddings' ``mean``. ``sigma``: the first step, in standard deviations of the
    embeddings; in the full space around random tokens, first candidates are other random tokens instead.
    """

    space: Literal["full", "random", "embeddings"] = "random"
    dimensions: int = Field(100, ge=1, le=5000)
    start: Literal["tokens", "persona", "mean"] = "tokens"
    sigma: float = Field(1.0, gt=0, le=100)


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


def lay_space(model: LanguageModel, objective: Objective, settings: SpaceSettings, rng: np.random.Generator) -> Space:
    """Build the space of the settings; draws the centre first, then the basis."""
    mean, scale = mean_and_scale(model)
    centre = {
        "tokens": lambda: draw_prompts(model, rng, 1, settings.tokens)[0],
        "persona": lambda: text_prompt(model, persona(objective), settings.tokens),
        "mean": lambda: np.tile(mean, (settings.tokens, 1)),
    }[settings.start]()
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
