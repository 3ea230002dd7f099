"""Reproductions of papers, on a tiny model: tables against numbers computed here from the stored answers."""

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from culteval.errors import RunError, UsageError
from culteval.harness.registry import spec_of
from culteval.harness.runs.measure import Measured
from culteval.harness.scoring.submission import load_submission
from culteval.harness.sweeps.status import read_rows
from culteval.leaderboards.reproduction import soft_prompt
from culteval.leaderboards.reproduction.commands import reproduce
from culteval.leaderboards.reproduction.open_questions import Choice
from culteval.leaderboards.reproduction.results import Results
from culteval.leaderboards.reproduction.soft_prompt_tables import follow_up_table, survey_tables
from culteval.tasks.measure import MeasureOptions, measure_of
from culteval.tasks.prompts import render

from ..hofstede_answers import SA, WORLD

# The formulas of the VSM 2013 manual, typed anew: index = a (m_i - m_j) + b (m_k - m_n) + C
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
    """All tables but that of lengths, of one country: words, folder, JSON."""
    out = tmp_path_factory.mktemp("reproduction")
    with pytest.MonkeyPatch.context() as patch:
        here = Measured(dtype="float32", threads=1, processor="", seconds=2.0, memory=1)
        patch.setattr(soft_prompt, "measured", lambda: {str(tiny()): here})
        words = ["--model", tiny(), "--dtype", "float32", "--threads", 1, "--out", out, "--budget", 9]
        words += ["--country", "Saudi Arabia", "--workers", 1]
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


def squared_loss(frame, split, column, target):
    own = frame[(frame.task == "vsm13") & (frame.split == split) & (frame.order == "natural")]
    mean = {int(name[1:3]): value for name, value in own.groupby("item")[column].mean().items()}
    indices = [a * (mean[i] - mean[j]) + b * (mean[k] - mean[n]) for a, i, j, b, k, n in FORMULAS.values()]
    return ((np.array(indices) - target) ** 2).sum()


@pytest.mark.parametrize(("constants", "shift"), [("zero", np.zeros(6)), ("world", WORLD)])
@pytest.mark.parametrize("scoring", ["argmax", "expected"])
def test_table_1b_is_the_squared_distance_of_the_six_indices(made, constants, shift, scoring):
    found = table(made, f"survey {constants} {scoring}")
    methods = ("baseline", "baseline + instruction", "GD on the synthetic survey", "DE")
    assert tuple(row["method"] for row in found["rows"]) == methods
    for row, aligner in zip(found["rows"], ("naive", "icl", "gd", "de"), strict=True):
        frame = run_of(made, aligner, "SA", constants, "synthetic_survey" if aligner == "gd" else "vsm13", "vsm13")
        for split, heading in (("fit", "SA"), ("heldout", "SA held out")):
            value = squared_loss(frame, split, scoring, SA - shift)
            assert row[heading] == pytest.approx(value, rel=1e-5)
    published = [row.get("published") for row in found["rows"]]
    as_published = (constants, scoring) == ("zero", "argmax")
    assert published == ([14497, 32196, 12032, 8497] if as_published else [None] * 4)
    de, *others = [row["SA"] for row in reversed(found["rows"])]
    (note,) = [line for line in found["notes"] if line.startswith("DE below") and "fitted" in line]
    assert ("SA" in note) == all(de < other for other in others)


def test_the_follow_up_has_the_same_runs_and_the_country_s_own_questions(made):
    rows = table(made, "follow-up")["rows"]
    survey = {row["method"]: row for row in table(made, "survey zero argmax")["rows"]}
    names = {"naive": "baseline", "ICL": "baseline + instruction", "DE": "DE"}
    for row, aligner in zip(rows, ("naive", "icl", "de"), strict=True):
        assert row["SA loss"] == round(survey[names[row["method"]]]["SA"])
        frame = run_of(made, aligner, "SA", "zero", "vsm13", "vsm13")
        own = frame[(frame.task == "culture_core") & (frame.split == "heldout") & frame.item.str.startswith("SA")]
        right = {q["id"]: q["answer"] for q in questions("culturebench/core.jsonl") if q["country"] == "SA"}
        assert row["SA accuracy"] == pytest.approx((own.item.map(right) == own.argmax).mean())


class Stored:
    """A finished run with these scores by metric; all else is as asked."""

    def __init__(self, aligner, country, **scores):
        options = MeasureOptions(constants="zero")
        self.config = SimpleNamespace(
            aligner=aligner, country=country, tasks=("vsm13",), fit=("vsm13",), options=options, seed=0
        )
        self.scores = scores

    def score(self, task, place):
        value = self.scores.get(place[0])
        return None if value is None else SimpleNamespace(value=value)


def test_a_country_without_questions_has_no_accuracy_and_findings_are_named():
    """The measure gives such a country the accuracy on all questions."""
    losses = {("naive", "SA"): 10.0, ("icl", "SA"): 20.0, ("de", "SA"): 4.0}
    losses |= {("naive", "CN"): 5.0, ("icl", "CN"): 3.0, ("de", "CN"): 8.0}
    known = {"naive": 0.5, "icl": 0.5, "de": 0.25}
    runs = [
        Stored(aligner, code, loss=loss, accuracy=0.9, **({"accuracy_CN": known[aligner]} if code == "CN" else {}))
        for (aligner, code), loss in losses.items()
    ]
    found = follow_up_table(Results(tuple(runs)), ("SA", "CN"))
    assert found.rows == [
        {"method": "naive", "SA loss": 10, "SA accuracy": None, "CN loss": 5, "CN accuracy": 0.5},
        {"method": "ICL", "SA loss": 20, "SA accuracy": None, "CN loss": 3, "CN accuracy": 0.5},
        {"method": "DE", "SA loss": 4, "SA accuracy": None, "CN loss": 8, "CN accuracy": 0.25},
    ]
    assert found.notes[1] == "DE below naive in loss: SA; in accuracy: CN; above it in accuracy: none."
    assert "| DE | 4 | - | 8 | 0.250 |" in found.markdown()


def test_table_1b_names_where_de_is_best_and_the_order_and_means_over_seeds():
    losses = {"naive": (30.0,), "icl": (40.0,), "gd": (20.0, 10.0), "de": (5.0, 15.0)}
    runs = [
        Stored(aligner, "SA", loss=value, collapsed=float(aligner == "gd"))
        for aligner, values in losses.items()
        for value in values
    ]
    table, *_ = survey_tables(Results(tuple(runs)), ("SA", "US"))
    assert [row["SA"] for row in table.rows] == [30, 40, 15, 10] and [row["US"] for row in table.rows] == [None] * 4
    assert [row["one answer"] for row in table.rows] == ["-", "-", "SA", "-"]
    assert table.notes[0] == "DE below baseline, instruction and GD, fitted: SA; 1 of 1."
    assert "Here, fitted: SA DE < GD < baseline < baseline + instruction." in table.notes[2]


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
    fits = [row.seconds for row in read_rows(out).values() if row.tasks[0].startswith("cdeval")]
    assert first["seconds"]["pairs"] == pytest.approx(sum(fits), abs=0.1 * len(fits)) and len(fits) == 6
    rows = read_rows(out)
    assert len(rows) == 6 + 8 and {row.state for row in rows.values()} == {"skipped"}
    text = Path(first["markdown"]).read_text()
    assert (
        text.startswith("# Masoud et al.")
        and "14,497" in text
        and "arXiv:2503.16094, workshop" in text
        and "## Differences from the paper" in text
    )
    assert "Llama-3-8B-Instruct" in text and text.count("\n## ") == len(first["tables"]) + 2
    shown = reproduced(*words)
    assert shown.stdout.startswith(text) and "estimate   all is finished" in shown.stderr
    name = next(name for name, row in rows.items() if row.aligner == "icl" and row.country == "SA")
    path = out / name / "adapter"
    (file,) = [file for file in path.iterdir() if file.is_file()][:1]
    kept = file.read_bytes()
    file.write_bytes(kept + b" ")
    with pytest.raises(RunError, match="1 of 14 runs failed"):
        reproduced(*words)
    file.write_bytes(kept)


def test_the_time_is_estimated_from_what_the_runs_may_spend(made):
    words, out, _ = made
    told = reproduced(*words[:4], "--out", out / "none", "--table", "pairs", "--budget", 9, "--dry-run").stdout
    # 4 fits of 36 pairs nine times, and six runs of 2 x (72 + 52) answers; 2 s for 48 answers
    forwards = 4 * 36 * 9 + 6 * 2 * (72 + 52)
    assert f"about {forwards * 2 / 48 / 60:.0f} min ({forwards:,} item forwards" in told and "6 waiting" in told
    assert not (out / "none").exists()


def test_the_lengths_are_cross_validated(made, monkeypatch):
    monkeypatch.setattr(soft_prompt, "LENGTHS", (2, 4))
    monkeypatch.setattr(soft_prompt, "FOLDS", 2)
    words, out, _ = made
    words = [*words[:12], "--table", "lengths"]  # up to the country
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


def test_pairs_are_of_a_country_on_both_high_poles():
    """Table 1(a) shows the loss of the high pole, which is what these runs learn."""
    for name in ("cdeval_idv", "cdeval_ivr"):
        assert set(measure_of(spec_of(name), "US", MeasureOptions()).demonstrations(layout_of(name))) == {1}


def layout_of(name):
    return render(spec_of(name), "fit").layout


def test_only_fits_are_repeated_with_other_seeds(tmp_path):
    told = json.loads(
        reproduced("--country", "SA", "--seeds", 2, "--dry-run", "--device", "cuda", "--out", tmp_path, "--json").stdout
    )
    counted = Counter(row["aligner"] for row in told["runs"])
    # pairs: bare, instruction, 2 x 2 fits; survey: by both constants bare, instruction, a fit of each
    assert counted == {"naive": 3, "icl": 3, "gd": 2 * (2 + 2), "de": 2 * (2 + 2)}
    assert {row["budget"] for row in told["runs"] if row["aligner"] == "de"} == {120, 200}


def test_wrong_usage_is_told(tmp_path):
    with pytest.raises(UsageError, match="Atlantis"):
        reproduced("--country", "Atlantis", "--out", tmp_path)
    assert reproduced("--table", "nosuch").exit_code == 2
