"""Into a board's folder: a finished run under the name that its content gives it; older boards brought up to date."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any

from ..errors import CultevalError, InputError, UsageError
from ..harness.adapters.peft_files import CONFIG
from ..harness.runs.folder import ALIGNED, SCORES
from ..harness.scoring.baselines import CONTROL
from ..harness.scoring.score import TaskCache
from ..harness.submissions.manifest import ANSWERS, MANIFEST, Manifest
from ..harness.submissions.reader import COMPRESSED, answer_lines, answers_file
from ..harness.submissions.writer import write_answers
from ..harness.util.atomic_io import copy_into, json_text, replacing, write_json
from .entries import MOST_ADAPTER, Found, entry_of, find, find_one

MOST_KEPT = 512 << 10  # bytes of an entry's adapter; a board is a repository that people clone

_NOT_THERE = "it stays behind: keep it for `leaderboard verify --adapters`"

# A path that begins at a root, a home or a folder above, by itself or behind an equals sign.
_PLACE = re.compile(r"(^|(?<=[\s=\"']))((?:/|~|\.{1,2}/|[A-Za-z]:\\)[^\s\"']+)")


def published_name(manifest: Manifest, written: bytes) -> str:
    """``TASK-COUNTRY-ALIGNER-`` and ten digits of the sha256 of the manifest's file, which covers the answers, too."""
    digest = hashlib.sha256(written).hexdigest()[:10]
    parts = (manifest.tasks[0].name, manifest.country, manifest.aligner.name)
    return "-".join([*(re.sub(r"[^A-Za-z0-9_.]", "_", part)[:24] for part in parts), digest])


def without_places(manifest: Manifest) -> Manifest:
    """A manifest in which files and folders of one machine are called by their last name alone.

    That is of its model, its command and its aligner's settings. The names of the hub's models have a slash, too.
    """
    settings = {key: _nameless(value) for key, value in manifest.aligner.settings.items()}
    changed = {
        "model": manifest.model.model_copy(update={"name": _nameless(manifest.model.name)}),
        "aligner": manifest.aligner.model_copy(update={"settings": settings}),
        "command": _PLACE.sub(lambda found: found[1] + PurePath(found[2]).name, manifest.command),
    }
    return manifest.model_copy(update=changed)


def _nameless(value: Any) -> Any:
    if isinstance(value, list):
        return [_nameless(one) for one in value]
    place = isinstance(value, str) and _PLACE.fullmatch(value)
    return PurePath(place[2]).name or value if place else value


def _of_published_model(config: dict[str, Any]) -> dict[str, Any]:
    """An adapter's configuration that calls its model as the published manifest does."""
    return config | {"base_model_name_or_path": _nameless(config.get("base_model_name_or_path"))}


def publish(run: Path, board: Path) -> tuple[Path, str | None]:
    """Copy a finished run into a board's folder: manifest, compressed answers, a judge's verdicts and the adapter.

    Scores are not copied: a board computes them from the answers.

    Returns:
        The entry's folder, and why the adapter had to be left out, if it was and is needed.

    Raises:
        InputError: no valid submission. UsageError: the board has it already.
    """
    found: Found | None = find_one(run)
    if found is None:
        raise InputError(f"{run}: no finished run. Give a folder that `culteval run` or `sweep` left.")
    entry, _ = entry_of(found, TaskCache())
    manifest = without_places(entry.manifest)
    written = (found.folder / MANIFEST).read_bytes()
    if manifest != entry.manifest:
        written = json_text(manifest.model_dump(mode="json")).encode()
    target = board / published_name(manifest, written)
    if target.exists():
        raise UsageError(f"{target}: is there already; a board holds a submission once.")
    made_anew = (SCORES, MANIFEST, ANSWERS)
    files = {path.name: path for path in found.files if path.name not in made_anew}  # a judge's verdicts, too
    left_out = left_behind(found, manifest)
    with replacing(target) as temporary:
        copy_into(temporary, files | (found.adapter_files if left_out is None else {}))
        if COMPRESSED not in files:
            write_answers(temporary / COMPRESSED, answer_lines(answers_file(found.folder), entry.manifest))
        (temporary / MANIFEST).write_bytes(written)
        for config in temporary.rglob(CONFIG):
            write_json(config, _of_published_model(json.loads(config.read_bytes())))
    return target, left_out or None


def left_behind(found: Found, manifest: Manifest) -> str | None:
    """Say why a board does without an entry's adapter; None where it keeps it or there is none to keep.

    Empty for a random prefix, which ``leaderboard verify`` draws anew from the seed.
    """
    if manifest.aligner.adapter_sha256 is None:
        return None
    if manifest.aligner.name == CONTROL:
        return ""
    if not found.adapter:
        return f"the adapter is not there, larger than {MOST_ADAPTER >> 20} MiB, or no plain files; {_NOT_THERE}"
    if sum(path.stat().st_size for path in found.adapter) > MOST_KEPT:
        return f"the adapter is larger than {MOST_KEPT >> 10} KiB; {_NOT_THERE}"
    return None


def migrate(board: Path, adapters: Path | None, say: Callable[[str], None]) -> int:
    """Bring the entries of an older board up to date in place: names, manifests, hashes and scores stay.

    Answers are compressed, stored scores removed. Adapters that boards no longer keep (``left_behind``) are moved to
    ``adapters``/ENTRY, where ``leaderboard verify --adapters`` finds them; without such a folder they stay.

    Args:
        say: told of each entry that is refused, and of adapters that stay.

    Returns:
        How many entries were changed.

    Raises:
        InputError: no such folder.
    """
    changed, shelf, too_large = 0, TaskCache(), 0
    for found in find(board, say):
        home = board / found.name
        if found.folder != home:
            say(f"{home}: a run, not an entry; `leaderboard add` makes entries")
            continue
        try:
            entry, _ = entry_of(found, shelf)  # whatever is wrong with it is said before anything is changed
        except CultevalError as error:
            say(f"left as it is: {error}")
            continue
        before = sorted(home.rglob("*"))
        _compress(home, entry.manifest)
        (home / SCORES).unlink(missing_ok=True)
        if found.adapter and left_behind(found, entry.manifest) is not None:
            if adapters is None:
                too_large += 1
            else:
                adapters.mkdir(parents=True, exist_ok=True)
                shutil.move(home / ALIGNED, adapters / found.name)
        changed += sorted(home.rglob("*")) != before
    if too_large:
        say(f"{too_large} adapters that a board does without stay; --adapters FOLDER moves them there")
    return changed


def _compress(home: Path, manifest: Manifest) -> None:
    source = answers_file(home)
    if source.name == COMPRESSED:
        return
    with replacing(home / COMPRESSED) as temporary:
        write_answers(temporary, answer_lines(source, manifest))
    source.unlink()
