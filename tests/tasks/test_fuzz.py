"""Strangers' tasks, YAML files and tables, mutated at random: each is read, or refused in plain lines, within bounds.

Every reader gets a few hundred inputs with the fast tests, and 2,500 or ``CULTEVAL_FUZZ_INPUTS`` with the slow ones. A
mutation changes bytes of a real file, or puts something else in the place of a field; the seeds are fixed, so that a
failure can be repeated.
"""

import json
import os
import time

import pytest
import yaml
from click.testing import CliRunner
from culteval.errors import CultevalError, InputError
from culteval.harness.cli.main import cli
from culteval.tasks import reading
from culteval.tasks.spec import load_spec

from .. import data_sets, fuzzing
from ..fuzzing import MOST_SECONDS, counts, fuzz, mutated, peak_memory, replaced, survives

home = fuzzing.home


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
paraphrases:
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
    from culteval.harness.sweeps.grid import read_grid
    from culteval.tasks.items import Survey
    from culteval.tasks.personas import Population
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
    from culteval.harness.runs.config import aligner_settings

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


# ---------------------------------------------------------------- tables


def table_readers():
    from culteval.tasks.importers import everyday, form, opinions, questions, simbench, wvs
    from culteval.tasks.importers.common import Tally
    from culteval.tasks.metrics.reference import load_scores
    from culteval.tasks.metrics.share_table import load_shares
    from culteval.tasks.rows import question_rows

    easy = ",".join(questions.EASY) + '\n1,"Why, so?",a,b,c,d,B,Germany\n2,What?,e,f,g,h,A,Japan\n'
    hard = ",".join(questions.HARD) + "\n1,Why?,a,True,Germany\n1,Why?,b,False,Germany\n"
    pairs = ",".join(questions.CDEVAL) + "\nWhat now?,this,that,Power Distance\nAnd so?,on,off,Indulgence\n"
    items = [f"m{number:02d},Is it {number}?,1,2,3,4,5" for number in range(1, 25)]
    scores = "iso2,pdi,idv,mas,uai,lto,ivr,source\nSA,1,2,3,4,5,6,matrix-2015\n"
    wave = ["B_COUNTRY_ALPHA", "W_WEIGHT", *wvs._questions()]
    asked = "question,options,selections\nWhy?,\"['a', 'b']\",\"defaultdict(<class 'list'>, {'Ghana': [0.5, 0.5]})\"\n"
    return {
        "easy": (easy, lambda path: questions.culturalbench(str(path), 0, Tally())),
        "hard": (hard, lambda path: questions.culturalbench(str(path), 0, Tally())),
        "cdeval": (pairs, lambda path: questions.cdeval(str(path), 0, Tally())),
        "opinions": (asked, lambda path: opinions.globalopinionqa(str(path), 0, Tally())),
        "blend": (data_sets.table(data_sets.blend(1, 1)), lambda path: everyday.blend(str(path), 0, Tally())),
        "normad": (data_sets.table(data_sets.normad(3)), lambda path: everyday.normad(str(path), 0, Tally())),
        "simbench": (data_sets.table(data_sets.simbench(2)), lambda path: simbench._part(str(path), None, 0, Tally())),
        "form": (",".join(form.COLUMNS) + "\n" + "\n".join(items) + "\n", lambda path: form.convert(str(path))),
        "scores": (scores, lambda path: load_scores(path, "extended")),
        "shares": ("country,question,code,share,count\nSE,a,0,0.5,3\nSE,a,1,0.5,4\n", load_shares),
        "selections": (asked, load_shares),
        "asked": (asked, lambda path: list(question_rows(path))),
        "wave": (
            ",".join(wave) + "\n" + ",".join(["SWE", "1.0", *"1" * (len(wave) - 2)]) + "\n",
            lambda path: list(wvs.convert(path).shares),
        ),
    }  # fmt: skip


@counts(200)
@pytest.mark.parametrize(
    "kind",
    [
        *("easy", "hard", "cdeval", "form", "scores", "shares", "selections", "asked", "wave"),
        *("opinions", "blend", "normad", "simbench"),
    ],
)
def test_tables(tmp_path, monkeypatch, kind, inputs):
    from culteval.tasks.importers import form, wvs

    text, read = table_readers()[kind]
    asked, survey = wvs._questions(), form.load_spec(form._SPEC)  # read once: they are ours
    monkeypatch.setattr(wvs, "_questions", lambda: asked)
    monkeypatch.setattr(form, "load_spec", lambda path: survey)
    path = tmp_path / "table.csv"
    path.write_text(text)
    assert read(path)
    fuzz(inputs, lambda rng: path.write_bytes(mutated(text.encode(), rng)), lambda: read(path))


@counts(200)
def test_parquet(tmp_path, inputs):
    from culteval.tasks.rows import question_rows
    from pyarrow import Table, parquet

    rows = [
        {"id": f"q{i}", "question": "Why?", "options": ["a", "b"], "selections": {"SE": [0.5, 0.5]}} for i in range(9)
    ]
    path = tmp_path / "questions.parquet"
    parquet.write_table(Table.from_pylist(rows), path)
    whole = path.read_bytes()
    assert len(list(question_rows(path))) == 9
    fuzz(inputs, lambda rng: path.write_bytes(mutated(whole, rng)), lambda: list(question_rows(path)))


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
        (None, ConnectionError("no route\nto host"), 4, "Download its file"),
        (None, ValueError("needs trust_remote_code"), 4, "trust_remote_code"),
        ([{"Question": "a"}], None, 3, "no column 'Option 1'"),
        ([PAIR | {"Option 1": None}], None, 3, "options"),
        ([PAIR | {"Dimension": "\x1b[2J"}], None, 3, "Dimension"),
        ([PAIR] * 9, None, 3, "more than 8 rows"),
    ],
)
def test_hub_data_that_cannot_be_used(home, monkeypatch, rows, error, code, words):
    from culteval.tasks.importers import tables

    FakeHub(monkeypatch, rows, error)
    monkeypatch.setattr(tables, "MOST_ROWS", 8)
    done = CliRunner().invoke(cli, ["data", "import", "cdeval", "somebody/cdeval"])
    assert isinstance(done.exception, CultevalError), done.exception
    assert done.exception.exit_code == code and words in str(done.exception)
    assert not (home / "data").exists()
