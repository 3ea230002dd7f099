"""Migrate the entries of a board of an earlier version: names of fields change, no number does.

Version 1 of submissions called paraphrases wordings, personas respondents and answer scoring a read-out. The hashes of
tasks cover these words, so each known hash of that version is replaced by the one of the same task here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import CultevalError, InputError
from ..harness.registry import spec_of
from ..harness.runs.folder import ALIGNED, SCORES
from ..harness.scoring.judge import JUDGE
from ..harness.scoring.score import TaskCache
from ..harness.submissions.manifest import ANSWERS, MANIFEST, MOST_MANIFEST_BYTES, SCHEMA, Manifest
from ..harness.submissions.reader import COMPRESSED, answer_lines, answers_file
from ..harness.submissions.writer import write_answers
from ..harness.util.atomic_io import copy_into, json_text, replacing, sha256, write_json
from ..tasks.reading import read_unmarked
from ..tasks.spec import first_problem
from .entries import VERIFIED, Entry, Found, entry_of, find, find_one, verified_marks
from .publish import left_behind, published_name

OLD = 1  # version of the format of submissions
# Hashes of version 1 of the tasks, which differ from today's in names of fields only.
TASKS_OF_OLD = {
    "vsm13": "dad42cb18763a77b93fb149560a8364b805dce8331459ff875e4996118738c1f",
    "vsm13_text": "44be433b708fb354d949dc1fac9e1f6b47fa499a18beabba387050d72647114e",
    "vsm13_ar": "30f36bc2819b97d685d27437aeb3cce567b423588ec069fcb11eaae3fc0cdc1c",
    "vsm13_de": "ad622f4e12cba372bbdd929ecb6015a74d7bbf9af0053414bf4a0724862e61de",
    "vsm13_es": "3616fc49237537be3bf84a6c158bcbd7811340217535a6a7704aa4002b9b1c63",
    "vsm13_hi": "285963546a104dcf7723583379dc277b3ca22aba040cfb9a6077fb336eec3ab6",
    "vsm13_zh": "8f4fee9425910681e647c2be1dede9ff9d291ca4ec60d30492f16371f248933a",
    "culture_core": "a5db88ae28e4390cab4359fc70fc6f73ca31039e1ed5916b1436a9d57a25fef1",
    "wvs": "6fa09f83fc60ac2f1ec915b2517d6ddeded0430d28b1937d45c32f86673c9d4f",
    "wvs_text": "e3283dc9ede73ae4ca6863ef0b93e1abe20991ffe73caa0b973d4567d2864703",
    "wvs_themes": "b317f39f7e05f33ecbb090543935f49b8cf6f3b52fc66f08c5f199ed3a465d3b",
    "probes": "318a34679735d1b15928c348547eab31f1b2189d5189b024bc5ca27687910276",
    "cdeval_core": "a25519379da785a6e1404cc9cd6a14fc0858446e6f6507625b07906f64276303",
    "synthetic_survey": "2ad0d2e463fbb1910fe0aac1d8a1260b9bcca5c4add4a20de3dc2b6b781170fc",
    "general": "daa9cac7d075c8327e14b04d5fb904ca4f3cfdd62b05ccbefac58d167fc0f698",
}
_FIELDS_OF_ANSWERS = {"wording": "paraphrase", "respondent": "persona", "outside": "off_options"}
_ALIGNERS = {"untrained": "random_prefix"}
_SETTINGS = {"augmented": {"outside": "off_options"}}


def migrate(board: Path, adapters: Path | None, say: Callable[[str], None]) -> int:
    """Migrate the entries of an earlier version in place; no score changes.

    Fields of version 1 get their present names, and entries the folder names that follow from the new manifests.
    Marks of verification, by answers in earlier versions, become marks of the manifest of the entry that they name.
    Answers are compressed, stored scores removed. Adapters that boards do not keep (``left_behind``) are moved to
    ``adapters``/ENTRY for ``leaderboard verify --adapters``; without that folder they remain.

    Args:
        say: called with a line for each refused entry, and for adapters that remain.

    Returns:
        The number of changed entries.

    Raises:
        InputError: the folder cannot be read.
    """
    changed, shelf, too_large = 0, TaskCache(), 0
    for found in find(board, say):
        home = board / found.name
        if found.folder != home:
            say(f"{home}: a run, not an entry; `leaderboard add` makes entries")
            continue
        before = sorted(home.rglob("*"))
        try:
            # Scored before any further change, so that problems are reported first.
            if _version(home) == OLD:
                entry = _with_present_names(found, board, shelf)
                home = entry.folder
            else:
                entry, _ = entry_of(found, shelf)
                _move_mark(board, found, home)
        except CultevalError as error:
            say(f"not changed: {error}")
            continue
        _compress(home, entry.manifest)
        (home / SCORES).unlink(missing_ok=True)
        if (home / ALIGNED).is_dir() and left_behind(_found(home), entry.manifest) is not None:
            if adapters is None:
                too_large += 1
            else:
                adapters.mkdir(parents=True, exist_ok=True)
                shutil.move(home / ALIGNED, adapters / home.name)
        changed += sorted(home.rglob("*")) != before
    if too_large:
        say(f"{too_large} adapters that boards do not keep remain; --adapters FOLDER moves them there")
    return changed


def _found(home: Path) -> Found:
    found = find_one(home)
    if found is None:
        raise InputError(f"{home}: no submission.")
    return found


def _version(home: Path) -> Any:
    return _read(home / MANIFEST).get("schema_version")


def _read(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_unmarked(path, MOST_MANIFEST_BYTES))
    except (ValueError, RecursionError):
        raise InputError(f"{path}: not JSON.") from None
    if not isinstance(data, dict):
        raise InputError(f"{path}: not a JSON object.")
    return data


def _with_present_names(found: Found, board: Path, shelf: TaskCache) -> Entry:
    """Replace an entry of version 1 by one with the present names of fields, and return it.

    The old folder is removed after the new one is complete, scored, and named in ``verified.json``.

    Raises:
        InputError: a damaged entry, or one of a task whose hash is not known.
    """
    manifest = _present_manifest(found.folder / MANIFEST)
    source = answers_file(found.folder)
    kept = {path.name: path for path in found.files if path.name not in (MANIFEST, ANSWERS, COMPRESSED, SCORES)}
    if JUDGE in kept:
        raise InputError(f"{found.folder}: has a judge's verdicts of version {OLD}. Remove them and judge again.")
    building = board / f".{found.name}.migrating"
    with replacing(building) as temporary:
        temporary.mkdir()
        copy_into(temporary, kept | found.adapter_files)
        file = write_answers(temporary / COMPRESSED, _present_answers(answer_lines(source, manifest)))
        manifest = manifest.model_copy(update={"answers": file})
        written = json_text(manifest.model_dump(mode="json")).encode()
        (temporary / MANIFEST).write_bytes(written)
    target = board / published_name(manifest, written)
    if target.exists():  # an earlier call was stopped before it removed the old folder
        shutil.rmtree(target)
    building.replace(target)
    try:
        entry, _ = entry_of(_found(target), shelf)
    except CultevalError:
        shutil.rmtree(target)
        raise
    _move_mark(board, found, target)
    shutil.rmtree(found.folder)
    return entry


def _present_manifest(path: Path) -> Manifest:
    """Read a manifest of version 1 as one of today; its ``answers`` still describe the old lines."""
    data = _read(path)
    try:
        for task in data["tasks"]:
            task["personas"] = task.pop("respondents", 0)
            if task["hash"] != TASKS_OF_OLD.get(task["name"]):
                raise InputError(f"{path}: no known version of the task {str(task['name'])[:60]!r}.")
            task["hash"] = spec_of(task["name"]).hash
        if data.get("fitted"):
            data["fitted"]["scoring"] = data["fitted"].pop("readout")
        aligner = data["aligner"]
        renamed = _SETTINGS.get(aligner["name"], {})
        aligner["settings"] = {renamed.get(key, key): value for key, value in aligner["settings"].items()}
        aligner["name"] = _ALIGNERS.get(aligner["name"], aligner["name"])
        return Manifest.model_validate_json(json.dumps(data | {"schema_version": SCHEMA}))
    except ValidationError as error:
        raise InputError(f"{path}: {first_problem(error)}.") from None
    except (KeyError, TypeError, AttributeError):
        raise InputError(f"{path}: not a manifest of version {OLD}.") from None


def _present_answers(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Rename the fields of answers, which keep their order and values."""
    for line in lines:
        try:
            row = {_FIELDS_OF_ANSWERS.get(name, name): value for name, value in json.loads(line).items()}
        except (ValueError, RecursionError, AttributeError):
            raise InputError(f"answers: {line[:40]!r} is not a JSON object.") from None
        yield (json.dumps(row, ensure_ascii=False) + "\n").encode()


def _move_mark(board: Path, found: Found, home: Path) -> None:
    """Replace a mark of the answers that names an entry by one of the manifest in ``home``, where the entry is now."""
    marks, answers_sha256 = verified_marks(board), _read(found.folder / MANIFEST)["answers"]["sha256"]
    mark = marks.get(answers_sha256)
    if isinstance(mark, dict) and mark.get("entry") == found.name:  # other entries may have the same answers
        kept = {key: value for key, value in mark.items() if key != "answers_sha256"}
        manifest_sha256 = sha256(home / MANIFEST)
        del marks[answers_sha256]
        marks[manifest_sha256] = kept | {"entry": home.name, "manifest_sha256": manifest_sha256}
        write_json(board / VERIFIED, dict(sorted(marks.items())))


def _compress(home: Path, manifest: Manifest) -> None:
    source = answers_file(home)
    if source.name == COMPRESSED:
        return
    with replacing(home / COMPRESSED) as temporary:
        write_answers(temporary, answer_lines(source, manifest))
    source.unlink()
