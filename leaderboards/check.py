"""What a maintainer asks of a contributed board: is each entry what it says, its own, and is nothing gone?"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import CultevalError, InputError
from ..harness.aligned import adapter_hash
from ..harness.registry import find as registered
from ..harness.registry import table
from ..harness.run import ALIGNED, SCORES
from ..harness.scoring import Shelf
from ..harness.submission import ANSWERS, MANIFEST, Manifest
from ..tasks.answers import Answers
from .collect import Entry, Found, entry_of, find
from .publish import published_name
from .suite import Suite

NEAR = 1e-3  # answers of different origin do not agree this closely in every probability


@dataclass(frozen=True)
class Problem:
    """What is wrong with an entry."""

    entry: str
    text: str


@dataclass(frozen=True)
class _Sheet:
    """One task's answers of an entry: what was asked, who answered, the probabilities (prompts x options) in a row."""

    entry: str
    asked: str
    origin: str
    probs: np.ndarray


def check(
    board: Path, suite: Suite, before: Path | None, advance: Callable[[int, int], None]
) -> tuple[int, list[Problem]]:
    """How many entries a board's folder has, and everything that is wrong with them.

    Each is read and scored anew: name, stored scores, budget, adapter and suite have to agree with what it holds, and
    no two entries of different origin may have the same answers.

    Args:
        before: the folder as it was released last; what was there must be there still, unchanged.
        advance: told after each entry how many of how many are done.

    Raises:
        InputError: there is no board.
    """
    problems: list[Problem] = []
    found = find(board, lambda text: problems.append(Problem("", text)))
    if not found and not problems:
        raise InputError(f"{board}: no entries. `culteval leaderboard add RUN --to {board}` makes some.")
    sheets: list[_Sheet] = []
    shelf = Shelf()
    for number, one in enumerate(found):
        try:
            entry, answers = entry_of(one, shelf)
            problems += [Problem(one.name, text) for text in _of_entry(one, entry, suite, shelf)]
            sheets += _sheets(entry, answers)
        except (CultevalError, OSError) as error:  # an adapter's files may be anything
            problems.append(Problem(one.name, str(error)))
        advance(number + 1, len(found))
    problems += _copies(sheets)
    if before is not None:
        problems += _gone(found, find(before, lambda text: None))
    return len(found), sorted(problems, key=lambda problem: problem.entry)


def _of_entry(found: Found, entry: Entry, suite: Suite, shelf: Shelf) -> Iterator[str]:
    manifest = entry.manifest
    if found.name != (name := published_name(manifest, found.folder)):
        yield f"its content is that of {name}: rename it so"
    if entry.differs:
        yield f"{SCORES}: not the scores that its answers give; remove it, or add the run anew"
    for task in manifest.tasks:
        if not suite.holds(shelf.spec(task.name)):
            yield f"{task.name}: no task of suite {suite.version}, so that it cannot be ranked"
    yield from _odd_budget(manifest)
    adapter = found.folder / ALIGNED
    if adapter.is_dir() and adapter_hash(adapter) != manifest.aligner.adapter_sha256:
        yield f"{ALIGNED}: not the adapter that the manifest names (aligner.adapter_sha256)"


def _odd_budget(manifest: Manifest) -> Iterator[str]:
    spent, name = manifest.budget, manifest.aligner.name
    if spent.item_forwards > spent.item_forwards_allowed:
        yield f"budget: {spent.item_forwards} item forwards spent, {spent.item_forwards_allowed} allowed"
    if name in table("aligners"):  # a stranger's aligner need not be installed where boards are checked
        budgeted = registered("aligners", name).budgeted
        if budgeted and not spent.item_forwards:
            yield f"budget: {name} searches, but this one spent nothing"
        if not budgeted and spent.item_forwards_allowed:
            yield f"budget: {name} does not search; its budget is 0"


def _sheets(entry: Entry, answers: dict[str, Answers]) -> Iterator[_Sheet]:
    manifest = entry.manifest
    used = manifest.aligner
    origin = [manifest.model.name, manifest.model.revision, used.name, used.settings, used.adapter_sha256]
    for task in manifest.tasks:
        asked = [task.name, task.hash, task.respondents, task.limit, task.calibrated]
        asked += [manifest.seed] if task.respondents else []  # it draws them
        probs = answers[task.name].probs[0].astype(np.float32).ravel()
        yield _Sheet(entry.name, json.dumps(asked), json.dumps(origin, sort_keys=True), probs)


def _copies(sheets: list[_Sheet]) -> Iterator[Problem]:
    """Entries whose answers to a task are those of another model or aligner."""
    groups: dict[str, list[_Sheet]] = defaultdict(list)
    for sheet in sheets:
        groups[sheet.asked].append(sheet)
    for group in groups.values():
        probs = np.stack([sheet.probs for sheet in group])
        for at in range(1, len(group)):
            near = np.flatnonzero(np.abs(probs[:at] - probs[at]).max(1) < NEAR)
            twin = next((group[i] for i in near if group[i].origin != group[at].origin), None)
            if twin:
                task = json.loads(twin.asked)[0]
                yield Problem(
                    group[at].entry, f"its answers to {task} are those of {twin.entry}, which has them from elsewhere"
                )


def _gone(found: list[Found], before: list[Found]) -> Iterator[Problem]:
    now = {one.name: one for one in found}
    for old in before:
        if old.name not in now:
            yield Problem(old.name, "was released and is gone; entries stay, so that what was cited can be found")
        elif _content(old) != _content(now[old.name]):
            yield Problem(old.name, "was released with other content; a new result is a new entry")


def _content(found: Found) -> str:
    digest = hashlib.sha256()
    for name in (MANIFEST, ANSWERS):
        digest.update((found.folder / name).read_bytes())
    return digest.hexdigest()
