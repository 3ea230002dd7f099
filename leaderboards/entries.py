"""Find, check and score the submissions of a folder; they are untrusted input.

Submitted scores are compared with recomputed ones and never shown.
"""

from __future__ import annotations

import gc
import hashlib
import math
import os
import re
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from ..errors import CultevalError, InputError
from ..harness.models.aligned import ADAPTER_FILES, LORA
from ..harness.runs.folder import ALIGNED, SCORES
from ..harness.scoring.judge import JUDGE, VERDICTS
from ..harness.scoring.score import TaskCache
from ..harness.scoring.submission import Submission, load_submission
from ..harness.submissions.manifest import ANSWERS, MANIFEST, SUBMISSION, Manifest
from ..harness.submissions.reader import COMPRESSED
from ..harness.util.atomic_io import sha256
from ..tasks.imported import data_dir
from ..tasks.reading import read_unmarked
from ..tasks.schema import Strict
from ..tasks.score import Score
from ..tasks.spec import first_problem

VERIFIED = "verified.json"  # beside the submissions; only maintainers change it
MOST_BYTES = 1 << 30  # of a file; a million answers take a fifth of it
MOST_ADAPTER = 20 << 20  # bytes; boards are cloned
MOST_SCORES, MOST_SCORES_BYTES = 20_000, 16 << 20
TOLERANCE = 1e-6  # relative, between a submitted and a recomputed score
ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "leaderboards" / "results"
_PACKAGES = ("adapters", "analysis", "report", "scoring", "submissions", "util")
_MODULES = ("registry.py", "engine/chat.py", "model_info.py", "providers/settings.py", "runs/config.py")
DECIDING = (
    "tasks",
    "leaderboards",
    *(f"harness/{name}" for name in (*_PACKAGES, *_MODULES)),
)  # a board's content
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # used in pages and addresses
_STORED = TypeAdapter(list[Score])
_VERIFIED = TypeAdapter(dict[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], Any])


class Entry(Strict):
    """A submission on a board: name of its folder, manifest, recomputed scores.

    ``key`` is a sha256 over its files, the scoring code and the reference data. ``differs``: a submitted score
    (optional ``scores.json``) differs from the recomputed one; ``unfounded``: submitted scores that the answers do not
    have. ``verified``: maintainers regenerated a sample of the answers. ``folder`` has manifest and answers.
    """

    name: str
    key: str
    manifest: Manifest
    scores: tuple[Score, ...]
    differs: bool = False
    unfounded: tuple[str, ...] = ()
    verified: bool = Field(False, exclude=True)  # stored with the board, not with the entry
    folder: Path = Field(Path(), exclude=True)

    def of(self, task: str) -> list[Score]:
        """Return the scores of one task."""
        return [score for score in self.scores if score.task == task]


@dataclass(frozen=True)
class Found:
    """A folder with a submission, checked for links and sizes only.

    ``folder`` has manifest and answers; ``files`` are the files of the entry; ``adapter`` are the adapter's files if
    they may be published. ``manifest_sha256`` covers the answers, too: the manifest contains their hash. ``key`` is a
    sha256 over these files and ``judging_hash``: an entry with another key is made again.
    """

    name: str
    folder: Path
    files: tuple[Path, ...]
    adapter: tuple[Path, ...]
    manifest_sha256: str
    key: str

    @property
    def adapter_files(self) -> dict[str, Path]:
        """Return the adapter's files by their path in an entry."""
        folders = {ALIGNED: ALIGNED, LORA: f"{ALIGNED}/{LORA}"}
        return {f"{folders[path.parent.name]}/{path.name}": path for path in self.adapter}


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause the collection of cyclic garbage: it visits all entries again and again, half of the time with 10,000."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@cache
def judging_hash() -> str:
    """Return a sha256 over the code and reference data of scores and pages."""
    digest = hashlib.sha256()
    named = [ROOT / name for name in DECIDING] + [data_dir()]
    for path in sorted(path for one in named for path in [one, *one.rglob("*")] if path.is_file()):
        if path.suffix != ".pyc" and not path.is_relative_to(RESULTS):
            digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def find(
    folder: Path,
    left_out: Callable[[str], None],
    passed_over: Callable[[str], None] = lambda name: None,
    known: Container[str] = (),
) -> list[Found]:
    """Return the submissions directly below a folder by name; unfinished runs are skipped.

    Args:
        left_out: called with one line for each refused submission.
        passed_over: called with each name that is no finished submission.
        known: names to ignore.

    Raises:
        InputError: the folder cannot be read.
    """
    try:
        names = sorted(entry.name for entry in os.scandir(folder) if entry.name not in known)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be read ({error.strerror}). Give a folder of runs or submissions."
        ) from None
    found = []
    for name in names:
        try:
            if (one := find_one(folder / name)) is not None:
                found.append(one)
            else:
                passed_over(name)
        except InputError as error:
            left_out(str(error))
    return found


def find_one(path: Path) -> Found | None:
    """Return the submission of a folder, or None if there is no finished one.

    Raises:
        InputError: links, special or oversized files, invalid names.
    """
    shown = f"{path.parent}/{path.name[:80]!r}"
    kind = kind_of(path)
    if kind == "link":
        raise InputError(f"{shown}: a link. Put the folder itself here.")
    if kind != "folder" or path.name.startswith("."):
        return None
    outer = kinds_in(path)
    if outer.get(SUBMISSION) == "link":
        raise InputError(f"{shown}: {SUBMISSION} is a link. Put the folder itself here.")
    is_run = outer.get(SUBMISSION) == "folder"
    home = path / SUBMISSION if is_run else path
    inner = kinds_in(home) if is_run else outer
    kinds = {home / name: inner[name] for name in (MANIFEST, ANSWERS, COMPRESSED, JUDGE, VERDICTS) if name in inner}
    kinds |= {path / SCORES: outer[SCORES]} if SCORES in outer else {}
    if MANIFEST not in inner or (is_run and SCORES not in outer):
        return None
    if not _NAME.fullmatch(path.name):
        raise InputError(f"{shown}: no name for a submission; letters, digits, dots, dashes, underscores, at most 100.")
    for file, kind in kinds.items():
        if kind == "large":
            raise InputError(f"{shown}: {file.name} is larger than {MOST_BYTES:,} bytes.")
        if kind != "file":
            raise InputError(f"{shown}: {file.name} is not a regular file.")
    try:
        adapter = _adapter(path / ALIGNED) if outer.get(ALIGNED) == "folder" else ()
        hashes = {file: sha256(file) for file in (*kinds, *adapter)}
        return Found(path.name, home, tuple(kinds), adapter, hashes[home / MANIFEST], _key(path.name, hashes))
    except OSError as error:
        raise InputError(f"{shown}: cannot be read ({error.strerror}).") from None


def kind_of(path: Path) -> str | None:
    """Return the kind of a path without following links: link, folder, file, large (oversized file), other."""
    try:
        return _kind(os.lstat(path))
    except OSError:
        return None


def kinds_in(folder: str | Path) -> dict[str, str]:
    """Return the kinds of what is in a folder by name; none if it cannot be read."""
    try:
        with os.scandir(folder) as inside:
            return {one.name: _kind(one.stat(follow_symlinks=False)) for one in inside}
    except OSError:
        return {}


def _kind(found: os.stat_result) -> str:
    if stat.S_ISREG(found.st_mode):
        return "large" if found.st_size > MOST_BYTES else "file"
    return "link" if stat.S_ISLNK(found.st_mode) else "folder" if stat.S_ISDIR(found.st_mode) else "other"


def _adapter(folder: Path) -> tuple[Path, ...]:
    """Return the files of an adapter that may be published: none if there are links, special files or too much."""
    if kind_of(folder / LORA) not in ("folder", None):
        return ()
    kinds = {folder / name: kind for name in ADAPTER_FILES if (kind := kind_of(folder / name))}
    if any(kind != "file" for kind in kinds.values()):
        return ()
    sizes = {path: path.stat().st_size for path in kinds}
    return tuple(path for path in sizes if sizes[path]) if sum(sizes.values()) <= MOST_ADAPTER else ()


def _key(name: str, hashes: Mapping[Path, str]) -> str:
    digest = hashlib.sha256(f"{judging_hash()}\0{name}\0".encode())
    for path, of_file in hashes.items():
        digest.update(f"{path.parent.name}/{path.name}\0{of_file}\0".encode())
    return digest.hexdigest()


def entry_of(found: Found, shelf: TaskCache) -> tuple[Entry, Submission]:
    """Read, check and score one submission; return its entry and the submission with its answers.

    Raises:
        InputError, UsageError: as ``Submission.score``; also malformed or oversized submitted scores.
    """
    stored = next((stored_scores(path) for path in found.files if path.name == SCORES), None)
    submission = load_submission(found.folder, shelf)
    scores = submission.score()
    for score in scores:
        if not _finite(score):
            raise InputError(f"{found.folder}: its answers give no finite {score.metric}.")
    differs, unfounded = _compared(stored or (), scores)
    return Entry(
        name=found.name,
        key=found.key,
        manifest=submission.manifest,
        scores=tuple(scores),
        differs=differs,
        unfounded=unfounded,
        folder=found.folder,
    ), submission


def entries(
    folder: Path,
    warn: Callable[[str], None],
    advance: Callable[[int, int], None] = lambda done, total: None,
    hold: Callable[[Submission], None] = lambda submission: None,
) -> Iterator[Entry]:
    """Yield the scored submissions of a folder; warn about refused ones and leave them out.

    Args:
        advance: called with the number of read submissions and their total.
        hold: called with each submission and its answers, for later use.

    Raises:
        InputError: the folder has no valid submission.
    """
    problems: list[str] = []
    shelf, any_good, changed, marks = TaskCache(), False, 0, verified_marks(folder)
    all_found = find(folder, problems.append)
    for number, found in enumerate(all_found, start=1):
        try:
            entry, submission = entry_of(found, shelf)
        except CultevalError as error:
            problems.append(str(error))
            continue
        finally:
            advance(number, len(all_found))
        hold(submission)
        any_good, changed = True, changed + entry.differs
        yield marked(entry, found, marks)
    conclude(folder, any_good, problems, changed, warn)


def conclude(folder: Path, any_good: bool, problems: list[str], changed: int, warn: Callable[[str], None]) -> None:
    """Warn about refused submissions; raise InputError if no valid one is left."""
    if problems and not any_good:
        more = f" ({len(problems) - 1} more are refused too.)" if len(problems) > 1 else ""
        raise InputError(problems[0] + more)
    for problem in problems:
        warn(f"left out: {problem}")
    if not any_good:
        raise InputError(f"{folder}: no finished runs. `culteval run` makes some; give its `out` folder.")
    if changed:
        warn(f"{changed}: submitted scores differ from recomputed ones; the recomputed ones are shown.")


def marked(entry: Entry, found: Found, marks: Mapping[str, Any]) -> Entry:
    """Return the entry with ``verified`` set if ``verified_marks`` has its manifest."""
    return entry.model_copy(update={"verified": found.manifest_sha256 in marks})


def verified_marks(folder: Path) -> dict[str, Any]:
    """Read the verification marks of a board (``verified.json``), by sha256 of the manifest file.

    Raises:
        InputError: the file is a link or no mapping of hashes.
    """
    path = folder / VERIFIED
    if not os.path.lexists(path):
        return {}
    if path.is_symlink():
        raise InputError(f"{path}: a link. Put the file itself there.")
    try:
        return _VERIFIED.validate_json(read_unmarked(path, MOST_SCORES_BYTES))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}. Expected an object with hashes of manifests.") from None


def stored_scores(path: Path) -> list[Score]:
    """Read and validate submitted scores: bounded, well formed, finite; they are not trusted otherwise.

    Raises:
        InputError: malformed, oversized or not finite.
    """
    try:
        scores = _STORED.validate_json(read_unmarked(path, MOST_SCORES_BYTES))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}. Run again with `fresh`, or remove the file.") from None
    if len(scores) > MOST_SCORES:
        raise InputError(f"{path}: {len(scores)} scores, a board takes {MOST_SCORES}.")
    for number, score in enumerate(scores):
        if not _finite(score):
            raise InputError(f"{path}: {number}.value: not a finite number. Remove the file; scores are recomputed.")
    return scores


def _finite(score: Score) -> bool:
    return all(number is None or math.isfinite(number) for number in (score.value, score.low, score.high))


def _cell(score: Score) -> tuple[str, ...]:
    return score.task, score.country, score.metric, score.scoring, score.split


def _compared(stored: Iterable[Score], scores: Iterable[Score]) -> tuple[bool, tuple[str, ...]]:
    """Return whether a submitted score differs, and the names of those that the answers do not have."""
    given = {_cell(score): score.value for score in scores}
    differs, unfounded = False, []
    for score in stored:
        value = given.get(_cell(score))
        if value is None:
            unfounded.append(" ".join(_cell(score)))
        elif not math.isclose(score.value, value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            differs = True
    return differs, tuple(unfounded)
