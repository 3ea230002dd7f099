"""Data sets of the field as people have them: imported, scored as published, by code of this file from the raw file."""

from __future__ import annotations

import ast
import json
from collections import defaultdict

import numpy as np
import pytest
from culteval.harness.registry import spec_of
from culteval.harness.scoring.baselines import baselines
from culteval.tasks.answers import Answers
from culteval.tasks.measure import MeasureOptions, countries_of, measure_of
from culteval.tasks.metrics.common import uniform_answers
from culteval.tasks.prompts import ProtocolOptions, layout_of, of_split

from .. import data_sets
from ..command import invoked

TASKS = {
    "globalopinionqa": ("globalopinionqa",),
    "blend": ("blend",),
    "normad": ("normad_country", "normad_value", "normad_rule"),
    "simbench": ("simbench_pop",),
    "opinionqa": ("opinionqa",),
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def imported(home, name, *flags):
    source = data_sets.write(home, name)
    return json.loads(invoked("data", "import", name, source, "--json", *flags).stdout)


def answered(spec, split="heldout", seed=5):
    """Random answers to the prompts of a split."""
    layout = layout_of(spec, ProtocolOptions())
    probs = np.random.default_rng(seed).uniform(0.01, 1, (1, *layout.codes.shape)) * layout.inside
    answers = Answers(layout, probs / probs.sum(-1, keepdims=True), np.full((1, len(layout)), 0.1))
    return answers.take(of_split(spec, layout, split))


def scored(spec, answers, country, scoring="expected", edition=None, split="heldout"):
    rows = measure_of(spec, country, MeasureOptions(edition=edition)).score(answers, split, scoring)
    return {row.metric: row for row in rows}


def by_question(spec, answers):
    """``{question: {option: mean probability over its prompts}}``, in the words of the file."""
    found = {}
    for number, name in enumerate(spec.items.ids):
        rows = answers.probs[0][answers.layout.item == number]
        if len(rows):
            question = spec.items.by_id[name]
            found[name] = dict(zip(question.options, rows.mean(0), strict=False))
    return found


def pooled(groups):
    """The mean over the values of all groups."""
    return np.mean([value for values in groups.values() for value in values])


def js2(p, q):
    """Jensen-Shannon distance to base 2, from its definition."""
    p, q = np.asarray(p, dtype=float), np.asarray(q, dtype=float)
    m = (p + q) / 2
    kl = [sum(a * np.log2(a / b) for a, b in zip(each, m, strict=True) if a > 0) for each in (p, q)]
    return np.sqrt(sum(kl) / 2)


@pytest.mark.parametrize("name", data_sets.NAMES)
def test_the_small_file_becomes_tasks_that_are_valid(name, home):
    said = imported(home, name)
    assert [row["task"] for row in said["imported"]] == list(TASKS[name])
    assert said["mended"] == said["left_out"] == {}
    for task in TASKS[name]:
        spec = spec_of(task)
        assert spec.metadata.headline.metric in spec.metrics
        assert ": valid (" in invoked("task", "validate", spec.path).output
        questions = spec.items.questions
        assert {question.split for question in questions} == {"fit", "heldout"}
        record = json.loads(next((home / "data" / name).glob(f"{task}.source.json")).read_text())
        assert record["questions"] == len(questions)
    again = {path.name: path.read_bytes() for path in (home / "data" / name).iterdir()}
    invoked("data", "import", name, home / "human_resp" if name == "opinionqa" else home / data_sets.FILES[name][0])
    assert again == {path.name: path.read_bytes() for path in (home / "data" / name).iterdir()}


NULLS = {
    "globalopinionqa": {"constant", "uniform", "world mean", "majority"},
    "blend": {"constant", "uniform", "majority"},
    "normad_rule": {"constant", "uniform", "majority"},
    "simbench_pop": {"constant", "uniform"},
    "opinionqa": {"constant", "uniform", "split-half"},
}


@pytest.mark.parametrize("task", NULLS)
def test_the_nulls_of_each(task, home):
    name = task.partition("_")[0]
    imported(home, name)
    spec = spec_of(task)
    rows = baselines(spec, layout_of(spec, ProtocolOptions()), "US", MeasureOptions())
    merged = " ".join(row.note or "" for row in rows)
    assert {row.name for row in rows} | {each for each in NULLS[task] if each in merged} == NULLS[task]
    headline = spec.metadata.headline.metric
    uniform = next(row for row in rows if row.name == "uniform")
    values = {score.split: score.value for score in uniform.scores if score.metric == headline}
    assert set(values) >= {"fit", "heldout", "control"}
    chance = {"simbench_pop": 0, "blend": 1 / 4, "normad_rule": 1 / 3}
    if task in chance:
        assert list(values.values()) == pytest.approx([chance[task]] * len(values), abs=1e-9)


def test_globalopinionqa_is_scored_as_published(home):
    """1 - Jensen-Shannon distance, base 2, mean over the questions asked in the country (Durmus et al. 2023)."""
    imported(home, "globalopinionqa")
    spec = spec_of("globalopinionqa")
    assert countries_of(spec, None) == ("US", "KR", "EG")
    answers = answered(spec)
    mine = by_question(spec, answers)
    for code, name in zip(("US", "KR", "EG"), data_sets.COUNTRIES, strict=True):
        nearness = []
        for number, row in enumerate(data_sets.globalopinionqa(), start=1):
            given = ast.literal_eval(row["selections"].partition(", ")[2][:-1])
            if f"q{number}" in mine and name in given:
                model = [mine[f"q{number}"][option] for option in ast.literal_eval(row["options"])]
                nearness.append(1 - js2(model, given[name]))
        found = scored(spec, answers, code)
        assert found["items"].value == len(nearness) > 0
        assert found["similarity"].value == pytest.approx(np.mean(nearness), abs=1e-12)
        assert found["similarity"].higher_is_better and found["similarity"].low is None
        assert "w1" not in found  # which options are a scale is not known
    assert found["similarity"].value == pytest.approx(1 - found["js"].value / np.sqrt(np.log(2)))  # js is in nats


def test_blend_is_scored_as_published(home):
    """The share of right letters of a region's questions (``multiple_choice_score`` of Myung et al. 2024)."""
    imported(home, "blend", "--variants", "0")
    spec = spec_of("blend")
    rows = {row["MCQID"]: row for row in data_sets.blend()}
    assert set(spec.items.ids) == set(rows)
    answers = answered(spec)
    right = defaultdict(list)
    for name, model in by_question(spec, answers).items():
        choices = json.loads(rows[name]["choices"])
        letter = {text: letter for letter, text in choices.items()}
        right[rows[name]["country"].lower()].append(model[choices[rows[name]["answer_idx"]]])
        assert set(letter) == set(model) and spec.items.by_id[name].question.endswith("?")
    found = scored(spec, answers, "ID")
    for region, values in right.items():
        assert found[f"accuracy_of_{region}"].value == pytest.approx(np.mean(values), abs=1e-12)
    both = right["indonesia"] + right["west_java"]
    assert found["accuracy"].value == found["accuracy_ID"].value == pytest.approx(np.mean(both), abs=1e-12)
    assert found["accuracy_all"].value == pytest.approx(pooled(right), abs=1e-12)
    asked = [rows[name] for name in by_question(spec, answers)]
    questions = {(row["country"], row["ID"]) for row in asked}
    assert found["accuracy_all"].n == len(questions) == len(asked) // 3  # sets of choices of a question count once


def test_blend_draws_sets_of_choices_and_keeps_a_question_in_one_split(home):
    assert imported(home, "blend")["imported"][0]["questions"] == 16
    first = spec_of("blend").items.questions
    splits = defaultdict(set)
    for question in first:
        splits[question.topic].add(question.split)
    assert len(splits) == 4 and all(len(each) == 1 for each in splits.values())
    assert len({question.options for question in first}) > 4
    assert len({question.answer for question in first}) == 4  # shuffled
    invoked("data", "import", "blend", home / "mc_questions_file.csv", "--variants", "2")
    assert len(spec_of("blend").items.questions) == 32


def test_blend_in_json(home):
    (home / "mc.json").write_text(json.dumps(data_sets.blend()))
    invoked("data", "import", "blend", "mc.json")
    from_json = (home / "data" / "blend" / "blend.jsonl").read_bytes()
    imported(home, "blend")
    assert (home / "data" / "blend" / "blend.jsonl").read_bytes() == from_json


def test_normad_has_three_levels_and_is_scored_as_published(home):
    """Accuracy over all stories, and by gold label, at each level of context (Rao et al. 2025)."""
    imported(home, "normad")
    rows = {f"s{number}": row for number, row in enumerate(data_sets.normad(), start=1)}
    contexts = {
        "normad_country": lambda row, country: [f"Country: {country}"],
        "normad_value": lambda row, country: [f"Country: {country}", f"Value: {row['Value']}"],
        "normad_rule": lambda row, country: [f"Rule: {row['Rule-of-Thumb']}"],
    }
    names = dict(zip(data_sets.PLACES, ("Egypt", "South Korea", "United States", "Papua New Guinea"), strict=True))
    splits = set()
    for task, context in contexts.items():
        spec = spec_of(task)
        for name, row in rows.items():
            lines = [*context(row, names[row["Country"]]), f"Situation: {row['Story']}"]
            assert spec.items.by_id[name].question == "\n".join(lines)
        splits.add(tuple(question.split for question in spec.items.questions))
        answers = answered(spec)
        mine, right = by_question(spec, answers), defaultdict(list)
        for name, model in mine.items():
            right[rows[name]["Gold Label"]].append(model[rows[name]["Gold Label"].title()])
        found = scored(spec, answers, "EG")
        assert found["accuracy_all"].value == pytest.approx(pooled(right), abs=1e-12)
        for label, values in right.items():
            assert found[f"accuracy_of_{label}"].value == pytest.approx(np.mean(values), abs=1e-12)
    assert len(splits) == 1


def authors_simbench(rows):
    """The steps of ``calculate_simbench_score.py``: ``rows`` of source, people and model."""
    norms = defaultdict(list)
    for source, people, _ in rows:
        norms[source].append(0.5 * sum(abs(p - 1 / len(people)) for p in people))
    norm = {source: sum(values) / len(values) for source, values in norms.items()}
    each = defaultdict(list)
    for source, people, model in rows:
        each[source].append(
            100 * (1 - 0.5 * sum(abs(p - q) for p, q in zip(people, model, strict=True)) / norm[source])
        )
    return pooled(each), {source: np.mean(values) for source, values in each.items()}


def test_simbench_is_scored_as_published(home):
    imported(home, "simbench")
    spec = spec_of("simbench_pop")
    answers = answered(spec)
    mine, rows = by_question(spec, answers), []
    for number, row in enumerate(data_sets.simbench(), start=1):
        name, given = f"q{number}", ast.literal_eval(row["human_answer"])
        question = spec.items.by_id[name]
        country = ("Kenya", "Peru")[(number - 1) % 2]
        assert question.question == f"You are from {country}.\nHow often does {number - 1} happen?"
        if name in mine:
            total = sum(given.values())
            people = [share / total for share in given.values()]
            rows.append((row["dataset_name"], people, list(mine[name].values())[: len(people)]))
    whole, by_source = authors_simbench(rows)
    found = scored(spec, answers, "FR")
    assert found["simbench"].value == pytest.approx(whole, abs=1e-9)
    assert found["simbench_Polls"].value == pytest.approx(by_source["Polls"], abs=1e-9)
    assert found["simbench_Games_more"].value == pytest.approx(by_source["Games & more"], abs=1e-9)
    assert scored(spec, answers, "US")["simbench"].value == found["simbench"].value


def test_equal_shares_score_zero_and_the_people_themselves_a_hundred(home):
    imported(home, "simbench")
    spec = spec_of("simbench_pop")
    layout = answered(spec).layout
    equal = scored(spec, uniform_answers(layout), "US")
    assert abs(equal["simbench"].value) < 1e-9 and abs(equal["simbench_Polls"].value) < 1e-9
    probs = np.zeros((1, *layout.codes.shape))
    rows = data_sets.simbench()
    for place, item in enumerate(layout.item):
        given = list(ast.literal_eval(rows[int(spec.items.ids[item][1:]) - 1]["human_answer"]).values())
        probs[0, place, : len(given)] = np.array(given) / sum(given)
    people = scored(spec, Answers(layout, probs, np.zeros((1, len(layout)))), "US")
    assert people["simbench"].value == pytest.approx(100, abs=1e-9)


def test_the_grouped_part_takes_its_options_from_their_column(home):
    own = {"answer_options": "{'A': 'no', 'B': 'yes'}", "input_template": "So?", "human_answer": "{'A': 25, 'B': 75}"}
    rows = [row | own for row in data_sets.simbench()]
    (home / "SimBenchGrouped.csv").write_text(data_sets.table(rows))
    said = json.loads(invoked("data", "import", "simbench", "SimBenchGrouped.csv", "--json").stdout)
    assert [row["task"] for row in said["imported"]] == ["simbench_grouped"]
    assert {question.options for question in spec_of("simbench_grouped").items.questions} == {("no", "yes")}


def test_a_question_to_several_groups_is_in_one_split(home):
    """Its source and its text are the question; another source's question of the same text is another one."""
    groups = [{"group_prompt_variable_map": str({"country": name})} for name in ("Kenya", "Peru", "Chad", "Fiji")]
    rows = [row | group for row in data_sets.simbench() for group in groups]
    rows += [row | {"dataset_name": "Diaries"} for row in rows]
    (home / "SimBenchGrouped.csv").write_text(data_sets.table(rows))
    invoked("data", "import", "simbench", "SimBenchGrouped.csv")
    splits = defaultdict(list)
    for question in spec_of("simbench_grouped").items.questions:
        splits[question.topic, question.question.partition("\n")[2]].append(question.split)
    assert len(splits) == 16 and {len(found) for found in splits.values()} == {4}
    assert all(len(set(found)) == 1 for found in splits.values())
    assert sorted(found[0] for found in splits.values()) == ["fit"] * 8 + ["heldout"] * 8


def weighted(rows, key, references, places, party=None):
    """Weighted shares without refusals, in the order of the authors' options (``extract_human_opinions``)."""
    sums = dict.fromkeys(references[: len(places)], 0.0)
    for row in rows:
        if row[key] in sums and party in (None, row["POLPARTY"]):
            sums[row[key]] += row["WEIGHT_W26"]
    return np.array(list(sums.values())) / sum(sums.values())


@pytest.mark.parametrize(("edition", "party"), [("overall", None), ("POLPARTY_Democrat", "Democrat")])
def test_opinionqa_is_scored_as_published(home, edition, party):
    """1 - Wasserstein-1 / largest Wasserstein-1 by scipy, over the authors' positions; equal positions are skipped."""
    from scipy.stats import wasserstein_distance

    imported(home, "opinionqa", "--by", "POLPARTY")
    spec = spec_of("opinionqa")
    answers = answered(spec)
    mine, nearness = by_question(spec, answers), []
    for row in data_sets.info():
        references, places = (ast.literal_eval(row[name]) for name in ("references", "option_ordinal"))
        if row["key"] not in mine or max(places) == min(places):
            continue
        people = weighted(data_sets.responses(), row["key"], references, places, party)
        model = [mine[row["key"]][option] for option in references[: len(places)]]
        largest = max(places) - min(places)
        nearness.append(1 - wasserstein_distance(places, places, model, people) / largest)
    found = scored(spec, answers, "US", edition=edition)
    assert found["representativeness"].value == pytest.approx(np.mean(nearness), abs=1e-9)
    assert found["representativeness_split_half"].value > found["representativeness"].value
    editions = {path.stem for path in (home / "data" / "opinionqa").glob("*.csv")}
    assert editions == {"overall", "POLPARTY_Democrat", "POLPARTY_Republican"}


def test_spaces_around_an_option_do_not_matter(home):
    imported(home, "opinionqa")
    files = [home / "data" / "opinionqa" / name for name in ("opinionqa.jsonl", "overall.csv")]
    before = [file.read_bytes() for file in files]
    info = data_sets.info()
    info[1]["references"] = str([" Safer", "Less safe ", "No more or less safe", "Refused "])
    (home / data_sets.WAVE / "info.csv").write_text(data_sets.table(info))
    invoked("data", "import", "opinionqa", home / "human_resp")
    assert [file.read_bytes() for file in files] == before


def test_cdeval_is_scored_as_published(home):
    """The share of high poles in each dimension (Wang et al. 2023): how likely option 1 is, mean over its questions."""
    names = ("Power Distance Index", "IDV", "Uncertainty Avoidance")
    rows = [
        {"Question": f"Situation {i}?", "Option 1": f"high {i}", "Option 2": f"low {i}", "Dimension": names[i % 3]}
        for i in range(12)
    ]
    (home / "pairs.csv").write_text(data_sets.table(rows))
    invoked("data", "import", "cdeval", "pairs.csv")
    spec = spec_of("cdeval")
    answers = answered(spec)
    mine, high = by_question(spec, answers), defaultdict(list)
    for row in rows:
        question = next(q for q in spec.items.questions if q.question == row["Question"])
        if question.id in mine:
            high[row["Dimension"]].append(mine[question.id][row["Option 1"]])
    found = scored(spec, answers, "SA")
    for name, code in zip(names, ("pdi", "idv", "uai"), strict=True):
        assert found[f"high_{code}"].value == pytest.approx(np.mean(high[name]), abs=1e-12)
