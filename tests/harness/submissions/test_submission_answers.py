"""Every way in which a stranger's answers may be bad or no file, and submissions changed anywhere."""

import copy
import json
import os
import random
from dataclasses import replace

import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.submissions.manifest import MOST_TEXT
from culteval.harness.submissions.reader import read_submission
from culteval.harness.submissions.writer import write_submission

from ... import submission_files
from ...submission_files import ROWS, answers_of, changed, edit, lines_of, manifest_of, refused, reseal

alarm, folder, pristine = submission_files.alarm, submission_files.folder, submission_files.pristine

# ---------------------------------------------------------------- answers


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
    "outside negative": (changed(off_options=-0.01), "off_options"),
    "outside above one": (changed(off_options=1.01), "off_options"),
    "outside NaN": (raw("off_options", b"NaN"), "off_options"),
    "unknown item": (changed(item="m99"), "m99"),
    "unknown paraphrase": (changed(paraphrase="Z"), "Z"),
    "unknown order": (changed(order="sideways"), "order"),
    "order not asked": (changed(paraphrase="A", order="reversed"), "reversed"),
    "unknown persona": (changed(persona=1), "persona"),
    "negative persona": (changed(persona=-1), "persona"),
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


@pytest.mark.parametrize("letter", ["\x01", "\U0001f600", '"'])
def test_the_longest_texts_are_read_back(tmp_path, letter):
    """Whatever JSON makes of their characters."""
    given = answers_of("vsm13_text", texts=True)
    longest = replace(given, texts=(letter * MOST_TEXT,) * len(given.texts))
    write_submission(tmp_path / "s", manifest_of(("vsm13_text",)), {"vsm13_text": longest})
    _, found = read_submission(tmp_path / "s")
    assert set(found["vsm13_text"].texts) == {letter * MOST_TEXT}


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
    refused(folder, name)


def test_a_fifo_in_place_of_the_folder(tmp_path):
    os.mkfifo(tmp_path / "f")
    refused(tmp_path / "f", "f")


def test_no_such_folder(tmp_path):
    assert "none" in str(refused(tmp_path / "none"))


# ---------------------------------------------------------------- fuzz


def tolerated(folder):
    """Accepted, or refused as a message to a person; nothing else may come out."""
    try:
        read_submission(folder)
    except (InputError, UsageError) as error:
        assert len(str(error).splitlines()) <= 2, str(error)
        return True
    return False


def test_any_leaf_replaced_by_anything(tmp_path):
    write_submission(tmp_path / "s", manifest_of(personas=1), {"vsm13": answers_of(personas=1)})
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
