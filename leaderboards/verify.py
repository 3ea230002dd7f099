"""Asking again: a sample of an entry's answers from its own model and adapter, beside the stored ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CultevalError, UnavailableError, UsageError, did_you_mean
from ..harness.aligned import AlignedModel, adapter_hash
from ..harness.files import write_json
from ..harness.registry import spec_of
from ..harness.run import ALIGNED, versions
from ..harness.submission import Manifest, asking, read
from ..tasks.prompts import protocol
from .collect import VERIFIED, Found, find, verified

# What rounding does to an option's probability when the same prompt stands in another batch or on another machine.
TOLERANCE = {"float32": 0.002, "float16": 0.02, "bfloat16": 0.06}


@dataclass(frozen=True)
class Verdict:
    """An entry asked again: how many answers, how far the farthest option probability was off, what is allowed."""

    entry: str
    answers_sha256: str
    compared: int
    largest: float
    tolerance: float
    versions: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether the entry may be marked verified."""
        return self.largest <= self.tolerance


def verify(found: Found, model_of: Callable[[Manifest], Any], most: int, rng: np.random.Generator) -> Verdict:
    """Ask some of an entry's prompts again, as many of each task.

    Args:
        model_of: the model that a manifest names.
        most: prompts in all, drawn from ``rng``.

    Raises:
        InputError: a damaged entry or adapter. UnavailableError: no adapter there, or the model is another one here.
    """
    manifest, answers = read(found.folder)
    adapter = found.folder / ALIGNED
    made = adapter_hash(adapter) if adapter.is_dir() else None
    if made != manifest.aligner.adapter_sha256:
        what = "not the one of the manifest" if made else "not there"
        raise UnavailableError(f"{adapter}: the adapter is {what}; without it nobody can ask again.")
    if manifest.model.adapter_sha256:
        raise UnavailableError(f"{found.folder}: answered by a model behind a LoRA adapter that entries do not carry.")
    model = model_of(manifest)
    if model.identity.revision != manifest.model.revision:
        theirs, ours = manifest.model.revision, model.identity.revision
        raise UnavailableError(f"{found.folder}: answered by {manifest.model.name} {theirs}; here it is {ours}.")
    aligned = AlignedModel.load(model, adapter) if made else AlignedModel(model)
    worst, compared = 0.0, 0
    for task in manifest.tasks:
        prompts = protocol(spec_of(task.name), asking(task, manifest.seed))
        some = np.sort(rng.choice(len(prompts), min(len(prompts), -(-most // len(manifest.tasks))), replace=False))
        again = aligned.answer(prompts.take(some)).probs[0]
        stored = answers[task.name].probs[0, some, : again.shape[1]]
        worst = max(worst, float(np.abs(again - stored).max()))
        compared += len(some)
    tolerance = TOLERANCE.get(manifest.model.dtype, max(TOLERANCE.values()))
    return Verdict(found.name, manifest.answers.sha256, compared, worst, tolerance, versions())


def record(board: Path, verdict: Verdict) -> None:
    """Keep a verdict in ``verified.json``; one that does not hold takes an older one away."""
    kept = verified(board)
    kept.pop(verdict.answers_sha256, None)
    if verdict.holds:
        kept[verdict.answers_sha256] = asdict(verdict)
    write_json(board / VERIFIED, dict(sorted(kept.items())))


def verify_all(
    board: Path, names: Sequence[str], most: int, seed: int, display: Any
) -> tuple[list[Verdict], list[str]]:
    """Verify entries of a board's folder, by default all, and record each verdict.

    Args:
        display: told what is loaded, and how many entries are done.

    Returns:
        The verdicts, and why each of the others could not be asked.

    Raises:
        InputError: no such folder. UsageError: no such entry.
    """
    verified(board)  # a file that cannot be read is said before anything is asked
    refused: list[str] = []
    found = {one.name: one for one in find(board, refused.append)}
    for name in names:
        if name not in found:
            raise UsageError(f"{board}: no entry {name!r}.{did_you_mean(name, found)}")
    chosen = [found[name] for name in dict.fromkeys(names)] if names else list(found.values())
    model_of, verdicts = _Models(display.say), []
    for number, one in enumerate(chosen):
        try:
            verdicts.append(verify(one, model_of, most, np.random.default_rng(seed)))
            record(board, verdicts[-1])
        except CultevalError as error:
            refused.append(str(error))
        display.advance("entries", number + 1, len(chosen), None)
    return verdicts, refused


class _Models:
    """The models of manifests; the last one stays loaded, since entries of one model stand together."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._key = say, ("", "")
        self._model: Any = None

    def __call__(self, manifest: Manifest) -> Any:
        from ..harness.models import load_model

        used = manifest.model
        if self._key != (used.name, used.dtype):
            self._say(f"loading {used.name}")
            self._model = load_model(used.name, used.dtype, "cpu", None, None, self._say)
            self._key = (used.name, used.dtype)
        return self._model
