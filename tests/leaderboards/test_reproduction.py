"""Reproductions of papers, on a tiny model: tables against numbers computed here from the stored answers."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from culteval.errors import RunError, UsageError
from culteval.harness.runs.measure import Measured
from culteval.harness.scoring.submission import load_submission
from culteval.harness.sweeps.status import read_rows
from culteval.leaderboards.reproduction import soft_prompt
from culteval.leaderboards.reproduction.commands import reproduce
from culteval.leaderboards.reproduction.open_questions import Choice

# Published scores of Saudi Arabia (METHODS of the seed paper: 72, 48, 43, 64, 27, 14) and the formulas of the VSM 2013
# manual, with constants zero.
SAUDI = {"pdi": 72, "idv": 48, "mas": 43, "uai": 64, "lto": 27, "ivr": 14}
FORMULAS = {
    "pdi": (35, 7, 2, 25, 20, 23),
    "idv": (35, 4, 1, 35, 9, 6),
    "mas": (35, 5, 3, 35, 8, 10),
    "uai": (40, 18, 15, 25, 21, 24),
    "lto": (40, 13, 14, 25, 19, 22),
    "ivr": (35, 12, 11, 40, 17, 16),
}


def reproduced(*words):
    done = CliRunner().invoke(reproduce, ["soft-prompt", *map(str, words)])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def made(tiny, tmp_path_factory):
    """All tables but that of lengths, of two countries, one of which ``culture_core`` lacks: words, folder, JSON."""
    out = tmp_path_factory.mktemp("reproduction")
    with pytest.MonkeyPatch.context() as patch:
        here = Measured(dtype="float32", threads=1, processor="", seconds=2.0, memory=1)
        patch.setattr(soft_prompt, "measured", lambda: {str(tiny()): here})
        words = ["--model", tiny(), "--dtype", "float32", "--threads", 1, "--out", out, "--budget", 6]
        words += ["--country", "SA", "--country", "France", "--workers", 1]
        for part in ("pairs", "survey", "follow-up", "questions"):
            words += ["--table", part]
        yield words, out, json.loads(reproduced(*words, "--json").stdout)


def table(made, name):
    """The rows of a table by their first column."""
    (found,) = [each for each in made[2]["tables"] if each["table"] == name]
    return found


def run_of(made, aligner, country, constants, fit, task):
    """The answers of the one finished run of these, as a frame."""
    found = []
    for path in made[1].glob("*/config.json"):
        config = json.loads(path.read_text())
        wanted = {"aligner": aligner, "country": country} | ({"fit": [fit]} if fit else {})
        same = all(config[name] == value for name, value in wanted.items()) and task == config["tasks"][0]
        if same and constants in (None, config["options"]["constants"]):
            found.append(path.parent)
    assert len(found) == 1
    return load_submission(found[0]).to_frame()


def test_table_1a_is_the_cross_entropy_of_the_high_pole(made):
    rows = table(made, "pairs")["rows"]
    assert [(row["method"], row["trained on"]) for row in rows] == [
        ("baseline", "-"),
        ("baseline + instruction", "-"),
        ("GD", "individualism"),
        ("GD", "indulgence"),
        ("DE", "individualism"),
        ("DE", "indulgence"),
    ]
    for row, (aligner, fit) in zip(
        rows,
        [("naive", None), ("icl", None)] + [(a, f) for a in ("gd", "de") for f in ("cdeval_idv", "cdeval_ivr")],
        strict=True,
    ):
        frame = run_of(made, aligner, "US", None, fit, "cdeval_idv")
        for task, pole in (("cdeval_idv", "individualism"), ("cdeval_ivr", "indulgence")):
            own = frame[(frame.task == task) & (frame.split == "heldout")]
            assert len(own) == 52  # 26 pairs in both orders
            assert row[pole] == pytest.approx(-np.log(own.p_1 * (1 - own.off_options)).mean(), rel=1e-4)
            assert row[f"{pole}, of two"] == pytest.approx(-np.log(own.p_1).mean(), rel=1e-4)
            assert row[f"{pole}, accuracy"] == pytest.approx((own.argmax == 1).mean())
    published = [(row["individualism, published"], row["indulgence, published"]) for row in rows]
    assert published == [(5.285, 5.261), (None, None), (0.698, None), (None, 0.683), (None, None), (None, None)]


def squared_loss(frame, split, column, target, shift=None):
    own = frame[(frame.task == "vsm13") & (frame.split == split) & (frame.order == "natural")]
    m = own.groupby("item")[column].mean()
    mean = {int(name[1:3]): value for name, value in m.items()}
    return sum(
        (a * (mean[i] - mean[j]) + b * (mean[k] - mean[n]) + (shift or {}).get(name, 0) - target[name]) ** 2
        for name, (a, i, j, b, k, n) in FORMULAS.items()
    )


@pytest.mark.parametrize(("constants", "world"), [("zero", None), ("world", (58.6, 45.8, 49.1, 67.0, 49.8, 47.5))])
@pytest.mark.parametrize("scoring", ["argmax", "expected"])
def test_table_1b_is_the_squared_distance_of_the_six_indices(made, constants, world, scoring):
    found = table(made, f"survey {constants} {scoring}")
    methods = ("baseline", "baseline + instruction", "GD on the synthetic survey", "DE")
    assert tuple(row["method"] for row in found["rows"]) == methods
    shift = dict(zip(FORMULAS, world, strict=True)) if world else None
    for row, aligner in zip(found["rows"], ("naive", "icl", "gd", "de"), strict=True):
        frame = run_of(made, aligner, "SA", constants, "synthetic_survey" if aligner == "gd" else "vsm13", "vsm13")
        for split, heading in (("fit", "SA"), ("heldout", "SA held out")):
            value = squared_loss(frame, split, scoring, SAUDI, shift)
            assert row[heading] == pytest.approx(value, rel=1e-3, abs=10)  # the world's mean has one decimal here
    published = [row.get("published") for row in found["rows"]]
    as_published = (constants, scoring) == ("zero", "argmax")
    assert published == ([14497, 32196, 12032, 8497] if as_published else [None] * 4)
    de, *others = [row["SA"] for row in reversed(found["rows"])]
    (note,) = [line for line in found["notes"] if line.startswith("DE below") and "fitted" in line]
    assert ("SA" in note) == all(de < other for other in others)


def test_the_follow_up_has_the_same_runs_and_no_knowledge_where_there_is_none(made):
    rows = table(made, "follow-up")["rows"]
    survey = {row["method"]: row for row in table(made, "survey zero argmax")["rows"]}
    names = {"naive": "baseline", "ICL": "baseline + instruction", "DE": "DE"}
    for row, aligner in zip(rows, ("naive", "icl", "de"), strict=True):
        assert row["SA loss"] == round(survey[names[row["method"]]]["SA"])
        assert row["FR loss"] == round(survey[names[row["method"]]]["FR"]) and row["FR accuracy"] is None
        frame = run_of(made, aligner, "SA", "zero", "vsm13", "vsm13")
        own = frame[(frame.task == "culture_core") & (frame.split == "heldout") & frame.item.str.startswith("SA")]
        right = {q["id"]: q["answer"] for q in questions("culturebench/core.jsonl") if q["country"] == "SA"}
        assert row["SA accuracy"] == pytest.approx((own.item.map(right) == own.argmax).mean())


def questions(name):
    path = Path(__file__).parents[2] / "tasks" / name
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_open_questions_stand_side_by_side(made):
    found = table(made, "questions SA")
    probes = [q for q in questions("probes/probes.jsonl") if q["split"] == "heldout"]
    identity = [q for q in probes if q["kind"] == "identity"]
    choices = [q for q in probes if q["kind"] == "choice" and q["dimension"] in ("idv", "ivr")]
    assert len(found["rows"]) == len(identity) + len(choices) == 6 + 8
    for when, aligner in (("before", "naive"), ("after", "de")):
        frame = run_of(made, aligner, "SA", "zero", "vsm13", "vsm13")
        frame = frame[frame.task == "probes"].set_index(["item", "order"])
        read = {"content": 0, "position": 0, "unread": 0}
        for question in choices:
            (row,) = [r for r in found["rows"] if question["options"][0] in r["question"]]
            codes = [frame.loc[(question["id"], order), "parsed"] for order in ("natural", "reversed")]
            kind = "unread" if any(map(pd.isna, codes)) else "content" if codes[0] == codes[1] else "position"
            assert row[f"{when}, read as"].partition(" ")[0] == kind
            read[kind] += 1
        counted = ", ".join(f"{kind} {count}" for kind, count in read.items())
        assert f"{when.capitalize()}: {counted}." in found["notes"]
        for question in identity:
            (row,) = [r for r in found["rows"] if r["question"] == question["question"]]
            assert row[when] == frame.loc[(question["id"], "natural"), "text"].strip()[:160]


@pytest.mark.parametrize(
    ("codes", "reading"),
    [
        ((1, 1), "content (high pole)"),
        ((2, 2), "content (low pole)"),
        ((1, 2), "position (first)"),
        ((2, 1), "position (second)"),
        ((1, -1), "unread"),
        ((-1, -1), "unread"),
    ],
)
def test_the_same_content_twice_is_content_and_the_same_place_twice_position(codes, reading):
    assert Choice(("", ""), codes).reading == reading


def test_the_same_command_goes_on_and_a_damaged_run_is_told(made, tiny):
    words, out, first = made
    again = reproduced(*words, "--json")
    assert json.loads(again.stdout) == first
    rows = read_rows(out)
    assert len(rows) == 6 + 8 * 2 and {row.state for row in rows.values()} == {"skipped"}
    text = Path(first["markdown"]).read_text()
    assert text.startswith("# Masoud et al.") and "14,497" in text and "## Differences from the paper" in text
    assert "Llama-3-8B-Instruct" in text and text.count("\n## ") == len(first["tables"]) + 1
    shown = reproduced(*words)
    assert shown.stdout.startswith(text) and "estimate   all is finished" in shown.stderr
    name = next(name for name, row in rows.items() if row.aligner == "icl" and row.country == "FR")
    path = out / name / "adapter"
    (file,) = [file for file in path.iterdir() if file.is_file()][:1]
    kept = file.read_bytes()
    file.write_bytes(kept + b" ")
    with pytest.raises(RunError, match="1 of 22 runs failed"):
        reproduced(*words)
    file.write_bytes(kept)


def test_the_time_is_estimated_from_what_the_runs_may_spend(made):
    words, out, _ = made
    told = reproduced(*words[:4], "--out", out / "none", "--table", "pairs", "--budget", 6, "--dry-run").stdout
    # 4 fits of 36 pairs six times, and six runs of 2 x (72 + 52) answers; 2 s for 48 answers
    forwards = 4 * 36 * 6 + 6 * 2 * (72 + 52)
    assert f"about {forwards * 2 / 48 / 60:.0f} min ({forwards:,} item forwards" in told and "6 waiting" in told
    assert not (out / "none").exists()


def test_the_lengths_are_cross_validated(made, monkeypatch):
    monkeypatch.setattr(soft_prompt, "LENGTHS", (2, 4))
    monkeypatch.setattr(soft_prompt, "FOLDS", 2)
    words, out, _ = made
    words = [*words[:12], "--table", "lengths"]
    found = json.loads(reproduced(*words, "--json").stdout)
    (lengths,) = found["tables"]
    folder = out / Path(lengths["figures"][0]).parent
    assert all((out / figure).read_text().startswith("<?xml") for figure in lengths["figures"])
    folds = pd.DataFrame(json.loads((folder / "folds.json").read_text()))
    assert len(folds) == 3 * 2 and folder.name.startswith("synthetic_survey-SA-gd-")
    for row in lengths["rows"]:
        own = folds[folds.tokens == int(row["tokens"])]
        assert row["left out loss"] == pytest.approx(own.validation_loss.mean())
        assert row["left out SD"] == pytest.approx(own.validation_loss.std())
        assert row["fitted errors"] == pytest.approx(own.train_argmax.mean())
    fitted = folds[folds.tokens > 0].groupby("tokens").validation_loss.mean()
    assert any(f"{fitted.idxmin()} tokens, {fitted.min():.3f}" in note for note in lengths["notes"])
    assert "all is finished" in reproduced(*words).stderr


def test_wrong_usage_is_told(tmp_path):
    with pytest.raises(UsageError, match="Atlantis"):
        reproduced("--country", "Atlantis", "--out", tmp_path)
    assert reproduced("--table", "nosuch").exit_code == 2
