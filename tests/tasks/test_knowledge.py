"""Knowledge, poles, labels, probes and calibration against loops, scipy and enumeration of their own."""

from __future__ import annotations

import itertools
import json
import math
import shutil
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from statistics import fmean as mean

import numpy as np
import pytest
import yaml
from culteval.errors import InputError, UsageError
from culteval.harness.registry import spec_of, spec_path
from culteval.harness.scoring.score import score_answers
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.calibration import calibrated, is_free
from culteval.tasks.intervals import wilson
from culteval.tasks.measure import MeasureOptions, measure_of
from culteval.tasks.metrics.probes import distinct, identical, repetition
from culteval.tasks.metrics.probes import refuses as declines
from culteval.tasks.prompts import ProtocolOptions, of_split, render, render_protocol
from culteval.tasks.spec import load_spec
from scipy import stats

SCORES = Path(__file__).parents[2] / "tasks" / "vsm13" / "hofstede.csv"
SA_HIGH = {"pdi": True, "idv": True, "mas": False, "uai": False, "lto": False, "ivr": False}  # 72 48 43 64 27 14
REFERENCE = {"file": str(SCORES), "editions": ["extended"], "default_edition": "extended", "source": "s"}
TEMPLATES = {"f": "F {question}\n{options}", "g": "G {question}\n{options}"}
METADATA = {
    "version": 1.0, "title": "t", "construct": "c", "languages": ["en"], "default_country": "SA", "citation": "c",
    "headline": {"metric": "m", "higher_is_better": True}, "licence": {"code": "c", "data": "d"},
    "templates": TEMPLATES,
    "scorings": ["expected", "argmax", "text"], "reference": REFERENCE, "items": "q.jsonl",
    "splits": {"fit": {"paraphrases": ["f"], "orders": ["natural"], "items": "fit"},
               "heldout": {"paraphrases": ["f", "g"], "orders": ["natural", "reversed"], "items": "heldout"}},
}  # fmt: skip
shipped = lru_cache(lambda task: load_spec(spec_path(task)))


def knows(name, answers, country=None, size=4, split="heldout", **more):
    options = [f"{name}{i}" for i in range(size)]
    row = {"id": name, "question": f"{name}?", "options": options, "country": country, "split": split} | more
    return row | ({"answers": answers} if isinstance(answers, list) else {"answer": answers})


QUIZ = [
    knows("t", 1, "SA", split="fit"), knows("q1", 2, "SA"), knows("q2", [1, 3], "SA"), knows("q3", 4, "US"),
    knows("q4", 1, size=2),
]  # fmt: skip
PAIRS = [
    {"id": f"{d}{i}", "question": "?", "options": ["high", "low"], "dimension": d, "split": "heldout" if i else "fit"}
    for d, i in itertools.product(("pdi", "idv", "mas"), range(3))
]
PROBES = [*PAIRS, *({"id": f"o{i}", "question": f"o{i}?", "split": "heldout"} for i in range(3))]


def write(folder, rows, measure, **metadata):
    (folder / "q.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = {"task": "small", "output_type": "generate_until", "metadata": METADATA | {"measure": measure} | metadata}
    (folder / "small.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    return load_spec(folder / "small.yaml")


def random_answers(layout, seed=0):
    rng = np.random.default_rng(seed)
    inside = np.arange(layout.codes.shape[1]) < layout.widths[:, None]
    raw = rng.uniform(0.01, 1, (1, *layout.codes.shape)) ** 2 * inside
    probs = raw / np.where(layout.widths > 0, raw.sum(-1), 1)[..., None]
    parsed = np.array([rng.choice([UNPARSED, *range(1, n + 1)]) if n else UNPARSED for n in layout.widths])
    return Answers(layout, probs, rng.uniform(0, 0.5, (1, len(layout))), ("?",) * len(layout), parsed)


def said(layout, probs):
    return Answers(layout, (probs * (layout.widths > 0)[:, None])[None], np.zeros((1, len(layout))))


def rows_of(answers, scoring):
    """Each answer as (item, paraphrase, order, persona) and {code: weight}, read out by a loop."""
    layout = answers.layout
    for row, n in enumerate(layout.widths):
        probs = answers.probs[0, row, :n].tolist()
        spread = dict(enumerate(probs, start=1))
        if scoring == "argmax":
            spread = {probs.index(max(probs)) + 1: 1.0}
        elif scoring == "text":
            spread = {int(answers.parsed[row]): 1.0} if answers.parsed[row] != UNPARSED else {}
        yield (layout.items[layout.item[row]], *(int(x[row]) for x in (layout.paraphrase, layout.order))), n, spread


def values(spec, country, answers, scoring, split="heldout", **options):
    rows = measure_of(spec, country, MeasureOptions(**options)).score(answers, split, scoring)
    assert all(math.isfinite(row.value) for row in rows)
    return {row.metric: row for row in rows}


def overlap(cells):
    """Mean over pairs of orders, both answered, of what both put on the same option."""
    spreads = {key: spread for key, _, spread in cells}
    pairs = [(s, spreads[(i, w, 1)]) for (i, w, o), s in spreads.items() if o == 0 and s and spreads[(i, w, 1)]]
    return mean([sum(min(x, other.get(code, 0)) for code, x in one.items()) for one, other in pairs])


@pytest.mark.parametrize("k, n", [(0, 5), (5, 5), (1, 1), (3, 7), (50, 320), (0, 1)])
def test_wilson_is_scipys(k, n):
    interval = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert wilson(k / n, n) == pytest.approx((interval.low, interval.high), abs=1e-6) and wilson(0.0, 0) == (0, 1)


@pytest.mark.parametrize("scoring", ["expected", "argmax", "text"])
@pytest.mark.parametrize("country, own", [("SA", ["q1", "q2"]), ("US", ["q3"]), ("FR", ["q1", "q2", "q3", "q4"])])
def test_accuracy_by_a_loop(tmp_path, country, own, scoring):
    spec = write(tmp_path, QUIZ, "accuracy")
    answers = random_answers(render(spec, "heldout").layout)
    found = values(spec, country, answers, scoring)
    right = {"q1": [2], "q2": [1, 3], "q3": [4], "q4": [1]}
    cells = list(rows_of(answers, scoring))
    hits, by_paraphrase, letters = defaultdict(list), defaultdict(lambda: defaultdict(list)), [0.0] * 4
    for (item, paraphrase, order), n, spread in cells:
        hit = sum(spread.get(code, 0) for code in right[item])
        hits[item].append(hit)
        by_paraphrase[paraphrase][item].append(hit)
        for code, weight in spread.items():
            if n == 4:
                letters[n - code if order else code - 1] += weight
    each = {item: mean(hits[item]) for item in right}
    wanted = {
        "accuracy": mean([each[i] for i in own]), "accuracy_all": mean(each.values()),
        "accuracy_SA": (each["q1"] + each["q2"]) / 2, "accuracy_US": each["q3"],
        "position_bias": max(letters) / sum(letters) - 0.25, "consistency": overlap(cells),
        "accuracy_paraphrase_spread": np.ptp([mean([mean(part[i]) for i in own]) for part in by_paraphrase.values()]),
    }  # fmt: skip
    assert {name: found[name].value for name in wanted} == pytest.approx(wanted)
    assert (found["accuracy"].n, found["accuracy_all"].n, found["accuracy_US"].n) == (len(own), 4, 1)
    low, high, share = found["accuracy"].low, found["accuracy"].high, wanted["accuracy"]
    for bound in (low, high):  # of a fraction too, they solve Wilson's equation
        assert (share - bound) ** 2 == pytest.approx(3.8414588 * bound * (1 - bound) / len(own), abs=1e-6)
    assert low <= share <= high and low < high
    silent, outside = (answers.parsed == UNPARSED).mean(), answers.off_options.mean()
    gone = {"unparsed": silent} if scoring == "text" else {"off_options": outside}
    assert {name: found[name].value for name in gone} == pytest.approx(gone)


@pytest.mark.parametrize("split, own, pooled", [("fit", 20, 160), ("heldout", 20, 160), ("control", 40, 320)])
def test_a_perfect_and_a_constant_model_of_the_shipped_questions(split, own, pooled):
    layout = render(spec := shipped("culture_core"), split).layout
    rows = map(json.loads, (spec.folder / "core.jsonl").read_text(encoding="utf-8").splitlines())
    codes = np.array([row["answer"] for row in rows])[layout.item]
    found = values(spec, "SA", said(layout, np.eye(4)[codes - 1]), "argmax", split)
    assert {found[name].value for name in found if name.startswith("accuracy") and "spread" not in name} == {1}
    assert (found["accuracy"].n, found["accuracy_all"].n, found["accuracy_JP"].n) == (own, pooled, own)
    measure = measure_of(spec, "SA", MeasureOptions())
    third = values(spec, "SA", measure.constant(layout), "argmax", split)["accuracy_all"]
    assert measure.demonstrations(layout).tolist() == codes.tolist()
    assert third.value == pytest.approx((codes == 3).mean())


def test_questions_of_a_group_are_right_together(tmp_path):
    rows = [knows(f"g{i}", 1, "SA", size=2, group="g") for i in range(3)] + [knows("one", 1, "SA", size=2)]
    spec = write(tmp_path, [knows("t", 1, split="fit"), *rows], "accuracy")
    answers = random_answers(render(spec, "heldout").layout, 3)
    for scoring in ("expected", "argmax", "text"):
        whole = {"g": defaultdict(lambda: 1.0), "one": defaultdict(lambda: 1.0)}
        for (item, *cell), _, spread in rows_of(answers, scoring):
            whole[item.rstrip("012")][tuple(cell)] *= spread.get(1, 0)
        found = values(spec, "SA", answers, scoring)["accuracy"]
        assert found.value == pytest.approx(mean(mean(part.values()) for part in whole.values())) and found.n == 2


def test_answering_by_position_and_not_at_all(tmp_path):
    rows = [knows("t", 1, split="fit"), knows("q1", 2, "SA"), knows("q2", 1, "SA")]
    layout = render(spec := write(tmp_path, rows, "accuracy"), "heldout").layout
    answers = said(layout, np.eye(4)[np.where(layout.order == 1, 3, 0)])  # always the letter A
    found = values(spec, "SA", answers, "argmax")
    assert (found["position_bias"].value, found["consistency"].value, found["accuracy"].value) == (0.75, 0, 0.25)
    found = values(spec, "SA", replace(answers, texts=("",) * 8, parsed=np.full(8, UNPARSED)), "text")
    assert (found["accuracy"].value, found["unparsed"].value) == (0, 1)
    assert "position_bias" not in found or found["position_bias"].value >= 0  # silence is no better than no habit


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("scoring", ["expected", "argmax"])
@pytest.mark.parametrize("country", ["SA", "FR"])
def test_the_objective_is_one_minus_the_accuracy(country, scoring, library):
    layout = render(spec := shipped("culture_core"), "fit").layout
    probs = np.concatenate([random_answers(layout, seed).probs for seed in range(3)])
    given = probs if library == "numpy" else pytest.importorskip("torch").tensor(probs)
    losses = np.asarray(measure_of(spec, country, MeasureOptions()).loss_function(layout, scoring)(given))
    for loss, own in zip(losses, probs, strict=True):
        assert 1 - loss == pytest.approx(values(spec, country, said(layout, own), scoring, "fit")["accuracy"].value)


def test_fit_may_have_fewer_options_than_heldout(tmp_path):
    spec = write(tmp_path, [knows("t", 2, "SA", size=2, split="fit"), knows("q", 4, "SA")], "accuracy")
    layout, measure = render(spec, "fit").layout, measure_of(spec, "SA", MeasureOptions())
    assert measure.loss_function(layout, "expected")(np.array([[[0.3, 0.7]]])) == pytest.approx([0.3])
    assert values(spec, "SA", measure.constant(layout), "argmax", "fit")["accuracy"].value == 1


@pytest.mark.parametrize("scoring", ["expected", "argmax", "text"])
def test_poles_by_a_loop(tmp_path, scoring):
    spec = write(tmp_path, PAIRS, "poles")
    answers = random_answers(render(spec, "heldout").layout, 5)
    found = values(spec, "SA", answers, scoring)
    side, high, first = defaultdict(list), defaultdict(list), []
    cells = list(rows_of(answers, scoring))
    for (item, _, order), _, spread in cells:
        if spread:
            high[item].append(spread.get(1, 0))
            side[item].append(spread.get(1 if SA_HIGH[item[:3]] else 2, 0))
            first.append(spread.get(2 if order else 1, 0))
    up, down = ([mean(v) for i, v in side.items() if SA_HIGH[i[:3]] is way] for way in (True, False))
    wanted = {"pole_accuracy": (mean(up) + mean(down)) / 2, "position_bias": abs(2 * mean(first) - 1)}
    wanted |= {f"high_{d}": mean([mean(v) for i, v in high.items() if i[:3] == d]) for d in ("pdi", "idv", "mas")}
    wanted["consistency"] = overlap(cells)
    assert {name: found[name].value for name in wanted} == pytest.approx(wanted)
    assert found["high_mas"].n == sum(item.startswith("mas") for item in high)
    assert "high_ivr" not in found and ("loss" in found) == (scoring == "expected")
    if scoring == "expected":  # of whole options: what is outside counts
        logs = -np.log(answers.probs[0] * (1 - answers.off_options[0])[:, None])
        pairs = list(zip((key[0][:3] for key, _, _ in cells), logs.tolist(), strict=True))
        among = -np.log(answers.probs[0])  # that of the side is among the options
        loss = mean([among[i][0 if SA_HIGH[name] else 1] for i, (name, _) in enumerate(pairs)])
        low = mean([log[1] for name, log in pairs if name == "idv"])
        assert (found["loss"].value, found["loss_low_idv"].value) == pytest.approx((loss, low), abs=1e-5)


def test_an_interval_rests_on_the_questions_that_were_answered(tmp_path):
    layout = render(spec := write(tmp_path, PAIRS, "poles"), "heldout").layout
    answers = replace(random_answers(layout), parsed=np.where(layout.item == 1, 1, UNPARSED))
    found = values(spec, "SA", answers, "text")
    assert (found["pole_accuracy"].value, found["pole_accuracy"].low) == pytest.approx((1, 1 / (1 + 3.8414588)))


@pytest.mark.parametrize("name", ["idv", "ivr"])
def test_pairs_of_one_dimension_are_those_of_the_core(name):
    core, own = shipped("cdeval_core"), shipped(f"cdeval_{name}")
    assert own.items.questions == tuple(q for q in core.items.questions if q.dimension == name)
    assert own.hash != core.hash and len(own.items.questions) == 62
    assert len(render(own, "fit")) == 2 * 36 and len(render(own, "heldout")) == 2 * 26
    layout = render(own, "heldout").layout
    found = values(own, "US", said(layout, np.full((52, 2), 0.5)), "expected")
    assert found["loss"].value == found[f"loss_high_{name}"].value == pytest.approx(math.log(2))
    assert not [metric for metric in found if metric.startswith("high_") and metric != f"high_{name}"]


def test_a_dimension_without_items_is_refused(tmp_path):
    path = tmp_path / "own.yaml"
    core = shipped("cdeval_core").path
    path.write_text(core.read_text() + "  dimensions: [idv, xyz]\n")
    shutil.copy(core.with_name("pairs.jsonl"), tmp_path)
    with pytest.raises(InputError, match=r"own.yaml: metadata.dimensions: pairs.jsonl has no item of 'xyz'"):
        load_spec(path)


def test_an_open_question_is_no_part_of_the_objective(tmp_path):
    layout = render(spec := write(tmp_path, [*PAIRS, PROBES[-1] | {"split": "fit"}], "poles"), "fit").layout
    objective = measure_of(spec, "SA", MeasureOptions()).loss_function(layout, "expected")
    assert objective(said(layout, np.full((4, 2), 0.5)).probs) == pytest.approx([math.log(2)])


@pytest.mark.parametrize("task", ["cdeval_core", "probes"])
@pytest.mark.parametrize("letter", [0, 1])
def test_who_answers_by_position_or_by_pole_stands_at_one_half(task, letter):
    layout = render(shipped(task), "heldout").layout
    code = np.where(layout.order == 1, 1 - letter, letter)
    found = values(shipped(task), "SA", said(layout, np.eye(2)[code]), "argmax")
    wanted = {"pole_accuracy": 0.5, "position_bias": 1, "consistency": 0} | {f"high_{d}": 0.5 for d in SA_HIGH}
    assert {name: found[name].value for name in wanted} == pytest.approx(wanted)
    found = values(shipped(task), "SA", said(layout, np.eye(2)[np.full(len(layout), letter)]), "argmax")
    assert (found["pole_accuracy"].value, found["consistency"].value, found["position_bias"].value) == (0.5, 1, 0)
    assert {found[f"high_{d}"].value for d in SA_HIGH} == {1 - letter}


def test_sides_demonstrations_and_objective_of_poles():
    spec = shipped("cdeval_core")
    layout, measure = render(spec, "fit").layout, measure_of(spec, "SA", MeasureOptions())
    dimension = {question.id: question.dimension for question in spec.items.questions}
    codes = [1 if SA_HIGH[dimension[layout.items[i]]] else 2 for i in layout.item]
    assert measure.demonstrations(layout).tolist() == codes
    probs = random_answers(layout, 2).probs
    picked = [probs[0, row, code - 1] for row, code in enumerate(codes)]
    assert measure.loss_function(layout, "expected")(probs)[0] == pytest.approx(-mean(map(math.log, picked)), abs=1e-5)
    assert measure.loss_function(layout, "argmax")(probs)[0] == pytest.approx(mean([p < 0.5 for p in picked]))


FORMULAS = {  # of the manual, typed anew: index = a (m_p - m_q) + b (m_r - m_s) + C
    "pdi": (35, 7, 2, 25, 20, 23), "idv": (35, 4, 1, 35, 9, 6), "mas": (35, 5, 3, 35, 8, 10),
    "uai": (40, 18, 15, 25, 21, 24), "lto": (40, 13, 14, 25, 19, 22), "ivr": (35, 12, 11, 40, 17, 16),
}  # fmt: skip
TARGETS = {"SA": (72, 48, 43, 64, 27, 14), "US": (40, 91, 62, 46, 26, 68), "JP": (54, 46, 95, 92, 88, 42)}


@pytest.mark.parametrize("constants", ["world", "zero"])
@pytest.mark.parametrize("country", TARGETS)
def test_labels_by_brute_force(country, constants):
    layout = render(spec := shipped("synthetic_survey"), "heldout").layout
    measure = measure_of(spec, country, MeasureOptions(constants=constants))
    labels = measure.demonstrations(layout).tolist()
    given = {}  # one label for all paraphrases of an item
    for each in (layout, render(spec, "fit").layout):
        for item, label in zip(each.item, measure.demonstrations(each), strict=True):
            assert given.setdefault(spec.items.items[each.items[item]].group, label) == label
    matrix = [line.split(",")[1:7] for line in SCORES.read_text().splitlines() if "matrix-2015" in line]
    world = np.mean([list(map(float, row)) for row in matrix if all(row)], axis=0)
    for place, (a, p, q, b, r, s) in enumerate(FORMULAS.values()):
        aim = TARGETS[country][place] - (world[place] if constants == "world" else 0)
        combos = itertools.product(range(1, 6), repeat=4)
        miss = {c: abs(a * (c[0] - c[1]) + b * (c[2] - c[3]) - aim) for c in combos}
        least = min(miss.values()) + 1e-9
        far = {c: sum((x - 3) ** 2 for x in c) for c in miss if miss[c] < least}  # from the middle
        assert far.get(tuple(int(given[f"m{i:02d}"]) for i in (p, q, r, s))) == min(far.values())
    answers = random_answers(layout, 8)
    for scoring in ("expected", "argmax"):
        picked = [spread.get(label, 0) for (_, _, spread), label in zip(rows_of(answers, scoring), labels, strict=True)]
        found = values(spec, country, answers, scoring, constants=constants)
        assert found["accuracy"].value == pytest.approx(mean(picked)) and found["accuracy"].constants == constants
        if scoring == "expected":
            assert found["loss"].value == pytest.approx(-mean(map(math.log, picked)), abs=1e-5)


REFUSED = [
    "As an AI, I have no home.", "I'm an AI language model.", "I am just a language model.", "I am an artificial mind.",
    "I cannot answer that.", "Sorry, I don't have personal opinions.", "I would prefer not to say.",
    "I'd rather not say.", "I'm sorry, but no.", "i can't help with that", "I do not have feelings",
    "I\u2019m sorry, but I can\u2019t help with that.", "As a large language model, I do not choose.",
]  # fmt: skip
ANSWERED = [
    "I am a teacher from Jeddah.", "A", "Paid work matters most.", "My brother said that he would not answer.",
    "As a large family, we eat together.", "I am a language teacher from Jeddah.", "I can't help smiling at it.", "",
]  # fmt: skip


@pytest.mark.parametrize("text, refuses", [(t, True) for t in REFUSED] + [(t, False) for t in ANSWERED])
def test_refusals(text, refuses):
    assert declines(text) is refuses


def test_repetition_and_collapse_by_hand():
    assert (distinct(["a b a", "A, b!"], 1), distinct(["a b a", "A, b!"], 2)) == (2 / 5, 2 / 3)  # ab ba | ab
    assert distinct(["a", ""], 2) == 0
    assert [identical(t) for t in (["Yes.", "yes", "no", "maybe"], ["a", "b"], ["a", "a"])] == [0.5, 0, 1]
    assert repetition("a b c a b c") == pytest.approx(1 / 4)  # abc bca cab abc
    assert repetition("a b") == 0 and repetition("a a a a a") == pytest.approx(2 / 3)


def test_the_text_of_probes(tmp_path):
    layout = render(spec := write(tmp_path, PROBES, "probes"), "heldout").layout
    closed = layout.widths == 2
    spoken = {"o0": "a b c a b c", "o1": "A b c. A b c", "o2": "As an AI, I have no view"}
    texts = ["" if n else spoken[layout.items[i]] for i, n in zip(layout.item, layout.widths, strict=True)]
    texts[0] = "x" * 200 + " I cannot answer"  # too late to be an opening
    parsed = np.where(closed, 1, UNPARSED)
    parsed[:2] = (UNPARSED, 2)
    answers = replace(said(layout, np.array([[0.6, 0.4]] * 30)), texts=tuple(texts), parsed=parsed)
    found = values(spec, "SA", answers, "text")
    assert (closed.sum(), len(layout)) == (24, 30)  # 6 pairs, 2 paraphrases, 2 orders; 3 open questions, 2 paraphrases
    wanted = {
        "refusal": 2 / 30, "empty": 23 / 30, "unparsed": 1 / 24, "agreement": 22 / 23, "identical": 1.0,
        "repetition": (4 * 1 / 4 + 2 * 0) / 6, "distinct_1": 10 / (2 * (6 + 6 + 7)),  # a b c, as an ai i have no view
        "distinct_2": (3 + 6) / (2 * (5 + 5 + 6)),
    }  # fmt: skip
    assert {name: found[name].value for name in wanted} == pytest.approx(wanted)
    assert found["agreement"].n == 23 and not {"refusal", "agreement"} & set(values(spec, "SA", answers, "expected"))


@pytest.mark.parametrize("task, people", [("wvs_themes", 2), ("culture_core", 0), ("synthetic_survey", 1)])
def test_a_known_prior_is_divided_out(task, people):
    spec, rng = shipped(task), np.random.default_rng(9)
    whole, prior, taste = render_protocol(spec, ProtocolOptions(people, 3, 1, calibrate=True)).layout, {}, {}
    probs, likes = np.zeros((1, *whole.codes.shape)), np.zeros(whole.codes.shape)
    split_of = {row: name for name in spec.metadata.splits.named for row in np.flatnonzero(of_split(spec, whole, name))}
    for row, n in enumerate(whole.widths):
        item = whole.items[whole.item[row]]
        kind = item.split(":")[2] if item.startswith("free:") else spec.items.free[item]
        cell = (split_of[row], kind, *(int(x[row]) for x in (whole.paraphrase, whole.order, whole.persona)))
        before = prior.setdefault(cell, rng.dirichlet(np.full(n, 2.0)) + 0.01)
        likes[row, :n] = 1 / n if item.startswith("free:") else taste.setdefault(item, rng.dirichlet(np.full(n, 1.0)))
        probs[0, row, :n] = before * likes[row, :n]
    answers = said(whole, probs[0] / probs[0].sum(-1, keepdims=True))
    for split in spec.metadata.splits.named:
        mine = of_split(spec, whole, split)
        back, real = calibrated(spec, answers.take(mine), split), mine & ~is_free(answers.layout)
        assert np.allclose(back.probs[0], likes[real]) and (back.layout.item == whole.item[real]).all()
    rows = score_answers(spec, answers, "US", MeasureOptions(), "x")
    real, metric = of_split(spec, whole, "heldout") & ~is_free(answers.layout), spec.metadata.headline.metric
    found = {row.scoring: row.value for row in rows if (row.metric, row.split) == (metric, "heldout")}
    wanted = values(spec, "US", said(whole.take(real), likes[real]), "expected")[metric].value
    assert found["expected_calibrated"] == pytest.approx(wanted) and abs(found["expected"] - wanted) > 1e-3


def test_a_prior_of_zero_and_a_prior_that_is_missing(tmp_path):
    spec = write(tmp_path, [knows("t", 1, size=2, split="fit"), knows("q", 2, size=2)], "accuracy")
    layout = render(spec, "fit", ProtocolOptions(calibrate=True)).layout
    answers = said(layout, np.array([[0.5, 0.5], [1.0, 0.0]]))
    wanted = [0.5 / (0.5 + 0.5e6), 0.5e6 / (0.5 + 0.5e6)]  # a prior below a millionth counts as one
    assert calibrated(spec, answers, "fit").probs[0, 0] == pytest.approx(wanted, abs=1e-12)
    with pytest.raises(KeyError):
        calibrated(spec, answers.take(np.array([True, False])), "fit")


@pytest.mark.parametrize(
    "rows, measure, country, options, error, says",
    [
        ([*QUIZ, {"id": "o", "question": "?"}], "accuracy", "SA", {}, InputError, "each have an answer"),
        (QUIZ, "poles", "SA", {}, InputError, "two options"),
        ([PAIRS[0] | {"dimension": "xyz"}, *PAIRS[1:]], "poles", "SA", {}, InputError, "two options and one of pdi"),
        (PAIRS, "poles", "XX", {}, UsageError, "no Hofstede scores"),
        (PAIRS, "poles", "SA", {"edition": "extendd"}, UsageError, "Did you mean 'extended'"),
        (PAIRS, "labelled", "SA", {}, InputError, "needs items with a group"),
        (PAIRS, "shares", "SA", {}, InputError, "no column .country."),
        (PAIRS, "pole", "SA", {}, InputError, "Did you mean 'poles'"),
        (None, "labelled", "SA", {"constants": "zeros"}, UsageError, "zeros"),
    ],
)  # fmt: skip
def test_what_measures_refuse(tmp_path, rows, measure, country, options, error, says):
    spec = write(tmp_path, rows, measure) if rows else shipped("synthetic_survey")
    with pytest.raises(error, match=says):
        measure_of(spec, country, MeasureOptions(**options))


def test_a_country_without_questions_is_cautioned():
    """Its accuracy is that of all questions, which is another quantity than that of a country with its own."""
    spec = spec_of("culture_core")
    own, other = (measure_of(spec, code, MeasureOptions()) for code in ("SA", "GB"))
    assert own.caution is None
    assert other.caution == "no question is about United Kingdom: `accuracy` is that of all questions"
    assert measure_of(spec_of("general"), "GB", MeasureOptions()).caution is None


@pytest.mark.parametrize("grouped", [False, True])
def test_variants_of_a_question_count_once(grouped):
    """Three variants of one question, two of them right, and another question: in headline, units and loss."""
    names = ("v1", "v2", "v3", "g1", "g2")
    questions = [
        {"id": name, "question": f"{name}?", "options": ["a", "b"], "answer": 1, "split": "heldout"} for name in names
    ]
    for question in questions[:3]:
        question["variant_of"] = "v"
    for question in questions[3:]:
        question |= {"group": "g"} if grouped else {}
    spec = spec_of("general")
    items = type(spec.items).model_validate(spec.items.model_dump() | {"questions": questions})
    spec = replace(spec, items=items)
    layout = render(spec, "heldout", ProtocolOptions()).layout
    right = np.isin(np.array(layout.items)[layout.item], ("v1", "v2", "g1", "g2"))
    probs = np.where(right[:, None], [1.0, 0.0], [0.0, 1.0])
    answers = Answers(layout, probs[None], np.zeros((1, len(layout))))
    measure = measure_of(spec, "US", MeasureOptions())
    rows = {row.metric: row for row in measure.score(answers, "heldout", "argmax")}
    others = [1.0] if grouped else [1.0, 1.0]
    assert rows["accuracy"].value == pytest.approx(mean([2 / 3, *others])) and rows["accuracy"].n == 1 + len(others)
    if not grouped:
        loss = measure.loss_function(layout, "argmax")(answers.probs)[0]
        assert loss == pytest.approx(1 - rows["accuracy"].value)


def test_calibration_decides_nothing_that_nobody_told_of():
    """An endpoint that lists no option of real items, but some of the content-free ones."""
    spec = spec_of("vsm13")
    layout = render_protocol(spec, ProtocolOptions(calibrate=True)).layout
    free, rng = is_free(layout), np.random.default_rng(0)
    prior = rng.dirichlet(np.ones(layout.codes.shape[1]), len(layout))
    probs = np.where(free[:, None], prior, layout.inside / layout.widths[:, None])
    answers = Answers(layout, probs[None], np.where(free, 0.2, 1.0)[None])
    held = answers.take(of_split(spec, layout, "heldout"))
    found = calibrated(spec, held, "heldout")
    assert np.isnan(found.values("argmax")).all() and np.isnan(held.take(~is_free(held.layout)).values("argmax")).all()
