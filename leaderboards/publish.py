"""Into a board's folder: a finished run under the name that its content gives it."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path, PurePath
from typing import Any

from ..errors import InputError, UsageError
from ..harness.adapters.peft_files import CONFIG
from ..harness.runs.execute import SCORES
from ..harness.scoring.score import TaskCache
from ..harness.submissions.manifest import MANIFEST, Manifest
from ..harness.util.atomic_io import copy_into, json_text, replacing, write_json
from .entries import MOST_ADAPTER, Found, entry_of, find_one

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
    """Copy a finished run into a board's folder: manifest, answers, a judge's verdicts, scores made anew, and
    the adapter.

    Returns:
        The entry's folder, and what had to be left out, if anything.

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
    files = {path.name: path for path in found.files if path.name not in (SCORES, MANIFEST)}  # a judge's verdicts, too
    with replacing(target) as temporary:
        copy_into(temporary, files | found.adapter_files)
        (temporary / MANIFEST).write_bytes(written)
        for config in temporary.rglob(CONFIG):
            write_json(config, _of_published_model(json.loads(config.read_bytes())))
        write_json(temporary / SCORES, [score.model_dump(mode="json") for score in entry.scores])
    if found.adapter or entry.manifest.aligner.adapter_sha256 is None:
        return target, None
    most = f"larger than {MOST_ADAPTER >> 20} MiB, or no plain files"
    return target, f"the adapter is {most}, and stays behind; nobody can verify the row"
