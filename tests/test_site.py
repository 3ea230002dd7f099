"""The board as pages: what a build makes and refuses, and how Chromium shows it, opened from disk without a network."""

import csv
import io
import json
import os
import shlex
import shutil
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.errors import InputError, UnavailableError, UsageError
from culteval.harness import submission
from culteval.harness.cli import cli
from culteval.harness.config import assignments
from culteval.harness.fitting import budget_of
from culteval.harness.planning import plan
from culteval.harness.registry import spec_of, table
from culteval.harness.run import _asked
from culteval.harness.scoring import Shelf, score_submission
from culteval.leaderboards import collect, rank
from culteval.leaderboards.detail import command
from culteval.leaderboards.proof import proven
from culteval.leaderboards.render import site, tables
from culteval.leaderboards.suite import current, read_suite
from culteval.tasks.answers import Answers
from culteval.tasks.prompts import Asking, protocol
from culteval.tasks.reading import parse_yaml

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
EVIL = "<img src=x onerror=window.hit=1>"
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium installed (apt-get install chromium)")
SPENT = {"item_forwards_allowed": 480, "item_forwards": 480, "survey_evaluations": 10, "tokens": 5, "seconds": 2.5}
LIMIT = {"vsm13": None, "wvs": 1, "culture_core": 1}


def write(folder, name, *, task="vsm13", country="SA", aligner="de", seed=0, tilt=1.0, model="tiny-8B", **more):
    """A submission of answers drawn from a seed; a smaller ``tilt`` is nearer to one option."""
    spec, limit = spec_of(task), LIMIT[task]
    layout = protocol(spec, Asking(0, seed, limit)).layout
    rng, shape = np.random.default_rng(seed + 1000 * len(aligner)), layout.codes.shape
    probs = rng.dirichlet(np.full(shape[1], tilt), (1, shape[0])) * layout.inside
    answers = Answers(layout, probs / probs.sum(-1, keepdims=True), np.full((1, shape[0]), 0.25))
    manifest = {
        "tasks": [{"name": task, "hash": spec.hash, "country": country, "limit": limit}],
        "model": {"name": model, "revision": "r1", "dtype": "float32", "device": "cpu", "threads": 1,
                  "chat_template": None, "forward": "fused"},
        "aligner": {"name": aligner, "settings": more.pop("settings", {"tokens": 10}), "adapter_sha256": "ab" * 32},
        "fitted": {"tasks": [task], "country": country, "readout": "expected", "norm": "sse"},
        "country": country, "seed": seed, "versions": {"culteval": "0.1.0"}, "command": "culteval run",
        "budget": SPENT,
    }  # fmt: skip
    submission.write(folder / name, manifest | more, {task: answers})
    return folder / name


def adapter(folder, *names):
    """What an aligner made, beside a submission: files that nobody reads here, and an empty text."""
    for name in (*names, "preamble.txt"):
        path = folder / "adapter" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("" if name == "preamble.txt" else f"made of {name}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Submissions of three tasks, with seeds of one configuration, and hostile ones beside them."""
    home = tmp_path_factory.mktemp("submissions")
    for seed in range(3):
        write(home, f"de-{seed}", seed=seed)
    write(home, "naive", aligner="naive", tilt=9)
    adapter(
        home / "de-0", "adapter_config.json", "adapter_model.safetensors", "lora/adapter_model.safetensors", "run.sh"
    )
    write(home, "small", aligner="gd", model="other-500M", seed=7, budget=SPENT | {"survey_evaluations": 100})
    write(home, "wvs-a", task="wvs", country="US", aligner="icl")
    write(home, "quiz-a", task="culture_core", country="SA", aligner="icl")
    write(home, "quiz-b", task="culture_core", country="SA", aligner="naive")
    write(
        home, "hostile", aligner=EVIL, model="</script><script>window.hit=1</script>", seed=5,
        command="culteval run \u202e\u2028 javascript:alert(1) </script>",
        settings={"=HYPERLINK(1)": EVIL, "n": "${7*7}"},
    )  # fmt: skip
    digest = submission.read(home / "de-1")[0].answers.sha256
    (home / collect.VERIFIED).write_text(json.dumps({digest: {"by": "keepers"}}))
    return home


@pytest.fixture(scope="module")
def pages(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "board"
    warned = []
    made = site.build(folder, out, warned.append)
    assert warned == [] and (made.submissions, made.boards) == (9, 3)
    return out


def data_of(path, name):
    text = path.read_text(encoding="ascii")
    assert text.startswith(f"culteval.{name}=") and text.endswith(";\n")
    return json.loads(text[len(f"culteval.{name}=") : -2])


# ---------------------------------------------------------------- ranks


def board_of(home, left_out=None):
    """The only board of a folder; what is left out is a mistake unless a list is given for it."""
    shelf = Shelf()
    (board,) = rank.boards(
        collect.entries(home, left_out.append if left_out is not None else pytest.fail), shelf, read_suite()
    )
    return board


def fake(values, intervals=None, seeds=None, better=True):
    """Standings of made-up headlines on culture_core: (rank, basis) by name."""
    spec = spec_of("culture_core" if better else "vsm13")
    headline, entries = rank.headline_of(spec), []
    for number, value in enumerate(values):
        low, high = intervals[number] if intervals else (None, None)
        score = {"task": spec.name, "country": "SA", "metric": headline.metric, "readout": headline.readout,
                 "split": "heldout", "value": value, "low": low, "high": high, "n": 9, "edition": "e",
                 "higher_is_better": better, "wordings": ("A",), "orders": ("natural",)}  # fmt: skip
        group, seed = seeds[number] if seeds else (number, 0)
        manifest = {"tasks": [{"name": spec.name, "hash": "0" * 64, "country": "SA"}], "country": "SA", "seed": seed,
                    "model": {"name": "m", "revision": "r", "dtype": "d", "device": "c", "threads": 1,
                              "chat_template": None, "forward": "f"},
                    "aligner": {"name": f"a{group}", "settings": {}, "adapter_sha256": None}, "fitted": None,
                    "versions": {}, "command": "", "answers": {"sha256": "0" * 64, "rows": 1},
                    "budget": {"item_forwards_allowed": 0, "item_forwards": 0, "survey_evaluations": 0, "tokens": 0,
                               "seconds": 0}}  # fmt: skip
        entries.append(collect.Entry(name=f"n{number}", key="k", manifest=manifest, scores=(score,)))
    found = {one.entry.name: one for one in rank._ranked(entries, spec, [], {})}
    return [(found[f"n{number}"].rank, found[f"n{number}"].basis) for number in range(len(values))]


def test_intervals_that_overlap_share_a_rank():
    """.9 is above all; .7 and .6 overlap each other; .3 lies below .9 and .7, and overlaps .6 by its upper end."""
    intervals = [(0.85, 0.95), (0.62, 0.78), (0.35, 0.65), (0.2, 0.4)]
    assert fake([0.9, 0.7, 0.6, 0.3], intervals) == [(1, "interval"), (2, "interval"), (2, "interval"), (3, "interval")]
    assert fake([0.5, 0.5], [(0.4, 0.5), (0.5, 0.6)]) == [(1, "interval")] * 2  # touching is not better


def test_three_seeds_stand_for_noise_two_do_not():
    seeds = [("x", 0), ("x", 1), ("x", 2), ("y", 0), ("y", 1)]
    assert fake([10.0, 30.0, 20.0, 25.0, 40.0], seeds=seeds, better=False) == [
        (1, "seeds"), (1, "seeds"), (1, "seeds"), (1, None), (5, None)
    ]  # fmt: skip


def test_same_seed_twice_is_one_seed():
    assert {basis for _, basis in fake([1.0, 2.0, 3.0], seeds=[("x", 0), ("x", 0), ("x", 1)])} == {None}


def test_the_suite_is_what_its_tasks_are_today():
    assert current() == read_suite(), "raise its version, then: python -m culteval.leaderboards.suite > suite.json"


def test_no_mean_over_tasks_and_no_row_for_a_task_not_answered(pages):
    boards = data_of(pages / "data" / "boards.js", "boards")
    names = [submission["name"] for submission in boards["submissions"]]
    for board in boards["boards"]:
        mine = {names[row["s"]] for row in board["rows"]}
        assert mine == {
            n
            for n in names
            if n.startswith({"wvs": "wvs", "culture_core": "quiz"}.get(board["task"], ("d", "n", "s", "h")))
        }
    assert [b["inSuite"] for b in boards["boards"]] == [True, False, False]  # limited ones are boards of their own


# ---------------------------------------------------------------- building


def test_stored_scores_are_not_believed(tmp_path):
    for name, seed in (("honest", 1), ("liar", 2)):
        _, scores = score_submission(write(tmp_path, name, seed=seed))
        rows = [score.model_dump(mode="json") for score in scores]
        for row in rows:
            row["value"] = 0.0 if name == "liar" else row["value"]
        (tmp_path / name / "scores.json").write_text(json.dumps(rows))
    warned = []
    found = {entry.name: entry for entry in collect.entries(tmp_path, warned.append)}
    assert (found["honest"].differs, found["liar"].differs) == (False, True) and "1 came with scores" in warned[0]
    assert all(score.value > 0 for score in found["liar"].scores if score.metric == "loss")


BAD = {
    "nan": lambda home: (home / "scores.json").write_text('[{"task": NaN}]'),
    "not a list": lambda home: (home / "scores.json").write_text("{}"),
    "scores link": lambda home: (home / "scores.json").symlink_to("/etc/passwd"),
    "answers link": lambda home: ((home / "answers.jsonl").unlink(), (home / "answers.jsonl").symlink_to("/etc/hosts")),
    "folder link": lambda home: home.rename(home.parent.parent / "away") and home.symlink_to("/etc"),
    "infinite answer": lambda home: (home / "answers.jsonl").write_text(
        (home / "answers.jsonl").read_text().replace("0.25", "Infinity", 1)),
    "an answer too many": lambda home: (home / "answers.jsonl").open("a").write("{}\n"),
    "huge field": lambda home: (home / "manifest.json").write_text(
        (home / "manifest.json").read_text().replace('"command": "culteval run"', f'"command": "{"x" * 5000}"')),
    "huge manifest": lambda home: (home / "manifest.json").write_text("[" * (2 << 20)),
    "other task": lambda home: (home / "manifest.json").write_text(
        (home / "manifest.json").read_text().replace('"vsm13"', '"../../etc/passwd"')),
    "unknown hash": lambda home: (home / "manifest.json").write_text(
        (home / "manifest.json").read_text().replace(spec_of("vsm13").hash, "0" * 64)),
    "name": lambda home: home.rename(home.with_name("bad <name>")),
    "device": lambda home: ((home / "answers.jsonl").unlink(), os.mkfifo(home / "answers.jsonl")),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_submission_is_refused_in_a_line_and_the_rest_is_built(tmp_path, kind):
    write(tmp_path / "in", "good")
    BAD[kind](write(tmp_path / "in", "bad", seed=1))
    warned = []
    made = site.build(tmp_path / "in", tmp_path / "out", warned.append)
    assert made.submissions == 1 and len(warned) == 1, warned
    assert warned[0].startswith("left out: ") and "bad" in warned[0] and "\n" not in warned[0]
    assert {path.name for path in (tmp_path / "out" / "files").iterdir()} == {"good"}


def test_only_bad_ones_are_an_error(tmp_path):
    BAD["an answer too many"](write(tmp_path / "in", "bad"))
    with pytest.raises(InputError, match="more lines than"):
        site.build(tmp_path / "in", tmp_path / "out", print)
    with pytest.raises(InputError, match="no finished runs"):
        (tmp_path / "empty").mkdir()
        site.build(tmp_path / "empty", tmp_path / "out", print)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_not_written_into(tmp_path, folder):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="not a board"):
        site.build(folder, tmp_path, print)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def bytes_of(out):
    return {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_built_again_only_what_changed_is_read(tmp_path):
    """Whatever the times of files say: content decides."""
    home, out = tmp_path / "in", tmp_path / "out"
    for seed in range(3):
        write(home, f"s{seed}", seed=seed)
    assert site.build(home, out, print).renewed == 3
    before = bytes_of(out)
    os.utime(home / "s0" / "answers.jsonl")
    assert site.build(home, out, print).renewed == 0 and bytes_of(out) == before
    stamp = (home / "s1" / "answers.jsonl").stat()
    shutil.rmtree(home / "s1")
    write(home, "s1", seed=77)  # other answers, of the same time
    os.utime(home / "s1" / "answers.jsonl", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    write(home, "s3", seed=3)
    assert site.build(home, out, print).renewed == 2
    shutil.rmtree(home / "s2")
    site.build(home, out, print)
    fresh = tmp_path / "fresh"
    site.build(home, fresh, print)
    assert bytes_of(out) == bytes_of(fresh) and not (out / "pages" / "s2.js").exists()


def test_data_in_scripts_cannot_end_them(pages):
    assert (
        site.script("x", ["</script>", "\u2028", "é", "&"])
        == 'culteval.x=["\\u003c/script\\u003e","\\u2028","\\u00e9","\\u0026"];\n'
    )
    with pytest.raises(ValueError):
        site.script("x", [float("nan")])
    for path in [*pages.glob("data/*.js"), *pages.glob("pages/*.js")]:
        text = path.read_bytes()
        assert text.isascii() and b"<" not in text and b"\n" not in text[:-1]
    page = data_of(pages / "pages" / "hostile.js", "page")
    assert "\\u202e" in page["manifest"]["command"]  # what turns the reading direction is written out


def test_nothing_points_outside(pages):
    for path in [*pages.glob("*.html"), pages / "assets" / "site.css"]:
        text = path.read_text(encoding="utf-8")
        assert "http" not in text.replace("http-equiv", "") and "//" not in text


def test_files_to_download_are_those_that_came(folder, pages):
    for name in ("manifest.json", "answers.jsonl"):
        assert (pages / "files" / "hostile" / name).read_bytes() == (folder / "hostile" / name).read_bytes()


def test_adapters_to_download_are_what_aligners_save(folder, pages):
    names = {
        "adapter/adapter_config.json",
        "adapter/adapter_model.safetensors",
        "adapter/lora/adapter_model.safetensors",
    }
    there = {str(path.relative_to(pages / "files" / "de-0")) for path in (pages / "files" / "de-0").rglob("*.*")}
    assert there == names | {"manifest.json", "answers.jsonl"}
    assert set(data_of(pages / "pages" / "de-0.js", "page")["adapter"]) == names
    assert all(
        (pages / "files" / "de-0" / name).read_bytes() == (folder / "de-0" / name).read_bytes() for name in names
    )
    assert data_of(pages / "pages" / "de-1.js", "page")["adapter"] == []


@pytest.mark.parametrize("odd", ["large", "file a link", "folder a link", "lora a link", "a folder"])
def test_adapters_of_another_kind_are_not_handed_on(tmp_path, odd):
    made = write(tmp_path / "board", "de") / "adapter"
    adapter(made.parent, "adapter_model.safetensors")
    if odd == "large":
        with (made / "adapter_model.safetensors").open("r+b") as file:
            file.truncate(collect.MOST_ADAPTER + 1)
    elif odd == "a folder":
        (made / "adapter_config.json").mkdir()
    else:
        (tmp_path / "secret").mkdir()
        (tmp_path / "secret" / "adapter_config.json").write_text("mine")
        if odd == "folder a link":
            shutil.rmtree(made)
        link, to = {"file a link": ("adapter_config.json", "secret/adapter_config.json"),
                    "lora a link": ("lora", "secret"), "folder a link": ("", "secret")}[odd]  # fmt: skip
        (made / link).symlink_to(tmp_path / to)
    site.build(tmp_path / "board", tmp_path / "out", print)
    assert {path.name for path in (tmp_path / "out" / "files" / "de").iterdir()} == {"manifest.json", "answers.jsonl"}


def test_a_run_hands_on_its_adapter_and_another_one_when_it_changes(tmp_path):
    run = tmp_path / "runs" / "run"
    write(run, "submission")
    (run / "scores.json").write_text("[]")
    for text in ("one", "another"):
        adapter(run, "lora/adapter_config.json")
        (run / "adapter" / "lora" / "adapter_config.json").write_text(text)
        assert site.build(run.parent, tmp_path / "out", print).renewed == 1
        there = tmp_path / "out" / "files" / "run" / "adapter" / "lora" / "adapter_config.json"
        assert there.read_text() == text


def test_imported_texts_and_figures_are_not_handed_on():
    from dataclasses import replace

    from culteval.leaderboards import detail

    shelf, spec = Shelf(), spec_of("wvs")
    asked = submission.AskedTask(name="wvs", hash=spec.hash, country="US")
    assert "people" in detail.items(spec, asked, shelf)[0]
    own = replace(spec, metadata=spec.metadata.model_copy(update={"imported": "official"}))
    assert detail.items(own, asked, shelf)[0]["text"] == "Q1"
    reference = spec.metadata.reference.model_copy(update={"editions": ("other",)})
    other = replace(spec, metadata=spec.metadata.model_copy(update={"reference": reference}))
    assert "people" not in detail.items(other, asked, shelf)[0]


def test_a_strangers_words_stay_words_in_the_command():
    manifest = fake_manifest(aligner="gd; rm -rf /", settings={"tokens": 10, "start": "a b"})
    words = shlex.split(command(manifest))
    assert words[:4] == ["culteval", "run", "--aligner", "gd; rm -rf /"] and "start=a b" in words
    assert words[words.index("--budget") + 1] == "10"
    cli.get_command(None, "run").make_context("run", words[2:])
    huge = {"item_forwards": 1, "survey_evaluations": 1e308}
    assert command(manifest.model_copy(update={"budget": manifest.budget.model_copy(update=huge)}))


def planned(*words):
    """The configuration of ``culteval run``, given its words."""
    return plan(cli.get_command(None, "run").make_context("run", list(words)).params)


def manifest_of(config, **model):
    """The manifest that a run of a configuration would write, all of its budget spent."""
    budget = budget_of(config)
    used = {"name": config.model, "revision": "r", "dtype": config.dtype, "device": config.device,
            "threads": config.threads or 0, "chat_template": None, "forward": "f"}  # fmt: skip
    return submission.Manifest(
        tasks=[_asked(name, spec_of(name), config) for name in config.tasks], model=used | model,
        aligner={"name": config.aligner, "settings": config.settings, "adapter_sha256": None},
        fitted={"tasks": config.fit, "country": config.fit_country, "readout": config.readout,
                "norm": config.options.norm},
        country=config.country, seed=config.seed, versions={}, command="", answers={"sha256": "0" * 64, "rows": 1},
        budget={"item_forwards_allowed": budget.total, "item_forwards": budget.total,
                "survey_evaluations": config.budget, "tokens": 0, "seconds": 0},
    )  # fmt: skip


BOARD = ["vsm13", "wvs", "culture_core", "probes", "general"]  # of leaderboards/results.yaml


@pytest.mark.parametrize("tasks", [["vsm13"], BOARD], ids=["one", "board"])
@pytest.mark.parametrize("aligner", table("aligners"))
def test_the_command_makes_the_same_run(aligner, tasks):
    asked = [word for name in tasks for word in ("--task", name)]
    config = planned(
        "--aligner", aligner, *asked, "--country", "US", "--budget", "300", "--seed", "3", "--threads", "1"
    )
    assert planned(*shlex.split(command(manifest_of(config)))[2:]) == config


@pytest.mark.parametrize(
    "words",
    [
        [
            "--task",
            "vsm13",
            "--task",
            "culture_core",
            "--country",
            "US",
            "--edition",
            "2015",
            "--device",
            "cuda:0",
            "--dtype",
            "float16",
        ],
        ["--task", "general", "--fit", "vsm13:US", "--edition", "2015"],
        ["--task", "vsm13", "--task", "general", "--edition", "extended", "--norm", "l1", "--constants", "zero"],
        ["--task", "vsm13", "--respondents", "3", "--limit", "1", "--calibrate"],
        ["--task", "vsm13", "--set", "rate=0.00001", "--set", "start=noise", "--budget", "7"],
        ["--task", "vsm13", "--aligner", "icl", "--model", "openai-chat:some", "--base-url", "http://127.0.0.1:1/v1"],
    ],
)
def test_the_command_has_every_flag_of_the_run(words):
    config = planned("--aligner", "gd", *words)
    again = planned(
        *shlex.split(command(manifest_of(config)))[2:], *(["--base-url", config.api.base_url] if config.api else [])
    )
    assert again == config


@pytest.mark.parametrize(
    "value",
    [None, "None", "null", True, "yes", 1e-05, "1e-5", [], ["a, b", None, 1e-7, "c\nd"], " x ", "a\n\u2028b", ""],
)
def test_settings_are_read_back_the_same(value):
    (line,) = assignments({"key": value})
    found = parse_yaml(line.partition("=")[2], "here")
    assert found == value and type(found) is type(value) and "\n" not in line


def test_the_command_names_a_commit_and_an_adapter():
    config = planned("--aligner", "naive", "--task", "vsm13")
    words = shlex.split(command(manifest_of(config, revision="ab" * 20, adapter_sha256="cd" * 32)))
    assert words[words.index("--revision") + 1] == "ab" * 20 and words[words.index("--lora") + 1] == "lora-" + "cd" * 5
    assert not {"--revision", "--lora"} & set(shlex.split(command(manifest_of(config))))


def fake_manifest(aligner, settings):
    return submission.Manifest(
        tasks=[{"name": "vsm13", "hash": "0" * 64, "country": "SA", "edition": "extended"}],
        model={"name": "m", "revision": "r", "dtype": "auto", "device": "cpu", "threads": 1, "chat_template": None,
               "forward": "f"},
        aligner={"name": aligner, "settings": settings, "adapter_sha256": None},
        fitted={"tasks": ["vsm13"], "country": "SA", "readout": "expected", "norm": "sse"}, country="SA", seed=3,
        versions={}, command="", answers={"sha256": "0" * 64, "rows": 1},
        budget={"item_forwards_allowed": 480, "item_forwards": 432, "survey_evaluations": 9, "tokens": 1, "seconds": 1},
    )  # fmt: skip


def test_datatables_is_there_as_a_plain_script(monkeypatch):
    text = site.datatables()
    assert "export{" not in text.replace(" ", "") and text.rstrip().endswith("})();")
    monkeypatch.setattr(site, "_packaged", lambda *parts: "var a=1;")
    with pytest.raises(UnavailableError, match="itables"):
        site.datatables()


# ---------------------------------------------------------------- tables for papers


def quiz(home, name, share, seed):
    """Answers to the quiz, right on the given share of its questions and wrong on the others."""
    spec = spec_of("culture_core")
    path = write(home, name, task="culture_core", aligner=name, seed=seed)
    manifest, given = submission.read(path)
    layout, rng = given["culture_core"].layout, np.random.default_rng(seed)
    knows = rng.random(len(layout.items)) < share
    right = np.array([question.right[0] - 1 for question in spec.items.questions])
    chosen = np.where(knows, right, (right + 1) % 4)[layout.item]
    probs = np.where(np.arange(layout.codes.shape[1]) == chosen[:, None], 0.94, 0.02)
    answers = Answers(layout, probs[None], given["culture_core"].outside)
    shutil.rmtree(path)
    submission.write(path, manifest.model_dump(mode="json", exclude={"answers"}), {"culture_core": answers})


@pytest.mark.parametrize(("shares", "bold"), [((1.0, 0.1, 0.2), (0,)), ((1.0, 0.95, 0.1), ()), ((0.8,), ())])
def test_bold_is_what_paired_tests_support(tmp_path, shares, bold):
    """Twenty questions: all right against a fifth is no chance, against all but one it is."""
    for number, share in enumerate(shares):
        quiz(tmp_path, f"q{number}", share, number)
    board = board_of(tmp_path)
    assert proven(board, Shelf(), np.random.default_rng(0)) == bold
    text = call("export", tmp_path, "--format", "md")
    assert ("**q0**" in text, tables.BOLD_NOTE in text) == (bool(bold), bool(bold))


def call(*words):
    done = CliRunner().invoke(cli, ["leaderboard", *map(str, words)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_csv_is_read_back_and_no_cell_is_a_formula(folder, tmp_path):
    write(tmp_path, "f", aligner="=1+1", model="@SUM(A1)")
    rows = list(csv.DictReader(io.StringIO(call("export", tmp_path, "--format", "csv"))))
    assert {row["aligner"] for row in rows if row["submission"]} == {"'=1+1"} and rows[0]["model"] == "'@SUM(A1)"
    board = board_of(tmp_path)
    told = {(row["metric"], row["readout"], row["split"]): float(row["value"]) for row in rows if row["submission"]}
    for column in tables.columns(board):
        found = column.find(board.standings[0].row.scores)
        assert told[column.metric, column.readout, column.split] == found.value
    assert json.loads(call("export", folder, "--format", "json"))[0]["suite"] == read_suite().version
    assert {(row["seconds"], row["tokens"]) for row in rows} == {("2.5", "5"), ("", "")}  # rows of no aligner have none


@pytest.mark.parametrize("text", ["=1", "+1", "-1", "@x", "\t=1", "|x", "%0a"])
def test_csv_quotes_what_spreadsheets_calculate(text):
    assert tables.csv_safe(text) == f"'{text}" and tables.csv_safe("x" + text) == "x" + text


def test_latex_is_escaped_and_whole(folder):
    text = call("export", folder, "--format", "latex", "--task", "vsm13")
    assert r"\toprule" in text and text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 1
    body = text[text.index(r"\midrule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    columns = text[text.index(r"\begin{tabular}{") :].split("{")[2].split("}")[0]
    assert all(line.replace(r"\&", "").count("&") == len(columns) - 1 for line in lines)
    assert r"\textless{}img src=x onerror=window.hit=1\textgreater{}" in text
    assert tables.latex_escape(r"\input{/etc/passwd}%$#_&~^") == (
        r"\textbackslash{}input\{/etc/passwd\}\%\$\#\_\&\textasciitilde{}\textasciicircum{}"
    )


def test_markdown_is_inert(folder):
    text = call("export", folder, "--format", "md")
    assert "<img" not in text and "&lt;img" in text and "**" not in text  # nothing is bold without a test


@pytest.mark.parametrize("form", ["png", "svg"])
def test_figures_are_the_same_bytes_twice(folder, tmp_path, form):
    for name in "ab":
        call("export", folder, "--format", form, "--task", "vsm13", "--out", tmp_path / f"{name}.{form}")
    first, second = ((tmp_path / f"{name}.{form}").read_bytes() for name in "ab")
    assert first == second and len(first) > 5000 and b"<img" not in first


def test_usage_of_export(folder):
    for words, text in [
        (("--format", "png"), "--out"),
        (("--format", "svg", "--out", "x.svg"), "--task"),
        (("--format", "md", "--task", "vsm14"), "vsm13"),
        (("--format", "md", "--country", "Germany"), "SA"),
    ]:
        with pytest.raises(UsageError, match=text):
            call("export", folder, *words)


def test_build_command(folder, tmp_path):
    told = json.loads(call("build", folder, "--out", tmp_path / "x", "--json"))
    assert told == {"submissions": 9, "boards": 3, "renewed": 9, "page": str(tmp_path / "x" / "index.html")}
    assert "0 read anew" in call("build", folder, "--out", tmp_path / "x")


# ---------------------------------------------------------------- in a browser


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as runner:
        opened = runner.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, pages):
    """``visit(address, **context)``: a page whose console must stay silent and that asks nobody for anything."""
    contexts, problems, asked = [], [], []

    def go(address="index.html", **options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else 0)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{pages}/{address}")
        page.wait_for_selector("#empty:not([hidden])" if "nobody" in address else "tbody tr, #standing .card")
        return page

    yield go
    for context in contexts:
        context.close()
    assert problems == []
    assert asked and all(url.startswith((f"file://{pages}/", "data:")) for url in asked), asked


def first_column(page, number=2):
    return [text.split("\n")[0] for text in page.locator(f"tbody tr td:nth-child({number})").all_inner_texts()]


@needs_chromium
def test_sorted_filtered_searched(visit):
    page = visit()
    names = first_column(page)
    assert len(names) == 7 and "constant" in names
    skills = [
        float(text.split("\n")[0].strip("*").replace("\u2212", "-"))
        for text in page.locator("td.main").all_inner_texts()
    ]
    assert skills == sorted(skills, reverse=True)
    page.get_by_role("columnheader", name="Submission").click()
    assert (found := first_column(page)) != names and found == sorted(found, key=str.lower)
    page.get_by_role("columnheader", name="Submission").click()
    assert first_column(page) == found[::-1]
    page.select_option("#aligner", "naive")
    assert first_column(page) == ["naive seed 0"]
    page.select_option("#aligner", "")
    page.select_option("#mark", "verified")
    assert first_column(page) == ["de seed 1"] and "verified" in page.locator("tbody").inner_text()
    page.select_option("#mark", "")
    page.fill("#search", "500M")
    assert first_column(page) == ["gd seed 7"]
    page.fill("#search", "nothing like it")
    assert "Nothing fits" in page.locator("tbody").inner_text()


@needs_chromium
def test_filtered_by_size_model_and_budget(visit):
    page = visit()
    sizes, models, budgets = (page.locator(f"#{name} option").all_inner_texts() for name in ("size", "model", "budget"))
    assert sizes == ["all", "up to 500M", "up to 10B", "unknown"] and budgets == ["all", "up to 10", "up to 100"]
    page.select_option("#size", "up to 10B")
    assert sorted(first_column(page)) == ["de seed 0", "de seed 1", "de seed 2", "naive seed 0"]
    page.select_option("#aligner", "naive")
    assert first_column(page) == ["naive seed 0"]
    page.select_option("#aligner", "")
    page.select_option("#size", "unknown")
    assert first_column(page) == [f"{EVIL} seed 5"]
    page.select_option("#size", "up to 500M")
    page.select_option("#model", "other-500M")
    page.select_option("#budget", "up to 100")
    assert first_column(page) == ["gd seed 7"]
    page.select_option("#budget", "up to 10")
    assert "Nothing fits" in page.locator("tbody").inner_text()
    page.reload()
    page.wait_for_selector("tbody tr")
    assert page.input_value("#size") == "up to 500M" and "Nothing fits" in page.locator("tbody").inner_text()
    page.select_option("#size", "")
    page.select_option("#model", "tiny-8B")
    assert len(first_column(page)) == 4 and len(models) == 4


@needs_chromium
def test_boards_read_outs_splits_and_columns(visit):
    page = visit()
    before = page.locator("td.main").all_inner_texts()
    page.select_option("#split", "fit")
    assert page.locator("td.main").all_inner_texts() != before
    page.select_option("#readout", "argmax")
    page.select_option("#task", "culture_core")
    assert (
        "cultural" in page.locator("h1").inner_text().lower()
        and "not a board of the suite" in page.locator("#ranking").inner_text()
    )
    assert "to" in page.locator("td.main small").first.inner_text()  # an interval, where one is owed
    heads = page.locator("thead th").count()
    page.locator("#columns summary").click()
    page.get_by_label("Seconds").check()
    assert page.locator("thead th").count() == heads + 1 and "time of fitting" in page.locator("#legend").inner_text()
    assert not page.get_by_label("Tokens").is_checked()
    page.get_by_label("Tokens").check()
    at = page.locator("thead th").all_inner_texts().index("Tokens") + 1
    assert "5" in first_column(page, at) and "tokens read" in page.locator("#legend").inner_text()
    for head in page.locator("thead th").all():
        assert head.get_attribute("title"), head.inner_text()
    page.reload()
    page.wait_for_selector("tbody tr")
    assert page.input_value("#task") == "culture_core"


@needs_chromium
@pytest.mark.parametrize(
    ("name", "chart"), [("de-0", "#radar svg"), ("wvs-a", "#chosen svg"), ("quiz-a", "#chosen svg")]
)
def test_a_submission(visit, name, chart):
    page = visit()
    task = {"d": "vsm13", "w": "wvs", "q": "culture_core"}[name[0]]
    page.select_option("#task", task)
    page.locator(f'a[href="submission.html#{name}"]').click()
    page.wait_for_selector(chart)
    text = page.locator("main").inner_text()
    for part in (name, "Make it again", "culteval run --aligner", spec_of(task).hash, "ab" * 32, "answers.jsonl", "r1"):
        assert part in text, part
    assert page.locator(".item").count() > 15
    if task == "wvs":
        page.locator(".item button").nth(3).click()
        assert page.locator(".item .people").count() == 44
    for file in ("manifest", "answers"):
        assert Path(unquote(page.evaluate(f"document.getElementById('{file}').pathname"))).is_file()
    links = page.locator("#adapter a")
    assert links.count() == (3 if name == "de-0" else 0)
    for link in links.all():
        assert Path(unquote(link.evaluate("one => one.pathname"))).is_file()


@needs_chromium
def test_dark_by_system_and_by_switch(visit):
    page = visit(color_scheme="dark")
    colour = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(colour)
    page.locator("#theme").click()
    page.locator("#theme").click()
    light = page.evaluate(colour)
    assert dark != light and max(map(int, dark[4:-1].split(","))) < 60 < min(map(int, light[4:-1].split(",")))
    page.goto(page.url.replace("index.html", "submission.html").split("#")[0] + "#de-0")
    page.wait_for_selector("#standing .card")
    assert page.evaluate(colour) == light  # the choice is kept


@needs_chromium
@pytest.mark.parametrize(
    "address", ["index.html", "submission.html#de-0", "submission.html#wvs-a", "submission.html#hostile"]
)
def test_narrow(visit, address):
    page = visit(address, viewport={"width": 390, "height": 844})
    page.wait_for_timeout(600 if "#" in address else 0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("address", ["index.html", "submission.html#wvs-a", "submission.html#de-1"])
def test_axe_finds_nothing(visit, address, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    page = visit(address, color_scheme=scheme)
    if "#" in address:
        page.wait_for_selector("svg.main-svg")
    found = axe.Axe().run(page, options={"preload": False}).response["violations"]
    assert [(each["id"], each["nodes"][0]["html"][:200]) for each in found] == []


@needs_chromium
def test_by_keyboard(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.get_by_role("columnheader", name="Submission").locator("[tabindex]").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_selector('th[aria-sort="ascending"]:has-text("Submission")')
    names = first_column(page)
    assert names == sorted(names, key=str.lower)


@needs_chromium
def test_a_hostile_submission_is_inert(visit):
    page = visit()
    assert EVIL in page.locator("tbody").inner_text()
    page.locator('a[href="submission.html#hostile"]').click()
    page.wait_for_selector("svg.main-svg")
    text = page.locator("main").inner_text()
    assert EVIL in text and "</script><script>window.hit=1</script>" in text and "\u202e" not in text
    assert page.evaluate("window.hit") is None and page.locator("main img").count() == 0
    assert page.locator('a[href^="javascript"]').count() == 0


@needs_chromium
@pytest.mark.parametrize(
    "address", ["submission.html#nobody", "submission.html#../nobody", "submission.html#nobody%3Cimg%20src=x%3E"]
)
def test_a_submission_that_is_not_there(visit, address):
    page = visit(address)
    assert "No such submission" in page.locator("#empty").inner_text()
