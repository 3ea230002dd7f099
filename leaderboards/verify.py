"""Asking again: a sample of an entry's answers from its own model and adapter, beside the stored ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CultevalError, UnavailableError, UsageError, did_you_mean
from ..harness.model_info import COMMIT, DEFAULT_CHAT, ModelInfo
from ..harness.models.aligned import AlignedModel, adapter_hash
from ..harness.models.greedy import TOGETHER
from ..harness.models.load import load_model
from ..harness.registry import spec_of
from ..harness.runs.execute import ALIGNED, versions
from ..harness.submissions.manifest import MOST_TEXT, Manifest, asking
from ..harness.submissions.reader import read_submission
from ..harness.util.atomic_io import write_json
from ..tasks.answers import Answers
from ..tasks.prompts import protocol
from .entries import VERIFIED, Found, find, verified

# What rounding does to an option's probability when the same prompt stands in another batch or on another machine.
TOLERANCE = {"float32": 0.002, "float16": 0.02, "bfloat16": 0.06}
# The share of generated texts that have to be the same to the letter: where two tokens are about equally probable,
# rounding decides between them, and what follows differs. Of the options read from the texts, which mostly hang on the
# first tokens, more have to be the same.
SAME_TEXTS = {"float32": 0.9, "float16": 0.75, "bfloat16": 0.5}
SAME_CODES = 0.9


@dataclass(frozen=True)
class Verdict:
    """An entry asked again: how many answers, how far the farthest option probability was off, what is allowed.

    ``texts`` and ``codes`` are the shares of generated texts, and of options read from them, that are the same, one
    where there are none; ``least_texts`` is the share of texts that is needed, of codes it is ``SAME_CODES``.
    """

    entry: str
    answers_sha256: str
    compared: int
    largest: float
    tolerance: float
    texts: float
    least_texts: float
    codes: float
    versions: dict[str, str]

    @property
    def holds(self) -> bool:
        """Whether the entry may be marked verified."""
        near = self.largest <= self.tolerance
        return near and self.texts >= self.least_texts and self.codes >= SAME_CODES

    def __str__(self) -> str:
        said = [f"{self.compared} answers", f"farthest probability off by {self.largest:.4f}, allowed {self.tolerance}"]
        for name, share, least in (("texts", self.texts, self.least_texts), ("codes", self.codes, SAME_CODES)):
            said += [f"{share:.0%} of {name} the same, {least:.0%} needed"] if share < 1 else []
        return f"{self.entry}: {'agrees' if self.holds else 'DIFFERS'}; {', '.join(said)}"


def verify(found: Found, model_of: Callable[[Manifest], Any], most: int, rng: np.random.Generator) -> Verdict:
    """Ask some of an entry's prompts again, as many of each task.

    Args:
        model_of: the model that a manifest names.
        most: prompts in all, drawn from ``rng``; more of tasks that have text written, which is done in batches.

    Raises:
        InputError: a damaged entry or adapter. UnavailableError: no adapter there, or the model is another one here.
    """
    manifest, answers = read_submission(found.folder)
    adapter = found.folder / ALIGNED
    made = adapter_hash(adapter) if adapter.is_dir() else None
    if made != manifest.aligner.adapter_sha256:
        what = "not the one of the manifest" if made else "not there"
        raise UnavailableError(f"{adapter}: the adapter is {what}; without it nobody can ask again.")
    if manifest.model.adapter_sha256:
        raise UnavailableError(f"{found.folder}: answered by a model with an adapter that entries do not carry.")
    model = model_of(manifest)
    _require_same(found, manifest.model, model.info)
    aligned = AlignedModel.load(model, adapter) if made else AlignedModel(model)
    off: list[float] = []
    same_text: list[bool] = []
    same_code: list[bool] = []
    compared = 0
    for task in manifest.tasks:
        spec = spec_of(task.name)
        prompts = protocol(spec, asking(task, manifest.seed))
        tokens = spec.most_tokens if spec.output_type == "generate_until" else 0
        some = _sample(len(prompts), -(-most // len(manifest.tasks)), TOGETHER if tokens else 1, rng)
        again, stored = aligned.answer(prompts.take(some), most_tokens=tokens), answers[task.name].take(some)
        if answers[task.name].weighed:
            off.append(float(np.abs(again.probs[0] - stored.probs[0, :, : again.probs.shape[2]]).max()))
        texts, codes = _same(again, stored)
        same_text += texts
        same_code += codes
        compared += len(some)
    dtype = manifest.model.dtype
    return Verdict(
        found.name,
        manifest.answers.sha256,
        compared,
        max(off, default=0.0),
        TOLERANCE.get(dtype, max(TOLERANCE.values())),
        float(np.mean(same_text or [True])),
        SAME_TEXTS.get(dtype, min(SAME_TEXTS.values())),
        float(np.mean(same_code or [True])),
        versions(),
    )


def _require_same(found: Found, theirs: ModelInfo, ours: ModelInfo) -> None:
    """Raise UnavailableError unless the model here is known to be the one that answered."""
    if theirs.revision == "unknown":
        raise UnavailableError(f"{found.folder}: its manifest does not say which revision of {theirs.name} answered.")
    files = () if COMMIT.fullmatch(theirs.revision) else ("content_sha256",)  # a hub's folder may hold more or less
    for what in ("revision", *files, "chat_template", "chat"):
        then, now = getattr(theirs, what), getattr(ours, what)
        if then != now and (then is not None or what == "chat_template"):  # older entries tell less
            raise UnavailableError(
                f"{found.folder}: answered by {theirs.name} with {what} {str(then)[:80]}; here it is {str(now)[:80]}."
            )


def _sample(size: int, count: int, together: int, rng: np.random.Generator) -> np.ndarray:
    """At least ``count`` of the numbers below ``size``, in whole batches of ``together`` as they were asked, since
    rounding depends on what stands in a batch."""
    batches = -(-size // together)
    chosen = np.sort(rng.choice(batches, min(batches, -(-count // together)), replace=False))
    return np.concatenate([np.arange(size)[batch * together : (batch + 1) * together] for batch in chosen])


def _same(again: Answers, stored: Answers) -> tuple[list[bool], list[bool]]:
    """Of each answer whether its text is the same, and of those with options whether the one read from it is."""
    if again.texts is None or again.parsed is None:
        return [], []
    if stored.texts is None or stored.parsed is None:
        return [False] * len(again.texts), []
    texts = [one[:MOST_TEXT] == other for one, other in zip(again.texts, stored.texts, strict=True)]
    return texts, (again.parsed == stored.parsed)[again.layout.widths > 0].tolist()


def record(board: Path, verdict: Verdict) -> None:
    """Keep a verdict in ``verified.json``; one that does not hold takes an older one away."""
    kept = verified(board)
    kept.pop(verdict.answers_sha256, None)
    if verdict.holds:
        kept[verdict.answers_sha256] = asdict(verdict)
    write_json(board / VERIFIED, dict(sorted(kept.items())))


def verify_all(
    board: Path, names: Sequence[str], model_of: Models, most: int, seed: int, display: Any
) -> tuple[list[Verdict], list[str]]:
    """Verify entries of a board's folder, by default all, and record each verdict.

    Args:
        display: told how many entries are done.

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
    verdicts = []
    for number, one in enumerate(chosen):
        try:
            verdicts.append(verify(one, model_of, most, np.random.default_rng(seed)))
            record(board, verdicts[-1])
        except CultevalError as error:
            refused.append(str(error))
        display.advance("entries", number + 1, len(chosen), None)
    return verdicts, refused


class Models:
    """The models of manifests; the last one stays loaded, since entries of one model stand together.

    Args:
        folders: of models that manifests call by the folder's last name.
        say: told what is loaded.
    """

    def __init__(self, folders: Sequence[Path], say: Callable[[str], None]) -> None:
        self._places = {folder.resolve().name: str(folder) for folder in folders}
        self._say, self._key = say, ""
        self._model: Any = None

    def __call__(self, manifest: Manifest) -> Any:
        used = manifest.model
        key = used.model_dump_json(include={"name", "revision", "dtype", "chat"})
        if self._key != key:
            self._say(f"loading {used.name}")
            commit = used.revision if COMMIT.fullmatch(used.revision) else None
            chat = used.chat or DEFAULT_CHAT
            place = self._places.get(used.name, used.name)
            self._model = load_model(place, dtype=used.dtype, revision=commit, notify=self._say, chat=chat)
            self._key = key
        return self._model
