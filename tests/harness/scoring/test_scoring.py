"""Scores against a calculation of their own from the raw files, and ``culteval score`` where no torch can be had."""

import csv
import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import UsageError
from culteval.harness.registry import spec_path
from culteval.harness.scoring.baselines import constant_scores
from culteval.harness.scoring.score import score_answers
from culteval.harness.scoring.submission import load_submission
from culteval.harness.submissions.writer import write_submission
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.measure import MeasureOptions
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from culteval.tasks.spec import load_spec

from ...submission_files import rows_of, unpacked

VSM = Path(__file__).parents[3] / "tasks" / "vsm13"
DIMENSIONS = ("pdi", "idv", "mas", "uai", "lto", "ivr")


def load(name="vsm13"):
    return load_spec(spec_path(name))


def manifest_of(names, personas, aligner="de", seed=0):
    return {
        "tasks": [{"name": n, "hash": load(n).hash, "country": "SA", "personas": personas} for n in names],
        "model": {"name": "m", "revision": "r", "dtype": "float32", "device": "cpu", "threads": 1,
                  "chat_template": None, "forward": "packed"},
        "aligner": {"name": aligner, "settings": {}, "adapter_sha256": None},
        "fitted": None, "country": "SA", "seed": seed, "versions": {}, "command": "",
        "budget": {"item_forwards_allowed": 0, "item_forwards": 0, "survey_evaluations": 0, "tokens": 0, "seconds": 0},
    }  # fmt: skip


def write(folder, kind="random", personas=0, aligner="de", text=False, seed=0):
    """A submission of random, uniform or constant answers; with ``text`` that of the text task."""
    name = "vsm13_text" if text else "vsm13"
    layout = render_protocol(load(name), ProtocolOptions(personas, seed)).layout
    shape, rng = (1, *layout.codes.shape), np.random.default_rng(seed + 17)
    probs = rng.dirichlet(np.full(5, 0.3), shape[:2]) if kind == "random" else np.full(shape, 0.2)
    parsed = rng.choice([UNPARSED, 1, 2, 3, 4, 5], len(layout), p=[0.25] + [0.15] * 5) if text else None
    texts = tuple("?" if code == UNPARSED else str(code) for code in parsed) if text else None
    answers = Answers(layout, probs, rng.uniform(0, 1, shape[:2]), texts, parsed)
    write_submission(folder, manifest_of([name], personas, aligner, seed), {name: answers})
    return answers


def references(edition="extended"):
    with (VSM / "hofstede.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if all(row[d] for d in DIMENSIONS)]
    world = [math.fsum(float(r[d]) for r in rows if r["source"] == "matrix-2015") for d in DIMENSIONS]
    count = sum(r["source"] == "matrix-2015" for r in rows)
    known = {r["iso2"]: [float(r[d]) for d in DIMENSIONS] for r in rows
             if edition == "extended" or r["source"] == "matrix-2015"}  # fmt: skip
    return known, [total / count for total in world]


def expected_loss(
    folder, country, paraphrases, order="natural", constants="world", scoring="expected", edition="extended"
):
    """Loss and indices from the lines of the submission, with the formulas of the manual typed anew."""
    per_item = {}
    for row in rows_of(folder):
        if row["paraphrase"] not in paraphrases or row["order"] != order:
            continue
        if scoring == "text":
            value = row["parsed"]
        elif scoring == "argmax":
            value = 1 + row["probs"].index(max(row["probs"]))
        else:
            value = sum(code * p for code, p in enumerate(row["probs"], start=1))
        if value != -1:
            per_item.setdefault(row["item"], []).append(value)
    m = [0] + [math.fsum(v) / len(v) for _, v in sorted(per_item.items())]
    assert len(m) == 25
    known, world = references(edition)
    c = world if constants == "world" else [0] * 6
    index = [
        35 * (m[7] - m[2]) + 25 * (m[20] - m[23]) + c[0],
        35 * (m[4] - m[1]) + 35 * (m[9] - m[6]) + c[1],
        35 * (m[5] - m[3]) + 35 * (m[8] - m[10]) + c[2],
        40 * (m[18] - m[15]) + 25 * (m[21] - m[24]) + c[3],
        40 * (m[13] - m[14]) + 25 * (m[19] - m[22]) + c[4],
        35 * (m[12] - m[11]) + 40 * (m[17] - m[16]) + c[5],
    ]
    return sum((a - b) ** 2 for a, b in zip(index, known[country], strict=True)), index


def value_of(scores, **wanted):
    """The first score whose fields have these values."""
    return next((row for row in scores if all(getattr(row, k) == v for k, v in wanted.items())), None)


SPLITS = {"fit": ("A", "B"), "heldout": ("C", "D")}


@pytest.mark.parametrize("personas", [0, 3])
@pytest.mark.parametrize("country", ["SA", "US"])
@pytest.mark.parametrize("constants", ["world", "zero"])
def test_scores_agree_with_a_calculation_by_hand(tmp_path, personas, country, constants):
    write(tmp_path / "s", personas=personas)
    scores = load_submission(tmp_path / "s").score(country, constants=constants)
    for split, paraphrases in SPLITS.items():
        for scoring in ("expected", "argmax"):
            loss, index = expected_loss(tmp_path / "s", country, paraphrases, constants=constants, scoring=scoring)
            wanted = {"split": split, "scoring": scoring}
            row = value_of(scores, metric="loss", **wanted)
            assert row.value == pytest.approx(loss, rel=1e-9)
            assert value_of(scores, metric="l2", **wanted).value == pytest.approx(loss**0.5, rel=1e-9)
            assert [value_of(scores, metric=d, **wanted).value for d in DIMENSIONS] == pytest.approx(index, rel=1e-9)
            assert (row.country, row.constants, row.edition, row.norm) == (country, constants, "extended", "sse")
            assert row.aligner == "de" and row.n == max(1, personas) and row.paraphrases == paraphrases
    loss, _ = expected_loss(tmp_path / "s", country, ("C", "D"), order="reversed", constants=constants)
    turned = value_of(scores, metric="loss_reversed", split="heldout", scoring="expected")
    assert turned.value == pytest.approx(loss, rel=1e-9)
    assert value_of(scores, metric="loss_reversed", split="fit") is None


def test_text_scoring_leaves_out_what_was_not_parsed(tmp_path):
    answers = write(tmp_path / "s", text=True, personas=4)
    scores = load_submission(tmp_path / "s").score()
    for split, paraphrases in SPLITS.items():
        loss, _ = expected_loss(tmp_path / "s", "SA", paraphrases, scoring="text")
        assert value_of(scores, metric="loss", scoring="text", split=split).value == pytest.approx(loss, rel=1e-9)
        asked = answers.layout.where(paraphrases, ("natural",))
        share = (answers.parsed[asked] == UNPARSED).mean()
        assert value_of(scores, metric="unparsed", split=split).value == pytest.approx(share)
        said, likeliest = answers.parsed[asked], 1 + answers.probs[0, asked].argmax(-1)
        same = value_of(scores, metric="agreement", split=split)
        assert same.value == pytest.approx((said == likeliest)[said != UNPARSED].mean()) and same.scoring == "text"
    assert 0 < share < 1


def test_texts_without_probabilities_agree_with_nothing(tmp_path):
    answers = write(tmp_path / "s", text=True)
    texts = Answers(answers.layout, 0 * answers.probs, answers.off_options, answers.texts, answers.parsed)
    metrics = {row.metric for row in score_answers(load("vsm13_text"), texts, "SA", MeasureOptions(), "api")}
    assert "unparsed" in metrics and "agreement" not in metrics


def test_no_text_no_text_score(tmp_path):
    write(tmp_path / "s")
    assert {row.scoring for row in load_submission(tmp_path / "s").score()} == {"expected", "argmax"}


def test_uniform_answers_are_the_constant_and_collapsed(tmp_path):
    write(tmp_path / "s", kind="uniform")
    scores = load_submission(tmp_path / "s").score()
    known, world = references()
    null = sum((a - b) ** 2 for a, b in zip(world, known["SA"], strict=True))
    row = value_of(scores, metric="loss", scoring="expected", split="heldout")
    assert row.value == pytest.approx(null) and row.note == "collapsed"
    assert value_of(scores, metric="skill", scoring="expected").value == pytest.approx(0)
    assert value_of(scores, metric="collapsed", scoring="expected").value == 1


def test_the_constant_row():
    layout = render_protocol(load(), ProtocolOptions()).layout
    scores = constant_scores(load(), layout, "US", MeasureOptions(constants="zero"))
    known, _ = references()
    loss = value_of(scores, metric="loss", split="heldout", scoring="expected")
    assert loss.value == pytest.approx(sum(x**2 for x in known["US"])) and loss.aligner == "constant"


def test_scores_of_what_was_written_equal_those_of_what_was_given(tmp_path):
    given = write(tmp_path / "s", personas=25)
    options = MeasureOptions(edition="extended")
    after = load_submission(tmp_path / "s").score()
    before = score_answers(load(), given, "SA", options, "de")
    assert [row.metric for row in after] == [row.metric for row in before]
    assert [row.value for row in after] == pytest.approx([row.value for row in before], rel=1e-6, abs=1e-6)
    low = value_of(after, metric="pdi", split="heldout", scoring="expected")
    assert low.low < low.value < low.high and low.n == 25
    assert value_of(after, metric="loss").low is None


def test_all_countries_of_an_edition(tmp_path):
    write(tmp_path / "s")
    for edition in ("extended", "2015"):
        scores = load_submission(tmp_path / "s").score("all", edition=edition)
        known, _ = references(edition)
        assert {row.country for row in scores} == set(known)
        for code in list(known)[::20]:
            loss, _ = expected_loss(tmp_path / "s", code, ("C", "D"), edition=edition)
            found = value_of(scores, metric="loss", split="heldout", scoring="expected", country=code)
            assert found.value == pytest.approx(loss, rel=1e-9) and found.edition == edition
    assert len(references("extended")[0]) > len(references("2015")[0]) > 50


@pytest.mark.parametrize(
    ("country", "overrides", "needle"),
    [("EG", {}, "ivr"), ("Nowhere", {}, "Nowhere"), ("SA", {"edition": "2015"}, "Saudi"),
     (None, {"edition": "2016"}, "2015"), (None, {"constants": "word"}, "world"), (None, {"norm": "l3"}, "norm")],
)  # fmt: skip
def test_what_the_reference_lacks_is_a_usage_error(tmp_path, country, overrides, needle):
    write(tmp_path / "s")
    with pytest.raises(UsageError, match=needle) as caught:
        load_submission(tmp_path / "s").score(country, **overrides)
    assert len(str(caught.value).splitlines()) <= 2


# ---------------------------------------------------------------- the command, without torch

FORBIDDEN = ("torch", "transformers", "lm_eval", "peft", "datasets")


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """``bare(arguments)`` runs culteval in a process that cannot import what is FORBIDDEN."""
    site = tmp_path_factory.mktemp("site")
    (site / "sitecustomize.py").write_text(
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] in {FORBIDDEN!r}:\n"
        "            raise ModuleNotFoundError(f'no {name} here', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    code = "from culteval.harness.cli.main import main; main()"

    def run(*arguments, program=code):
        path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": path, "COLUMNS": "200"}
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, env=environment, cwd=site, capture_output=True, text=True, timeout=60)

    return run


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "s"
    write(folder)
    return folder


def one_line_error(done, code):
    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ") and len(done.stderr.splitlines()) <= 2, done.stderr
    assert "Traceback" not in done.stderr


def test_the_bare_process_is_bare(bare):
    done = bare(program="import torch")
    assert done.returncode == 1 and "no torch here" in done.stderr


def test_score_without_torch(bare, made):
    before = {p: p.read_bytes() for p in made.rglob("*")}
    done = bare("score", made)
    assert done.returncode == 0, done.stderr
    loss, _ = expected_loss(made, "SA", ("C", "D"))
    assert f"{loss:,.0f}" in done.stdout and "Saudi Arabia" in done.stdout
    assert {p: p.read_bytes() for p in made.rglob("*")} == before


def test_score_json_is_one_object_and_nothing_else(bare, made):
    done = bare("score", made, "--country", "US", "--constants", "zero", "--json")
    assert done.returncode == 0 and done.stderr == ""
    data = json.loads(done.stdout)
    loss, _ = expected_loss(made, "US", ("C", "D"), constants="zero")
    rows = [r for r in data["scores"] if (r["metric"], r["split"], r["scoring"]) == ("loss", "heldout", "expected")]
    assert [row["value"] for row in rows] == [pytest.approx(loss, rel=1e-9)]
    assert {(row["country"], row["constants"]) for row in data["scores"]} == {("US", "zero")}


def test_score_all_countries(bare, made):
    done = bare("score", made, "--country", "all", "--json")
    assert {row["country"] for row in json.loads(done.stdout)["scores"]} == set(references()[0])
    done = bare("score", made, "--country", "all")
    known, _ = references()
    losses = sorted((expected_loss(made, code, ("C", "D"))[0], code) for code in known)
    from culteval.tasks.countries import name_of

    lines = done.stdout.splitlines()
    best, worst = (next(i for i, x in enumerate(lines) if name_of(losses[k][1]) in x) for k in (0, -1))
    assert best < worst and len(lines) > len(known)


@pytest.mark.parametrize(
    "flags", [["--country", "EG"], ["--constants", "one"], ["--edition", "1999"], ["--norm", "l9"]]
)
def test_wrong_usage_exits_2(bare, made, flags):
    one_line_error(bare("score", made, *flags), 2)


def test_bad_file_exits_3(bare, made, tmp_path):
    one_line_error(bare("score", tmp_path / "none"), 3)
    write(tmp_path / "s")
    with (unpacked(tmp_path / "s") / "answers.jsonl").open("ab") as file:
        file.write(b"{}\n")
    done = bare("score", tmp_path / "s")
    one_line_error(done, 3)
    assert "answers.jsonl:145" in done.stderr
    assert "Traceback" in bare("--debug", "score", tmp_path / "s").stderr


HOSTILE = ("[/bold] [red]x[/red]", "[link=http://x]y", "<script>alert(1)</script>", "a|b", "\\[x]", ":smile:")


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_they_are(tmp_path, name, monkeypatch, capsys):
    """The aligner's name is a stranger's text: rich markup in it is neither obeyed nor an internal error."""
    from culteval.harness.cli.main import main

    monkeypatch.setenv("COLUMNS", "200")
    write(tmp_path / "s", aligner=name)
    monkeypatch.setattr(sys, "argv", ["culteval", "score", str(tmp_path / "s")])
    main()
    assert name in capsys.readouterr().out


def finished_run(folder, aligner, seed=0):
    """A run folder as far as a board reads it."""
    write(folder / "submission", aligner=aligner, seed=seed)
    scores = load_submission(folder / "submission").score()
    (folder / "scores.json").write_text(json.dumps([row.model_dump(mode="json") for row in scores]))
    return scores


def test_leaderboard_without_torch(bare, tmp_path):
    found = {name: finished_run(tmp_path / name, name, seed) for seed, name in enumerate(("de", "naive", "random"))}
    done = bare("leaderboard", "show", tmp_path)
    assert done.returncode == 0, done.stderr
    losses = {k: value_of(v, metric="loss", split="heldout", scoring="expected").value for k, v in found.items()}
    order = sorted(losses, key=losses.get)
    firsts = [line.strip("│ ").split()[0] for line in done.stdout.splitlines() if line.strip("│ ")]
    assert [name for name in firsts if name in order] == 2 * order and "constant" in firsts
    one_line_error(bare("leaderboard", "show", tmp_path / "de" / "submission"), 3)


@pytest.mark.parametrize("form", ["terminal", "md"])
@pytest.mark.parametrize("name", HOSTILE[:4])
def test_leaderboard_escapes_names(tmp_path, name, form, monkeypatch, capsys):
    from culteval.harness.cli.main import main

    monkeypatch.setenv("COLUMNS", "200")
    finished_run(tmp_path / "r", name)
    monkeypatch.setattr(sys, "argv", ["culteval", "leaderboard", "show", str(tmp_path), "--format", form])
    main()
    text = capsys.readouterr().out
    if form == "terminal":
        assert name in text
    else:
        assert "<script" not in text  # Markdown is shown as HTML somewhere
        _, overview, board, *_ = text.split("### ")
        for table in (overview, board):
            lines = [line for line in table.splitlines() if line.startswith("|")]
            assert len({line.replace("\\|", "").count("|") for line in lines}) == 1


def test_a_damaged_run_on_a_board_is_named(tmp_path, bare):
    finished_run(tmp_path / "r", "de")
    with (unpacked(tmp_path / "r" / "submission") / "answers.jsonl").open("ab") as file:
        file.write(b"{}\n")
    done = bare("leaderboard", "show", tmp_path)
    one_line_error(done, 3)
    assert "answers.jsonl:145" in done.stderr
    finished_run(tmp_path / "whole", "naive")
    done = bare("leaderboard", "show", tmp_path)
    assert done.returncode == 0 and "naive s0" in done.stdout and "de s0" not in done.stdout
    assert done.stderr.startswith("note: left out: ") and "answers.jsonl" in done.stderr


@pytest.mark.parametrize("text", ["[]", None])
def test_scores_are_computed_and_not_believed(tmp_path, bare, text):
    """A stranger's run folder may say what it likes in scores.json."""
    told = finished_run(tmp_path / "r", "de")
    forged = [row.model_dump(mode="json") | {"value": 0.0} for row in told]
    (tmp_path / "r" / "scores.json").write_text(json.dumps(forged) if text is None else text)
    done = bare("leaderboard", "show", tmp_path, "--format", "json")
    assert done.returncode == 0, done.stderr
    shown = [row for row in json.loads(done.stdout)["scores"] if row["aligner"] == "de"]
    assert shown == [row.model_dump(mode="json") for row in told]


def test_hash_is_the_one_documented():
    digest = hashlib.sha256()
    for name in ("vsm13.yaml", "items.yaml"):
        digest.update(name.encode() + b"\0" + (VSM / name).read_bytes() + b"\0")
    assert load().hash == digest.hexdigest()
