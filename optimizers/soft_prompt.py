"""Common parts of aligners that learn a soft prompt: its length, and its start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import Field

from ..harness.alignment.aligner import Aligner, Settings

if TYPE_CHECKING:
    from ..harness.models.local import LanguageModel


CONFIGS = Path(__file__).with_name("configs")  # named settings of aligners, one file each


class SoftPromptSettings(Settings):
    """The settings of a soft prompt: its length in ``tokens``."""

    tokens: int = Field(10, ge=1, le=1000)


class SoftPromptAligner(Aligner):
    """An aligner that puts a soft prompt of length ``tokens`` before every prompt."""

    settings: SoftPromptSettings

    @property
    def soft_tokens(self) -> int:
        """Return the number of soft tokens."""
        return self.settings.tokens


def draw_prompts(model: LanguageModel, rng: np.random.Generator, count: int, tokens: int) -> np.ndarray:
    """Draw ``count`` soft prompts (count, tokens, dim) float32 of the embeddings of random ordinary tokens."""
    return model.token_vectors(rng.choice(model.ordinary_tokens(), (count, tokens)))


def text_prompt(model: LanguageModel, text: str, tokens: int) -> np.ndarray:
    """Embed a text as a soft prompt (tokens, dim) float32, repeated or cut to the requested length."""
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    return model.token_vectors(np.resize(ids, tokens))
