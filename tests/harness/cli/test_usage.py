"""What the command line says to wrong usage: before a model is loaded, in one or two lines, with nothing written."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from culteval.harness.runs.config import DEFAULT_BUDGET, DEFAULT_MODEL

VSM = Path(__file__).parents[3] / "tasks" / "vsm13"
DE = ["run", "--aligner", "de", "--task", "vsm13"]


@pytest.fixture
def culteval(monkeypatch, capsys, tmp_path):
    """``culteval(*arguments)``: exit code, output and errors of the entry point; loading a model fails the test."""
    from culteval.harness.cli import main as cli
    from culteval.harness.cli import run as commands

    def load(*_):
        raise AssertionError("a model would have been loaded")

    monkeypatch.setattr(commands, "load", load)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["culteval", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def message(err):
    """The error itself, without click's lines about usage."""
    usage, error, rest = err.partition("Error: ")
    assert error and (not usage or usage.startswith("Usage: ")), err
    lines = rest.splitlines()
    assert 1 <= len(lines) <= 2, err
    assert "Traceback" not in err and "internal error" not in err and "pydantic" not in err, err
    assert all(char.isprintable() for line in lines for char in line)
    return "\n".join(lines)


WRONG = {
    "unknown aligner": ([*DE[:2], "dee", *DE[3:]], "Did you mean 'de'"),
    "unknown task": ([*DE[:4], "vsm31"], "Did you mean 'vsm13'"),
    "a task that is no file": ([*DE[:4], "none.yaml"], "none.yaml"),
    "unknown second task": ([*DE, "--task", "vsm14"], "vsm13"),
    "unknown fit task": ([*DE, "--fit", "vms13"], "vsm13"),
    "unknown fit country": ([*DE, "--fit", "vsm13:Jpan"], "Did you mean 'Japan'"),
    "two fit countries": ([*DE, "--fit", "vsm13:US", "--fit", "probes:SA"], "US and SA; tasks fitted together"),
    "unknown country": ([*DE, "--country", "Saudi Arabai"], "Did you mean 'Saudi Arabia'"),
    "all countries": ([*DE, "--country", "all"], "all"),
    "country without a dimension": ([*DE, "--country", "EG"], "ivr"),
    "the same by name": ([*DE, "--country", "egypt"], "ivr"),
    "fit country without a dimension": ([*DE, "--fit", "vsm13:EG"], "ivr"),
    "country without any": ([*DE, "--country", "Tuvalu"], "Tuvalu"),
    "country not in the edition": ([*DE, "--edition", "2015"], "Saudi Arabia"),
    "unknown edition": ([*DE, "--edition", "2010"], "2015"),
    "unknown constants": ([*DE, "--constants", "wrold"], "Did you mean 'world'"),
    "unknown norm": ([*DE, "--norm", "l3"], "l1"),
    "unknown scoring": ([*DE, "--scoring", "median"], "argmax"),
    "text is not fitted": ([*DE, "--scoring", "text"], "text"),
    "unknown setting": ([*DE, "--set", "populaton=20"], "Did you mean 'population'"),
    "setting of another aligner": (["run", "--aligner", "naive", "--task", "vsm13", "--set", "tokens=3"], "tokens"),
    "setting without a value": ([*DE, "--set", "tokens"], "key=value"),
    "empty value": ([*DE, "--set", "tokens="], "tokens"),
    "no key": ([*DE, "--set", "=3"], "--set"),
    "population=1": ([*DE, "--set", "population=1"], "population"),
    "tokens=0": ([*DE, "--set", "tokens=0"], "tokens"),
    "tokens=ten": ([*DE, "--set", "tokens=ten"], "tokens"),
    "tokens=1.5": ([*DE, "--set", "tokens=1.5"], "tokens"),
    "mutation reversed": ([*DE, "--set", "mutation=[1,0.5]"], "mutation"),
    "mutation one number": ([*DE, "--set", "mutation=0.5"], "mutation"),
    "mutation NaN": ([*DE, "--set", "mutation=[.nan,.nan]"], "mutation"),
    "recombination=1.1": ([*DE, "--set", "recombination=1.1"], "recombination"),
    "recombination NaN": ([*DE, "--set", "recombination=.nan"], "recombination"),
    "sigma NaN": ([*DE, "--set", "sigma=.nan"], "sigma"),
    "sigma infinite": ([*DE, "--set", "sigma=.inf"], "sigma"),
    "bound infinite": ([*DE, "--set", "bound=.inf"], "bound"),
    "generations=0": ([*DE, "--set", "generations=0"], "generations"),
    "strategy": ([*DE, "--set", "strategy=best2bin"], "strategy"),
    "not YAML": ([*DE, "--set", "mutation=[1,"], "mutation"),
    "a Python object": ([*DE, "--set", "tokens=!!python/object/apply:os.getcwd []"], "tokens"),
    "no such config": ([*DE, "--config", "none.yaml"], "none.yaml"),
    "negative budget": ([*DE, "--budget", "-1"], "--budget"),
    "budget in words": ([*DE, "--budget", "many"], "--budget"),
    "negative seed": ([*DE, "--seed", "-1"], "--seed"),
    "no threads": ([*DE, "--threads", "0"], "--threads"),
    "negative personas": ([*DE, "--personas", "-1"], "--personas"),
    "more personas than a run may have": ([*DE, "--personas", "100001"], "--personas"),
    "more answers than a submission may hold": ([*DE, "--personas", "50000"], "--personas"),
    "dtype": ([*DE, "--dtype", "float99"], "--dtype"),
    "no aligner": (["run", "--task", "vsm13"], "--aligner"),
    "no task": (["run", "--aligner", "de"], "--task"),
    "typo in a flag": ([*DE, "--contry", "US"], "--country"),
    "typo in a command": (["rnu"], "Did you mean 'run'"),
    "typo in a subcommand": (["task", "valdate", "x.yaml"], "valdate"),
    "unknown listing": (["ls", "model"], "models"),
    "countries of an unknown task": (["ls", "countries", "--task", "vsm"], "vsm13"),
    "countries of an unknown edition": (["ls", "countries", "--edition", "1980"], "2015"),
    "a folder for another listing": (["ls", "tasks", "runs"], "only `ls runs`"),
    "a measure of no model": (["ls", "models", "--measure", "smolm2"], "smollm2"),
    "a measure in another listing": (["ls", "tasks", "--measure", "smollm2"], "only `ls models`"),
    "a model that is not cached": (["cache", "drop", "nothing"], "no such model"),
    "leaderboard format": (["leaderboard", "show", "--format", "xml"], "json"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_usage(culteval, tmp_path, name):
    arguments, needle = WRONG[name]
    out = tmp_path / "runs"
    code, printed, err = culteval(*arguments, *(["--out", out] if arguments[0] == "run" else []))
    assert needle in message(err), err
    assert code == 2 and printed == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("empty", ["--country", "--edition", "--constants"])
def test_an_empty_value_is_not_the_default(culteval, tmp_path, empty):
    """As from an unset variable of a shell: Saudi Arabia must not be fitted because of it."""
    code, _, err = culteval(*DE, empty, "", "--out", tmp_path / "runs")
    assert code == 2 and empty in message(err)


def test_json_does_not_change_how_errors_are_told(culteval):
    code, printed, err = culteval(*DE, "--country", "EG", "--json")
    assert code == 2 and printed == "" and "ivr" in message(err)


@pytest.mark.parametrize(
    ("text", "code", "needle"),
    [("- a\n- b\n", 3, "mapping"), ("tokens: [\n", 3, "YAML"), ("tokns: 3\n", 2, "tokens"), ("", 3, "empty"),
     ("tokens: 0\n", 2, "tokens"), ("1: 2\n", 2, "1")],
)  # fmt: skip
def test_bad_config_files(culteval, tmp_path, text, code, needle):
    (tmp_path / "c.yaml").write_text(text)
    got, printed, err = culteval(*DE, "--config", tmp_path / "c.yaml", "--out", tmp_path / "runs")
    assert needle in message(err)
    assert got == code and printed == "" and not (tmp_path / "runs").exists()


def test_set_goes_over_config_and_defaults_are_filled_in(tmp_path):
    from culteval.harness.runs.config import aligner_settings

    settings = aligner_settings("de", ["population=8", "mutation=[0.2, 0.4]"], {"population": 6, "tokens": 4})
    assert (settings.population, settings.tokens, settings.mutation) == (8, 4, (0.2, 0.4))
    assert settings.recombination == 0.9


@pytest.mark.parametrize(
    "arguments", [["resume", "none"], ["score", "none"], ["leaderboard", "show", "none"], ["ls", "runs", "none"]]
)
def test_folders_that_are_not_there(culteval, tmp_path, arguments):
    code, printed, err = culteval(*arguments)
    assert "none" in message(err)
    assert code == 3 and printed == "" and list(tmp_path.iterdir()) == []


def test_resume_of_something_else(culteval, tmp_path):
    (tmp_path / "r").mkdir()
    for text in ("{", "{}", '{"aligner": "de"}', "[1]"):
        (tmp_path / "r" / "config.json").write_text(text)
        code, _, err = culteval("resume", tmp_path / "r")
        assert code == 3 and "config.json" in message(err)


def test_the_real_program_exits_with_2(tmp_path):
    """Once as people call it: the console script of this environment."""
    command = [str(Path(sys.executable).with_name("culteval")), *DE, "--country", "EG", "--out", "runs"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env=os.environ)
    assert done.returncode == 2 and done.stdout == "" and "ivr" in message(done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_internal_errors_and_interrupts_are_told_apart(culteval, monkeypatch, tmp_path):
    from culteval.harness.cli import score as commands

    full = OSError(28, "No space left on device", "runs")
    for error, expected in ((ValueError("odd"), 1), (KeyboardInterrupt(), 130), (click.Abort(), 130), (full, 5)):
        monkeypatch.setattr(commands, "load_submission", lambda *_, error=error: (_ for _ in ()).throw(error))
        code, printed, err = culteval("score", tmp_path)
        assert code == expected and printed == "" and len(err.strip().splitlines()) == 1


# ---------------------------------------------------------------- ls


@pytest.mark.parametrize(
    ("what", "key", "names"),
    [
        ("tasks", "task", {"vsm13", "vsm13_text"}),
        ("aligners", "aligner", {"naive", "icl", "random", "de"}),
        ("models", "model", {"smollm2", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"}),
        ("countries", "code", {"SA", "US", "DE", "JP"}),
    ],
)
def test_ls(culteval, what, key, names):
    code, printed, err = culteval("ls", what, "--json")
    rows = json.loads(printed)
    assert code == 0 and err == "" and names <= {row[key] for row in rows}
    assert all(list(row) == list(rows[0]) for row in rows)
    code, printed, err = culteval("ls", what)
    assert code == 0 and err == ""
    assert all(name in printed for name in names) and len(printed.splitlines()) > len(rows)


def test_a_model_is_measured_listed_and_dropped(tiny_cache, tmp_path, monkeypatch):
    """In processes of their own, as people do; the embedded model is a tiny one."""
    monkeypatch.setenv("CULTEVAL_CACHE", str(shutil.copytree(tiny_cache, tmp_path / "cache")))

    def culteval(*words):
        done = subprocess.run([sys.executable, "-m", "culteval", *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if words[-1] == "--json" else done.stdout

    def described(*words):
        rows = culteval("ls", "models", *words, "--json")
        return next(row["description"] for row in rows if row["model"] == "smollm2")

    assert "135 M parameters, English, Apache-2.0" in described() and "a survey" not in described()
    pattern = r"here, in (float32|bfloat16): memory ([\d.]+) GB, [\d.]+ s a survey"
    found = re.search(pattern, described("--measure", "smollm2"))
    assert found and 0.1 < float(found[2]) < 3
    assert found[0] in described()
    info = culteval("cache", "info", "--json")
    assert len(info["model_bytes"]) == 3 and info["model_bytes"]["smollm2-0.1.2"] > 50_000
    assert "smollm2-0.1.2: " in culteval("cache", "info")
    assert "freed" in culteval("cache", "drop", "smollm2-0.1.2")
    left = culteval("cache", "info", "--json")["model_bytes"]
    assert set(left) == set(info["model_bytes"]) - {"smollm2-0.1.2"}


def test_ls_countries_has_exactly_those_that_can_be_scored(culteval):
    extended = {row["code"]: row for row in json.loads(culteval("ls", "countries", "--json")[1])}
    strict = {row["code"] for row in json.loads(culteval("ls", "countries", "--edition", "2015", "--json")[1])}
    assert "EG" not in extended and extended["SA"]["reference"] == "estimate" and "SA" not in strict
    assert strict == {code for code, row in extended.items() if row["reference"] == "published"}
    assert extended["SA"]["country"] == "Saudi Arabia"


@pytest.fixture
def runs(tmp_path):
    """A folder with a run that is finished and one that is not, and what strangers may put beside them."""
    from culteval.harness.runs.plan import RunRequest, plan

    config = plan(RunRequest.of(aligner="de", tasks=["vsm13", "probes"], seed=3)).model_dump(mode="json")
    root = tmp_path / "runs"
    for name, text in {
        "a": json.dumps(config),
        "b": json.dumps(config | {"aligner": "naive", "model": "x\x1b[2J\u202e\ny", "adapter": "/dev/zero"}),
        "other": "{}",
        "broken": "{",
        "large": json.dumps(config) + " " * (2 << 20),
    }.items():
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text(text)
    (root / "a" / "scores.json").write_text("[]")
    (root / "empty").mkdir()
    (root / "pipe").mkdir()
    os.mkfifo(root / "pipe" / "config.json")
    (root / "link").symlink_to(root / "a")
    (root / "file").write_text("")
    return root


def test_ls_runs(culteval, runs):
    code, printed, err = culteval("ls", "runs", runs, "--json")
    rows = {row["run"]: row for row in json.loads(printed)}
    assert code == 0 and err == "" and list(rows) == ["a", "b"]
    assert rows["a"] == {
        "run": "a", "tasks": ["vsm13", "probes"], "country": "SA", "aligner": "de", "seed": 3, "model": DEFAULT_MODEL,
        "budget": DEFAULT_BUDGET, "state": "finished", "reason": "",
    }  # fmt: skip
    assert rows["b"]["state"] == "begun"
    code, printed, err = culteval("ls", "runs", runs)
    assert code == 0 and err == "" and "vsm13, probes" in printed and "reason" not in printed
    assert printed.replace("\n", "").isprintable() and "x\\x1b[2J\\u202e y" in printed


def test_ls_runs_tells_what_failed_and_why(culteval, runs):
    row = {"tasks": ["vsm13"], "country": "US", "aligner": "gd", "seed": 0, "model": "m", "budget": 4, "attempts": 2}
    row |= {"seconds": 1.5, "reasons": ["first", "no \x1b[2J\nmemory"]}
    states = {"a": "done", "b": "failed", "c": "failed", "d": "waiting"}
    (runs / "sweep.json").write_text(json.dumps([row | {"run": run, "state": states[run]} for run in states]))
    rows = {row["run"]: row for row in json.loads(culteval("ls", "runs", runs, "--json")[1])}
    assert {name: row["state"] for name, row in rows.items()} == {"a": "finished", "b": "failed", "c": "failed"}
    assert rows["b"]["aligner"] == "naive" and rows["c"]["aligner"] == "gd"
    assert [row["reason"] for row in rows.values()] == ["", "no \x1b[2J\nmemory", "no \x1b[2J\nmemory"]
    assert "no \\x1b[2J memory" in culteval("ls", "runs", runs)[1]
    (runs / "sweep.json").write_text("[1]")
    code, printed, err = culteval("ls", "runs", runs)
    assert code == 3 and printed == "" and "sweep.json" in message(err)


def test_ls_runs_looks_into_the_usual_folder(culteval, tmp_path):
    assert culteval("ls", "runs")[0] == 3
    (tmp_path / "culteval-runs").mkdir()
    assert culteval("ls", "runs", "--json")[1] == "[]\n" and "no runs" in culteval("ls", "runs")[1]


def test_ls_through_a_narrow_terminal_loses_nothing(culteval, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    code, printed, _ = culteval("ls", "countries")
    assert code == 0 and "Saudi Arabia" in printed and max(map(len, printed.splitlines())) <= 40


# ---------------------------------------------------------------- task validate


@pytest.fixture
def task(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("vsm13.yaml", "vsm13_text.yaml", "items.yaml", "hofstede.csv", "README.md"):
        shutil.copy(VSM / name, folder / name)
    return folder


@pytest.mark.parametrize("name", ["vsm13.yaml", "vsm13_text.yaml"])
def test_good_specs_are_valid(culteval, task, name):
    before = {p: p.read_bytes() for p in task.iterdir()}
    code, printed, err = culteval("task", "validate", task / name)
    assert code == 0 and err == ""
    assert "valid" in printed and "24 items" in printed and "4 paraphrases" in printed
    assert {p: p.read_bytes() for p in task.iterdir()} == before


def test_a_task_says_where_its_items_come_from(culteval, task):
    (task / "README.md").unlink()
    code, printed, err = culteval("task", "validate", task / "vsm13.yaml")
    assert code == 3 and printed == "" and "README.md" in message(err)
    (task / "TERMS.md").write_text("Free.\n")
    assert culteval("task", "validate", task / "vsm13.yaml")[0] == 0


def test_a_spec_is_never_executed(culteval, task):
    text = (task / "vsm13.yaml").read_text().replace("culteval.tasks.hooks.dataset", "evil_module.run")
    assert "evil_module" in text
    (task / "vsm13.yaml").write_text(text)
    (task / "evil_module.py").write_text("raise SystemExit(99)\n")
    code, _, err = culteval("task", "validate", task / "vsm13.yaml")
    assert code == 0 and "evil_module.run" in err
    (task / "vsm13.yaml").write_text(text.replace("task: vsm13", "task: !!python/object/apply:os.getcwd []", 1))
    code, _, err = culteval("task", "validate", task / "vsm13.yaml")
    assert code == 3 and "vsm13.yaml" in message(err)


BROKEN = {
    "no task": ("vsm13.yaml", "task: vsm13\n", "", "task"),
    "task is no name": ("vsm13.yaml", "task: vsm13\n", "task: [1]\n", "task"),
    "no metadata": ("vsm13.yaml", "metadata:\n", "metadat:\n", "metadata"),
    "output type": ("vsm13.yaml", "output_type: multiple_choice", "output_type: guessing", "output_type"),
    "no citation": ("vsm13.yaml", "  citation:", "  cite:", "citation"),
    "no licence of the data": ("vsm13.yaml", "data: \"items", "dat: \"items", "licence"),
    "unknown answer scoring": ("vsm13.yaml", "scorings: [expected, argmax]", "scorings: [median]", "scorings"),
    "no answer scoring": ("vsm13.yaml", "scorings: [expected, argmax]", "scorings: []", "scorings"),
    "unknown measure": ("vsm13.yaml", "measure: hofstede", "measure: hofsteed", "Did you mean 'hofstede'"),
    "unknown paraphrase": ("vsm13.yaml", "paraphrases: [C, D]", "paraphrases: [C, E]", "'E'"),
    "paraphrase in both splits": ("vsm13.yaml", "paraphrases: [C, D]", "paraphrases: [B, D]", "B"),
    "unknown order": ("vsm13.yaml", "orders: [natural, reversed]", "orders: [natural, random]", "orders"),
    "no items file": ("vsm13.yaml", "items: items.yaml", "items: item.yaml", "item.yaml"),
    "no reference file": ("vsm13.yaml", "file: hofstede.csv", "file: hofsteed.csv", "hofsteed.csv"),
    "default edition": ("vsm13.yaml", "default_edition: extended", "default_edition: newest", "default_edition"),
    "country without scores": ("vsm13.yaml", "default_country: SA", "default_country: EG", "default_country"),
    "no country": ("vsm13.yaml", "default_country: SA", "default_country: Nowhere", "default_country"),
    "headline": ("vsm13.yaml", "headline: {metric: loss, higher_is_better: false}", "headline: loss", "headline"),
    "not YAML": ("vsm13.yaml", "languages: [en]", "languages: [en", "vsm13.yaml:"),
    "a tab": ("vsm13.yaml", "  languages:", "\tlanguages:", "vsm13.yaml:"),
    "deep nesting": ("vsm13.yaml", "languages: [en]", "languages: " + "[" * 5000, "vsm13.yaml"),
    "an item is missing": ("items.yaml", '      m07: "', '      m77: "', "m07"),
    "a scale is missing": ("items.yaml", "      pride: [", "      prid: [", "pride"),
    "fewer labels in one paraphrase": ("items.yaml", '"excellent", ', "", "health"),
    "a stem is missing": ("items.yaml", '      job: "', '      jb: "', "job"),
    "items are a list": ("items.yaml", "language: en", "- language: en", "items.yaml"),
    "a score in words": ("hofstede.csv", "AE,74", "AE,high", "hofstede.csv:3"),
    "a column is missing": ("hofstede.csv", "iso2,pdi", "iso,pdi", "hofstede.csv"),
    "a short row": ("hofstede.csv", "AE,74,36,52,66,22,22,site-snapshot", "AE,74", "hofstede.csv:3"),
    "include of nothing": ("vsm13_text.yaml", "include: vsm13.yaml", "include: none.yaml", "none.yaml"),
    "include of itself": ("vsm13_text.yaml", "include: vsm13.yaml", "include: vsm13_text.yaml", "include"),
    "metadata is a list": ("vsm13_text.yaml", "metadata:\n", "metadata: [1]\nmore:\n", "metadata"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_specs_exit_3(culteval, task, name):
    file, old, new, needle = BROKEN[name]
    text = (task / file).read_text(encoding="utf-8")
    assert old in text, "the test no longer breaks anything"
    (task / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    code, printed, err = culteval("task", "validate", task / ("vsm13_text.yaml" if "text" in file else "vsm13.yaml"))
    assert needle in message(err), err
    assert code == 3 and printed == ""


@pytest.mark.parametrize("file", ["vsm13.yaml", "items.yaml", "hofstede.csv"])
def test_files_that_are_not_utf8(culteval, task, file):
    (task / file).write_bytes((task / file).read_bytes() + b"# \xff\xfe\n")
    code, _, err = culteval("task", "validate", task / "vsm13.yaml")
    assert code == 3 and file in message(err)


def test_no_spec_there(culteval, tmp_path):
    code, _, err = culteval("task", "validate", tmp_path / "none.yaml")
    assert code == 3 and "none.yaml" in message(err)
    assert culteval("task", "validate", tmp_path)[0] == 2  # a folder: click says so
