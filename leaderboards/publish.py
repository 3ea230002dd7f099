"""Add finished runs to a board's folder."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePath
from typing import Any

from ..errors import InputError, UsageError
from ..harness.adapters.peft_files import CONFIG
from ..harness.runs.folder import SCORES
from ..harness.scoring.baselines import CONTROL
from ..harness.scoring.score import TaskCache
from ..harness.submissions.manifest import ANSWERS, MANIFEST, Manifest
from ..harness.submissions.reader import COMPRESSED, answer_lines, answers_file
from ..harness.submissions.writer import write_answers
from ..harness.util.atomic_io import copy_into, json_text, replacing, write_json
from .entries import MOST_ADAPTER, Found, entry_of, find_one

MOST_KEPT = 512 << 10  # bytes of an entry's adapter; boards are cloned

_NOT_THERE = "it is not added: keep it for `leaderboard verify --adapters`"

# A path that begins with a root, a home or a parent folder, alone or after an equals sign.
_PLACE = re.compile(r"(^|(?<=[\s=\"']))((?:/|~|\.{1,2}/|[A-Za-z]:\\)[^\s\"']+)")


def published_name(manifest: Manifest, written: bytes) -> str:
    """Return ``TASK-COUNTRY-ALIGNER-`` and ten digits of the sha256 of the manifest file, which covers the answers."""
    digest = hashlib.sha256(written).hexdigest()[:10]
    parts = (manifest.tasks[0].name, manifest.country, manifest.aligner.name)
    return "-".join([*(re.sub(r"[^A-Za-z0-9_.]", "_", part)[:24] for part in parts), digest])


def without_places(manifest: Manifest) -> Manifest:
    """Return the manifest with local paths shortened to their last part.

    Paths occur in the model, the command and the aligner's settings. Names of hub models contain a slash, too.
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


def _of_published_model(path: Path) -> dict[str, Any]:
    """Read an adapter's configuration; return it with the model name of the published manifest.

    Raises:
        InputError: the file is not a JSON object.
    """
    try:
        config = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise InputError(f"{path}: not a JSON object, as PEFT writes it. Start the run over with `fresh`.")
    return config | {"base_model_name_or_path": _nameless(config.get("base_model_name_or_path"))}


def publish(run: Path, board: Path) -> tuple[Path, str | None]:
    """Copy a finished run into a board's folder: manifest, compressed answers, a judge's verdicts and the adapter.

    Scores are not copied: a board computes them from the answers.

    Returns:
        The folder of the entry, and the reason if a needed adapter was left out.

    Raises:
        InputError: no valid submission. UsageError: the board already has it.
    """
    found: Found | None = find_one(run)
    if found is None:
        raise InputError(f"{run}: no finished run. Give a folder made by `culteval run` or `sweep`.")
    entry, _ = entry_of(found, TaskCache())
    manifest = without_places(entry.manifest)
    written = (found.folder / MANIFEST).read_bytes()
    if manifest != entry.manifest:
        written = json_text(manifest.model_dump(mode="json")).encode()
    target = board / published_name(manifest, written)
    if target.exists():
        raise UsageError(f"{target}: already on the board; each submission is added once.")
    made_anew = (SCORES, MANIFEST, ANSWERS)
    files = {path.name: path for path in found.files if path.name not in made_anew}  # with a judge's verdicts
    left_out = left_behind(found, manifest)
    adapter = found.adapter_files if left_out is None else {}
    with replacing(target) as temporary:
        copy_into(temporary, files | adapter)
        if COMPRESSED not in files:
            write_answers(temporary / COMPRESSED, answer_lines(answers_file(found.folder), entry.manifest))
        (temporary / MANIFEST).write_bytes(written)
        for name, path in adapter.items():
            if path.name == CONFIG:
                write_json(temporary / name, _of_published_model(path))
    return target, left_out or None


def left_behind(found: Found, manifest: Manifest) -> str | None:
    """Return why an entry's adapter is not stored on a board; None if it is stored or there is none.

    Empty for a random prefix, which ``leaderboard verify`` generates from the seed.
    """
    if manifest.aligner.adapter_sha256 is None:
        return None
    if manifest.aligner.name == CONTROL:
        return ""
    if not found.adapter:
        return f"the adapter is missing, larger than {MOST_ADAPTER >> 20} MiB, or not regular files; {_NOT_THERE}"
    if sum(path.stat().st_size for path in found.adapter) > MOST_KEPT:
        return f"the adapter is larger than {MOST_KEPT >> 10} KiB; {_NOT_THERE}"
    return None
