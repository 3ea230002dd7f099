"""LoRA training on a model's own dialogues, by transformers' Trainer and peft; an interrupted run resumes exactly."""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ....errors import RunError
from ...lora import adapter
from ...lora.training import Tell, last_whole, micro_batch, progress, seeded
from ..settings import CLCASettings
from .examples import IGNORED, Example

if TYPE_CHECKING:
    from ....harness.models.local import LanguageModel

LORA, _CHECKPOINTS = "lora", "checkpoints"


class Point(NamedTuple):
    """A loss per trained token at a step, on the training data or (``heldout``) on the data left out."""

    step: int
    loss: float
    heldout: bool


class Trained(NamedTuple):
    """The loss curve of a training, and the number of tokens that were processed, forward and backward."""

    points: list[Point]
    tokens: int


def divide(examples: Sequence[Example], share: float, rng: np.random.Generator) -> tuple[list[Example], list[Example]]:
    """Divide into training examples and those of the dialogues left out; a dialogue's examples stay together."""
    sources = rng.permutation(sorted({each.source for each in examples}))
    left = set(sources[: min(round(share * len(sources)), len(sources) - 1)].tolist())
    return [e for e in examples if e.source not in left], [e for e in examples if e.source in left]


def train(
    model: LanguageModel,
    examples: Sequence[Example],
    settings: CLCASettings,
    folder: Path,
    seed: int,
    tell: Tell,
) -> Trained:
    """Train and save a PEFT LoRA adapter to ``folder / LORA``; the model itself is unchanged.

    Raises:
        RunError: no training data, no such modules, or a loss that is not a number.
    """
    from transformers import EarlyStoppingCallback, PrinterCallback, Trainer

    if not examples:
        raise RunError("clca: no dialogue was kept, so there is nothing to learn from. See decisions.jsonl.")
    learned, left = divide(examples, settings.heldout, np.random.default_rng(seed))
    checkpoints = folder / _CHECKPOINTS
    with model.at_work(), seeded(seed):
        tuned = adapter.attached(model.fresh(), settings)
        trainer = Trainer(
            model=tuned,
            args=_arguments(checkpoints, settings, learned, bool(left), seed, model.model.device.type),
            train_dataset=_rows(learned),
            eval_dataset=_rows(left) if left else None,
            data_collator=_Padding(_pad(model.tokenizer), picks(model.model)),
            callbacks=[progress(tell), *([EarlyStoppingCallback(settings.patience)] if left else [])],
        )
        trainer.remove_callback(PrinterCallback)
        last = last_whole(checkpoints)
        if last and _stopped_early(last, settings.patience):
            trainer.state = _take_best(tuned, last)
        else:
            trainer.train(resume_from_checkpoint=str(last) if last else None)
    points = _points(trainer.state.log_history)
    if not all(np.isfinite(point.loss) for point in points):
        raise RunError("clca: the training loss is not a number. Try `dtype` float32, or a lower rate.")
    adapter.save(tuned, folder / LORA)
    tokens = round(trainer.state.epoch * sum(len(each.ids) for each in learned))
    shutil.rmtree(checkpoints, ignore_errors=True)
    return Trained(points, tokens)


def _stopped_early(checkpoint: Path, patience: int) -> bool:
    """Return whether training ended with the evaluation before this checkpoint; the trainer would continue from it."""
    state = json.loads((checkpoint / "trainer_state.json").read_bytes())
    callback = state["stateful_callbacks"].get("EarlyStoppingCallback", {"attributes": {}})
    return callback["attributes"].get("early_stopping_patience_counter", 0) >= patience


def _take_best(tuned: Any, checkpoint: Path) -> Any:
    """Load the best checkpoint's weights into the model; the state in which training ended."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file
    from transformers import TrainerState

    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    best = checkpoint.parent / Path(state.best_model_checkpoint).name
    set_peft_model_state_dict(tuned, load_file(best / "adapter_model.safetensors"))
    return state


def _arguments(
    folder: Path, settings: CLCASettings, learned: Sequence[Example], judged: bool, seed: int, device: str
) -> Any:
    from transformers import TrainingArguments

    longest = max(len(each.ids) for each in learned)
    micro = micro_batch(settings.batch, longest)
    steps = -(-len(learned) // settings.batch) * settings.epochs
    often = max(1, steps // (4 * settings.epochs))
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=settings.batch // micro,
        num_train_epochs=settings.epochs,
        learning_rate=settings.rate,
        seed=seed,
        data_seed=seed,
        save_strategy="steps",
        save_steps=often,
        save_total_limit=2,
        eval_strategy="steps" if judged else "no",
        eval_steps=often if judged else None,
        load_best_model_at_end=judged,
        restore_callback_states_from_checkpoint=True,
        logging_nan_inf_filter=False,
        logging_steps=1,
        disable_tqdm=True,
        report_to=[],
        use_cpu=device == "cpu",
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # one model, one device: a batch has the size of the settings
    return arguments


def _rows(examples: Sequence[Example]) -> list[dict[str, np.ndarray]]:
    return [{"input_ids": each.ids, "labels": each.labels} for each in examples]


def picks(model: Any) -> bool:
    """Return whether a model can compute logits at some positions only, and takes labels for these."""
    given = inspect.signature(model.forward).parameters
    return "logits_to_keep" in given and any(each.kind is each.VAR_KEYWORD for each in given.values())


class _Padding:
    """Batches of equal length, padded at the end with tokens that are neither read nor trained on.

    With ``picks``, logits are computed only where some row has a token to train on: at most positions the head, a fifth
    of a small model, would be multiplied without use. Loss and gradients are the same.
    """

    def __init__(self, pad: int, picks: bool) -> None:
        self.pad, self.picks = pad, picks

    def __call__(self, rows: Sequence[dict[str, np.ndarray]]) -> dict[str, Any]:
        import torch

        width = max(len(row["input_ids"]) for row in rows)

        def padded(values: list[np.ndarray], fill: int) -> np.ndarray:
            return np.stack([np.pad(v, (0, width - len(v)), constant_values=fill) for v in values])

        ids = [row["input_ids"] for row in rows]
        labels = padded([row["labels"] for row in rows], IGNORED)
        batch = {
            "input_ids": padded(ids, self.pad),
            "attention_mask": padded([np.ones(len(each), dtype=np.int64) for each in ids], 0),
        }
        if self.picks:  # labels are then given in the loss's order: each at the position before its token
            kept = np.flatnonzero((labels[:, 1:] != IGNORED).any(0))
            labels = np.ascontiguousarray(labels[:, kept + 1])
            batch |= {"logits_to_keep": kept, "shift_labels": labels}
        return {name: torch.from_numpy(values) for name, values in (batch | {"labels": labels}).items()}


def _pad(tokenizer: Any) -> int:
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


def _points(history: Sequence[dict[str, float]]) -> list[Point]:
    found = []
    for line in history:
        for key, left in (("loss", False), ("eval_loss", True)):
            if key in line:
                found.append(Point(int(line["step"]), float(line[key]), left))
    return found
