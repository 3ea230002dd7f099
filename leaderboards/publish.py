"""Into a board's folder: a finished run under the name that its content gives it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from ..errors import InputError, UsageError
from ..harness.files import copy_into, replacing, write_json
from ..harness.run import SCORES
from ..harness.scoring import Shelf
from ..harness.submission import MANIFEST, Manifest
from .collect import MOST_ADAPTER, Found, entry_of, find_one


def published_name(manifest: Manifest, folder: Path) -> str:
    """``TASK-COUNTRY-ALIGNER-`` and ten digits of the manifest's sha256, which covers the answers by their own."""
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()[:10]
    parts = (manifest.tasks[0].name, manifest.country, manifest.aligner.name)
    return "-".join([*(re.sub(r"[^A-Za-z0-9_.]", "_", part)[:24] for part in parts), digest])


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
    entry, _ = entry_of(found, Shelf())
    target = board / published_name(entry.manifest, found.folder)
    if target.exists():
        raise UsageError(f"{target}: is there already; a board holds a submission once.")
    files = {path.name: path for path in found.files if path.name != SCORES}  # with a judge's verdicts, if any
    with replacing(target) as temporary:
        copy_into(temporary, files | found.adapter_files)
        write_json(temporary / SCORES, [score.model_dump(mode="json") for score in entry.scores])
    if found.adapter or entry.manifest.aligner.adapter_sha256 is None:
        return target, None
    most = f"larger than {MOST_ADAPTER >> 20} MiB, or no plain files"
    return target, f"the adapter is {most}, and stays behind; nobody can verify the row"
