"""Build a board as static pages that open from disk without a network; a second build updates changes only.

Pages are templates; their data is in ``.js`` files: the overview, the boards, one for each submission. ``.build`` in
the site keeps entries by a key over their files and the code (``kept.py``), so that only new submissions are read.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ...errors import CultevalError, UnavailableError, UsageError
from ...harness.scoring.score import TaskCache
from ...harness.submissions.manifest import MANIFEST
from ...harness.submissions.reader import answers_file
from ...harness.util.atomic_io import copy_into, replacing, write_text
from ...tasks.score import Score
from .. import submission_page as detail
from ..answer_reader import AnswerReader
from ..boards import Against, Key, boards, scored_anew
from ..country_sets import aligned_sets, rests_on
from ..entries import Entry, Found, conclude, entry_of, find, judging_hash, marked, verified_marks, without_collection
from ..metric_labels import board_metrics
from ..suite import read_suite
from .boards import board_data
from .kept import Kept
from .overview_data import cards_data, overview_pages

KEPT, PAGES, FILES, DATA, ASSETS = ".build", "pages", "files", "data", "assets"
RECORD, LIBRARIES = "kept", "libraries"  # files in KEPT
TEMPLATES = Path(__file__).parent.parent / "templates"
VENDOR = TEMPLATES.with_name("vendor")
HTML = ("index.html", "board.html", "about.html", "submission.html")
OWN = ("site.css", "common.js", "cells.js", "map.js", "overview.js", "board.js", "about.js", "submission.js")
VENDORED = ("jquery.min.js", "jquery.LICENSE.txt", "dataTables.min.js", "dataTables.LICENSE.txt")
_SCORES = TypeAdapter(list[Score])
SEVERAL = 40  # submissions; with fewer, a second process is not faster


@dataclass(frozen=True)
class Built:
    """The result of a build: numbers of submissions, of boards, and of submissions that were read."""

    submissions: int
    boards: int
    renewed: int


def build(
    folder: Path, out: Path, warn: Callable[[str], None], advance: Callable[[int, int], None] = lambda done, total: None
) -> Built:
    """Build or update the site of a folder of submissions.

    Args:
        warn: called with one line for each refused submission.
        advance: called with the number of read submissions and their total.

    Raises:
        InputError: no valid submission. UsageError: ``out`` is a folder with other content.
        UnavailableError: plotly is not installed.
    """
    _claim(out)
    with without_collection():
        kept = Kept(out / KEPT / RECORD)
        try:
            return _build(folder, out, kept, warn, advance)
        finally:
            kept.write()


def _build(
    folder: Path, out: Path, kept: Kept, warn: Callable[[str], None], advance: Callable[[int, int], None]
) -> Built:
    problems: list[str] = []
    marks, found = verified_marks(folder), find(folder, problems.append)
    pages, files = _names(out / PAGES), _names(out / FILES)
    missing = [
        one for one in found if f"{one.name}.js" not in pages or one.name not in files or kept.get(one.key) is None
    ]
    if missing:
        kept.expect_changes()
        problems += _renew(missing, out, kept, advance)
    entries = [_entry(data, one, marks) for one in found if (data := kept.get(one.key)) is not None]
    conclude(folder, bool(entries), problems, sum(entry.differs for entry in entries), warn)
    shelf, suite = TaskCache(), read_suite()
    made = boards(entries, shelf, suite, _keeping(kept, scored_anew(AnswerReader(shelf)), shelf))
    sets = aligned_sets(entries, shelf)
    _write(out / DATA / "boards.js", script("boards", board_data(made, sets, entries, suite)))
    items = {f"items-{number}": board for number, board in enumerate(made)}
    for file, board in items.items():
        _write(out / DATA / f"{file}.js", script("items", detail.items(board.spec, board.asked, shelf)))
    tables = {file: script(name, data) for file, name, data in overview_pages(made, shelf, suite)}
    for file, text in tables.items():
        _write(out / DATA / f"{file}.js", text)
    _write(out / DATA / "cards.js", script("cards", cards_data(entries)))
    _write_assets(out, suite.version)
    _sweep(out, {entry.name for entry in entries}, {"boards", "cards", *tables, *items})
    return Built(len(entries), len(made), len(missing))


def script(name: str, data: Any) -> str:
    """Write data as a script in ASCII without characters of markup, so that a browser cannot misread it."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for mark in "<>&":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return f"culteval.{name}={text};\n"


def _claim(out: Path) -> None:
    if out.is_dir() and any(out.iterdir()) and not (out / KEPT).is_dir():
        raise UsageError(f"`out` {out}: has content that is not a board's site. Name an empty or new folder.")


def _names(folder: Path) -> set[str]:
    return set(os.listdir(folder)) if folder.is_dir() else set()


def _entry(data: bytes, found: Found, marks: Mapping[str, Any]) -> Entry:
    entry = Entry.model_validate_json(data)
    return marked(entry, found, marks).model_copy(update={"folder": found.folder})


def _keeping(kept: Kept, rescore: Against, shelf: TaskCache) -> Against:
    """Return a function that scores a control for another country, stored between builds."""

    def against(entry: Entry, key: Key) -> list[Score]:
        name = hashlib.sha256("/".join((entry.key, *key)).encode()).hexdigest()
        if (data := kept.get(name)) is not None:
            return _SCORES.validate_json(data)
        shown = board_metrics(shelf.spec(key.task))
        scores = [score for score in rescore(entry, key) if score.metric in shown]
        kept.put(name, _SCORES.dump_json(scores).decode())
        return scores

    return against


def _page(out: Path, name: str) -> Path:
    return out / PAGES / f"{name}.js"


def _renew(missing: Sequence[Found], out: Path, kept: Kept, advance: Callable[[int, int], None]) -> list[str]:
    """Read, score and write submissions, in several processes if faster; return the problems of refused ones."""
    problems: list[str] = []
    done = 0
    for count, made, refused in _parts(missing, out):
        for key, text in made.items():
            kept.put(key, text)
        problems += refused
        done += count
        advance(done, len(missing))
    return problems


def _parts(missing: Sequence[Found], out: Path) -> Iterator[tuple[int, dict[str, str], list[str]]]:
    """Yield the number of submissions of each finished part, and what ``_make`` returns for it."""
    workers = min(os.cpu_count() or 1, len(missing) // SEVERAL)
    if workers < 2:
        shelf = TaskCache()
        for one in missing:
            yield 1, *_make([one], out, shelf)
        return
    size = max(1, min(SEVERAL, len(missing) // (4 * workers)))
    parts = [missing[start : start + size] for start in range(0, len(missing), size)]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(_make, part, out): len(part) for part in parts}
        for job in as_completed(jobs):
            yield jobs[job], *job.result()


def _make(part: Sequence[Found], out: Path, shelf: TaskCache | None = None) -> tuple[dict[str, str], list[str]]:
    """Score submissions and write their files of the site.

    Returns:
        What is kept of each entry as JSON by its key, and the problems of refused submissions.
    """
    shelf, made, problems = shelf or TaskCache(), {}, []
    for one in part:
        try:
            entry, submission = entry_of(one, shelf)
        except CultevalError as error:
            problems.append(str(error))
            continue
        (out / KEPT).mkdir(parents=True, exist_ok=True)  # first: it marks the folder as a site
        adapter = one.adapter_files
        given = answers_file(one.folder)
        page = detail.page(entry, submission.answers, shelf) | {"file": given.name, "adapter": list(adapter)}
        _write(_page(out, one.name), script("page", page))
        with replacing(out / FILES / one.name, flush=False) as temporary:
            copy_into(temporary, {MANIFEST: one.folder / MANIFEST, given.name: given} | adapter)
        specs = {task.name: shelf.spec(task.name) for task in entry.manifest.tasks}
        shown = {name for spec in specs.values() for name in board_metrics(spec)}
        few = tuple(s for s in entry.scores if s.metric in shown or rests_on(s, specs[s.task]))
        made[one.key] = entry.model_copy(update={"scores": few}).model_dump_json(exclude_defaults=True)
    return made, problems


def _write(path: Path, text: str) -> None:
    """Write a file if its content differs or it does not exist."""
    if not path.is_file() or path.read_bytes() != text.encode():
        write_text(path, text, flush=False)


def _write_assets(out: Path, suite: str) -> None:
    import jinja2

    loader = jinja2.FileSystemLoader(TEMPLATES)
    pages = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    for name in HTML:
        _write(out / name, pages.get_template(name).render(suite=suite))
    for path in (*(TEMPLATES / name for name in OWN), *(VENDOR / name for name in VENDORED)):
        _write(out / ASSETS / path.name, path.read_text(encoding="utf-8"))
    stamp, current = out / KEPT / LIBRARIES, judging_hash()
    if not stamp.is_file() or stamp.read_text(encoding="ascii") != current:
        _write(out / ASSETS / "plotly.min.js", _plotly())
        write_text(stamp, current)


def _plotly() -> str:
    from importlib.util import find_spec

    spec = find_spec("plotly")  # found, not imported: it takes a second to load
    path = Path(spec.origin).parent / "package_data" / "plotly.min.js" if spec and spec.origin else None
    if path is None or not path.is_file():
        raise UnavailableError("plotly: not installed, or without plotly.min.js. `pip install plotly`.")
    return path.read_text(encoding="utf-8")


def _sweep(out: Path, names: set[str], data: set[str]) -> None:
    """Remove files of submissions, boards and sets of countries that no longer exist, and of earlier versions."""
    wanted = {PAGES: {f"{name}.js" for name in names}, FILES: names, KEPT: {RECORD, LIBRARIES}}
    for folder, keep in (wanted | {DATA: {f"{name}.js" for name in data}}).items():
        for name in _names(out / folder) - keep:
            path = out / folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
