"""The study of travel: distances to own and wrong countries, pairs nearer than the bare model and random prefixes."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner
from culteval.harness.registry import spec_of
from culteval.harness.scoring.score import score_answers
from culteval.harness.scoring.submission import load_submission
from culteval.tasks.answers import Answers
from culteval.tasks.measure import countries_of, measure_of
from culteval.tasks.prompts import ProtocolOptions, layout_of

from benchmarks import travel as study

from ..command import invoked

ROOT = Path(__file__).parents[2]
SWEEP = ROOT / "benchmarks" / "travel.yaml"


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grid = yaml.safe_load(SWEEP.read_text()) | {"models": [str(tiny())], "countries": ["US", "CN"]}
    learning = [arm for arm in grid["aligners"] if isinstance(arm, dict) and arm["name"] == "sft"]
    for arm in learning:
        arm |= {"budget": 3, "settings": arm["settings"] | {"paraphrases": 2}}
        arm |= {"countries": [code for code in arm.get("countries", ["US", "CN"]) if code != "IN"]}
    next(arm for arm in grid["aligners"] if "seeds" in arm)["seeds"] = [0, 1, 2]
    grid["options"] = {"dtype": "float32", "threads": 1, "limit": 1}
    grid["tasks"] = [["wvs", "vsm13", "iw_map", "general"]]
    Path("few.yaml").write_text(yaml.safe_dump(grid))
    invoked("sweep", "few.yaml", "--workers", "1", "--quiet")
    return Path("few")


def w1_on_items_of_all(run, code):
    """The headline of the answers to the items that were asked in every country."""
    spec, submission = spec_of("wvs"), load_submission(run / "submission")
    options = submission.manifest.task("wvs").options
    asked = (set(measure_of(spec, each, options).items) for each in countries_of(spec, options.edition))
    answers = submission.answers["wvs"]
    answers = answers.take(np.isin(answers.layout.item, sorted(set.intersection(*asked))))
    rows = score_answers(spec, answers, code, options, "sft")
    return next(s.value for s in rows if (s.metric, s.split, s.scoring) == ("w1", "heldout", "expected"))


def test_distances_are_those_of_the_scores(folder):
    read = study.read(folder)
    many = "vsm13 + vsm13_training, argmax"
    assert {each.fitted for each in read} == {"", "wvs", "wvs + wvs_training", many}
    assert {each.country for each in read if each.fitted == many} == {"US", "CN", "SA"}
    assert [row[3] for row in study.rows(read) if row[1:3] == [many, "wvs"]] != []
    one = next(each for each in read if each.fitted == "wvs" and each.country == "CN")
    run = next(path for path in folder.glob("wvs-CN-sft-*") if "_training" not in (path / "config.json").read_text())
    for code in ("CN", "US"):
        scores = load_submission(run / "submission").score(code)
        rows = {(s.task, s.metric): s.value for s in scores if (s.split, s.scoring) == ("heldout", "expected")}
        assert one.distances["wvs"][code] == pytest.approx(w1_on_items_of_all(run, code))
        assert one.distances["vsm13"][code] == pytest.approx(rows["vsm13", "loss"])
        probable = {(s.task, s.metric): s.value for s in scores if (s.split, s.scoring) == ("heldout", "argmax")}
        assert one.distances[study.ARGMAX.format("vsm13")][code] == pytest.approx(probable["vsm13", "loss"])
    assert one.distances["iw_map"] != one.distances[study.UNSHARED.format("iw_map")]
    row = next(row for row in study.rows(read) if row[1:3] == ["wvs", "vsm13"])
    bare = next(each for each in read if each.aligner == "naive").distances["vsm13"]
    fitted = {each.country: each.distances["vsm13"] for each in read if each.fitted == "wvs"}
    assert row[3] == f"{np.mean([fitted[code][code] for code in fitted]):,.0f}"
    assert row[4] == row[6] == f"{(bare['CN'] + bare['US']) / 2:,.0f}"
    assert row[5] == f"{(fitted['CN']['US'] + fitted['US']['CN']) / 2:,.0f}"
    assert row[7] == f"{sum(fitted[code][code] < bare[code] for code in fitted)}/2" and row[9:11] == ["-", "-"]


def test_questions_of_the_fitted_survey_are_those_of_the_bare_model():
    spec = spec_of("iw_map")
    layout = layout_of(spec, ProtocolOptions())
    shares = layout.inside / layout.inside.sum(1, keepdims=True)
    bare, fitted = (Answers(layout, shares[None] * scale, np.full((1, len(layout)), 1 - scale)) for scale in (1, 0.5))
    mixed = study._with(fitted, bare, study.SHARED["iw_map"])
    shared = np.isin([layout.items[at] for at in layout.item], study.SHARED["iw_map"])
    assert len(set(study.SHARED["iw_map"]) & set(layout.items)) == 5 and not shared.all()
    assert np.array_equal(mixed.probs[0, shared], bare.probs[0, shared])
    assert np.array_equal(mixed.probs[0, ~shared], fitted.probs[0, ~shared])
    assert np.array_equal(mixed.off_options[0], np.where(shared, 0, 0.5))


def test_six_countries_are_tested_and_prefixes_compared():
    codes = ("US", "CN", "IN", "BR", "DE", "NG")

    def answered(aligner, fitted, country, shift):
        distances = {code: 1 - shift * (code == country) for code in codes}
        return study.Answered(aligner, fitted, country, {"wvs": distances}, {"wvs": 0.25})

    found = [answered("naive", "", "US", 0), *(answered("random_prefix", "", "US", 0.01 * n) for n in (0, 1))]
    found += [answered("sft", "wvs", code, 0.5) for code in codes]
    (row,) = study.rows(found)
    assert row[3:9] == ["0.500", "1.000", "1.000", "1.000", "6/6", "6/6"]
    assert row[9:] == ["1.00", "0.0014", "0.001", "0.250"]
    found += [answered("dpo", "wvs", code, 0.5) for code in codes]
    assert [row[11] for row in study.rows(found)] == ["0.003", "0.003"]  # of two tests


def test_the_short_table_has_the_means_and_the_accuracy():
    given = {"naive": (1.0, 0.25), "random_prefix": (0.9, 0.26), "sft": (0.5, 0.24)}
    found = [
        study.Answered(
            name, "wvs" if name == "sft" else "", "US", {"wvs": {"US": own, "CN": 2}}, {"wvs": 0.7}, accuracy
        )
        for name, (own, accuracy) in given.items()
    ]
    lines = study.brief(found, "sft", "wvs").splitlines()
    assert lines[2] == "| `wvs`, learned, in new wordings (share of a scale) | 1.000 | 0.500 | - | 0.700 | 0.900 |"
    assert lines[3] == "| `general`: accuracy ↑ (chance 0.25) | 0.250 | 0.240 | - | - | 0.260 |"


def test_a_study_without_the_bare_model_is_told(tmp_path):
    result = CliRunner().invoke(study.main, [str(tmp_path)])
    assert result.exit_code and "no run of naive" in result.output and "Traceback" not in result.output
