"""An aligned model: a frozen model with a soft prompt, a preamble or a LoRA adapter, stored in a folder."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ...errors import InputError
from ...tasks.answers import Answers
from ...tasks.prompts import Prompts
from ...tasks.reading import read_unmarked
from ..adapters.peft_files import CONFIG, WEIGHTS, lora_hash, read_config
from ..adapters.soft_prompt import read_soft_prompt, write_soft_prompt
from ..engine.model_config import text_config
from ..util.atomic_io import replacing, write_json, write_text
from ..util.display import Done
from .base import Model

if TYPE_CHECKING:
    from .local import LanguageModel

TEXT, LORA = "preamble.txt", "lora"
ADAPTER_FILES = (TEXT, CONFIG, WEIGHTS, f"{LORA}/{CONFIG}", f"{LORA}/{WEIGHTS}")  # all that is saved
MOST_PREAMBLE = 1 << 20


@dataclass(frozen=True)
class AlignedModel:
    """A model with what an aligner added to it.

    ``soft`` is one soft prompt (1, T, dim) float32, put before the whole rendered prompt, first token included, where
    peft puts virtual tokens; ``preamble`` is text put before each prompt's text; ``lora`` is the folder of a PEFT LoRA
    adapter. Soft prompts and LoRA require a ``LanguageModel``.

    Raises:
        ValueError: ``soft`` has another shape.
    """

    model: Model
    soft: np.ndarray | None = None
    preamble: str = ""
    lora: Path | None = None

    def __post_init__(self) -> None:
        if self.soft is not None and (self.soft.ndim != 3 or len(self.soft) != 1):
            raise ValueError(f"soft: shape (1, tokens, dim) is needed, not {self.soft.shape}")

    @property
    def soft_tokens(self) -> int:
        """Length of the soft prompt; 0 without one."""
        return 0 if self.soft is None else self.soft.shape[1]

    @property
    def _local(self) -> LanguageModel:
        return cast("LanguageModel", self.model)

    @cached_property
    def _answering(self) -> Model:
        """The model with its LoRA adapter, if any."""
        return self._local.adapted(self.lora) if self.lora else self.model

    def answer(self, prompts: Prompts, *, most_tokens: int = 0, done: Done | None = None) -> Answers:
        """Compute option probabilities of every prompt, and text of up to ``most_tokens`` tokens if above 0.

        Args:
            done: is told of prompts as they are answered, by a model in memory.
        """
        with self._answering.watched(done) if done else nullcontext():
            if most_tokens:
                return self._answering.generate(prompts, self.soft, self.preamble, most_tokens)
            return self._answering.answer(prompts, self.soft, self.preamble)

    def shortfalls(self, prompts: Prompts, texts: Sequence[str], most_tokens: int) -> np.ndarray:
        """Compute how far texts are from those that ``answer`` generates, in nats; see ``greedy.shortfalls``.

        Infinite for models that are not in memory, and for those with a soft prompt of their own.
        """
        if not self.model.has_weights:
            return np.full(len(texts), np.inf)
        from .greedy import shortfalls
        from .local import LanguageModel

        model = self._answering
        if not isinstance(model, LanguageModel):  # with a soft prompt of its own
            return np.full(len(texts), np.inf)
        with model.at_work():
            rendered = [model.chat.render_prompt(f"{self.preamble}{text}") for text in prompts.texts]
            return shortfalls(model, rendered, texts, self.soft, most_tokens, lines=bool(prompts.verbalized))

    def save(self, folder: Path) -> None:
        """Write the folder atomically: the preamble and, if present, the PEFT prompt-tuning and LoRA adapters."""
        with replacing(folder) as temporary:
            temporary.mkdir()
            write_text(temporary / TEXT, self.preamble)
            if self.soft is not None:
                write_soft_prompt(temporary, self.soft)
                write_json(temporary / CONFIG, self._peft_config(self.soft_tokens))
            if self.lora is not None:
                (temporary / LORA).mkdir()
                shutil.copyfile(self.lora / WEIGHTS, temporary / LORA / WEIGHTS)
                write_json(temporary / LORA / CONFIG, self._named(read_config(self.lora)))

    def _named(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return a PEFT configuration with the base model's name as in submissions instead of a local folder."""
        return config | {"base_model_name_or_path": self.model.info.name}

    def _peft_config(self, tokens: int) -> dict[str, Any]:
        config = text_config(self._local.model)
        given = {
            "peft_type": "PROMPT_TUNING",
            "task_type": "CAUSAL_LM",
            "inference_mode": True,
            "num_virtual_tokens": tokens,
            "token_dim": self._local.dim,
            "num_transformer_submodules": 1,
            "num_attention_heads": config.num_attention_heads,
            "num_layers": config.num_hidden_layers,
            "prompt_tuning_init": "RANDOM",
        }
        return self._named(given)

    @staticmethod
    def load(model: Model, folder: Path) -> AlignedModel:
        """Read and validate a saved folder; safetensors only, shapes are checked against the model.

        Raises:
            InputError: a file is damaged or does not fit the model.
        """
        text = folder / TEXT
        preamble = _read_preamble(text) if text.exists() else ""
        weights = folder / WEIGHTS
        soft = read_soft_prompt(weights, cast("LanguageModel", model).dim) if weights.is_file() else None
        return AlignedModel(model, soft, preamble, folder / LORA if (folder / LORA).is_dir() else None)


def _read_preamble(path: Path) -> str:
    try:
        return read_unmarked(path, MOST_PREAMBLE).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}).") from None


def adapter_hash(folder: Path) -> str | None:
    """Compute the sha256 of a folder's weights and text; None if the folder changes nothing in the model."""
    digest, empty = hashlib.sha256(), True
    for name in (WEIGHTS, TEXT):
        if (path := folder / name).is_file() and (data := path.read_bytes()):
            digest.update(name.encode() + b"\0" + data)
            empty = False
    if (folder / LORA).is_dir():
        digest.update(LORA.encode() + b"\0" + lora_hash(folder / LORA))
        empty = False
    return None if empty else digest.hexdigest()
