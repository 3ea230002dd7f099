"""Find copied answers: entries whose answers equal those of an entry of another model or aligner."""

from __future__ import annotations

import json
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np

from ..harness.submissions.manifest import AnswerRow, AskedTask, Manifest
from ..tasks.answers import Answers, Layout

NEAR = 1e-3  # answers of different origin differ by more than this in some probability
ROUNDING = 1e-6  # more than float32 changes in a difference of probabilities
LONG, MANY, SAME = (
    5,
    5,
    0.9,
)  # copied texts: least words of a text, number of texts, share of equal ones


@dataclass(frozen=True)
class TaskAnswers:
    """The answers of an entry to one task: task and protocol, origin, probabilities, texts.

    ``probs`` is (prompts x options,); ``texts`` (prompts,) is a checksum of each text, 0 for a text that is too short
    to identify its origin.
    """

    entry: str
    asked: str
    origin: str
    probs: np.ndarray
    texts: np.ndarray
    layout: Layout


def task_answers(entry: str, manifest: Manifest, answers: Mapping[str, Answers]) -> Iterator[TaskAnswers]:
    """Yield the answers of an entry for each of its tasks."""
    origin = origin_of(manifest)
    for task in manifest.tasks:
        given = answers[task.name]
        probs = given.probs[0].astype(np.float32).ravel()
        texts = np.array([_number(text) for text in given.texts or [""] * len(given.layout)])
        yield TaskAnswers(entry, _asked(task, manifest.seed), origin, probs, texts, given.layout)


def origin_of(manifest: Manifest) -> str:
    """Return what made the answers of an entry, model and aligner, as JSON."""
    model, used = manifest.model, manifest.aligner
    return json.dumps([model.name, model.revision, used.name, used.settings, used.adapter_sha256], sort_keys=True)


def _asked(task: AskedTask, seed: int) -> str:
    """Return task and protocol as JSON: answers with other ones are not compared."""
    asked = [task.name, task.hash, task.personas, task.limit, task.calibrated, task.heldout_only]
    return json.dumps([*asked, seed] if task.personas else asked)  # the seed samples the personas


def _number(text: str) -> int:
    """Return a checksum of a text, 0 for a text of few words."""
    words = text.split()
    return zlib.crc32(" ".join(words).encode()) if len(words) >= LONG else 0


def copies(answered: Iterable[TaskAnswers], earlier: Iterable[TaskAnswers] = ()) -> Iterator[tuple[str, str]]:
    """Yield each entry with the answers of another one before it, and the problem as text.

    Args:
        earlier: answers of entries that come before the others and are not compared with each other.
    """
    groups: dict[str, list[TaskAnswers]] = defaultdict(list)
    starts: dict[str, int] = defaultdict(int)
    for one in earlier:
        groups[one.asked].append(one)
        starts[one.asked] += 1
    for one in answered:
        groups[one.asked].append(one)
    for asked, group in groups.items():
        probs, texts = np.stack([one.probs for one in group]), np.stack([one.texts for one in group])
        for at in range(max(1, starts[asked]), len(group)):
            near = _near(probs[:at], probs[at]) | _alike(texts[:at], texts[at])
            twin = next((group[i] for i in np.flatnonzero(near) if group[i].origin != group[at].origin), None)
            if twin:
                task = json.loads(twin.asked)[0]
                text = f"its answers to {task} equal those of {twin.entry}, which names another model or aligner"
                yield group[at].entry, text


def _near(others: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return which rows of probabilities equal a row within ``NEAR``; none for zeros (unknown probabilities)."""
    equal: np.ndarray = (np.abs(others - row).max(1) < NEAR) & bool(row.any())
    return equal


def _alike(others: np.ndarray, row: np.ndarray) -> np.ndarray:
    """Return which rows share at least ``SAME`` of the long texts of a row; none if it has few long texts."""
    long = row != 0
    if long.sum() < MANY:
        return np.zeros(len(others), dtype=bool)
    equal: np.ndarray = (others[:, long] == row[long]).mean(1) >= SAME
    return equal


class Sieve:
    """Tells, mostly from a file's first line, that its answers differ from all given ones; most need not be read.

    Args:
        given: answers that are compared with those of many files.
    """

    def __init__(self, given: Iterable[TaskAnswers]) -> None:
        self._by_asked: dict[str, list[_Given]] = defaultdict(list)
        for one in given:
            self._by_asked[one.asked].append(_Given(one))

    def __bool__(self) -> bool:
        return bool(self._by_asked)

    def comparable(self, manifest: Manifest) -> list[_Given]:
        """Return the given answers to the same tasks and protocol whose origin is another."""
        asked = [given for task in manifest.tasks for given in self._by_asked.get(_asked(task, manifest.seed), ())]
        origin = origin_of(manifest) if asked else ""
        return [given for given in asked if given.origin != origin]

    def passes(self, lines: Iterable[bytes], comparable: Sequence[_Given]) -> bool:
        """Return whether the answers of a file may equal some of the comparable ones.

        False is certain: a probability differs by ``NEAR``, and too many texts differ. Lines are read until then.

        Raises:
            ValueError: a line that is no answer.
        """
        left = [_Trial(given) for given in comparable]
        for line in lines if left else ():
            row = AnswerRow.model_validate_json(line)
            left = [trial for trial in left if trial.is_open_after(row)]
            if not left:
                return False
        return bool(left)


class _Given:
    """Given answers to one task, by cell."""

    def __init__(self, one: TaskAnswers) -> None:
        layout = one.layout
        columns = (layout.item, layout.paraphrase, layout.order, layout.persona)
        task, self.origin = json.loads(one.asked)[0], one.origin
        self.probs: list[list[float]] = one.probs.reshape(len(layout), -1).tolist()
        self.texts: list[int] = one.texts.tolist()
        self.weighed, self.long = bool(one.probs.any()), int((one.texts != 0).sum())
        self.at = {
            (task, layout.items[item], layout.paraphrases[paraphrase], layout.orders[order], persona): at
            for at, (item, paraphrase, order, persona) in enumerate(zip(*(c.tolist() for c in columns), strict=True))
        }


class _Trial:
    """The comparison of given answers with those of one file, line by line."""

    def __init__(self, given: _Given) -> None:
        self.given, self.equal = given, given.long
        self.may_be_near, self.may_be_alike = given.weighed, given.long >= MANY

    def is_open_after(self, row: AnswerRow) -> bool:
        """Return whether all answers may still be equal after another one."""
        given = self.given
        at = given.at.get((row.task, row.item, row.paraphrase, row.order, row.persona))
        if at is None:
            return True
        if self.may_be_near:
            pairs = zip_longest(given.probs[at], row.probs, fillvalue=0.0)
            self.may_be_near = all(abs(one - other) < NEAR + ROUNDING for one, other in pairs)
        if self.may_be_alike and given.texts[at]:
            self.equal -= _number(row.text or "") != given.texts[at]
            self.may_be_alike = self.equal / given.long >= SAME
        return self.may_be_near or self.may_be_alike
