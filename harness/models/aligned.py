"""An aligned model: the frozen model behind a soft prompt, a text, or nothing; saved to and loaded from a folder."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...tasks.answers import Answers
from ...tasks.prompts import Prompts
from ...tasks.reading import read_unmarked
from ..adapters.peft_files import CONFIG, lora_hash, read_config
from ..adapters.peft_files import WEIGHTS as LORA_WEIGHTS
from ..engine.model_config import text_config
from ..util.atomic_io import replacing, write_json, write_text

if TYPE_CHECKING:
    from .local import LanguageModel

WEIGHTS = "adapter_model.safetensors"
KEY = "prompt_embeddings"  # what peft calls the virtual tokens of prompt tuning
TEXT, LORA = "preamble.txt", "lora"
ADAPTER_FILES = (TEXT, CONFIG, WEIGHTS, f"{LORA}/{CONFIG}", f"{LORA}/{LORA_WEIGHTS}")  # all that is saved
MOST_PREAMBLE, MOST_TOKENS = 1 << 20, 10_000


@dataclass(frozen=True)
class AlignedModel:
    """Answers prompts like a culture.

    ``soft`` is (T, dim) float32, put before the whole rendered prompt, first token included, where peft puts virtual
    tokens; ``preamble`` is text put before the user's turn; ``lora`` is the folder of a PEFT LoRA adapter.
    """

    model: LanguageModel
    soft: np.ndarray | None = None
    preamble: str = ""
    lora: Path | None = None

    @cached_property
    def _answering(self) -> LanguageModel:
        """The model with its LoRA adapter, if any."""
        return self.model.adapted(self.lora) if self.lora else self.model

    def answer(self, prompts: Prompts, *, most_tokens: int = 0) -> Answers:
        """Option probabilities of every prompt, beside them a generated answer of so many tokens at most, if any."""
        if most_tokens:
            return self._answering.generate(prompts, self.soft, self.preamble, most_tokens)
        return self._answering.answer(prompts, None if self.soft is None else self.soft[None], self.preamble)

    def save(self, folder: Path) -> None:
        """Write the folder atomically: a PEFT prompt-tuning adapter, the preamble, a LoRA adapter, as there are."""
        from safetensors.numpy import save

        with replacing(folder) as temporary:
            temporary.mkdir()
            write_text(temporary / TEXT, self.preamble)
            if self.soft is not None:
                data = save({KEY: np.ascontiguousarray(self.soft, dtype=np.float32)})
                (temporary / WEIGHTS).write_bytes(data)  # a full disk is then an OSError like any other
                write_json(temporary / CONFIG, self._peft_config(len(self.soft)))
            if self.lora is not None:
                (temporary / LORA).mkdir()
                shutil.copyfile(self.lora / LORA_WEIGHTS, temporary / LORA / LORA_WEIGHTS)
                write_json(temporary / LORA / CONFIG, self._named(read_config(self.lora)))

    def _named(self, config: dict[str, Any]) -> dict[str, Any]:
        """A PEFT configuration that calls the base model what the submission does, not by a folder of this machine."""
        return config | {"base_model_name_or_path": self.model.identity.name}

    def _peft_config(self, tokens: int) -> dict[str, Any]:
        config = text_config(self.model.model)
        given = {
            "peft_type": "PROMPT_TUNING",
            "task_type": "CAUSAL_LM",
            "inference_mode": True,
            "num_virtual_tokens": tokens,
            "token_dim": self.model.dim,
            "num_transformer_submodules": 1,
            "num_attention_heads": config.num_attention_heads,
            "num_layers": config.num_hidden_layers,
            "prompt_tuning_init": "RANDOM",
        }
        return self._named(given)

    @staticmethod
    def load(model: LanguageModel, folder: Path) -> AlignedModel:
        """Read a saved folder; safetensors only, shapes checked against the model.

        Raises:
            InputError: a file is damaged or does not fit the model.
        """
        text = folder / TEXT
        preamble = _read_preamble(text) if text.exists() else ""
        weights = folder / WEIGHTS
        soft = read_soft_prompt(weights, model.dim) if weights.is_file() else None
        return AlignedModel(model, soft, preamble, folder / LORA if (folder / LORA).is_dir() else None)


def _read_preamble(path: Path) -> str:
    try:
        return read_unmarked(path, MOST_PREAMBLE).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start}).") from None


def read_soft_prompt(path: Path, dim: int) -> np.ndarray:
    """The virtual tokens (T, dim) float32 of a PEFT prompt-tuning adapter.

    Raises:
        InputError: not a safetensors file, or not a finite matrix of the model's width.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
            names = list(file.keys())
            if names != [KEY]:
                raise InputError(f"{path}: holds {names[:3]}, expected one tensor {KEY!r} (prompt tuning).")
            shape = file.get_slice(KEY).get_shape()
            if len(shape) != 2 or shape[1] != dim or not 1 <= shape[0] <= MOST_TOKENS:
                raise InputError(
                    f"{path}: {KEY} has shape {shape}; this model needs (tokens, {dim}), {MOST_TOKENS} tokens at most."
                )
            given = file.get_tensor(KEY)
            if not given.is_floating_point():
                raise InputError(f"{path}: {KEY} holds {given.dtype}, no floating-point numbers.")
            soft: np.ndarray = given.float().numpy()
    except (SafetensorError, OSError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(f"{path}: not a safetensors adapter ({error}).") from None
    if not np.isfinite(soft).all():
        raise InputError(f"{path}: {KEY} holds NaN or infinite numbers.")
    return soft


def adapter_hash(folder: Path) -> str | None:
    """sha256 over the folder's weights and text; None for a model left as it is."""
    digest, empty = hashlib.sha256(), True
    for name in (WEIGHTS, TEXT):
        if (path := folder / name).is_file() and (data := path.read_bytes()):
            digest.update(name.encode() + b"\0" + data)
            empty = False
    if (folder / LORA).is_dir():
        digest.update(LORA.encode() + b"\0" + lora_hash(folder / LORA))
        empty = False
    return None if empty else digest.hexdigest()
