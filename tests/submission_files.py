"""A submission of answers drawn from a seed, changes to its files, and what a refusal of it looks like."""

import hashlib
import json
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.registry import spec_path
from culteval.harness.submissions.reader import read_submission
from culteval.harness.submissions.writer import write_submission
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from culteval.tasks.spec import load_spec
from pyarrow import input_stream

ROOT = Path(__file__).parent.parent
VSM = ROOT / "tasks" / "vsm13"
ROWS = 24 * (2 + 2 * 2)  # items x (fit paraphrases + held-out paraphrases x orders)


def manifest_of(tasks=("vsm13",), personas=0, seed=0):
    asked = [
        {"name": name, "hash": load_spec(spec_path(name)).hash, "country": "SA", "edition": "extended",
         "constants": "world", "personas": personas}
        for name in tasks
    ]  # fmt: skip
    return {
        "tasks": asked,
        "model": {"name": "m", "revision": "r", "dtype": "float32", "device": "cpu", "threads": 1,
                  "chat_template": None, "forward": "packed"},
        "aligner": {"name": "de", "settings": {"tokens": 3, "mutation": [0.5, 1.0]}, "adapter_sha256": None},
        "fitted": {"tasks": ["vsm13"], "country": "SA", "scoring": "expected", "norm": "sse"},
        "country": "SA",
        "seed": seed,
        "versions": {"culteval": "0.1.0"},
        "command": "culteval run",
        "budget": {"item_forwards_allowed": 2400, "item_forwards": 2400, "survey_evaluations": 100.0, "tokens": 7,
                   "seconds": 1.5},
    }  # fmt: skip


def answers_of(name="vsm13", personas=0, seed=0, texts=False):
    layout = render_protocol(load_spec(spec_path(name)), ProtocolOptions(personas, seed)).layout
    rng = np.random.default_rng(5)
    probs = rng.dirichlet(np.ones(layout.codes.shape[1]), (1, len(layout)))
    outside = rng.uniform(0, 1, (1, len(layout)))
    if not texts:
        return Answers(layout, probs, outside)
    parsed = rng.choice([UNPARSED, 1, 2, 3, 4, 5], len(layout))
    said = tuple("I rather not\n«☃» " if code == UNPARSED else f"{code}." for code in parsed)
    return Answers(layout, probs, outside, said, parsed)


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    """A submission with plain answers, as somebody writes it by hand."""
    folder = tmp_path_factory.mktemp("pristine") / "s"
    write_submission(folder, manifest_of(), {"vsm13": answers_of()})
    return unpacked(folder)


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
    (folder / "answers.jsonl.zst").unlink(missing_ok=True)
    (folder / "answers.jsonl").write_bytes(b"".join(lines))
    edit(folder, "answers.sha256", digest_of(folder / "answers.jsonl"))
    edit(folder, "answers.rows", len(lines))


def bytes_of(folder):
    """A submission's answers as plain bytes, whatever they are stored as."""
    plain = folder / "answers.jsonl"
    if plain.exists():
        return plain.read_bytes()
    with input_stream(f"{plain}.zst", compression="zstd") as stream:
        return stream.read()


def lines_of(folder):
    return bytes_of(folder).splitlines(keepends=True)


def rows_of(folder):
    return [json.loads(line) for line in lines_of(folder)]


def unpacked(folder):
    """The same folder, its answers plain."""
    data = bytes_of(folder)
    (folder / "answers.jsonl.zst").unlink(missing_ok=True)
    (folder / "answers.jsonl").write_bytes(data)
    return folder


def refused(path, *needles):
    """Reading is refused in one or two printable lines that hold the needles, and writes nothing."""
    top = path if path.is_dir() else path.parent
    before = sorted(str(p) for p in top.parent.rglob("*"))
    with pytest.raises((InputError, UsageError)) as caught:
        read_submission(path)
    text = str(caught.value)
    assert len(text.splitlines()) <= 2, text
    assert all(char.isprintable() or char == "\n" for char in text), ascii(text)
    assert len(text) < 1000 + len(str(path)), f"{len(text)} characters"
    for needle in needles:
        assert needle in text, text
    assert sorted(str(p) for p in top.parent.rglob("*")) == before
    return caught.value


def changed(**fields):
    return lambda line: (json.dumps(json.loads(line) | fields) + "\n").encode()
