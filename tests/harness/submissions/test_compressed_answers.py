"""Answers compressed by zstd: the same answers as plain ones, and no way to make a reader large or slow."""

import hashlib
import json
import random
import shutil
import subprocess
import sys
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest
from culteval.errors import InputError
from culteval.harness.submissions import reader, writer
from culteval.harness.submissions.reader import read_submission
from culteval.harness.submissions.writer import write_submission

from ... import submission_files
from ...submission_files import ROWS, answers_of, edit, manifest_of, refused, unpacked

alarm = submission_files.alarm


def compressed(data, level=1):
    return pa.Codec("zstd", compression_level=level).compress(data, asbytes=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("written") / "s"
    write_submission(folder, manifest_of(personas=2), {"vsm13": answers_of(personas=2)})
    return folder


@pytest.fixture
def folder(written, tmp_path):
    shutil.copytree(written, tmp_path / "s")
    return tmp_path / "s"


def test_plain_or_compressed_is_one_submission(folder, tmp_path):
    """Nothing of the manifest hangs on how answers are stored, and they are read to the last bit alike."""
    plain = unpacked(shutil.copytree(folder, tmp_path / "plain"))
    assert {path.name for path in plain.iterdir()} == {"manifest.json", "answers.jsonl"}
    (one, first), (other, second) = read_submission(folder), read_submission(plain)
    assert one == other and one.answers.file == "answers.jsonl"
    assert one.answers.sha256 == hashlib.sha256((plain / "answers.jsonl").read_bytes()).hexdigest()
    np.testing.assert_array_equal(first["vsm13"].probs, second["vsm13"].probs)
    np.testing.assert_array_equal(first["vsm13"].off_options, second["vsm13"].off_options)
    assert 3 * (folder / "answers.jsonl.zst").stat().st_size < (plain / "answers.jsonl").stat().st_size


def test_frames_and_other_compressors(folder, monkeypatch, tmp_path):
    """Many frames, as for large submissions, and whatever level or version somebody else's zstd had."""
    monkeypatch.setattr(writer, "FRAME", 1000)
    write_submission(tmp_path / "many", manifest_of(personas=2), {"vsm13": answers_of(personas=2)})
    data = (tmp_path / "many" / "answers.jsonl.zst").read_bytes()
    assert data.count(b"\x28\xb5\x2f\xfd") > 20  # magic numbers of frames
    assert read_submission(tmp_path / "many")[0] == read_submission(folder)[0]
    plain = submission_files.bytes_of(folder)
    (folder / "answers.jsonl.zst").write_bytes(compressed(plain, level=-5))
    assert read_submission(folder)[0].answers.rows == 2 * ROWS


def test_both_files_are_refused(folder):
    (folder / "answers.jsonl").write_bytes(submission_files.bytes_of(folder))
    refused(folder, "answers.jsonl", "answers.jsonl.zst", "Remove one")


def test_damage_is_named(folder):
    """Every cut and flip is refused in a line: zstd has no sum of its own here, the manifest's hash has."""
    path, rng = folder / "answers.jsonl.zst", random.Random(3)
    data = path.read_bytes()
    for _ in range(60):
        broken = bytearray(data)
        if rng.random() < 0.3:
            del broken[rng.randrange(len(data)) :]
        else:
            broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            read_submission(folder)
        except InputError as error:
            assert "answers.jsonl.zst" in str(error) and len(str(error).splitlines()) == 1
        else:  # a bit that decides nothing, such as the one that says how large the window is
            assert (
                hashlib.sha256(submission_files.bytes_of(folder)).hexdigest()
                == json.loads((folder / "manifest.json").read_text())["answers"]["sha256"]
            )
    path.write_bytes(b"{}")
    refused(folder, "answers.jsonl.zst")


def peak(action):
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as caught:
            action()
        return tracemalloc.get_traced_memory()[1], pa.total_allocated_bytes(), str(caught.value)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "content, said",
    [
        (lambda line: b"\0" * (200 << 20), "longer than"),  # one endless line
        (lambda line: line * 400_000, "answered twice"),  # more of what is there
        (lambda line: b"\n" * (20 << 20), "Invalid JSON"),
    ],
)
def test_bombs_are_refused_early_and_in_little_memory(folder, content, said):
    line = submission_files.lines_of(folder)[0]
    data = compressed(content(line))
    assert len(data) < 1 << 20
    path = folder / "answers.jsonl.zst"
    path.write_bytes(data + path.read_bytes())  # large enough for its rows
    python, arrow, text = peak(lambda: read_submission(folder))
    assert python < 8 << 20 and arrow < 8 << 20 and said in text


def test_nothing_large_is_built_for_a_small_file(folder):
    """A million answers cannot be in so few bytes, whatever they compress to: refused before tables are made."""
    edit(folder, "tasks.0.personas", 6000)
    edit(folder, "answers.rows", 6000 * ROWS)
    python, _, text = peak(lambda: read_submission(folder))
    assert "too few for the 864000 lines" in text and python < 4 << 20


def test_all_lines_together_are_bounded(folder, monkeypatch):
    monkeypatch.setattr(reader, "MOST_BYTES", 10_000)
    refused(folder, "answers.jsonl.zst", "more than 10,000 bytes")


def test_the_most_monotonous_answers_are_read(tmp_path):
    """What compresses best of all that can be written: everybody gives the same answer to everything."""
    given = answers_of(personas=300)
    probs = np.broadcast_to([1.0, 0.0, 0.0, 0.0, 0.0], given.probs.shape).copy()
    same = type(given)(given.layout, probs, np.zeros_like(given.off_options))
    write_submission(tmp_path / "s", manifest_of(personas=300), {"vsm13": same})
    assert len(read_submission(tmp_path / "s")[1]["vsm13"].layout) == 300 * ROWS
    size = (tmp_path / "s" / "answers.jsonl.zst").stat().st_size
    assert size * reader.MOST_RATIO / 2 > 300 * ROWS * reader.LEAST_LINE_BYTES  # far from the bound


def test_reading_needs_no_torch(folder):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from culteval.harness.submissions.reader import read_submission\n"
        f"print(read_submission(Path({str(folder)!r}))[0].answers.rows)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == f"{2 * ROWS}\n", done.stderr
