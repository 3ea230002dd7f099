"""Check a contributed board: consistent entries, no copied answers, no released entry changed or removed."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Container, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import MOST_SHOWN, CultevalError, InputError, on_one_line
from ..harness.models.aligned import ADAPTER_FILES, adapter_hash
from ..harness.registry import find as registered
from ..harness.registry import table
from ..harness.runs.execute import ALIGNED, SCORES
from ..harness.scoring.judge import JUDGE, VERDICTS
from ..harness.scoring.score import TaskCache
from ..harness.scoring.submission import load_submission
from ..harness.submissions.manifest import ANSWERS, MANIFEST, MOST_LINE_BYTES, Manifest
from ..harness.submissions.reader import COMPRESSED, answers_file, read_manifest
from ..harness.util.atomic_io import sha256
from ..tasks.prompts import ProtocolOptions, split_items
from ..tasks.reading import read_lines
from .check_texts import misread
from .copies import Sieve, TaskAnswers, copies, task_answers
from .entries import VERIFIED, Entry, Found, entry_of, find, kind_of, kinds_in, verified_marks, without_collection
from .publish import MOST_KEPT, left_behind, published_name, without_places
from .suite import Suite

ROUNDED = 0.01  # tolerance in survey evaluations: some manifests have two decimals
BLOCK = 1 << 16  # bytes of files that are compared at once
ADAPTER = {f"{ALIGNED}/{name}" for name in ADAPTER_FILES}
FILES = {MANIFEST, ANSWERS, COMPRESSED, SCORES, JUDGE, VERDICTS} | ADAPTER  # of an entry


@dataclass(frozen=True)
class Problem:
    """A problem of an entry, or of the board if ``entry`` is empty."""

    entry: str
    text: str


def check(
    board: Path, suite: Suite, before: Path | None, advance: Callable[[int, int], None]
) -> tuple[int, list[Problem]]:
    """Count the entries of a board's folder and collect all problems.

    Each entry is read and scored again: name, stored scores, budget, adapter and suite must agree with its content,
    codes and shares with the texts that they are read from, and entries of different origin must not have equal
    answers. The folder may contain only entries and verification marks, an entry only its own files, and each mark must
    belong to an entry.

    Args:
        before: the folder as last released; its entries and marks must be present and unchanged. Entries of the same
            bytes as released are not read again, except that the answers of others must not equal theirs.
        advance: called after each entry with the number of checked entries and their total.

    Returns:
        The number of entries, and the problems by entry, each in one printable line.

    Raises:
        InputError: the folder has no entries.
    """
    problems: list[Problem] = []
    released = _unchanged(board, before) if before is not None else {}
    found = _found(board, released, problems)
    if not (found or problems or released):
        raise InputError(f"{board}: no entries. `culteval leaderboard add RUN --to {board}` makes some.")
    answered: list[TaskAnswers] = []
    shelf = TaskCache()
    for number, one in enumerate(found):
        try:
            _check_files(board / one.name)
            entry, submission = entry_of(one, shelf)
            problems += [Problem(one.name, text) for text in _of_entry(one, entry, suite, shelf)]
            for task, given in submission.answers.items():
                problems += [Problem(one.name, text) for text in misread(shelf.spec(task), given)]
            answered += task_answers(one.name, entry.manifest, submission.answers)
        except (CultevalError, OSError) as error:  # an adapter's files may be anything
            problems.append(Problem(one.name, str(error)))
        advance(number + 1, len(found))
    suspects = _suspects(board, released, Sieve(answered), shelf, problems)
    problems += [Problem(*copied) for copied in copies(answered, suspects)]
    hashes = {one.manifest_sha256 for one in found} | {sha256(board / name / MANIFEST) for name in released}
    problems += _marks(board, hashes, before)
    if before is not None:
        problems += _gone(board, before, released)
    # They may quote untrusted texts, and a line of its own may command a workflow.
    problems = [Problem(problem.entry, on_one_line(problem.text)[:MOST_SHOWN]) for problem in problems]
    return len(released) + len(found), sorted(problems, key=lambda problem: problem.entry)


@without_collection()
def _unchanged(board: Path, before: Path) -> dict[str, Manifest]:
    """Return the manifests of the entries that have the same bytes as released, by name."""
    kinds, found = kinds_in(before), {}
    for name, kind in kinds_in(board).items():
        if kind != "folder" or kinds.get(name) != "folder" or name.startswith("."):
            continue
        with suppress(CultevalError, OSError):  # no entry, or one of an earlier version: checked as others
            if _same(os.path.join(board, name), os.path.join(before, name)):
                found[name] = read_manifest(board / name / MANIFEST)
    return dict(sorted(found.items()))


def _same(one: str, other: str) -> bool:
    """Return whether two folders have files of the same names and bytes, and nothing else but folders of such."""
    kinds = kinds_in(one)
    if not kinds or kinds != kinds_in(other):
        return False
    pairs = ((kind, os.path.join(one, name), os.path.join(other, name)) for name, kind in kinds.items())
    return all(_same(*paths) if kind == "folder" else kind == "file" and _equal(*paths) for kind, *paths in pairs)


def _equal(one: str, other: str) -> bool:
    with open(one, "rb", buffering=0) as file, open(other, "rb", buffering=0) as other_file:
        while (block := file.read(BLOCK)) == other_file.read(BLOCK):
            if not block:
                return True
    return False


@without_collection()
def _suspects(
    board: Path, released: Mapping[str, Manifest], sieve: Sieve, shelf: TaskCache, problems: list[Problem]
) -> list[TaskAnswers]:
    """Read the answers of released entries that may equal those in a sieve; add a problem for each unreadable one."""
    found: list[TaskAnswers] = []
    for name, manifest in released.items() if sieve else ():
        try:
            if not (comparable := sieve.comparable(manifest)):
                continue
            lines = read_lines(answers_file(board / name), MOST_LINE_BYTES)
            with suppress(ValueError):  # not answers: reading all of them says what is wrong
                if not sieve.passes(lines, comparable):
                    continue
            found += task_answers(name, manifest, load_submission(board / name, shelf).answers)
        except CultevalError as error:
            problems.append(Problem(name, str(error)))
    return found


def _found(board: Path, released: Container[str], problems: list[Problem]) -> list[Found]:
    """Return the entries of a board that are not released.

    Adds a problem for each other name except the marks and hidden files.
    """

    def report(text: str) -> None:
        problems.append(Problem("", text))

    def passed_over(name: str) -> None:
        if name != VERIFIED and not name.startswith("."):
            report(f"{board}/{name[:80]!r}: no entry. Remove it; `leaderboard add` makes entries.")

    return find(board, report, passed_over, released)


def _inside(folder: Path) -> list[str]:
    """List the files and links below a folder as sorted relative paths; links are not followed."""
    paths = []
    for home, folders, files in os.walk(folder):
        links = [name for name in folders if kind_of(Path(home, name)) == "link"]
        paths += [Path(home, name).relative_to(folder).as_posix() for name in (*links, *files)]
    return sorted(paths)


def _check_files(folder: Path) -> None:
    """Raise InputError if a folder contains other files than those of an entry."""
    others = [repr(name[:80]) for name in _inside(folder) if name not in FILES or kind_of(folder / name) != "file"]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise InputError(f"not files of an entry: {', '.join(others[:3])}{more}. Remove them.")


def _of_entry(found: Found, entry: Entry, suite: Suite, shelf: TaskCache) -> Iterator[str]:
    manifest = entry.manifest
    if found.name != (name := published_name(manifest, (found.folder / MANIFEST).read_bytes())):
        yield f"its content belongs to the name {name}: rename it"
    if entry.differs:
        yield f"{SCORES}: differs from the scores of its answers; remove the file, or add the run again"
    if entry.unfounded:
        cells = ", ".join(cell[:100] for cell in entry.unfounded[:3])
        yield f"{SCORES}: {len(entry.unfounded)} scores not from its answers ({cells}); remove it, or add the run again"
    if without_places(manifest) != manifest:
        yield f"{MANIFEST}: contains local paths; add the run with `leaderboard add`, which removes them"
    for task in manifest.tasks:
        if not suite.holds(shelf.spec(task.name)):
            yield f"{task.name}: not a task of suite {suite.version}; it cannot be ranked"
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
    if name in table("aligners"):  # the aligner of a plug-in may not be installed here
        budgeted = registered("aligners", name).budgeted
        if budgeted and not spent.item_forwards:
            yield f"budget: {name} uses a budget, but nothing was spent"
        if not budgeted and spent.item_forwards_allowed:
            yield f"budget: {name} uses no budget; it must be 0"


def _odd_evaluations(manifest: Manifest, shelf: TaskCache) -> Iterator[str]:
    """Yield a problem if survey evaluations are not item forwards / items of the fitted tasks."""
    spent, fitted = manifest.budget, manifest.fitted.tasks if manifest.fitted else ()
    try:
        items = sum(len(split_items(shelf.spec(name), "fit", ProtocolOptions())) for name in fitted)
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


def _marks(board: Path, manifests: Set[str], before: Path | None) -> Iterator[Problem]:
    """Yield marks without an entry of such a manifest (by hash), and marks that differ from the release."""
    try:
        marks = verified_marks(board)
    except InputError as error:
        yield Problem(VERIFIED, str(error))
        return
    for key in sorted(marks.keys() - manifests):
        yield Problem(VERIFIED, f"{key[:12]}: no entry has this manifest; remove the mark, or verify the entry again")
    if before is not None:
        released = verified_marks(before)
        for key in sorted(marks.keys() | released.keys()):
            if (key in marks, marks.get(key)) != (key in released, released.get(key)):
                yield Problem(VERIFIED, f"{key[:12]}: differs from the release; only maintainers change marks")


def _gone(board: Path, before: Path, unchanged: Container[str]) -> Iterator[Problem]:
    """Yield released entries that are missing or changed."""
    for old in find(before, lambda text: None, known=unchanged):
        if not (board / old.name).is_dir():
            yield Problem(old.name, "was released and is missing; restore it: released entries are permanent")
        else:
            aside = _may_change(old)
            if _content(before / old.name, aside) != _content(board / old.name, aside):
                yield Problem(
                    old.name,
                    "was released with other content; restore it, and add a new result as a new entry",
                )


def _may_change(old: Found) -> set[str]:
    """Return the files of a released entry that ``leaderboard migrate`` compresses, removes or moves.

    Scores are recomputed, and answers are compared with the hash in the manifest in either form.
    """
    aside = {ANSWERS, COMPRESSED, SCORES}
    with suppress(CultevalError):
        if left_behind(old, read_manifest(old.folder / MANIFEST)) is not None:
            aside |= ADAPTER
    return aside


def _content(entry: Path, aside: set[str]) -> str:
    """Return a sha256 over the files of an entry, except those in ``aside``."""
    digest = hashlib.sha256()
    for name in _inside(entry):
        if name not in aside:
            kind = kind_of(entry / name)
            digest.update(f"{name}\0{sha256(entry / name) if kind == 'file' else kind}\0".encode())
    return digest.hexdigest()
