"""The rows that every board has, against values worked out by hand, by enumeration and from the raw files."""

from __future__ import annotations

import csv
import itertools
import json
import math
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
import pytest
import yaml
from culteval.harness.registry import spec_of
from culteval.harness.scoring.baselines import PREFIXES, baselines, is_improvement, random_prefix
from culteval.tasks.answers import Answers
from culteval.tasks.measure import MeasureOptions, measure_of
from culteval.tasks.metrics.distribution_distances import split_half
from culteval.tasks.metrics.hofstede import inverse, means_with, weights
from culteval.tasks.prompts import ProtocolOptions, render_protocol
from culteval.tasks.score import Score
from culteval.tasks.spec import load_spec

HOFSTEDE = Path(__file__).parents[3] / "tasks" / "vsm13" / "hofstede.csv"
DIMENSIONS = ("pdi", "idv", "mas", "uai", "lto", "ivr")


def rows_of(spec, country, calibrate=False, **options):
    """The trivial rows by name, each as {(metric, scoring): value} of the held-out split."""
    layout = render_protocol(spec, ProtocolOptions(calibrate=calibrate)).layout
    rows = baselines(spec, layout, country, MeasureOptions(**options))
    return {
        row.name: {(s.metric, s.scoring): s.value for s in row.scores if s.split == "heldout"} for row in rows
    }, rows


def published(code):
    with HOFSTEDE.open(encoding="utf-8") as file:
        table = {row["iso2"]: row for row in csv.DictReader(file)}
    return [float(table[code][name]) for name in DIMENSIONS]


def complete():
    """Codes of complete rows, and the world's mean over those of the published matrix."""
    with HOFSTEDE.open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if all(row[name] for name in DIMENSIONS)]
    world = [row for row in rows if row["source"] == "matrix-2015"]
    return [row["iso2"] for row in rows], [fmean(float(row[name]) for row in world) for name in DIMENSIONS]


@pytest.fixture
def survey(tmp_path):
    """Two items, three countries; Sweden's people are four, so that their halves can be counted."""
    paraphrase = {"scales": {"three": ["p", "q", "r"], "four": ["p", "q", "r", "s"]}, "stems": {}}
    paraphrase["items"] = {"a": "a?", "b": "b?"}
    items = {"a": {"scale": "three", "stem": None, "dimension": "x"}}
    items["b"] = {"scale": "four", "stem": None, "dimension": "y"}
    survey = {"language": "en", "codes": {"three": [0, 1, 2], "four": [1, 2, 4, 8]}, "items": items}
    survey["paraphrases"] = {name: paraphrase | {"instruction": name} for name in "VW"}
    (tmp_path / "items.yaml").write_text(yaml.safe_dump(survey, sort_keys=False), encoding="utf-8")
    lines = ["country,question,code,share,count", "SE,a,0,.5,2", "SE,a,2,.5,2", "SE,b,1,.25,1", "SE,b,8,.75,3"]
    lines += ["NO,a,1,1,9", "NO,b,2,1,9", "DK,a,0,.5,3", "DK,a,1,.5,3"]
    (tmp_path / "s.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    metadata = {
        "version": 1.0, "title": "t", "construct": "c", "measure": "shares", "items": "items.yaml",
        "languages": ["en"], "default_country": "SE", "headline": {"metric": "w1", "higher_is_better": False},
        "citation": "c", "licence": {"code": "c", "data": "d"}, "scorings": ["text", "expected", "argmax"],
        "reference": {"file": "s.csv", "editions": ["one"], "default_edition": "one", "source": "s"},
        "splits": {"fit": {"paraphrases": ["V"], "orders": ["natural"]},
                   "heldout": {"paraphrases": ["W"], "orders": ["natural", "reversed"]}},
    }  # fmt: skip
    spec = {"task": "small", "output_type": "generate_until", "metadata": metadata}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return load_spec(tmp_path / "small.yaml")


@pytest.mark.parametrize("calibrate", [False, True])
def test_shares_by_hand(survey, calibrate):
    """Sweden: a is 1/2, 0, 1/2 and b 1/4, 0, 0, 3/4. Of the others a is 1/4, 3/4, 0 on average and b all on 2."""
    found, rows = rows_of(survey, "SE", calibrate)
    assert list(found) == ["constant", "uniform", "world mean", "majority", "split-half"]
    by_hand = {
        "constant": ((0.5 + 0.5) / 2, (0.25 * 3 + 0.75 * 4) / 7),
        "uniform": ((1 / 6 + 1 / 6) / 2, (0 * 1 + 0.25 * 2 + 0.5 * 4) / 7),
        "world mean": ((0.25 + 0.5) / 2, (0.25 * 1 + 0.75 * 6) / 7),
        "majority": ((0.5 + 0.5) / 2, (0.25 * 1 + 0.75 * 6) / 7),
        "split-half": (1 / 3, 1 / 2),  # of six halves of 0022 two differ, by all; 1 and 8 are always parted: 1/2
    }
    for name, each in by_hand.items():
        for scoring in ("text", "expected", "argmax"):  # nobody was read, so answer scoring changes nothing
            assert found[name]["w1", scoring] == pytest.approx(fmean(each)), name
    assert {s.aligner for row in rows for s in row.scores} == set(found)


def test_no_counts_no_split_half(survey):
    path = survey.folder / "s.csv"
    text = "\n".join(line.rsplit(",", 1)[0] for line in path.read_text().splitlines())
    path.write_text(text + "\n")
    assert "split-half" not in rows_of(survey, "SE")[0]


@pytest.mark.parametrize("people", [[0, 0, 1, 2, 2, 2], [0, 1, 1, 1, 2], [2, 2], [1]])
def test_split_half_by_enumeration(people):
    found = []
    for half in itertools.combinations(range(len(people)), len(people) // 2):
        parts = [[p for i, p in enumerate(people) if (i in half) == inside] for inside in (True, False)]
        if len(people) > 1:
            below = [[sum(p <= code for p in part) / len(part) for code in (0, 1)] for part in parts]
            found.append(sum(abs(a - b) for a, b in zip(*below, strict=True)) / 2)
    shares = np.bincount(people, minlength=3) / len(people)
    assert split_half(shares, np.arange(3), len(people)) == pytest.approx(fmean(found) if found else 0)


def test_only_the_country_s_own_scale_is_left_out_of_the_world_s_mean():
    """Q33 was asked on three points in US, NG and BR: the mean for DE is that of the other eight."""
    spec = spec_of("wvs")
    with (spec.folder / "shares.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["question"] == "Q33" and row["country"] != "DE"]
    whole = {row["country"] for row in rows} - {"US", "NG", "BR"}
    mean = [sum(float(r["share"]) for r in rows if r["country"] in whole and r["code"] == str(c)) for c in range(1, 6)]
    layout = render_protocol(spec, ProtocolOptions()).layout
    answers = measure_of(spec, "DE", MeasureOptions()).baselines(layout)["world mean"]
    row = np.flatnonzero(layout.item == spec.items.ids.index("Q33"))[0]
    assert answers.probs[0, row, :5] == pytest.approx(np.array(mean) / len(whole), abs=1e-5)
    assert answers.probs[0].sum(-1) == pytest.approx(1)


@pytest.mark.parametrize("constants", ["world", "zero"])
def test_the_world_s_mean_of_the_indices(constants):
    """Whatever C is, the row stands at the squared distance between the world's mean and the country."""
    found, rows = rows_of(spec_of("vsm13"), "SA", constants=constants)
    name, (_, world) = {"world": "constant", "zero": "world mean"}[constants], complete()
    for scoring in ("expected", "argmax"):
        loss = sum((a - b) ** 2 for a, b in zip(world, published("SA"), strict=True))
        assert found[name]["loss", scoring] == pytest.approx(loss)
    assert rows[0].note == {"world": "also uniform and world mean", "zero": "also uniform"}[constants]
    assert found["constant"]["collapsed", "expected"] == 1 and len(found) == len({"constant", name})
    assert "majority" not in found  # nobody counted who said what


def test_item_means_with_given_indices():
    index, constants = np.array([72.0, 48, 43, 64, 27, 14]), np.full(6, 50.0)
    means = means_with(index, constants)
    assert weights() @ means + constants == pytest.approx(index)
    assert abs(means - 3).max() < 1 and means.shape == (24,)
    assert (means_with(np.full(6, 1e4), constants) <= 5).all()


def test_questions_by_hand(tmp_path):
    """Right codes 2, 2, 1, and 1 of two: a guess is right in 1/4, 1/4, 1/4 and 1/2; code 1 or 2 is right twice."""
    rows = [{"id": f"q{i}", "question": "?", "options": list("abcd"), "answer": a} for i, a in enumerate((2, 2, 1))]
    rows.append({"id": "q3", "question": "?", "options": list("ab"), "answer": 2})
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    source = yaml.safe_load(spec_of("general").path.read_text(encoding="utf-8").replace("!function ", ""))
    templates = {"f": "F {question}\n{options}", "g": "G {question}\n{options}"}
    splits = {
        "fit": {"paraphrases": ["f"], "orders": ["natural"]},
        "heldout": {"paraphrases": ["g"], "orders": ["natural"]},
    }
    source["metadata"] |= {"items": "q.jsonl", "templates": templates, "splits": splits}
    (tmp_path / "t.yaml").write_text(yaml.safe_dump(source | {"task": "t"}), encoding="utf-8")
    found, _ = rows_of(load_spec(tmp_path / "t.yaml"), "US")
    assert list(found) == ["constant", "uniform", "majority"]
    for scoring in ("expected", "argmax"):
        assert found["uniform"]["accuracy", scoring] == pytest.approx(fmean([0.25, 0.25, 0.25, 0.5]))
        assert found["majority"]["accuracy", scoring] == 0.75
        assert found["constant"]["accuracy", scoring] == 0.25  # the third option, or the second of two


def test_poles_of_most_countries():
    found, _ = rows_of(spec_of("cdeval_core"), "US")
    codes, world = complete()
    above = {c: [a > b for a, b in zip(published(c), world, strict=True)] for c in codes}
    for number, name in enumerate(DIMENSIONS):
        most = fmean(above[c][number] for c in codes if c != "US") > 0.5
        if ("high_" + name, "expected") in found["majority"]:
            assert found["majority"]["high_" + name, "expected"] == float(most)
    assert found["uniform"]["pole_accuracy", "expected"] == found["uniform"]["pole_accuracy", "argmax"] == 0.5
    assert found["uniform"]["loss", "expected"] == pytest.approx(math.log(2))
    assert ("loss", "argmax") not in found["uniform"]  # the measure has none there


def test_labels_of_most_countries():
    spec = spec_of("synthetic_survey")
    found, _ = rows_of(spec, "US", constants="zero")
    codes, world = complete()
    labels = {c: inverse(np.array(published(c)), np.zeros(6)) for c in codes}
    groups = [int(key.group[1:]) - 1 for key in spec.items.items.values()]
    heldout = [g for item, g in zip(spec.items.ids, groups, strict=True) if spec.items.tag(item) == "heldout"]
    majority = [np.bincount([labels[c][g] for c in codes if c != "US"]).argmax() for g in range(24)]
    accuracy = {name: fmean(said[g] == labels["US"][g] for g in heldout or groups) for name, said in
                (("majority", majority), ("world mean", inverse(np.array(world), np.zeros(6))))}  # fmt: skip
    for name, value in accuracy.items():
        assert found[name]["accuracy", "expected"] == pytest.approx(value)
    assert found["uniform"]["accuracy", "expected"] == pytest.approx(0.2)


def test_probes_have_rows_and_open_questions_none():
    found, _ = rows_of(spec_of("probes"), "SA")
    assert list(found) == ["constant", "uniform", "majority"]
    assert found["uniform"]["pole_accuracy", "text"] == 0.5 and ("refusal", "text") not in found["uniform"]


# ---------------------------------------------------------------- the random-prefix control


def score(value, metric="loss", better=False, split="heldout", note=None):
    return Score(
        task="t", country="SA", metric=metric, scoring="expected", split=split, value=value, n=1, edition="e",
        higher_is_better=better, paraphrases=("A",), orders=("natural",), low=0.0, high=9.0, note=note,
    )  # fmt: skip


def test_mean_and_spread_of_the_prefixes():
    values = np.random.default_rng(0).normal(5, 2, PREFIXES).tolist()
    runs = [[score(v), score(2 * v, "l1")] + [score(v, "rare")] * (i > 0) for i, v in enumerate(values)]
    row = random_prefix(runs)
    assert row.name == "random prefix (24)" and row.note is None
    found = {s.metric: s for s in row.scores}
    assert set(found) == {"loss", "l1"}  # what one run lacks has no mean over all
    assert (
        found["loss"].value == pytest.approx(fmean(values)) and (found["loss"].low, found["loss"].high) == (None,) * 2
    )
    assert row.spread["l1", "expected", "heldout"] == pytest.approx(2 * stdev(values))
    assert random_prefix(runs[:3]).note == "3 of the 24 seeds of a control"
    with pytest.raises(ValueError, match="two runs"):
        random_prefix(runs[:1])


@pytest.mark.parametrize("better", [False, True])
def test_two_deviations_to_the_letter_are_no_gain(better):
    control = random_prefix([[score(v, better=better)] for v in (0.0, 2.0, 4.0)])  # mean 2, deviation 2
    edge = 6.0 if better else -2.0
    past = edge + (1e-9 if better else -1e-9)
    assert is_improvement(score(edge, better=better), control) is False
    assert is_improvement(score(past, better=better), control) is True
    assert is_improvement(score(4 - past, better=better), control) is False  # as far on the worse side
    assert is_improvement(score(0, "other", better), control) is None
    neither = random_prefix([[score(v, better=None)] for v in (0.0, 2.0)])
    assert is_improvement(score(edge, better=None), neither) is None


def test_prefixes_are_collapsed_where_all_are():
    assert random_prefix([[score(1, note="collapsed")]] * 2).scores[0].note == "collapsed"
    assert random_prefix([[score(1, note="collapsed")], [score(1)]]).scores[0].note is None


def test_rows_are_of_the_prompts_that_were_asked(survey):
    """A submission of one paraphrase gets rows of one paraphrase."""
    layout = render_protocol(spec_of("vsm13"), ProtocolOptions(limit=1)).layout
    answers = Answers(layout, np.full((1, *layout.codes.shape), 0.2), np.zeros((1, len(layout))))
    rows = baselines(spec_of("vsm13"), answers.layout, "SA", MeasureOptions())
    assert {s.paraphrases for s in rows[0].scores if s.metric == "loss"} == {("A",), ("C",)}
