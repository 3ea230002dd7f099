"""Verify entries: regenerate a sample of the answers with model and adapter, and compare with the stored ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from ..errors import CultevalError, UnavailableError, UsageError, did_you_mean
from ..harness.model_info import COMMIT, ModelInfo
from ..harness.models.aligned import AlignedModel, adapter_hash
from ..harness.models.greedy import TOGETHER
from ..harness.models.load import load_model
from ..harness.registry import spec_of
from ..harness.runs.config import aligner_settings
from ..harness.runs.execute import ALIGNED, versions
from ..harness.scoring.baselines import CONTROL
from ..harness.submissions.manifest import MOST_TEXT, Manifest
from ..harness.submissions.reader import read_submission
from ..harness.util.atomic_io import write_json
from ..tasks.answers import Answers
from ..tasks.chat_options import DEFAULT_CHAT
from ..tasks.prompts import Prompts, render_protocol
from .entries import VERIFIED, Found, find, verified_marks

# Rounding of an option probability if the same prompt is in another batch or on another machine.
TOLERANCE = {"float32": 0.002, "float16": 0.02, "bfloat16": 0.06, "int8": 0.06}
# Rounding also decides between two tokens of about equal probability, after which texts differ. A stored text is the
# model's where it is identical, or where each token is so near to the most probable one, in nats. Measured: honest
# texts of a bfloat16 model asked in float32 are within 0.1, answers to other prompts 1.3 or more away.
NEAR = {"float32": 0.02, "float16": 0.2, "bfloat16": 0.5, "int8": 0.5}
SAME = 0.9  # least share of the model's texts, and of equal parsed options
# Largest root mean square of the errors, in roundings: that of the regenerated answers against the same in float32. Two
# independent roundings are 1.4 apart. Searched prompts far from all words can multiply rounding.
ROUNDINGS = 2


@dataclass(frozen=True)
class Verdict:
    """The comparison of an entry: number of regenerated answers, largest error of an option probability, tolerance.

    ``sample`` and ``seed`` give the same sample again. ``texts`` and ``codes`` are the shares of texts that are the
    model's, within ``near`` nats, and of equal parsed options (1 if there are none); at least ``SAME`` is required.
    ``spread`` is the root mean square of the errors and ``rounding`` that of rounding alone, measured where the largest
    error exceeds the tolerance.
    """

    entry: str
    manifest_sha256: str
    sample: int
    seed: int
    compared: int
    largest: float
    tolerance: float
    texts: float
    near: float
    codes: float
    versions: dict[str, str]
    spread: float = 0.0
    rounding: float | None = None

    @property
    def holds(self) -> bool:
        """Return whether the entry may be marked as verified."""
        near = self.largest <= self.tolerance
        if self.rounding is not None and self.rounding <= self.tolerance:
            near = near or self.spread <= ROUNDINGS * self.rounding
        return near and min(self.texts, self.codes) >= SAME

    def __str__(self) -> str:
        parts = [f"{self.compared} answers", f"largest probability error {self.largest:.4f}, allowed {self.tolerance}"]
        if self.rounding is not None:
            parts.append(f"root mean square {self.spread:.4f}, by rounding alone {self.rounding:.4f}")
        shown = ((f"texts within {self.near} nats of its own", self.texts), ("codes equal", self.codes))
        parts += [f"{share:.0%} of {name}, {SAME:.0%} required" for name, share in shown if share < 1]
        return f"{self.entry}: {'matches' if self.holds else 'DIFFERS'}; {', '.join(parts)}"


def verify(
    found: Found,
    model_of: Callable[[Manifest], Any],
    sample: int,
    seed: int,
    adapters: Path | None = None,
) -> Verdict:
    """Regenerate a sample of an entry's answers to each task.

    Args:
        model_of: returns the model of a manifest.
        sample: number of prompts of each task; more for generated text, which is sampled in whole batches.
        seed: seed of the sample.
        adapters: folder with adapters that entries do not contain, each under the name of its entry.

    Raises:
        InputError: a damaged entry or adapter. UnavailableError: the adapter is missing, or the model differs.
    """
    manifest, answers = read_submission(found.folder)
    aligned, dtype = _aligned(found, manifest, model_of, adapters), manifest.model.dtype
    samples = list(_samples(manifest, answers, sample, np.random.default_rng(seed)))
    again = [aligned.answer(each.prompts, most_tokens=each.tokens) for each in samples]
    off = _apart(again, [each.stored for each in samples], samples)
    tolerance, rounding = TOLERANCE.get(dtype, max(TOLERANCE.values())), None
    if off.max() > tolerance and dtype in TOLERANCE and dtype != "float32":
        exact = replace(aligned, model=model_of(_in_float32(manifest)))
        rounding = _root_mean_square(_apart(again, [exact.answer(each.prompts) for each in samples], samples))
    near = NEAR.get(dtype, max(NEAR.values()))
    same = [_same(aligned, mine, each, near) for mine, each in zip(again, samples, strict=True)]
    texts, codes = (list(chain.from_iterable(some)) for some in zip(*same, strict=True))
    return Verdict(
        found.name,
        found.manifest_sha256,
        sample,
        seed,
        sum(len(each.prompts) for each in samples),
        float(off.max()),
        tolerance,
        float(np.mean(texts or [True])),
        near,
        float(np.mean(codes or [True])),
        versions(),
        _root_mean_square(off),
        rounding,
    )


class _Sampled(NamedTuple):
    """Some prompts of a task, the most tokens of a text in answer, and the stored answers.

    ``weighed`` is whether any stored answer to the task has option probabilities.
    """

    prompts: Prompts
    tokens: int
    stored: Answers
    weighed: bool


def _samples(
    manifest: Manifest, answers: Mapping[str, Answers], count: int, rng: np.random.Generator
) -> Iterator[_Sampled]:
    """Sample ``count`` prompts of each task; more for generated text."""
    for task in manifest.tasks:
        spec = spec_of(task.name)
        prompts = render_protocol(spec, task.protocol(manifest.seed))
        tokens = spec.most_tokens if spec.output_type == "generate_until" else 0
        some = _sample(len(prompts), count, TOGETHER if tokens else 1, rng)
        stored = answers[task.name]
        yield _Sampled(prompts.take(some), tokens, stored.take(some), stored.weighed)


def _apart(again: Sequence[Answers], others: Sequence[Answers], samples: Sequence[_Sampled]) -> np.ndarray:
    """Compute the absolute differences of option probabilities, in one dimension; 0 if no task has any."""
    parts = [np.zeros(1)]
    for mine, other, sample in zip(again, others, samples, strict=True):
        if sample.weighed:
            parts.append(np.abs(mine.probs[0] - other.probs[0, :, : mine.probs.shape[2]]).ravel())
    return np.concatenate(parts)


def _root_mean_square(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _in_float32(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"model": manifest.model.model_copy(update={"dtype": "float32"})})


def _aligned(
    found: Found, manifest: Manifest, model_of: Callable[[Manifest], Any], adapters: Path | None
) -> AlignedModel:
    """Return the aligned model of an entry; raises as ``verify``."""
    wanted, adapter = manifest.aligner.adapter_sha256, found.folder / ALIGNED
    if not adapter.is_dir() and adapters is not None:
        adapter = adapters / found.name
    made = adapter_hash(adapter) if adapter.is_dir() else None
    drawn = made is None and wanted is not None and manifest.aligner.name == CONTROL
    if made != wanted and not drawn:
        what = "not the one of the manifest" if made else "missing"
        raise UnavailableError(f"{adapter}: the adapter is {what}. Give its folder with --adapters.")
    if manifest.model.adapter_sha256:
        raise UnavailableError(f"{found.folder}: its model had an adapter, which entries do not contain.")
    model = model_of(manifest)
    _require_same(found, manifest.model, model.info)
    if drawn:
        return _drawn(found, manifest, model)
    return AlignedModel.load(model, adapter) if made else AlignedModel(model)


def _drawn(found: Found, manifest: Manifest, model: Any) -> AlignedModel:
    """Return the model with the random prefix of the entry's seed.

    Raises:
        UnavailableError: the prefix differs from the one in the manifest.
    """
    from ..optimizers.soft_prompt import draw_prompts

    tokens = aligner_settings(CONTROL, (), manifest.aligner.settings).model_dump()["tokens"]
    aligned = AlignedModel(model, draw_prompts(model, np.random.default_rng(manifest.seed), 1, tokens))
    with TemporaryDirectory() as folder:
        aligned.save(Path(folder) / ALIGNED)
        made = adapter_hash(Path(folder) / ALIGNED)
    if made != manifest.aligner.adapter_sha256:
        raise UnavailableError(f"{found.folder}: its seed gives another random prefix here than the manifest names.")
    return aligned


def _require_same(found: Found, theirs: ModelInfo, ours: ModelInfo) -> None:
    """Raise UnavailableError unless the loaded model is the one of the manifest."""
    if theirs.revision == "unknown":
        raise UnavailableError(f"{found.folder}: its manifest has no revision of {theirs.name}.")
    files = () if COMMIT.fullmatch(theirs.revision) else ("content_sha256",)  # hub folders may have other files
    for what in ("revision", *files, "chat_template", "chat"):
        then, now = getattr(theirs, what), getattr(ours, what)
        if then != now and (then is not None or what == "chat_template"):  # older entries lack some fields
            raise UnavailableError(
                f"{found.folder}: answered by {theirs.name} with {what} {str(then)[:80]}; here it is {str(now)[:80]}."
            )


def _sample(size: int, count: int, together: int, rng: np.random.Generator) -> np.ndarray:
    """Sample ``count`` or more numbers below ``size`` in whole batches of ``together``: rounding depends on batches."""
    batches = -(-size // together)
    chosen = np.sort(rng.choice(batches, min(batches, -(-count // together)), replace=False))
    return np.concatenate([np.arange(size)[batch * together : (batch + 1) * together] for batch in chosen])


def _same(aligned: AlignedModel, again: Answers, sample: _Sampled, near: float) -> tuple[list[bool], list[bool]]:
    """Return which stored texts are the model's, and which parsed options of answers with options are equal."""
    stored = sample.stored
    if again.texts is None or again.parsed is None:
        return [], []
    if stored.texts is None or stored.parsed is None:
        return [False] * len(again.texts), []
    texts = np.array([one[:MOST_TEXT] == other for one, other in zip(again.texts, stored.texts, strict=True)])
    if len(others := np.flatnonzero(~texts)):
        given = [stored.texts[row] for row in others]
        texts[others] = aligned.shortfalls(sample.prompts.take(others), given, sample.tokens) <= near
    return texts.tolist(), (again.parsed == stored.parsed)[again.layout.widths > 0].tolist()


def record(board: Path, verdict: Verdict) -> None:
    """Store a verdict in ``verified.json``; a failed one removes an earlier mark of the same manifest."""
    kept = verified_marks(board)
    kept.pop(verdict.manifest_sha256, None)
    if verdict.holds:
        kept[verdict.manifest_sha256] = asdict(verdict)
    write_json(board / VERIFIED, dict(sorted(kept.items())))


def verify_all(
    board: Path,
    names: Sequence[str],
    model_of: Models,
    sample: int,
    seed: int,
    display: Any,
    adapters: Path | None = None,
) -> tuple[list[Verdict], list[str]]:
    """Verify entries of a board's folder, by default all, and record each verdict.

    Args:
        display: shows the number of finished entries.
        sample, seed, adapters: as for ``verify``.

    Returns:
        The verdicts, and the reason for each entry that could not be verified.

    Raises:
        InputError: the folder or ``verified.json`` cannot be read. UsageError: no such entry.
    """
    verified_marks(board)  # report an unreadable file before the model is loaded
    refused: list[str] = []
    found = {one.name: one for one in find(board, refused.append)}
    for name in names:
        if name not in found:
            raise UsageError(f"{board}: no entry {name!r}.{did_you_mean(name, found)}")
    chosen = [found[name] for name in dict.fromkeys(names)] if names else list(found.values())
    verdicts = []
    for number, one in enumerate(chosen):
        try:
            verdicts.append(verify(one, model_of, sample, seed, adapters))
            record(board, verdicts[-1])
        except CultevalError as error:
            refused.append(str(error))
        display.advance("entries", number + 1, len(chosen), None)
    return verdicts, refused


class Models:
    """A loader of the models of manifests that keeps the last one, since entries are sorted by model.

    Args:
        folders: folders of local models; manifests name them by their last part.
        say: called with a line for each model that is loaded.
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
