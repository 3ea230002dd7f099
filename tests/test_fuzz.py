"""Strangers' files, mutated at random: each is read, or refused in one or two plain lines, within bounds.

Every reader gets a few hundred inputs with the fast tests and ten thousand with the slow ones. A mutation changes bytes
of a real file, or puts something else in the place of a field; the seeds are fixed, so that a failure can be repeated.
"""

import hashlib
import io
import json
import os
import random
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from culteval.errors import CultevalError, InputError
from culteval.harness import submission
from culteval.harness.budget import Budget
from culteval.harness.cli import cli
from culteval.harness.registry import spec_of
from culteval.harness.scoring import score_submission
from culteval.tasks import reading
from culteval.tasks.prompts import Asking, protocol
from culteval.tasks.spec import load_spec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TASKS = Path(__file__).parent.parent / "tasks"
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


def counts(fast, slow=10_000):
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


def as_yaml(tree):
    """YAML of a spec's plain data; lm-eval's functions are strings in it, which is how we read them."""
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")


# ---------------------------------------------------------------- task folders


def task_changer(folder):
    """Mutates the spec or the questions of a task folder, by bytes or by fields."""
    spec, questions = folder / "mytask.yaml", folder / "questions.jsonl"
    whole = {path: path.read_bytes() for path in (spec, questions)}
    tree = reading.parse_yaml(whole[spec].decode(), "spec")
    rows = [json.loads(line) for line in whole[questions].splitlines()]

    def change(rng):
        for path, data in whole.items():
            path.write_bytes(data)
        kind = rng.randrange(4)
        if kind == 0:
            spec.write_bytes(mutated(whole[spec], rng))
        elif kind == 1:
            spec.write_bytes(as_yaml(replaced(tree, rng)))
        elif kind == 2:
            questions.write_bytes(mutated(whole[questions], rng))
        else:
            changed = [*rows[:-1], replaced(rows[-1], rng)]
            questions.write_text("\n".join(json.dumps(row) for row in changed), encoding="utf-8")

    return change


@counts(300)
def test_task_folders(home, inputs):
    fuzz(inputs, task_changer(home / "mytask"), lambda: load_spec(home / "mytask" / "mytask.yaml"))


@counts(100, 1_000)
def test_task_validate(home, inputs):
    """All that ``task validate`` does: rendering, leakage, measures, one prompt shown."""

    def validate():
        done = CliRunner().invoke(cli, ["task", "validate", "mytask/mytask.yaml"])
        assert done.output.replace("\n", "").isprintable(), done.output
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception

    fuzz(inputs, task_changer(home / "mytask"), validate)


SURVEY = """language: en
codes: {agree: [1, 2, 3]}
items: {a: {scale: agree, stem: how, dimension: x}, b: {scale: agree, stem: null, dimension: y, split: fit}}
wordings:
  A: {instruction: "One number.", scales: {agree: [aye, "", nay]}, stems: {how: "How so:"}, items: {a: "A?", b: "B?"}}
  B: {instruction: "A number.", scales: {agree: [yea, "", nope]}, stems: {how: "Why:"}, items: {a: "Aa?", b: "Bb?"}}
"""
PERSONAS = """order: [sex, age]
attributes:
  sex: {values: {man: 0.5, woman: 0.5}}
  age: {given: [sex], where: {man: {"old": 1.0}, woman: {"young": 1.0}}}
texts: {en: "You are a {age} {sex}."}
"""
GRID = """models: [smollm2]
aligners: [naive, {name: de, settings: {tokens: 3}, budget: 4}]
tasks: [vsm13, [vsm13, probes]]
countries: [SA, null]
seeds: [0, 1]
options: {limit: 1}
"""


def yaml_readers():
    from culteval.harness.sweep import read_grid
    from culteval.tasks.items import Survey
    from culteval.tasks.respondents import Population
    from culteval.tasks.spec import parse, read_yaml

    return {
        "survey": (SURVEY, lambda path: parse(Survey, read_yaml(path), path)),
        "personas": (PERSONAS, lambda path: parse(Population, read_yaml(path), path)),
        "sweep": (GRID, read_grid),
        "settings": ("tokens: 4\nmutation: [0.5, 1.0]\nstrategy: best1bin\n", read_yaml),
    }


@counts(200)
@pytest.mark.parametrize("kind", ["survey", "personas", "sweep", "settings"])
def test_yaml_files(tmp_path, kind, inputs):
    text, read = yaml_readers()[kind]
    path, tree = tmp_path / "file.yaml", yaml.safe_load(text)
    read_whole = path.write_text(text) and read(path)
    assert read_whole

    def change(rng):
        path.write_bytes(mutated(text.encode(), rng) if rng.random() < 0.5 else as_yaml(replaced(tree, rng)))

    fuzz(inputs, change, lambda: read(path))


def tenfold(line):
    """A line for each of eight names, which stands for ten times the one before."""
    pairs = zip("abcdefgh", "bcdefghi", strict=True)
    return "".join(line.format(b=b, many=", ".join([f"*{a}"] * 10)) for a, b in pairs)


BOMBS = {
    "laughs": "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + tenfold("{b}: &{b} [{many}]\n"),
    "merge keys": "a: &a {x: 1, y: 2}\n" + tenfold("{b}: &{b} {{<<: [{many}], {b}{b}: 1}}\n"),
    "deep": "a: " + "[" * 100_000,
    "deep blocks": "".join(" " * depth + "a:\n" for depth in range(800)),
    "a ring": "a: &a [*a]\n",
    "many values": "a: [" + "1," * 400_000 + "1]\n",
    "a number in base 60": "a: " + ":".join(["1"] * 300_000) + "\n",
    "a huge number": "a: " + "9" * 900_000 + "\n",
    "a huge hexadecimal": "a: 0x" + "f" * 900_000 + "\n",
    "a huge key": "? " + "a" * 900_000 + "\n: 1\n",
    "too long": "a: " + "b" * (2 << 20) + "\n",
    "quotes": "a: " + '"\\x1b[2J"\n',
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_yaml_bombs(home, name):
    """As a spec, a sweep file and a settings file: refused, with little time and memory."""
    for file, *command in (
        ("mytask/mytask.yaml", "task", "validate", "mytask/mytask.yaml"),
        ("sweep.yaml", "sweep", "sweep.yaml", "--dry-run"),
        ("set.yaml", "run", "--aligner", "de", "--task", "vsm13", "--config", "set.yaml"),
    ):
        (home / file).write_text(BOMBS[name])
        started, before = time.process_time(), peak_memory(anew=True)
        done = CliRunner().invoke(cli, command)
        assert isinstance(done.exception, CultevalError), (file, done.exception)
        assert len(str(done.exception)) < 2_100
        assert peak_memory() - before < 100 << 10
        assert time.process_time() - started < MOST_SECONDS


def test_values_of_flags_are_bounded_too():
    from culteval.harness.config import aligner_settings

    for name in ("laughs", "merge keys", "deep", "a ring"):
        with pytest.raises(CultevalError) as caught:
            aligner_settings("de", [f"tokens={BOMBS[name][3:]}"])
        assert caught.value.exit_code == 2


def test_a_task_reads_no_file_outside_its_folder(home):
    """What a task asks may be sent to somebody's model: a stranger's spec must not choose the file."""
    spec = home / "mytask" / "mytask.yaml"
    text = spec.read_text()
    for name in ("../secret.jsonl", "/etc/passwd", "a/b.jsonl"):
        spec.write_text(text.replace("items: questions.jsonl", f"items: {name}"))
        with pytest.raises(InputError, match=r"metadata\.items"):
            load_spec(spec)


def test_control_characters_reach_no_terminal(home):
    """Escapes in questions are shown as escapes, in prompts and in errors."""
    path = home / "mytask" / "questions.jsonl"
    path.write_text(path.read_text().replace("What do many", "\\u001b[2J\\u202eWhat do many"))
    done = CliRunner().invoke(cli, ["task", "validate", "mytask/mytask.yaml"])
    assert done.exit_code == 0 and "\\x1b[2J\\u202eWhat" in done.output and "\x1b" not in done.output
    error = InputError("bad \x1b[31m\x9b\u202e name\nsecond\nthird\n")
    assert str(error) == "bad \\x1b[31m\\x9b\\u202e name\nsecond third"


# ---------------------------------------------------------------- submissions


def small_submission(folder):
    """A submission of the task ``mytask`` in the working folder."""
    spec = spec_of("mytask")
    layout = protocol(spec, Asking(2)).layout
    probs = np.random.default_rng(0).dirichlet(np.ones(4), (1, len(layout)))
    from culteval.tasks.answers import Answers

    texts = tuple("A." for _ in range(len(layout)))
    given_ = Answers(layout, probs, np.zeros((1, len(layout))), texts, np.ones(len(layout), dtype=int))
    asked = {"name": "mytask", "hash": spec.hash, "country": "DE", "respondents": 2}
    manifest = {
        "tasks": [asked],
        "model": {"name": "m", "revision": "r", "dtype": "float32", "device": "cpu", "threads": 1,
                  "chat_template": None, "forward": "packed"},
        "aligner": {"name": "de", "settings": {"tokens": 3, "mutation": [0.5, 1.0]}, "adapter_sha256": None},
        "fitted": {"tasks": ["mytask"], "country": "DE", "readout": "expected", "norm": "sse"},
        "country": "DE", "seed": 0, "versions": {"culteval": "0"}, "command": "culteval run",
        "budget": {"item_forwards_allowed": 4, "item_forwards": 4, "survey_evaluations": 1.0,
                   "tokens": 7, "seconds": 1.5},
    }  # fmt: skip
    submission.write(folder, manifest, {"mytask": given_})


def seal(folder):
    """Make the manifest's hash and number of rows those of the answers, as a hostile writer would."""
    answers, path = (folder / "answers.jsonl").read_bytes(), folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["answers"] |= {"sha256": hashlib.sha256(answers).hexdigest(), "rows": answers.count(b"\n")}
    path.write_text(json.dumps(manifest))


@counts(200)
def test_submissions(home, inputs):
    """Read and scored, the answers sealed again after they were changed."""
    folder = home / "s"
    small_submission(folder)
    whole = {path: path.read_bytes() for path in folder.iterdir()}
    manifest, answers = folder / "manifest.json", folder / "answers.jsonl"
    lines = whole[answers].splitlines()

    def change(rng):
        for path, data in whole.items():
            path.write_bytes(data)
        if rng.random() < 0.4:
            new = json.dumps(replaced(json.loads(whole[manifest]), rng)).encode()
            manifest.write_bytes(new if rng.random() < 0.7 else mutated(whole[manifest], rng))
            return
        at = rng.randrange(len(lines))
        line = json.dumps(replaced(json.loads(lines[at]), rng)).encode()
        line = line if rng.random() < 0.6 else mutated(lines[at], rng)
        answers.write_bytes(b"\n".join([*lines[:at], line, *lines[at + 1 :], b""]))
        seal(folder)

    fuzz(inputs, change, lambda: score_submission(folder))


@pytest.mark.parametrize("respondents", [100_000, 20_000])
def test_what_is_built_does_not_outgrow_what_was_sent(home, respondents):
    """A manifest that is right about itself, and asks for millions of answers that its small file cannot hold."""
    small_submission(home / "s")
    path = home / "s" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["tasks"][0]["respondents"] = respondents
    manifest["answers"]["rows"] = respondents * 6
    path.write_text(json.dumps(manifest))
    before = peak_memory(anew=True)
    with pytest.raises(InputError, match="too few"):
        submission.read(home / "s")
    assert peak_memory() - before < 20 << 10


@pytest.mark.parametrize(
    ("field", "value"), [("edition", "1815"), ("constants", "lunar"), ("country", "ZZ"), ("country", "EG")]
)
def test_what_a_manifest_asks_for_and_nobody_has_is_a_bad_file(tmp_path, field, value):
    from culteval.harness.registry import spec_path

    spec = load_spec(spec_path("vsm13"))
    layout = protocol(spec, Asking()).layout
    from culteval.tasks.answers import Answers

    folder = tmp_path / "s"
    asked = {"name": "vsm13", "hash": spec.hash, "country": "SA", "edition": "extended"} | {field: value}
    model = {name: "x" for name in ("name", "revision", "dtype", "device", "forward")} | {
        "threads": 1,
        "chat_template": None,
    }
    spent = dict.fromkeys(("item_forwards_allowed", "item_forwards", "survey_evaluations", "tokens", "seconds"), 0)
    manifest = {"tasks": [asked], "model": model, "aligner": {"name": "a", "settings": {}, "adapter_sha256": None}}
    manifest |= {"fitted": None, "country": "SA", "seed": 0, "versions": {}, "command": "", "budget": spent}
    answers = Answers(layout, np.full((1, len(layout), 5), 0.2), np.zeros((1, len(layout))))
    submission.write(folder, manifest, {"vsm13": answers})
    with pytest.raises(InputError, match=r"tasks\.0: "):
        score_submission(folder)
    repair = {"edition": {"edition": "2015"}, "constants": {"constants": "zero"}, "country": {}}[field]
    assert score_submission(folder, "US", repair)[1]
    done = CliRunner().invoke(cli, ["score", str(folder), "--country", ""])
    assert isinstance(done.exception, CultevalError)


def test_an_empty_country_is_not_the_default(home):
    small_submission(home / "s")
    done = CliRunner().invoke(cli, ["score", str(home / "s"), "--country", ""])
    assert isinstance(done.exception, CultevalError) and done.exception.exit_code == 2
    assert "--country ''" in str(done.exception)


# ---------------------------------------------------------------- dialogues, verdicts, run folders


def episode(number):
    return {
        "episode_id": f"e{number}", "scenario": "A shop.", "codename": "shop", "country": "SA", "intents": ["", ""],
        "agents_background": {"Ann": "Ann is old.", "Bo": "Bo is young."}, "social_goals": {"Ann": "buy", "Bo": "sell"},
        "social_interactions": 'Ann said: "Good day"\n\nBo [non-verbal communication] nods',
    }  # fmt: skip


@counts(300)
def test_dialogues(tmp_path, inputs):
    from culteval.optimizers.clca.dialogues import read_dialogues

    path, rows = tmp_path / "d.jsonl", [episode(0), episode(1)]

    def change(rng):
        text = "\n".join(json.dumps(row) for row in rows).encode()
        if rng.random() < 0.5:
            text = "\n".join(json.dumps(row) for row in (rows[0], replaced(rows[1], rng))).encode()
            path.write_bytes(text)
        else:
            path.write_bytes(mutated(text, rng))

    fuzz(inputs, change, lambda: read_dialogues(path))


def record_readers(home):
    """Small JSON files of ours that a stranger may hand on: a valid one, and what reads it."""
    from culteval.harness.folds import read_folds
    from culteval.harness.judge import read_verdicts
    from culteval.harness.run import read_config

    small_submission(home / "s")
    manifest, _ = submission.read(home / "s")
    config = {"aligner": "naive", "settings": {}, "model": "smollm2", "fit": ["mytask"], "fit_country": "DE",
              "tasks": ["mytask"], "country": "DE", "options": {"edition": None}, "readout": "expected"}  # fmt: skip
    fold = {"tokens": 3, "fold": 0, "train_loss": 1.0, "train_argmax": 1.0, "validation_loss": 1.0,
            "validation_argmax": 1.0, "seconds": 1.0}  # fmt: skip
    line = json.dumps({"task": "mytask", "row": 0, "prompt": "p", "reply": "A", "verdict": "high"}) + "\n"
    (home / "s" / "verdicts.jsonl").write_text(line)
    judge = {"model": "m", "model_args": "", "answers_sha256": manifest.answers.sha256, "rows": 1,
             "verdicts_sha256": hashlib.sha256(line.encode()).hexdigest()}  # fmt: skip
    return {
        "config": (config, home / "r" / "config.json", lambda: read_config(home / "r")),
        "folds": ([fold], home / "folds.json", lambda: read_folds(home / "folds.json")),
        "judge": (judge, home / "s" / "judge.json", lambda: read_verdicts(home / "s", manifest)),
    }


@counts(150)
@pytest.mark.parametrize("kind", ["config", "folds", "judge"])
def test_records(home, kind, inputs):
    tree, path, read = record_readers(home)[kind]
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(tree))
    assert read()

    def change(rng):
        data = json.dumps(tree).encode()
        path.write_bytes(mutated(data, rng) if rng.random() < 0.5 else json.dumps(replaced(tree, rng)).encode())

    fuzz(inputs, change, read)


# ---------------------------------------------------------------- tables


def table_readers():
    from culteval.tasks.importing import form, questions, wvs7
    from culteval.tasks.metrics.reference import load_scores
    from culteval.tasks.metrics.shares import load_shares

    easy = ",".join(questions.EASY) + '\n1,"Why, so?",a,b,c,d,B,Germany\n2,What?,e,f,g,h,A,Japan\n'
    hard = ",".join(questions.HARD) + "\n1,Why?,a,True,Germany\n1,Why?,b,False,Germany\n"
    pairs = ",".join(questions.CDEVAL) + "\nWhat now?,this,that,Power Distance\nAnd so?,on,off,Indulgence\n"
    items = [f"m{number:02d},Is it {number}?,1,2,3,4,5" for number in range(1, 25)]
    scores = "iso2,pdi,idv,mas,uai,lto,ivr,source\nSA,1,2,3,4,5,6,matrix-2015\n"
    wave = [wvs7.COUNTRY, wvs7.WEIGHT, *wvs7._questions()]
    return {
        "easy": (easy, lambda path: questions.culturalbench_easy(str(path), 0)),
        "hard": (hard, lambda path: questions.culturalbench_hard(str(path), 0)),
        "cdeval": (pairs, lambda path: questions.cdeval(str(path), 0)),
        "form": (",".join(form.COLUMNS) + "\n" + "\n".join(items) + "\n", lambda path: form.convert(str(path))),
        "scores": (scores, lambda path: load_scores(path, "extended")),
        "shares": ("country,question,code,share,count\nSE,a,0,0.5,3\nSE,a,1,0.5,4\n", load_shares),
        "wave": (
            ",".join(wave) + "\n" + ",".join(["SWE", "1.0", *"1" * (len(wave) - 2)]) + "\n",
            lambda path: list(wvs7.convert(path)[1]),
        ),
    }  # fmt: skip


@counts(200)
@pytest.mark.parametrize("kind", ["easy", "hard", "cdeval", "form", "scores", "shares", "wave"])
def test_tables(tmp_path, monkeypatch, kind, inputs):
    from culteval.tasks.importing import form, wvs7

    text, read = table_readers()[kind]
    asked, survey = wvs7._questions(), form.load_spec(form._SPEC)  # read once: they are ours
    monkeypatch.setattr(wvs7, "_questions", lambda: asked)
    monkeypatch.setattr(form, "load_spec", lambda path: survey)
    path = tmp_path / "table.csv"
    path.write_text(text)
    assert read(path)
    fuzz(inputs, lambda rng: path.write_bytes(mutated(text.encode(), rng)), lambda: read(path))


@pytest.mark.parametrize(
    "text", ["a,b\n" + '"' + "x" * 200_000 + '",1\n', "a,b\n" + "1,2\n" * 600_000, '"' * 99_999, "a," * 2_000_000]
)
def test_tables_out_of_bounds(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    refusals = []

    def read():
        with pytest.raises(InputError) as caught:
            reading.read_csv(tmp_path / "t.csv", ("a", "b"))
        refusals.append(caught.value)
        raise caught.value

    survives(read)
    assert len(refusals) == 1


@pytest.mark.parametrize("kind", ["pipe", "folder", "large", "missing"])
def test_what_is_no_file_of_bounded_size_is_not_waited_for(tmp_path, kind, monkeypatch):
    path = tmp_path / "f"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(64 << 30)  # sparse
    for read in (reading.read_text, reading.read_yaml, lambda path: reading.read_csv(path, ("a",))):
        survives(lambda read=read: read(path))
        with pytest.raises(InputError):
            read(path)


class FakeHub:
    """A data set as the library gives it, or what it raises."""

    def __init__(self, monkeypatch, rows=None, error=None):
        import datasets

        def load(name, config=None, **options):
            assert not options.get("trust_remote_code")
            if error:
                raise error
            return datasets.DatasetDict({"test": datasets.Dataset.from_list(rows)})

        monkeypatch.setattr(datasets, "load_dataset", load)


PAIR = {"Question": "What now?", "Option 1": "this", "Option 2": "that", "Dimension": "Power Distance", "more": 3}


def test_a_data_set_of_the_hub_becomes_a_task(home, monkeypatch):
    FakeHub(monkeypatch, [PAIR, PAIR | {"Question": "And so?"}])
    done = CliRunner().invoke(cli, ["data", "import", "cdeval", "somebody/cdeval"])
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (home / "data" / "cdeval" / "cdeval.jsonl").read_text().splitlines()]
    assert [row["question"] for row in rows] == ["What now?", "And so?"] and {row["dimension"] for row in rows} == {
        "pdi"
    }
    source = json.loads((home / "data" / "cdeval" / "cdeval.source.json").read_text())
    assert source["source"] == "somebody/cdeval" and source["sha256"] is None


@pytest.mark.parametrize(
    ("rows", "error", "code", "words"),
    [
        (None, ConnectionError("no route\nto host"), 4, "Download the CSV"),
        (None, ValueError("needs trust_remote_code"), 4, "trust_remote_code"),
        ([{"Question": "a"}], None, 3, "no column 'Option 1'"),
        ([PAIR | {"Option 1": None}], None, 3, "options"),
        ([PAIR | {"Dimension": "\x1b[2J"}], None, 3, "Dimension"),
        ([PAIR] * 9, None, 3, "more than 8 rows"),
    ],
)
def test_hub_data_that_cannot_be_used(home, monkeypatch, rows, error, code, words):
    from culteval.tasks.importing import tables

    FakeHub(monkeypatch, rows, error)
    monkeypatch.setattr(tables, "MOST_ROWS", 8)
    done = CliRunner().invoke(cli, ["data", "import", "cdeval", "somebody/cdeval"])
    assert isinstance(done.exception, CultevalError), done.exception
    assert done.exception.exit_code == code and words in str(done.exception)
    assert not (home / "data").exists()


# ---------------------------------------------------------------- adapters and checkpoints


@counts(300)
def test_soft_prompts(tmp_path, inputs):
    from culteval.harness.aligned import KEY, read_soft_prompt
    from safetensors.numpy import save

    path = tmp_path / "adapter_model.safetensors"
    whole = save({KEY: np.random.default_rng(0).standard_normal((3, 8)).astype(np.float32)})
    head = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])

    def change(rng):
        if rng.random() < 0.5:
            path.write_bytes(mutated(whole, rng))
            return
        new = json.dumps(replaced(head, rng)).encode()
        path.write_bytes(len(new).to_bytes(8, "little") + new + whole[-96:])

    fuzz(inputs, change, lambda: read_soft_prompt(path, 8))


@pytest.mark.parametrize("dtype", ["F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "C64"])
def test_soft_prompts_of_other_types(tmp_path, dtype):
    from culteval.harness.aligned import KEY, read_soft_prompt

    width = {"F64": 8, "F16": 2, "BF16": 2, "I64": 8, "C64": 8}.get(dtype, 1)
    head = json.dumps({KEY: {"dtype": dtype, "shape": [3, 8], "data_offsets": [0, 24 * width]}}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(len(head).to_bytes(8, "little") + head + bytes(24 * width))
    survives(lambda: read_soft_prompt(path, 8))


@counts(300)
def test_lora_configurations(tmp_path, inputs):
    from culteval.harness.adapters import CONFIG, read_lora_config

    tree = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"],
            "bias": "none", "lora_dropout": 0.1, "use_rslora": False, "fan_in_fan_out": False}  # fmt: skip
    path = tmp_path / CONFIG

    def change(rng):
        data = json.dumps(tree).encode()
        path.write_bytes(mutated(data, rng) if rng.random() < 0.4 else json.dumps(replaced(tree, rng)).encode())

    fuzz(inputs, change, lambda: read_lora_config(tmp_path))


def searches():
    from culteval.optimizers.search.cma import CovarianceAdaptation
    from culteval.optimizers.search.de import DifferentialEvolution
    from culteval.optimizers.search.pso import ParticleSwarm

    rng = np.random.default_rng(0)
    start = rng.uniform(-1, 1, (5, 3))
    return {
        "de": DifferentialEvolution(start, rng=rng),
        "pso": ParticleSwarm(start, rng=rng),
        "cma": CovarianceAdaptation(start[0], sigma=1.0, seed=0, population=5),
    }


class Silent:
    def advance(self, *told):
        pass


@counts(200)
def test_checkpoints(tmp_path, inputs):
    """Damaged anywhere; sums of the archive tell."""
    from culteval.harness.journal import RunJournal

    search = searches()["de"]
    search.tell((search.ask() ** 2).sum(1))
    RunJournal(tmp_path, Budget(24, 24), Silent(), "de").save(search.state(), 0.0)
    whole = (tmp_path / "checkpoint.npz").read_bytes()

    def load():
        state = RunJournal(tmp_path, Budget(24, 24), Silent(), "de").load()
        again = type(search).from_state(state).state()
        assert all(np.array_equal(value, again[name]) for name, value in search.state().items())

    fuzz(inputs, lambda rng: (tmp_path / "checkpoint.npz").write_bytes(mutated(whole, rng)), load)


@pytest.mark.parametrize("kind", ["de", "pso", "cma"])
def test_a_forged_state_ends_a_run_in_one_line(tmp_path, kind):
    """What no search has written, as a stranger's run folder may have it: ``_align`` takes these errors for damage."""
    from culteval.harness.run import _ODD_STATE

    search, rng = searches()[kind], random.Random(0)
    for _ in range(3):
        search.tell((search.ask() ** 2).sum(1))
    whole = search.state()
    odd = (np.zeros(0), np.zeros((2, 2)), np.array(-1), np.array(1e300), np.full(7, np.nan), np.array("x"),
           np.frombuffer(b'{"bit_generator": "test"}', np.uint8), np.frombuffer(b"{}", np.uint8))  # fmt: skip
    for _ in range(200):
        state = whole | {rng.choice(list(whole)): rng.choice(odd)}
        started = time.process_time()
        try:
            again = type(search).from_state(state)
            again.tell((again.ask() ** 2).sum(1))
        except _ODD_STATE:
            pass
        assert time.process_time() - started < 1


def test_a_name_in_a_checkpoint_calls_nothing(monkeypatch):
    from culteval.optimizers.search.interface import unpack_rng

    monkeypatch.setattr(np.random, "seed", lambda: pytest.fail("called"))
    with pytest.raises(ValueError, match="no generator 'seed'"):
        unpack_rng(np.frombuffer(b'{"bit_generator": "seed"}', np.uint8))


def test_a_compressed_checkpoint_is_refused(tmp_path):
    """A megabyte of zeros may unpack to gigabytes; ours are not compressed."""
    from culteval.harness.journal import RunJournal

    np.savez_compressed(tmp_path / "checkpoint.npz", big=np.zeros(1 << 22))
    with pytest.raises(InputError, match="compressed"):
        RunJournal(tmp_path, Budget(24, 24), None, "de").load()
    with zipfile.ZipFile(tmp_path / "checkpoint.npz", "w") as archive:  # a header that promises what is not there
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (1 << 33,)})
        archive.writestr("big.npy", header.getvalue())
    survives(lambda: RunJournal(tmp_path, Budget(24, 24), None, "de").load())
