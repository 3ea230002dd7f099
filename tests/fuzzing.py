"""Mutations of strangers' files drawn from seeds, and what holds for every reader of them."""

import os
import random
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.errors import CultevalError, InputError
from culteval.harness.cli.main import cli
from culteval.harness.registry import spec_of
from culteval.harness.submissions.writer import write_submission
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

MOST_SECONDS, MOST_GROWTH = 5.0, 300 << 10  # of one input; kilobytes over all inputs of a reader
NASTY = (
    b"\0", b"\x1b[2J", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n\n", b"\t", b'"', b"'", b"{", b"}", b"[" * 60, b"]",
    b",", b":", b": ", b"- ", b"&a [*a]", b"*a", b"<<: *a", b"!!python/object/apply:os.system [id]", b"!!int ''",
    b"!!timestamp x", b"!!bool x", b"!!float x", b"!!binary x", b"!!set {a}", b"!function a.b", b"!function [a]",
    b"? [a]", b"~", b"null",
    b"true", b"NaN", b"-Infinity", b".nan", b".inf", b"1e999", b"-1", b"0", b"9" * 30, b"9" * 5000, b"1:1:1:1",
    b"0x" + b"f" * 60, b"2001-99-99", b"\\u001b", b"\\ud800", b"\\u202e", "\u2028".encode(), b"../../etc/passwd",
    b"/dev/zero", b"A" * 5000, b"{question}", b"{0.__class__}", b"%s", b"free:", b"=1+1", b"<script>",
)  # fmt: skip
JUNK = (
    None, True, -1, 0, 1, 2**70, 1.5, float("nan"), float("inf"), "", "x", "fit", "\x1b[2J", "\0", "\ud800",
    "../x", "/dev/zero", "x" * 9000,
    [], [None], [[]], ["a", "a"], {}, {"a": 1}, {"": None}, {1: 2}, [1, 2, 3], ["natural"], "text",
    "hofstede", "shares", "poles",
)  # fmt: skip


SLOW = int(os.environ.get("CULTEVAL_FUZZ_INPUTS", "2500"))  # 10,000 before a release


def counts(fast, slow=SLOW):
    """Numbers of inputs: with the fast tests, and with the slow ones."""
    return pytest.mark.parametrize("inputs", [fast, pytest.param(slow, marks=pytest.mark.slow)])


def mutated(data, rng):
    """Bytes with one to three places changed."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, kind = rng.randrange(len(data) + 1), rng.randrange(6)
        end = min(len(data), at + rng.choice((1, 2, 8, 40, 400)))
        new = {
            0: lambda: bytes([rng.randrange(256)]),
            1: lambda: b"",
            2: lambda data=data, at=at, end=end: data[at:end] * 2,
            3: lambda: rng.choice(NASTY),
            4: lambda data=data, at=at, end=end: bytes(data[at:end])[::-1],
            5: lambda: rng.choice(NASTY) + rng.choice(NASTY),
        }[kind]()
        data = data[:at] + new + data[end if kind in (1, 2, 4) else at + (kind == 0) :]
        if rng.random() < 0.05:
            data = data[:at]
    return data


def replaced(tree, rng):
    """A copy of plain data with one part of it dropped, doubled, renamed or put in the place of something odd."""
    if rng.random() < 0.15 or not isinstance(tree, dict | list) or not tree:
        return rng.choice(JUNK)
    if isinstance(tree, dict):
        key = rng.choice(list(tree))
        rest = {k: v for k, v in tree.items() if k != key}
        if rng.random() < 0.1:
            return rest
        if rng.random() < 0.1:
            return rest | {rng.choice(("x", "", "\x1b", "a.b", str(key) * 60)): tree[key]}
        return {k: replaced(v, rng) if k == key else v for k, v in tree.items()}
    at = rng.randrange(len(tree))
    if rng.random() < 0.2:
        return tree[:at] + tree[at + 1 :] * 2
    return [*tree[:at], replaced(tree[at], rng), *tree[at + 1 :]]


def survives(read):
    """Read, or be refused as a bad file: in one or two lines that a terminal may see, and soon."""
    started = time.process_time()
    try:
        read()
    except CultevalError as error:
        said = str(error)
        assert error.exit_code == InputError.exit_code, said
        assert 1 <= len(said.split("\n")) <= 2 and said.replace("\n", "").isprintable(), said
        assert len(said) < 2_100
    assert time.process_time() - started < MOST_SECONDS


def peak_memory(*, anew=False):
    """The most memory (kilobytes) that this process ever had; ``anew`` counts from now on."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def fuzz(inputs, change, read):
    """So many inputs: ``change(rng)`` writes one, ``read()`` reads it; hypothesis draws the seeds."""
    before = peak_memory(anew=True)

    @settings(
        max_examples=inputs, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(st.integers(0, 1 << 60))
    def one(seed):
        change(random.Random(seed))
        survives(read)

    one()
    assert peak_memory() - before < MOST_GROWTH


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with the template as a task of its own."""
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(cli, ["task", "new", "mytask"])
    return tmp_path


def small_submission(folder):
    """A submission of the task ``mytask`` in the working folder."""
    spec = spec_of("mytask")
    layout = render_protocol(spec, ProtocolOptions(2)).layout
    probs = np.random.default_rng(0).dirichlet(np.ones(4), (1, len(layout)))
    from culteval.tasks.answers import Answers

    texts = tuple("A." for _ in range(len(layout)))
    given_ = Answers(layout, probs, np.zeros((1, len(layout))), texts, np.ones(len(layout), dtype=int))
    asked = {"name": "mytask", "hash": spec.hash, "country": "DE", "personas": 2}
    manifest = {
        "tasks": [asked],
        "model": {"name": "m", "revision": "r", "dtype": "float32", "device": "cpu", "threads": 1,
                  "chat_template": None, "forward": "packed"},
        "aligner": {"name": "de", "settings": {"tokens": 3, "mutation": [0.5, 1.0]}, "adapter_sha256": None},
        "fitted": {"tasks": ["mytask"], "country": "DE", "scoring": "expected", "norm": "sse"},
        "country": "DE", "seed": 0, "versions": {"culteval": "0"}, "command": "culteval run",
        "budget": {"item_forwards_allowed": 4, "item_forwards": 4, "survey_evaluations": 1.0,
                   "tokens": 7, "seconds": 1.5},
    }  # fmt: skip
    write_submission(folder, manifest, {"mytask": given_})
