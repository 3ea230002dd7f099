"""Submissions: written and read back, written by hand, and what their schema covers."""

import hashlib
import json
import random

import numpy as np
import pytest
from culteval.harness.submissions.manifest import json_schema
from culteval.harness.submissions.reader import read_submission
from culteval.harness.submissions.writer import write_submission
from culteval.tasks.answers import UNPARSED

from ... import submission_files
from ...submission_files import ROWS, VSM, answers_of, bytes_of, lines_of, manifest_of

alarm, folder, pristine = submission_files.alarm, submission_files.folder, submission_files.pristine


def hash_by_hand():
    digest = hashlib.sha256()
    for name in ("vsm13.yaml", "items.yaml"):
        digest.update(name.encode() + b"\0" + (VSM / name).read_bytes() + b"\0")
    return digest.hexdigest()


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# ---------------------------------------------------------------- round trip


@pytest.mark.parametrize("personas", [0, 1, 3])
def test_round_trip(tmp_path, personas):
    given = answers_of(personas=personas, seed=4)
    written = write_submission(tmp_path / "s", manifest_of(personas=personas, seed=4), {"vsm13": given})
    manifest, read = read_submission(tmp_path / "s")
    assert manifest == written
    assert manifest.answers.rows == ROWS * max(1, personas) == len(given.layout)
    assert manifest.answers.sha256 == hashlib.sha256(bytes_of(tmp_path / "s")).hexdigest()
    back = read["vsm13"]
    np.testing.assert_allclose(back.probs, given.probs, atol=1e-9, rtol=0)
    np.testing.assert_allclose(back.off_options, given.off_options, atol=1e-9, rtol=0)
    assert np.unique(back.probs).size > 100  # not a table of defaults
    for name in ("item", "paraphrase", "order", "persona", "codes", "widths"):
        np.testing.assert_array_equal(getattr(back.layout, name), getattr(given.layout, name))
    assert back.layout.personas == max(1, personas)
    assert back.texts is None and back.parsed is None


def test_texts_and_parsed_round_trip(tmp_path):
    given = answers_of("vsm13_text", texts=True)
    write_submission(tmp_path / "s", manifest_of(("vsm13_text",)), {"vsm13_text": given})
    back = read_submission(tmp_path / "s")[1]["vsm13_text"]
    assert back.texts == given.texts
    np.testing.assert_array_equal(back.parsed, given.parsed)
    assert {UNPARSED, 1, 5} <= set(back.parsed.tolist())


def test_several_tasks_in_one_submission(tmp_path):
    given = {"vsm13": answers_of(), "vsm13_text": answers_of("vsm13_text", texts=True)}
    write_submission(tmp_path / "s", manifest_of(tuple(given)), given)
    manifest, back = read_submission(tmp_path / "s" / "manifest.json")
    assert [task.name for task in manifest.tasks] == list(back) == ["vsm13", "vsm13_text"]
    assert manifest.answers.rows == 2 * ROWS
    assert back["vsm13"].texts is None
    assert back["vsm13_text"].texts == given["vsm13_text"].texts


def test_written_twice_is_identical_and_replaces(tmp_path):
    for name in ("a", "b", "a"):
        write_submission(tmp_path / name, manifest_of(personas=2), {"vsm13": answers_of(personas=2)})
    assert sorted(contents(tmp_path / "a")) == ["answers.jsonl.zst", "manifest.json"]
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    write_submission(tmp_path / "s", manifest_of(), {"vsm13": answers_of()})
    before, bad = contents(tmp_path), answers_of()
    bad.probs[0, 100, 2] = np.nan
    with pytest.raises(ValueError):
        write_submission(tmp_path / "s", manifest_of(), {"vsm13": bad})
    assert contents(tmp_path) == before
    with pytest.raises(ValueError):
        write_submission(tmp_path / "new", manifest_of(), {"vsm13": bad})
    assert [p.name for p in tmp_path.iterdir()] == ["s"]


def test_written_by_hand_in_any_order(tmp_path):
    import yaml

    metadata = yaml.safe_load((VSM / "vsm13.yaml").read_text().replace("!function", ""))["metadata"]
    items = list(yaml.safe_load((VSM / "items.yaml").read_text())["items"])
    rng, lines, want = random.Random(3), [], {}
    for split in metadata["splits"].values():
        for paraphrase in split["paraphrases"]:
            for order in split["orders"]:
                for item in items:
                    share = rng.random()
                    probs, outside = [share, 0, 0, 1 - share, 0], rng.random()
                    want[item, paraphrase, order] = (probs, outside)
                    cell = {"item": item, "paraphrase": paraphrase, "order": order, "persona": 0}
                    lines.append(json.dumps({"off_options": outside, "probs": probs, **cell, "task": "vsm13"}))
    rng.shuffle(lines)
    data = ("\r\n".join(lines)).encode()  # another line ending, and none after the last
    (tmp_path / "answers.jsonl").write_bytes(data)
    manifest = manifest_of()
    manifest["tasks"] = [{"name": "vsm13", "hash": hash_by_hand(), "country": "SA"}]
    manifest["answers"] = {"sha256": hashlib.sha256(data).hexdigest(), "rows": len(lines)}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    back = read_submission(tmp_path)[1]["vsm13"]
    assert len(want) == len(back.layout) == ROWS
    for row in range(ROWS):
        at = back.layout
        key = (at.items[at.item[row]], at.paraphrases[at.paraphrase[row]], at.orders[at.order[row]])
        assert back.probs[0, row].tolist() == want[key][0]
        assert back.off_options[0, row] == want[key][1]


def test_json_schema_covers_what_is_written(pristine):
    schema = json_schema()
    manifest = json.loads((pristine / "manifest.json").read_text())
    assert set(manifest) <= set(schema["manifest"]["properties"])
    assert set(json.loads(lines_of(pristine)[0])) <= set(schema["answer"]["properties"])
    assert schema["manifest"]["additionalProperties"] is False
