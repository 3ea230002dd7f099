"""Every way in which the manifest of a stranger's submission may be bad."""

import json
import resource
import shutil
import subprocess
import sys

import pytest
from culteval.errors import InputError
from culteval.harness.submissions.manifest import Fitted, Manifest
from culteval.harness.submissions.writer import write_submission

from ... import submission_files
from ...fuzzing import MOST_SECONDS
from ...submission_files import VSM, answers_of, edit, lines_of, manifest_of, refused, reseal

alarm, folder, pristine = submission_files.alarm, submission_files.folder, submission_files.pristine

MANIFEST_FIELDS = [
    ("evil", 1, "evil"),
    ("model.evil", 1, "model.evil"),
    ("schema_version", 3, "schema_version"),
    ("schema_version", 1, "leaderboard migrate"),
    ("country", "usa", "country"),
    ("tasks.0.country", "S", "tasks.0.country"),
    ("tasks", [], "tasks"),
    ("tasks.0.hash", "abc", "tasks.0.hash"),
    ("tasks.0.hash", "0" * 64, "hash"),
    ("tasks.0.name", "vsm31", "vsm31"),
    ("tasks.0.personas", -1, "tasks.0.personas"),
    ("tasks.0.personas", 100_001, "tasks.0.personas"),
    ("tasks.0.personas", 100_000, "personas"),
    ("tasks.0.limit", 0, "tasks.0.limit"),
    ("tasks.0.limit", 100_001, "tasks.0.limit"),
    ("tasks.0.limit", 1, "answers.rows"),
    ("tasks.0.calibrated", "perhaps", "tasks.0.calibrated"),
    ("tasks.0.calibrated", True, "answers.rows"),
    ("answers.file", "../answers.jsonl", "answers.file"),
    ("answers.file", "/etc/passwd", "answers.file"),
    ("answers.file", "answers.jsonl\x00", "answers.file"),
    ("answers.rows", 0, "answers.rows"),
    ("answers.rows", -1, "answers.rows"),
    ("answers.rows", 5_000_001, "answers.rows"),
    ("answers.rows", 1.5, "answers.rows"),
    ("answers.sha256", "G" * 64, "answers.sha256"),
    ("aligner.name", "", "aligner.name"),
    ("aligner.name", "x" * 201, "aligner.name"),
    ("aligner.settings.tokens", {"a": 1}, "aligner.settings.tokens"),
    ("budget.seconds", b"NaN", "budget.seconds"),
    ("budget.seconds", b"Infinity", "budget.seconds"),
    ("budget.seconds", -1, "budget.seconds"),
    ("budget.seconds", 1.7e308, "budget.seconds"),
    ("budget.survey_evaluations", 1.7e308, "budget.survey_evaluations"),
    ("budget.survey_evaluations", b"-Infinity", "budget.survey_evaluations"),
    ("budget.survey_evaluations", b"1e999", "budget.survey_evaluations"),
    ("budget.item_forwards", 10**30, "budget.item_forwards"),
    ("aligner.settings.tokens", b"NaN", "aligner.settings.tokens"),
    ("aligner.settings.mutation", b"[0.5, NaN]", "aligner.settings.mutation"),
    ("aligner.settings.mutation", b"[" * 5000 + b"]" * 5000, "manifest.json"),
    ("seed", None, "seed"),
    ("seed", "zero", "seed"),
    ("fitted.split", "heldout", "fitted.split"),
    ("fitted.scoring", "guess", "fitted.scoring"),
]


@pytest.mark.parametrize(("path", "value", "field"), MANIFEST_FIELDS, ids=lambda v: ascii(v)[:40])
def test_bad_manifest_field(folder, path, value, field):
    edit(folder, path, value)
    refused(folder, "manifest.json", field)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b"[" * 100_000, b'{"a":' * 100_000, b"\0"])
def test_manifest_that_is_no_json_object(folder, data):
    (folder / "manifest.json").write_bytes(data)
    refused(folder, "manifest.json")


def test_manifest_not_utf8_inside_a_name(folder):
    data = (folder / "manifest.json").read_bytes().replace(b'"de"', b'"d\xe9"')
    (folder / "manifest.json").write_bytes(data)
    refused(folder, "manifest.json")


def test_huge_manifest(folder):
    with (folder / "manifest.json").open("ab") as file:
        file.write(b" " * (2 << 20))  # valid JSON but for its size
    refused(folder, "manifest.json", "larger")


@pytest.mark.parametrize("field", ["tasks", "model", "aligner", "seed", "budget", "answers"])
def test_manifest_lacks_a_field(folder, field):
    data = json.loads((folder / "manifest.json").read_text())
    del data[field]
    (folder / "manifest.json").write_text(json.dumps(data))
    refused(folder, "manifest.json", field)


@pytest.mark.parametrize("char", ["\0", "\n", "\x1b[31m", "\x7f"], ids=ascii)
@pytest.mark.parametrize("path", ["aligner.name", "model.name", "tasks.0.name", "tasks.0.edition"])
def test_control_characters_in_names(folder, path, char):
    edit(folder, path, f"a{char}b")
    refused(folder, "manifest.json", path)


@pytest.mark.parametrize("char", ["\x85", "\x9b31m", "\u2028", "\u202e"], ids=ascii)
def test_c1_controls_line_separators_and_bidi_overrides_in_names(folder, char):
    edit(folder, "aligner.name", f"a{char}b")
    refused(folder, "manifest.json", "aligner.name")


@pytest.mark.parametrize(
    "key", ["\n\n\nError: all is well", "\x1b[2J", "\x9b2J", "k" * 500_000], ids=lambda k: ascii(k)[:20]
)
@pytest.mark.parametrize("place", ["", "aligner.settings."])
def test_hostile_field_names_are_not_echoed(folder, place, key):
    data = json.loads((folder / "manifest.json").read_text())
    at = data["aligner"]["settings"] if place else data
    at[key] = "x"
    (folder / "manifest.json").write_text(json.dumps(data))
    refused(folder, "manifest.json")


def test_unknown_task_suggests_the_nearest(folder):
    edit(folder, "tasks.0.name", "vsm31")
    assert isinstance(refused(folder, "manifest.json", "tasks.0.name", "Did you mean 'vsm13'?"), InputError)


def test_wrong_task_hash_is_an_input_error(folder):
    edit(folder, "tasks.0.hash", "0" * 64)
    assert isinstance(refused(folder, "tasks.0.hash"), InputError)


def test_a_task_is_a_name_and_never_a_path(folder, tmp_path):
    for file in ("vsm13.yaml", "items.yaml", "hofstede.csv"):
        shutil.copy(VSM / file, tmp_path / file)
    path = str(tmp_path / "vsm13.yaml")
    edit(folder, "tasks.0.name", path)
    reseal(folder, [line.replace(b'"vsm13"', json.dumps(path).encode()) for line in lines_of(folder)])
    refused(folder, "task")


def test_the_same_task_twice(folder):
    task = json.loads((folder / "manifest.json").read_text())["tasks"][0]
    edit(folder, "tasks", [task, {**task, "country": "US", "constants": "zero"}])
    refused(folder, "manifest.json", "tasks")


def test_negative_seed_with_personas(tmp_path):
    write_submission(tmp_path / "s", manifest_of(personas=2), {"vsm13": answers_of(personas=2)})
    edit(tmp_path / "s", "seed", -3)
    refused(tmp_path / "s", "manifest.json", "seed")


def test_fitted_to_names_tasks_country_and_an_unusual_loss(folder):
    manifest = Manifest.model_validate_json((folder / "manifest.json").read_bytes())
    spent = manifest.budget.model_copy(update={"item_forwards": 24})
    fitted = Fitted(tasks=("vsm13", "wvs"), country="US", scoring="expected", norm="sse")
    assert manifest.model_copy(update={"fitted": None, "budget": spent}).fitted_to == "nothing"
    free = spent.model_copy(update={"item_forwards": 0})
    assert manifest.model_copy(update={"fitted": fitted, "budget": free}).fitted_to == "nothing"
    for changed, words in (
        ({}, ""),
        ({"scoring": "argmax"}, ", argmax"),
        ({"objective": "distribution"}, ", distribution"),
    ):
        given = fitted.model_copy(update=changed)
        assert manifest.model_copy(update={"fitted": given, "budget": spent}).fitted_to == f"vsm13, wvs, US{words}"


@pytest.mark.parametrize("personas", [100_000, 30_000])
def test_many_personas_cost_nothing(folder, personas):
    """A small manifest must not make the reader build millions of prompts: rows says that they cannot be there."""
    edit(folder, "tasks.0.personas", personas)
    code = (
        "import json,sys,time\n"
        "from pathlib import Path\n"
        "from culteval.errors import CultevalError\n"
        "from culteval.harness.submissions.reader import read_submission\n"
        "before = time.process_time()\n"
        "try: read_submission(Path(sys.argv[1]))\n"
        "except CultevalError as error: text = str(error)\n"
        # VmHWM: ru_maxrss would still hold the size of the process that forked this one.
        "peak = int(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]) / 1024\n"
        "print(json.dumps([time.process_time() - before, peak, text]))\n"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_CPU, (10, 10))  # noqa: E731
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, preexec_fn=limit, timeout=60
    )
    assert done.returncode == 0, f"killed after ten seconds of processor time: {done.returncode} {done.stderr[-500:]}"
    seconds, megabytes, text = json.loads(done.stdout)
    assert "personas" in text or "rows" in text
    assert seconds < MOST_SECONDS
    assert megabytes < 300
