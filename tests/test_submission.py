"""Submissions: written and read back, written by hand, and every way in which a stranger's folder may be bad."""

import copy
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import InputError, UsageError
from culteval.harness import submission
from culteval.harness.registry import spec_path
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.prompts import Asking, protocol
from culteval.tasks.spec import load_spec

ROOT = Path(__file__).parent.parent
VSM = ROOT / "tasks" / "vsm13"
ROWS = 24 * (2 + 2 * 2)  # items x (fit wordings + held-out wordings x orders)


def hash_by_hand():
    digest = hashlib.sha256()
    for name in ("vsm13.yaml", "items.yaml"):
        digest.update(name.encode() + b"\0" + (VSM / name).read_bytes() + b"\0")
    return digest.hexdigest()


def manifest_of(tasks=("vsm13",), respondents=0, seed=0):
    asked = [
        {"name": name, "hash": load_spec(spec_path(name)).hash, "country": "SA", "edition": "extended",
         "constants": "world", "respondents": respondents}
        for name in tasks
    ]  # fmt: skip
    return {
        "tasks": asked,
        "model": {"name": "m", "revision": "r", "dtype": "float32", "device": "cpu", "threads": 1,
                  "chat_template": None, "forward": "packed"},
        "aligner": {"name": "de", "settings": {"tokens": 3, "mutation": [0.5, 1.0]}, "adapter_sha256": None},
        "fitted": {"tasks": ["vsm13"], "country": "SA", "readout": "expected", "norm": "sse"},
        "country": "SA",
        "seed": seed,
        "versions": {"culteval": "0.1.0"},
        "command": "culteval run",
        "budget": {"item_forwards_allowed": 2400, "item_forwards": 2400, "survey_evaluations": 100.0, "tokens": 7,
                   "seconds": 1.5},
    }  # fmt: skip


def answers_of(name="vsm13", respondents=0, seed=0, texts=False):
    layout = protocol(load_spec(spec_path(name)), Asking(respondents, seed)).layout
    rng = np.random.default_rng(5)
    probs = rng.dirichlet(np.ones(layout.codes.shape[1]), (1, len(layout)))
    outside = rng.uniform(0, 1, (1, len(layout)))
    if not texts:
        return Answers(layout, probs, outside)
    parsed = rng.choice([UNPARSED, 1, 2, 3, 4, 5], len(layout))
    said = tuple("I rather not\n«☃» " if code == UNPARSED else f"{code}." for code in parsed)
    return Answers(layout, probs, outside, said, parsed)


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------- round trip


@pytest.mark.parametrize("respondents", [0, 1, 3])
def test_round_trip(tmp_path, respondents):
    given = answers_of(respondents=respondents, seed=4)
    written = submission.write(tmp_path / "s", manifest_of(respondents=respondents, seed=4), {"vsm13": given})
    manifest, read = submission.read(tmp_path / "s")
    assert manifest == written
    assert manifest.answers.rows == ROWS * max(1, respondents) == len(given.layout)
    assert manifest.answers.sha256 == digest_of(tmp_path / "s" / "answers.jsonl")
    back = read["vsm13"]
    np.testing.assert_allclose(back.probs, given.probs, atol=1e-9, rtol=0)
    np.testing.assert_allclose(back.outside, given.outside, atol=1e-9, rtol=0)
    assert np.unique(back.probs).size > 100  # not a table of defaults
    for name in ("item", "wording", "order", "respondent", "codes", "widths"):
        np.testing.assert_array_equal(getattr(back.layout, name), getattr(given.layout, name))
    assert back.layout.respondents == max(1, respondents)
    assert back.texts is None and back.parsed is None


def test_texts_and_parsed_round_trip(tmp_path):
    given = answers_of("vsm13_text", texts=True)
    submission.write(tmp_path / "s", manifest_of(("vsm13_text",)), {"vsm13_text": given})
    back = submission.read(tmp_path / "s")[1]["vsm13_text"]
    assert back.texts == given.texts
    np.testing.assert_array_equal(back.parsed, given.parsed)
    assert {UNPARSED, 1, 5} <= set(back.parsed.tolist())


def test_several_tasks_in_one_submission(tmp_path):
    given = {"vsm13": answers_of(), "vsm13_text": answers_of("vsm13_text", texts=True)}
    submission.write(tmp_path / "s", manifest_of(tuple(given)), given)
    manifest, back = submission.read(tmp_path / "s" / "manifest.json")
    assert [task.name for task in manifest.tasks] == list(back) == ["vsm13", "vsm13_text"]
    assert manifest.answers.rows == 2 * ROWS
    assert back["vsm13"].texts is None
    assert back["vsm13_text"].texts == given["vsm13_text"].texts


def test_written_twice_is_identical_and_replaces(tmp_path):
    for name in ("a", "b", "a"):
        submission.write(tmp_path / name, manifest_of(respondents=2), {"vsm13": answers_of(respondents=2)})
    assert sorted(contents(tmp_path / "a")) == ["answers.jsonl", "manifest.json"]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    submission.write(tmp_path / "s", manifest_of(), {"vsm13": answers_of()})
    before, bad = contents(tmp_path), answers_of()
    bad.probs[0, 100, 2] = np.nan
    with pytest.raises(ValueError):
        submission.write(tmp_path / "s", manifest_of(), {"vsm13": bad})
    assert contents(tmp_path) == before
    with pytest.raises(ValueError):
        submission.write(tmp_path / "new", manifest_of(), {"vsm13": bad})
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_written_by_hand_in_any_order(tmp_path):
    import yaml

    metadata = yaml.safe_load((VSM / "vsm13.yaml").read_text().replace("!function", ""))["metadata"]
    items = list(yaml.safe_load((VSM / "items.yaml").read_text())["items"])
    rng, lines, want = random.Random(3), [], {}
    for split in metadata["splits"].values():
        for wording in split["wordings"]:
            for order in split["orders"]:
                for item in items:
                    share = rng.random()
                    probs, outside = [share, 0, 0, 1 - share, 0], rng.random()
                    want[item, wording, order] = (probs, outside)
                    cell = {"item": item, "wording": wording, "order": order, "respondent": 0}
                    lines.append(json.dumps({"outside": outside, "probs": probs, **cell, "task": "vsm13"}))
    rng.shuffle(lines)
    data = ("\r\n".join(lines)).encode()  # another line ending, and none after the last
    (tmp_path / "answers.jsonl").write_bytes(data)
    manifest = manifest_of()
    manifest["tasks"] = [{"name": "vsm13", "hash": hash_by_hand(), "country": "SA"}]
    manifest["answers"] = {"sha256": hashlib.sha256(data).hexdigest(), "rows": len(lines)}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    back = submission.read(tmp_path)[1]["vsm13"]
    assert len(want) == len(back.layout) == ROWS
    for row in range(ROWS):
        at = back.layout
        key = (at.items[at.item[row]], at.wordings[at.wording[row]], at.orders[at.order[row]])
        assert back.probs[0, row].tolist() == want[key][0]
        assert back.outside[0, row] == want[key][1]


# ---------------------------------------------------------------- bad ones


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pristine") / "s"
    submission.write(folder, manifest_of(), {"vsm13": answers_of()})
    return folder


@pytest.fixture
def folder(pristine, tmp_path):
    return Path(shutil.copytree(pristine, tmp_path / "s"))


@pytest.fixture(autouse=True)
def alarm():
    """Nothing may hang: an open of a FIFO would wait for ever."""

    def rang(*_):
        pytest.fail("hangs")  # no OSError, which the reader would take for its own

    before = signal.signal(signal.SIGALRM, rang)
    signal.setitimer(signal.ITIMER_REAL, 30)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def edit(folder, path, value):
    """Set a field of the manifest, ``a.0.b``; a bytes value is put there as it is, JSON or not."""
    file = folder / "manifest.json"
    data = json.loads(file.read_text())
    *way, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    place = data
    for part in way:
        place = place[part]
    place[last] = "@RAW@" if isinstance(value, bytes) else value
    text = json.dumps(data).encode()
    file.write_bytes(text.replace(b'"@RAW@"', value) if isinstance(value, bytes) else text)


def reseal(folder, lines):
    """Replace the answers, with the right hash and count."""
    (folder / "answers.jsonl").write_bytes(b"".join(lines))
    edit(folder, "answers.sha256", digest_of(folder / "answers.jsonl"))
    edit(folder, "answers.rows", len(lines))


def lines_of(folder):
    return (folder / "answers.jsonl").read_bytes().splitlines(keepends=True)


def refused(path, *needles):
    """Reading is refused in one or two printable lines that hold the needles, and writes nothing."""
    top = path if path.is_dir() else path.parent
    before = sorted(str(p) for p in top.parent.rglob("*"))
    with pytest.raises((InputError, UsageError)) as caught:
        submission.read(path)
    text = str(caught.value)
    assert len(text.splitlines()) <= 2, text
    assert all(char.isprintable() or char == "\n" for char in text), ascii(text)
    assert len(text) < 1000 + len(str(path)), f"{len(text)} characters"
    for needle in needles:
        assert needle in text, text
    assert sorted(str(p) for p in top.parent.rglob("*")) == before
    return caught.value


MANIFEST_FIELDS = [
    ("evil", 1, "evil"),
    ("model.evil", 1, "model.evil"),
    ("schema_version", 2, "schema_version"),
    ("country", "usa", "country"),
    ("tasks.0.country", "S", "tasks.0.country"),
    ("tasks", [], "tasks"),
    ("tasks.0.hash", "abc", "tasks.0.hash"),
    ("tasks.0.hash", "0" * 64, "hash"),
    ("tasks.0.name", "vsm31", "vsm31"),
    ("tasks.0.respondents", -1, "tasks.0.respondents"),
    ("tasks.0.respondents", 100_001, "tasks.0.respondents"),
    ("tasks.0.respondents", 100_000, "respondents"),
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
    ("budget.survey_evaluations", b"-Infinity", "budget.survey_evaluations"),
    ("budget.survey_evaluations", b"1e999", "budget.survey_evaluations"),
    ("budget.item_forwards", 10**30, "budget.item_forwards"),
    ("aligner.settings.tokens", b"NaN", "aligner.settings.tokens"),
    ("aligner.settings.mutation", b"[0.5, NaN]", "aligner.settings.mutation"),
    ("aligner.settings.mutation", b"[" * 5000 + b"]" * 5000, "manifest.json"),
    ("seed", None, "seed"),
    ("seed", "zero", "seed"),
    ("fitted.split", "heldout", "fitted.split"),
    ("fitted.readout", "guess", "fitted.readout"),
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


def test_negative_seed_with_respondents(tmp_path):
    submission.write(tmp_path / "s", manifest_of(respondents=2), {"vsm13": answers_of(respondents=2)})
    edit(tmp_path / "s", "seed", -3)
    refused(tmp_path / "s", "manifest.json", "seed")


@pytest.mark.parametrize("respondents", [100_000, 30_000])
def test_many_respondents_cost_nothing(folder, respondents):
    """A small manifest must not make the reader build millions of prompts: rows says that they cannot be there."""
    edit(folder, "tasks.0.respondents", respondents)
    code = (
        "import json,sys,time\n"
        "from pathlib import Path\n"
        "from culteval.errors import CultevalError\n"
        "from culteval.harness import submission\n"
        "before = time.process_time()\n"
        "try: submission.read(Path(sys.argv[1]))\n"
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
    assert "respondents" in text or "rows" in text
    assert seconds < 1.0
    assert megabytes < 300


# ---------------------------------------------------------------- answers


def changed(**fields):
    return lambda line: (json.dumps(json.loads(line) | fields) + "\n").encode()


def raw(old, new):
    def change(line):
        data = json.loads(line)
        data[old] = "@RAW@"
        return json.dumps(data).encode().replace(b'"@RAW@"', new) + b"\n"

    return change


BAD_LINES = {
    "NaN": (raw("probs", b"[NaN,0,0,0,1]"), "probs"),
    "Infinity": (raw("probs", b"[Infinity,0,0,0,1]"), "probs"),
    "overflow": (raw("probs", b"[1e999,0,0,0,1]"), "probs"),
    "negative": (changed(probs=[-0.1, 0.6, 0.5, 0, 0]), "probs"),
    "above one": (changed(probs=[1.1, 0, 0, 0, 0]), "probs"),
    "sum 0.9": (changed(probs=[0.2, 0.2, 0.2, 0.2, 0.1]), "0.9"),
    "sum 0": (changed(probs=[0, 0, 0, 0, 0]), "probs"),
    "sum 5": (changed(probs=[1, 1, 1, 1, 1]), "probs"),
    "four options": (changed(probs=[0.25] * 4), "probs"),
    "six options": (changed(probs=[0.2] * 5 + [0]), "probs"),
    "no options": (changed(probs=[]), "probs"),
    "many options": (changed(probs=[0.001] * 1000), "probs"),
    "null": (changed(probs=None), "probs"),
    "words": (changed(probs=["a", "b", "c", "d", "e"]), "probs"),
    "nested": (raw("probs", b"[" * 2000 + b"]" * 2000), ""),
    "outside negative": (changed(outside=-0.01), "outside"),
    "outside above one": (changed(outside=1.01), "outside"),
    "outside NaN": (raw("outside", b"NaN"), "outside"),
    "unknown item": (changed(item="m99"), "m99"),
    "unknown wording": (changed(wording="Z"), "Z"),
    "unknown order": (changed(order="sideways"), "order"),
    "order not asked": (changed(wording="A", order="reversed"), "reversed"),
    "unknown respondent": (changed(respondent=1), "respondent"),
    "negative respondent": (changed(respondent=-1), "respondent"),
    "unknown task": (changed(task="vsm31"), "vsm31"),
    "long task": (changed(task="x" * 5000), "task"),
    "hostile item": (changed(item="\x1b[2J\n\n\n" + "x" * 100), "item"),
    "unknown field": (changed(evil=1), "evil"),
    "hostile field": (changed(**{"\x1b[2J\n\n\nok": 1}), ""),
    "long field": (changed(**{"k" * 20_000: 1}), ""),
    "parsed 9": (changed(text="9", parsed=9), "parsed"),
    "parsed 0": (changed(text="0", parsed=0), "parsed"),
    "parsed -2": (changed(text="", parsed=-2), "parsed"),
    "parsed 1.5": (changed(text="", parsed=1.5), "parsed"),
    "parsed huge": (changed(text="", parsed=10**30), "parsed"),
    "long text": (changed(text="x" * 20_001, parsed=1), "text"),
    "huge line": (changed(text="x" * 100_000, parsed=1), ""),
    "blank": (lambda line: b"\n", ""),
    "array": (lambda line: b"[1, 2]\n", ""),
    "half": (lambda line: line[:40] + b"\n", ""),
    "two objects": (lambda line: line.strip() + line, ""),
    "not UTF-8": (raw("item", b'"m\xff1"'), ""),
    "lone surrogate": (raw("text", b'"\\ud800"'), ""),
    "missing field": (lambda line: json.dumps({"task": "vsm13"}).encode() + b"\n", "item"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_line_is_named(folder, name):
    change, field = BAD_LINES[name]
    lines = lines_of(folder)
    lines[9] = change(lines[9])
    reseal(folder, lines)
    refused(folder, "answers.jsonl:10", field)


def test_answered_twice(folder):
    lines = lines_of(folder)
    lines[9] = lines[8]
    reseal(folder, lines)
    refused(folder, "answers.jsonl:10", "twice", "m09")


def test_missing_answer(folder):
    reseal(folder, lines_of(folder)[:50] + lines_of(folder)[51:])
    refused(folder, "manifest.json", "answers.rows: 143", "144 answers")


def test_too_many_lines(folder):
    with (folder / "answers.jsonl").open("ab") as file:
        file.write(lines_of(folder)[0])
    refused(folder, f"answers.jsonl:{ROWS + 1}", "answers.rows")


def test_last_line_cut(folder):
    data = (folder / "answers.jsonl").read_bytes()
    (folder / "answers.jsonl").write_bytes(data[:-20])
    refused(folder, f"answers.jsonl:{ROWS}")


def test_cut_between_lines(folder):
    (folder / "answers.jsonl").write_bytes(b"".join(lines_of(folder)[:-3]))
    refused(folder, "answers.jsonl", str(ROWS - 3), "answers.rows")


def test_empty_answers(folder):
    (folder / "answers.jsonl").write_bytes(b"")
    refused(folder, "answers.jsonl")


def test_wrong_hash(folder):
    edit(folder, "answers.sha256", "0" * 64)
    refused(folder, "answers.jsonl", "answers.sha256")


def test_answers_changed_after_sealing(folder):
    lines = lines_of(folder)
    lines[3] = changed(probs=[1, 0, 0, 0, 0])(lines[3])
    (folder / "answers.jsonl").write_bytes(b"".join(lines))
    refused(folder, "answers.jsonl", "sha256")


# ---------------------------------------------------------------- things that are not files


@pytest.mark.parametrize("name", ["manifest.json", "answers.jsonl"])
@pytest.mark.parametrize("kind", ["missing", "folder", "fifo", "zero", "loop", "dangling"])
def test_not_a_plain_file(folder, name, kind):
    path = folder / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind in ("zero", "loop", "dangling"):
        path.symlink_to({"zero": "/dev/zero", "loop": path, "dangling": folder / "none"}[kind])
    signal.setitimer(signal.ITIMER_REAL, 3)
    refused(folder, name)


def test_a_fifo_in_place_of_the_folder(tmp_path):
    os.mkfifo(tmp_path / "f")
    signal.setitimer(signal.ITIMER_REAL, 3)
    refused(tmp_path / "f", "f")


def test_no_such_folder(tmp_path):
    assert "none" in str(refused(tmp_path / "none"))


# ---------------------------------------------------------------- fuzz


def tolerated(folder):
    """Accepted, or refused as a message to a person; nothing else may come out."""
    try:
        submission.read(folder)
    except (InputError, UsageError) as error:
        assert len(str(error).splitlines()) <= 2, str(error)
        return True
    return False


def test_any_leaf_replaced_by_anything(tmp_path):
    submission.write(tmp_path / "s", manifest_of(respondents=1), {"vsm13": answers_of(respondents=1)})
    file = tmp_path / "s" / "manifest.json"
    data, bad = json.loads(file.read_text()), 0
    odd = [None, -1, True, 10**25, 1e308, "", [], {}, "\ud800", "../../x.yaml"]

    def leaves(node, way=()):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield (*way, key)
            if isinstance(value, dict | list):
                yield from leaves(value, (*way, key))

    for way in leaves(data):
        for value in odd:
            changed_data = copy.deepcopy(data)
            place = changed_data
            for part in way[:-1]:
                place = place[part]
            place[way[-1]] = value
            file.write_text(json.dumps(changed_data))
            try:
                bad += tolerated(tmp_path / "s")
            except Exception as error:
                pytest.fail(f"{way} = {value!r}: {type(error).__name__}: {error}")
    assert bad > 200


def test_flipped_bytes(folder):
    rng, bad = random.Random(11), 0
    for name in ("manifest.json", "answers.jsonl") * 25:
        path = folder / name
        data = path.read_bytes()
        broken = bytearray(data)
        for _ in range(3):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        bad += tolerated(folder)
        path.write_bytes(data)
    assert bad > 30
    assert not tolerated(folder)


def test_json_schema_covers_what_is_written(pristine):
    schema = submission.json_schema()
    manifest = json.loads((pristine / "manifest.json").read_text())
    assert set(manifest) <= set(schema["manifest"]["properties"])
    assert set(json.loads(lines_of(pristine)[0])) <= set(schema["answer"]["properties"])
    assert schema["manifest"]["additionalProperties"] is False
