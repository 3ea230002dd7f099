"""Surveys of many questions with options of their own: the files they come in, distances by hand, sizes, faults."""

from __future__ import annotations

import csv
import io
import json
import time

import numpy as np
import pytest
import yaml
from culteval.errors import CultevalError, InputError, UsageError
from culteval.tasks import rows as task_rows
from culteval.tasks.answers import Answers
from culteval.tasks.measure import MeasureOptions, countries_of, measure_of
from culteval.tasks.metrics.share_table import load_shares
from culteval.tasks.metrics.shares import Shares
from culteval.tasks.prompts import ProtocolOptions, render, render_protocol
from culteval.tasks.spec import load_spec
from scipy.spatial.distance import jensenshannon

from ..command import invoked
from ..submission_files import rows_of

SPEC = {
    "task": "opinions",
    "custom_dataset": "culteval.tasks.hooks.dataset",
    "dataset_kwargs": {"spec": "opinions/opinions.yaml"},
    "output_type": "multiple_choice",
    "metric_list": [{"metric": "w1"}, {"metric": "js"}],
    "metadata": {
        "version": 1, "title": "Opinions", "construct": "How people answer.", "measure": "shares",
        "items": "questions.jsonl", "languages": ["en"], "default_country": "KR", "scorings": ["expected", "argmax"],
        "templates": {"A": "One letter.\n{question}\n{options}", "B": "Only a letter.\n{question}\n{options}"},
        "splits": {"fit": {"paraphrases": ["A"], "orders": ["natural"]},
                   "heldout": {"paraphrases": ["B"], "orders": ["natural", "reversed"]}},
        "reference": {"file": "shares.csv", "editions": ["shipped"], "default_edition": "shipped", "source": "made up"},
        "headline": {"metric": "w1", "higher_is_better": False}, "citation": "c",
        "licence": {"code": "c", "data": "d"},
    },
}  # fmt: skip
COUNTRIES = ("US", "KR", "EG")


def questions(n, unordered=()):
    rng = np.random.default_rng(3)
    found = []
    for i in range(n):
        options = [f"it's {word}, {j}" for j, word in enumerate(rng.choice(["good", "bad", "old"], rng.integers(2, 7)))]
        row = {"id": f"q{i + 1}", "question": f"What, then, of number {i}?", "options": options}
        found.append(row | ({"ordered": False} if i in unordered else {}))
    return found


def shares(asked):
    """``country -> question -> shares`` in thousandths, so that they add up to 1 to the letter."""
    rng, found = np.random.default_rng(4), {}
    for country in COUNTRIES:
        found[country] = {}
        for row in asked:
            cuts = np.sort(rng.integers(0, 1001, len(row["options"]) - 1))
            found[country][row["id"]] = (np.diff([0, *cuts, 1000]) / 1000).tolist()
    return found


def long_rows(table):
    return [
        {"country": country, "question": question, "code": code, "share": share}
        for country, asked in table.items() for question, each in asked.items() for code, share in enumerate(each, 1)
    ]  # fmt: skip


def write(path, rows):
    """A table as the path's name ends."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".csv":
        out = io.StringIO()
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path.write_text(out.getvalue())
    else:
        from pyarrow import Table, parquet

        parquet.write_table(Table.from_pylist(rows), path)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "opinions").mkdir()
    (tmp_path / "opinions" / "README.md").write_text("made up\n")
    return tmp_path


def task(home, items, asked, reference=None, given=None, **metadata):
    """The spec of a task with these files; ``given`` are the rows of the reference."""
    folder = home / "opinions"
    write(folder / items, asked)
    if reference:
        write(folder / reference, given)
    changed = SPEC["metadata"] | {"items": items} | metadata
    changed["reference"] = changed["reference"] | {"file": reference or items}
    (folder / "opinions.yaml").write_text(yaml.safe_dump(SPEC | {"metadata": changed}))
    return load_spec(folder / "opinions.yaml")


def call(*words):
    return invoked(*words).output


def random_answers(layout):
    probs = np.random.default_rng(5).uniform(0.01, 1, (1, *layout.codes.shape)) * layout.inside
    return Answers(layout, probs / probs.sum(-1, keepdims=True), np.zeros((1, len(layout))))


def by_hand(spec, answers, table, unordered=()):
    """``w1, js, tv`` from the definitions: mean over prompts of a question, then over questions."""
    w1, js, tv = [], [], []
    for number, name in enumerate(spec.items.ids):
        goal = np.array(table[name])
        mine = answers.probs[0][answers.layout.item == number][:, : len(goal)].mean(0)
        if name not in unordered:
            w1.append(
                sum(abs(mine[: k + 1].sum() - goal[: k + 1].sum()) for k in range(len(goal) - 1)) / (len(goal) - 1)
            )
        js.append(jensenshannon(mine, goal))
        tv.append(abs(mine - goal).sum() / 2)
    return np.mean(w1) if w1 else None, np.mean(js), np.mean(tv)


def listed(asked, of=json.dumps):
    """Questions as cells of a table: lists as text."""
    return [row | {"options": of(row["options"])} for row in asked]


def python_dict(given):
    return f"defaultdict(<class 'list'>, {given})"


NAMES = {"US": "United States", "KR": "S. Korea (Current national sample)", "EG": "Egypt"}


def published(asked, table, of=python_dict, names=NAMES, times=1.0):
    """Questions as GlobalOpinionQA has them: no id, Python's lists, each country's shares beside them."""
    found = []
    for row in asked:
        given = {names[country]: [round(times * x, 3) for x in table[country][row["id"]]] for country in COUNTRIES}
        given["Angola (Non-national sample)"] = [0.0] * len(row["options"])
        found.append(
            {"question": row["question"], "selections": of(given), "options": str(row["options"]), "source": "WVS"}
        )
    return found


ASKED = questions(12)
TABLE = shares(ASKED)
LONG = long_rows(TABLE)
BESIDE = [row | {"selections": {country: TABLE[country][row["id"]] for country in COUNTRIES}} for row in ASKED]
BY_NAME = [row | {"country": NAMES[row["country"]].partition(" (")[0]} for row in LONG]
FILES = {
    "JSON lines and CSV": ("questions.jsonl", ASKED, "shares.csv", LONG),
    "JSON lines and JSON lines": ("questions.jsonl", ASKED, "shares.jsonl", LONG),
    "JSON lines and Parquet": ("questions.jsonl", ASKED, "shares.parquet", LONG),
    "CSV, lists as JSON": ("questions.csv", listed(ASKED), "shares.csv", LONG),
    "CSV, lists as Python prints them": ("questions.csv", listed(ASKED, str), "shares.csv", LONG),
    "CSV with other columns": ("questions.csv", [{"": 1, "topic": "x"} | r for r in listed(ASKED)], "shares.csv", LONG),
    "Parquet": ("questions.parquet", ASKED, "shares.parquet", LONG),
    "Parquet, lists as text": ("questions.parquet", listed(ASKED, str), "shares.parquet", LONG),
    "countries by name": ("questions.jsonl", ASKED, "shares.csv", BY_NAME),
    "shares beside the questions": ("questions.jsonl", BESIDE, None, None),
    "shares beside, in Parquet": ("questions.parquet", BESIDE, None, None),
    "as it is published": ("questions.csv", published(ASKED, TABLE), None, None),
    "as it is published, in JSON": ("questions.csv", published(ASKED, TABLE, json.dumps), None, None),
    "as it is published, in Parquet": ("questions.parquet", published(ASKED, TABLE), None, None),
    "per cent": ("questions.csv", published(ASKED, TABLE, times=100.0), None, None),
    "questions here, published shares there": ("questions.jsonl", ASKED, "published.csv", published(ASKED, TABLE)),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_file_gives_the_distances_by_hand(name, home):
    spec = task(home, *FILES[name])
    assert countries_of(spec, None) == COUNTRIES and len(spec.items.ids) == 12
    answers = random_answers(render(spec, "heldout").layout)
    found = {
        row.metric: row.value for row in measure_of(spec, "KR", MeasureOptions()).score(answers, "heldout", "expected")
    }
    assert (found["w1"], found["js"], found["tv"]) == pytest.approx(by_hand(spec, answers, TABLE["KR"]))
    assert found["items"] == 12
    assert "w1: 12 of 12 questions" in call("task", "validate", "opinions/opinions.yaml")


def test_options_in_no_order_are_compared_without_one(home):
    asked = questions(12, unordered=(0, 3, 5))
    spec = task(home, "questions.jsonl", asked, "shares.csv", LONG)
    measure = measure_of(spec, "US", MeasureOptions())
    answers = random_answers(render(spec, "heldout").layout)
    found = {row.metric: row.value for row in measure.score(answers, "heldout", "expected")}
    expected = by_hand(spec, answers, TABLE["US"], ("q1", "q4", "q6"))
    assert (found["w1"], found["js"], found["tv"]) == pytest.approx(expected)
    assert measure.sample(answers, "expected").value("w1") == pytest.approx(expected[0])
    assert "w1: 9 of 12 questions" in call("task", "validate", "opinions/opinions.yaml")
    fit = random_answers(render(spec, "fit").layout)
    each = []  # what a fit makes smaller: w1 of scales, total variation of the others
    for number, row in enumerate(asked):
        part = fit.take(fit.layout.item == number)
        goal = np.array(TABLE["US"][row["id"]])
        mine = part.probs[0][:, : len(goal)].mean(0)
        apart = abs(np.cumsum(mine - goal))[:-1].mean()
        each.append(apart if row.get("ordered", True) else abs(mine - goal).sum() / 2)
    assert measure.loss_function(fit.layout, "expected")(fit.probs)[0] == pytest.approx(np.mean(each))
    torch = pytest.importorskip("torch")
    assert float(measure.loss_function(fit.layout, "expected")(torch.tensor(fit.probs))[0]) == pytest.approx(
        np.mean(each)
    )


def test_no_scale_no_w1(home):
    asked = questions(12, unordered=range(12))
    spec = task(
        home, "questions.jsonl", asked, "shares.csv", LONG, headline={"metric": "js", "higher_is_better": False}
    )
    answers = random_answers(render(spec, "heldout").layout)
    measure = measure_of(spec, "US", MeasureOptions())
    found = {row.metric: row.value for row in measure.score(answers, "heldout", "expected")}
    assert not [name for name in found if name.startswith("w1")]
    assert found["js"] == pytest.approx(by_hand(spec, answers, TABLE["US"], spec.items.ids)[1])
    assert "w1" not in measure.sample(answers, "expected").metrics
    with pytest.raises(InputError, match="no metric 'w1'"):  # metric_list names it
        call("task", "validate", "opinions/opinions.yaml")


def test_some_prompts_of_some_questions(home):
    """Prompts in any order and number a question, as folds and limits leave them."""
    spec = task(home, "questions.jsonl", ASKED, "shares.csv", LONG)
    measure = measure_of(spec, "EG", MeasureOptions())
    whole = random_answers(render(spec, "heldout").layout)
    part = whole.take(np.random.default_rng(1).permutation(len(whole.layout))[:15])
    found = {row.metric: row.value for row in measure.score(part, "heldout", "expected")}
    assert measure.loss_function(part.layout, "expected")(part.probs)[0] == pytest.approx(found["w1"])


def test_the_worlds_mean_is_that_of_the_others(home):
    spec = task(
        home,
        "questions.jsonl",
        ASKED,
        "shares.csv",
        [row for row in LONG if row["question"] != "q2" or row["country"] == "US"],
    )
    layout = render(spec, "heldout").layout
    world = measure_of(spec, "US", MeasureOptions()).baselines(layout)["world mean"]
    for number, row in enumerate(ASKED):
        mine = world.probs[0][layout.item == number][0][: len(row["options"])]
        mean = np.mean([TABLE["KR"][row["id"]], TABLE["EG"][row["id"]]], 0)
        assert mine == pytest.approx(mean if row["id"] != "q2" else np.full(len(mean), 1 / len(mean)))


def test_a_run_and_its_board(home, tiny):
    """Asked of a model, in letters and in both orders: the scores are those of the answers that were written."""
    task(home, "questions.csv", published(ASKED, TABLE))
    call("run", "--aligner", "naive", "--task", "opinions", "--country", "KR", "--model", tiny(), "--out", "runs")
    (run,) = (home / "runs").glob("opinions-KR-naive-*")
    lines = rows_of(run / "submission")
    assert len(lines) == 12 * 3
    apart = []
    for row in ASKED:
        goal = np.array(TABLE["KR"][row["id"]])
        mine = np.mean([line["probs"] for line in lines if line["item"] == row["id"] and line["paraphrase"] == "B"], 0)
        apart.append(abs(np.cumsum(mine[: len(goal)] - goal))[:-1].mean())
    scores = json.loads((run / "scores.json").read_text())
    scores = scores["scores"] if isinstance(scores, dict) else scores
    (found,) = [s["value"] for s in scores if (s["metric"], s["split"], s["scoring"]) == ("w1", "heldout", "expected")]
    assert found == pytest.approx(np.mean(apart), abs=1e-6)
    assert "naive" in call("leaderboard", "show", "runs")


def test_the_size_of_globalopinionqa_takes_seconds(home):
    """2,556 questions, 40 countries: half a million shares."""
    asked = questions(2556)
    rng = np.random.default_rng(0)
    names = [first + second for first in "ABCDEFGH" for second in "VWXYZ"]
    for row in asked:
        row["selections"] = {name: rng.dirichlet(np.ones(len(row["options"]))).round(2).tolist() for name in names}
    start = time.perf_counter()
    spec = task(home, "questions.jsonl", asked)
    prompts = render_protocol(spec, ProtocolOptions())
    measure = measure_of(spec, "AV", MeasureOptions())
    measure.score(random_answers(render(spec, "heldout").layout), "heldout", "expected")
    assert time.perf_counter() - start < 60  # about four on two cores
    assert len(prompts) == 3 * 2556 and len(countries_of(spec, None)) == 40


def test_shares_that_were_rounded_are_brought_to_one(home):
    given = [
        {
            "id": "q1",
            "question": "?",
            "options": ["a", "b", "c"],
            "selections": {"SE": [0.33, 0.33, 0.33], "NO": [33, 33, 33]},
        }
    ]
    spec = task(home, "questions.jsonl", given)
    table = load_shares(home / "opinions" / "questions.jsonl")
    for country in ("SE", "NO"):
        assert [share for share, _ in table.of(country)["q1"].values()] == pytest.approx([1 / 3] * 3)
    assert isinstance(measure_of(spec, "SE", MeasureOptions()), Shares)


def test_samples_of_a_country(home):
    options = {"options": ["a", "b"], "question": "?"}
    given = {
        "India (Old national sample)": [1, 0], "India (Current national sample)": [0.25, 0.75],
        "China (Non-national sample)": [1, 0], "Kenya (Old national sample)": [0.5, 0.5], "Ghana": [0, 0],
        "Britain": [0.1, 0.9], "Hong Kong SAR": [0, 1], "Palest. ter.": [1, 0], "Taiwan ROC": [1, 0], "Turkey": [1, 0],
    }  # fmt: skip
    write(home / "opinions" / "q.jsonl", [{"selections": given} | options])
    table = load_shares(home / "opinions" / "q.jsonl")
    found = {country: table.of(country)["q1"][1][0] for country in table.countries}
    assert found == {"IN": 0.25, "KE": 0.5, "GB": 0.1, "HK": 0, "PS": 1, "TW": 1, "TR": 1}


def edited(**changes):
    return [row | changes if i == 4 else row for i, row in enumerate(ASKED)]


def beside(**changes):
    return [row | changes if i == 4 else row for i, row in enumerate(BESIDE)]


OTHER = "__import__('os').getcwd()"
PAIR = {"options": ["a", "b"]}
BROKEN = {
    "no list": ("questions.csv", [r | {"options": "a; b"} for r in ASKED], "questions.csv:2: options: 'a; b'"),
    "a call in place of a list": ("questions.csv", listed(ASKED, lambda x: OTHER), "options: \"__imp"),
    "a column is missing": ("questions.csv", [{"id": "q1", "question": "?"}], "no column 'options'"),
    "one option": ("questions.jsonl", edited(options=["a"]), "questions.jsonl:5: file: options"),
    "an option twice": ("questions.csv", listed(edited(options=["a", "a"])), "questions.csv:6: file: options"),
    "no question": ("questions.csv", listed(edited(question="")), "questions.csv:6: question"),
    "an id twice": ("questions.jsonl", edited(id="q1"), "'q1' is there twice"),
    "27 options": ("questions.jsonl", edited(options=list(map(str, range(27)))), "options"),
    "no Parquet": ("questions.parquet", None, "not a Parquet file"),
    "fewer shares than options": ("questions.jsonl", beside(selections={"US": [1.0]}), ":5: selections: US: expected"),
    "no shares": ("questions.jsonl", beside(**PAIR, selections={"US": ["x", "y"]}), "not a list of numbers"),
    "shares of half": ("questions.jsonl", beside(**PAIR, selections={"US": [0.25, 0.25]}), "add up to 0.500"),
    "a share below zero": ("questions.jsonl", beside(**PAIR, selections={"US": [-0.5, 1.5]}), "add up to"),
    "a share that is none": ("questions.jsonl", beside(**PAIR, selections={"US": [float("nan"), 1]}), "add up to"),
    "no country": ("questions.jsonl", beside(**PAIR, selections={"Narnia": [0.5, 0.5]}), "'Narnia' is no country"),
    "no mapping": ("questions.jsonl", beside(selections=[1, 2]), "expected a mapping"),
    "half a mapping": ("questions.csv", published(ASKED, TABLE, lambda given: "{'US':"), "selections: \"{'US':\""),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_wrong_is_named(name, home):
    items, rows, says = BROKEN[name]
    folder = home / "opinions"
    metadata = SPEC["metadata"] | {"items": items, "reference": SPEC["metadata"]["reference"] | {"file": items}}
    (folder / "opinions.yaml").write_text(yaml.safe_dump(SPEC | {"metadata": metadata}))
    if rows is None:
        (folder / items).write_bytes(b"PAR1 and no more")
    else:
        write(folder / items, rows)
    with pytest.raises(CultevalError) as caught:
        call("task", "validate", "opinions/opinions.yaml")
    assert says in str(caught.value) and len(str(caught.value).splitlines()) <= 2


def parquet_file(path, **columns):
    from pyarrow import parquet, table

    parquet.write_table(table(columns), path)
    assert path.stat().st_size < 1 << 20


def test_a_small_parquet_file_that_stands_for_much_is_refused(home, monkeypatch):
    from pyarrow import array

    path = home / "questions.parquet"
    parquet_file(path, question=array(["x" * 100_001]).dictionary_encode().take([0] * 9), options=["[1,2]"] * 9)
    with pytest.raises(InputError, match=r":1: a cell of more than 100,000"):
        list(task_rows.question_rows(path))
    with pytest.raises(InputError, match=r"9 rows in"):
        list(task_rows.read_rows(path, lambda found, where: None, 1 << 20, 8))
    parquet_file(path, question=["?"], options=[list(range(100_000))])
    monkeypatch.setattr(task_rows, "_MOST_INFLATED", 100_000)
    with pytest.raises(InputError, match=r"1 rows in 1,\d{3},\d{3} bytes; more than can be read"):
        list(task_rows.question_rows(path))


def test_too_many_values_of_yaml_point_to_a_file_of_questions(home):
    many = {"items": {f"q{i}": {"scale": "s", "stem": None, "dimension": "d"} for i in range(8000)}}
    (home / "opinions" / "items.yaml").write_text(yaml.safe_dump(many))
    (home / "opinions" / "opinions.yaml").write_text(
        yaml.safe_dump(SPEC | {"metadata": SPEC["metadata"] | {"items": "items.yaml"}})
    )
    with pytest.raises(InputError, match="JSON lines, CSV or Parquet"):
        load_spec(home / "opinions" / "opinions.yaml")


def test_a_country_without_shares(home):
    spec = task(home, "questions.jsonl", ASKED, "shares.csv", LONG)
    with pytest.raises(UsageError, match="no shares of France"):
        measure_of(spec, "FR", MeasureOptions())
