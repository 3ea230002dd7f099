"""What a maintainer asks of a contributed board: is each entry what it says, its own, and is nothing gone?"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import CultevalError, InputError
from ..harness.models.aligned import ADAPTER_FILES, adapter_hash
from ..harness.registry import find as registered
from ..harness.registry import table
from ..harness.runs.execute import ALIGNED, SCORES
from ..harness.scoring.judge import JUDGE, VERDICTS
from ..harness.scoring.score import TaskCache
from ..harness.submissions.manifest import ANSWERS, MANIFEST, Manifest
from ..harness.submissions.reader import COMPRESSED, read_manifest
from ..harness.util.atomic_io import sha256
from ..tasks.answers import Answers
from ..tasks.prompts import Asking, split_items
from .entries import VERIFIED, Entry, Found, entry_of, find, kind_of, verified_marks
from .publish import MOST_KEPT, left_behind, published_name, without_places
from .suite import Suite

NEAR = 1e-3  # answers of different origin do not agree this closely in every probability
LONG, MANY, SAME = 5, 5, 0.9  # words that make a text tell its writer, such texts that tell enough, share of equal ones
ROUNDED = 0.01  # survey evaluations by which a manifest may be off: some write two decimals
ADAPTER = {f"{ALIGNED}/{name}" for name in ADAPTER_FILES}
FILES = {MANIFEST, ANSWERS, COMPRESSED, SCORES, JUDGE, VERDICTS} | ADAPTER  # of an entry


@dataclass(frozen=True)
class Problem:
    """What is wrong with an entry."""

    entry: str
    text: str


@dataclass(frozen=True)
class _Sheet:
    """One task's answers of an entry: what was asked, who answered, and what.

    ``probs`` are the probabilities (prompts x options,) in a row; ``texts`` (prompts,) a number for each text, 0 where
    it is too short to tell who wrote it.
    """

    entry: str
    asked: str
    origin: str
    probs: np.ndarray
    texts: np.ndarray


def check(
    board: Path, suite: Suite, before: Path | None, advance: Callable[[int, int], None]
) -> tuple[int, list[Problem]]:
    """How many entries a board's folder has, and everything that is wrong with them.

    Each is read and scored anew: name, stored scores, budget, adapter and suite have to agree with what it holds, and
    no two entries of different origin may have the same answers. Nothing but entries and marks may lie in the folder,
    nothing but an entry's files in an entry, and a mark belongs to an entry.

    Args:
        before: the folder as it was released last; what was there must be there still, unchanged, and so must the
            marks, which are not a contributor's to give.
        advance: told after each entry how many of how many are done.

    Raises:
        InputError: there is no board.
    """
    problems: list[Problem] = []
    found = _found(board, problems)
    if not found and not problems:
        raise InputError(f"{board}: no entries. `culteval leaderboard add RUN --to {board}` makes some.")
    sheets: list[_Sheet] = []
    shelf = TaskCache()
    for number, one in enumerate(found):
        try:
            _check_files(board / one.name)
            entry, submission = entry_of(one, shelf)
            problems += [Problem(one.name, text) for text in _of_entry(one, entry, suite, shelf)]
            sheets += _sheets(entry, submission.answers)
        except (CultevalError, OSError) as error:  # an adapter's files may be anything
            problems.append(Problem(one.name, str(error)))
        advance(number + 1, len(found))
    problems += _copies(sheets)
    problems += _marks(board, found, before)
    if before is not None:
        problems += _gone(board, before)
    return len(found), sorted(problems, key=lambda problem: problem.entry)


def _found(board: Path, problems: list[Problem]) -> list[Found]:
    """The entries of a board; a problem for each name that is none, but for the marks and hidden files."""

    def report(text: str) -> None:
        problems.append(Problem("", text))

    def passed_over(name: str) -> None:
        if name != VERIFIED and not name.startswith("."):
            report(f"{board}/{name[:80]!r}: no entry. Remove it; `leaderboard add` makes entries.")

    return find(board, report, passed_over)


def _inside(folder: Path) -> list[str]:
    """Everything in a folder that is no folder itself, links not followed: paths relative to it, in order."""
    paths = []
    for home, folders, files in os.walk(folder):
        links = [name for name in folders if kind_of(Path(home, name)) == "link"]
        paths += [Path(home, name).relative_to(folder).as_posix() for name in (*links, *files)]
    return sorted(paths)


def _check_files(folder: Path) -> None:
    """Raise InputError where a folder holds anything but the files of an entry."""
    odd = [repr(name[:80]) for name in _inside(folder) if name not in FILES or kind_of(folder / name) != "file"]
    if odd:
        more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
        raise InputError(f"holds what is no file of an entry: {', '.join(odd[:3])}{more}")


def _of_entry(found: Found, entry: Entry, suite: Suite, shelf: TaskCache) -> Iterator[str]:
    manifest = entry.manifest
    if found.name != (name := published_name(manifest, (found.folder / MANIFEST).read_bytes())):
        yield f"its content is that of {name}: rename it so"
    if entry.differs:
        yield f"{SCORES}: not the scores that its answers give; remove it, or add the run anew"
    if entry.unfounded:
        cells = ", ".join(entry.unfounded[:3])
        yield f"{SCORES}: {len(entry.unfounded)} that its answers do not give ({cells}); remove it, or add the run anew"
    if without_places(manifest) != manifest:
        yield f"{MANIFEST}: names folders of the machine that it was made on; add the run with `leaderboard add`"
    for task in manifest.tasks:
        if not suite.holds(shelf.spec(task.name)):
            yield f"{task.name}: no task of suite {suite.version}, so that it cannot be ranked"
    yield from _odd_budget(manifest)
    yield from _odd_evaluations(manifest, shelf)
    adapter = found.folder / ALIGNED
    if adapter.is_dir() and adapter_hash(adapter) != manifest.aligner.adapter_sha256:
        yield f"{ALIGNED}: not the adapter that the manifest names (aligner.adapter_sha256)"
    if sum(path.stat().st_size for path in found.adapter) > MOST_KEPT:
        yield f"{ALIGNED}: larger than {MOST_KEPT >> 10} KiB; add the run with `leaderboard add`, which leaves it out"


def _odd_budget(manifest: Manifest) -> Iterator[str]:
    spent, name = manifest.budget, manifest.aligner.name
    if spent.item_forwards > spent.item_forwards_allowed:
        yield f"budget: {spent.item_forwards} item forwards spent, {spent.item_forwards_allowed} allowed"
    if name in table("aligners"):  # a third party's aligner need not be installed where boards are checked
        budgeted = registered("aligners", name).budgeted
        if budgeted and not spent.item_forwards:
            yield f"budget: {name} searches, but this one spent nothing"
        if not budgeted and spent.item_forwards_allowed:
            yield f"budget: {name} does not search; its budget is 0"


def _odd_evaluations(manifest: Manifest, shelf: TaskCache) -> Iterator[str]:
    """Survey evaluations are item forwards by the items of the fitted tasks, whatever the manifest says."""
    spent, fitted = manifest.budget, manifest.fitted.tasks if manifest.fitted else ()
    try:
        items = sum(len(split_items(shelf.spec(name), "fit", Asking())) for name in fitted)
    except CultevalError as error:
        yield f"budget: the items of fitted.tasks cannot be counted: {error}"
        return
    if spent.item_forwards and not items:
        yield f"budget: {spent.item_forwards} item forwards spent, but fitted to nothing"
        return
    evaluations = spent.item_forwards / max(1, items)
    if not math.isclose(spent.survey_evaluations, evaluations, rel_tol=1e-6, abs_tol=ROUNDED):
        given = f"{spent.item_forwards} item forwards are {evaluations:.2f} survey evaluations of {items} items"
        yield f"budget: {given}, not {spent.survey_evaluations:.2f}"


def _sheets(entry: Entry, answers: Mapping[str, Answers]) -> Iterator[_Sheet]:
    manifest = entry.manifest
    used = manifest.aligner
    origin = [manifest.model.name, manifest.model.revision, used.name, used.settings, used.adapter_sha256]
    for task in manifest.tasks:
        asked = [task.name, task.hash, task.respondents, task.limit, task.calibrated]
        asked += [manifest.seed] if task.respondents else []  # it draws them
        given = answers[task.name]
        probs = given.probs[0].astype(np.float32).ravel()
        texts = np.array([_number(text) for text in given.texts or [""] * len(given.layout)])
        yield _Sheet(entry.name, json.dumps(asked), json.dumps(origin, sort_keys=True), probs, texts)


def _number(text: str) -> int:
    """A number that another text of some length does not have; 0 for a text of few words."""
    words = text.split()
    return zlib.crc32(" ".join(words).encode()) if len(words) >= LONG else 0


def _copies(sheets: list[_Sheet]) -> Iterator[Problem]:
    """Entries whose answers to a task are those of another model or aligner."""
    groups: dict[str, list[_Sheet]] = defaultdict(list)
    for sheet in sheets:
        groups[sheet.asked].append(sheet)
    for group in groups.values():
        probs, texts = np.stack([sheet.probs for sheet in group]), np.stack([sheet.texts for sheet in group])
        for at in range(1, len(group)):
            near = _near(probs[:at], probs[at]) | _alike(texts[:at], texts[at])
            twin = next((group[i] for i in np.flatnonzero(near) if group[i].origin != group[at].origin), None)
            if twin:
                task = json.loads(twin.asked)[0]
                yield Problem(
                    group[at].entry, f"its answers to {task} are those of {twin.entry}, which has them from elsewhere"
                )


def _near(others: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """Which of some rows of probabilities are one's own; where none are known, zeros, nothing can be said."""
    found: np.ndarray = (np.abs(others - mine).max(1) < NEAR) & bool(mine.any())
    return found


def _alike(others: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """Which of some rows of texts are one's own but for a few, among those that are long enough."""
    telling = mine != 0
    if telling.sum() < MANY:
        return np.zeros(len(others), dtype=bool)
    found: np.ndarray = (others[:, telling] == mine[telling]).mean(1) >= SAME
    return found


def _marks(board: Path, found: list[Found], before: Path | None) -> Iterator[Problem]:
    """Marks that are not those of the release, or of no entry."""
    try:
        marks = verified_marks(board)
    except InputError as error:
        yield Problem(VERIFIED, str(error))
        return
    for key in sorted(marks.keys() - _answers(found)):
        yield Problem(VERIFIED, f"{key[:12]} marks no entry's answers")
    if before is not None:
        released = verified_marks(before)
        for key in sorted(marks.keys() | released.keys()):
            if (key in marks, marks.get(key)) != (key in released, released.get(key)):
                yield Problem(VERIFIED, f"{key[:12]} is not as released; the board's maintainers alone mark entries")


def _answers(found: list[Found]) -> set[str]:
    """The hashes of answers that manifests name; that the answers are those is checked entry by entry."""
    hashes = set()
    for one in found:
        with suppress(CultevalError):
            hashes.add(read_manifest(one.folder / MANIFEST).answers.sha256)
    return hashes


def _gone(board: Path, before: Path) -> Iterator[Problem]:
    """Released entries that are not there, or not as they were."""
    for old in find(before, lambda text: None):
        if not (board / old.name).is_dir():
            yield Problem(old.name, "was released and is gone; entries stay, so that what was cited can be found")
        else:
            aside = _may_change(old)
            if _content(before / old.name, aside) != _content(board / old.name, aside):
                yield Problem(old.name, "was released with other content; a new result is a new entry")


def _may_change(old: Found) -> set[str]:
    """The files of a released entry that ``leaderboard migrate`` compresses, removes or moves away.

    Scores are recomputed, and answers compared with the manifest's hash, whichever file holds them.
    """
    aside = {ANSWERS, COMPRESSED, SCORES}
    with suppress(CultevalError):
        if left_behind(old, read_manifest(old.folder / MANIFEST)) is not None:
            aside |= ADAPTER
    return aside


def _content(entry: Path, aside: set[str]) -> str:
    """A sha256 over an entry's files, but for some."""
    digest = hashlib.sha256()
    for name in _inside(entry):
        if name not in aside:
            kind = kind_of(entry / name)
            digest.update(f"{name}\0{sha256(entry / name) if kind == 'file' else kind}\0".encode())
    return digest.hexdigest()
