"""Answers against a country's answer shares: distances by scipy and by hand, short scales, bad files, objective."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import yaml
from culteval.errors import InputError, UsageError
from culteval.harness.registry import spec_path
from culteval.harness.scoring.score import score_answers
from culteval.tasks import hooks
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.measure import MeasureOptions, countries_of, measure_of
from culteval.tasks.metrics.distribution_distances import kl_clca, smoothed_kl, wasserstein
from culteval.tasks.metrics.share_table import load_shares
from culteval.tasks.prompts import ProtocolOptions, of_split, render, render_protocol
from culteval.tasks.spec import load_spec
from scipy import stats

WVS = Path(__file__).parents[2] / "tasks" / "wvs"
COUNTRIES = ["BR", "CN", "DE", "EG", "GB", "IN", "KE", "MX", "NG", "RU", "TR", "US"]
SHORT = {"US": ["Q33", "Q34", "Q35"], "NG": ["Q33", "Q34", "Q35"], "BR": [f"Q{i}" for i in range(33, 42)]}
NOT_ASKED = {("wvs", "EG"): 2, ("wvs_themes", "CN"): 5, ("wvs_themes", "EG"): 3}  # counted in shares.csv by hand
AS_COUNTED = {1: 2, 2: 2, 3: 3, 4: 4, 5: 4}

PARAPHRASE = {
    "scales": {"three": ["p", "q", "r"], "four": ["p", "q", "r", "s"], "two": ["p", "q"]},
    "stems": {}, "items": {"a": "a?", "b": "b?", "c": "c?"},
}  # fmt: skip
SURVEY = {
    "language": "en",
    "codes": {"three": [0, 1, 2], "four": [1, 2, 4, 8]},
    "items": {
        item: {"scale": scale, "stem": None, "dimension": theme}
        for item, scale, theme in (("a", "three", "x"), ("b", "four", "y"), ("c", "two", "y"))
    },
    "paraphrases": {name: PARAPHRASE | {"instruction": name} for name in "WVU"},
}
ROWS = [
    ("SE", "a", 0, 0.5, 100), ("SE", "a", 2, 0.5, 100), ("SE", "b", 1, 0.25, 50), ("SE", "b", 8, 0.75, 150),
    ("NO", "a", 1, 1.0, 10), ("NO", "b", 2, 1.0, 10), ("NO", "c", 1, 0.2, 2), ("NO", "c", 2, 0.8, 8),
    ("FI", "zzz", 1, 1.0, 5),
]  # fmt: skip
METADATA = {
    "version": 1.0, "title": "t", "construct": "c", "measure": "shares", "items": "items.yaml", "languages": ["en"],
    "default_country": "SE", "headline": {"metric": "w1", "higher_is_better": False}, "citation": "c",
    "licence": {"code": "c", "data": "d"}, "scorings": ["expected", "argmax", "text"],
    "reference": {"file": "s.csv", "editions": ["one"], "default_edition": "one", "source": "s"},
    "splits": {"fit": {"paraphrases": ["W"], "orders": ["natural"]},
               "heldout": {"paraphrases": ["V", "U"], "orders": ["natural", "reversed"]}},
}  # fmt: skip


shipped = lru_cache(lambda task: load_spec(spec_path(task)))


@lru_cache
def raw_shares():
    table = defaultdict(lambda: defaultdict(dict))
    with (WVS / "shares.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            table[row["country"]][row["question"]][int(row["code"])] = float(row["share"])
    return table


def write_shares(path, rows, counts=True):
    lines = ["country,question,code,share" + ",count" * counts]
    lines += [",".join(map(str, row if counts else row[:4])) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def small(tmp_path, monkeypatch):
    """``small(rows, counts)``: a survey of three items with shares of its own; its imported data lie in ``data``."""
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path / "data"))
    folder = tmp_path / "fam"
    folder.mkdir()

    def make(rows=ROWS, counts=True):
        (folder / "items.yaml").write_text(yaml.safe_dump(SURVEY, sort_keys=False), encoding="utf-8")
        write_shares(folder / "s.csv", rows, counts)
        spec = {"task": "small", "output_type": "generate_until", "metadata": METADATA}
        (folder / "small.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
        return load_spec(folder / "small.yaml")

    return make


def answer(layout, of):
    """Answers whose probabilities are ``of(item)``, in code order."""
    probs = np.zeros((1, *layout.codes.shape))
    for row, item in enumerate(layout.item):
        own = of(layout.items[item])
        probs[0, row, : len(own)] = own
    return Answers(layout, probs, np.zeros((1, len(layout))))


def scored(spec, country, answers, scoring="expected", split="heldout", **options):
    rows = measure_of(spec, country, MeasureOptions(**options)).score(answers, split, scoring)
    return {row.metric: row for row in rows}


def values(*args, **options):
    return {name: row.value for name, row in scored(*args, **options).items()}


def as_counted(country, item, codes):
    """Codes as a country's own scale has them."""
    return [AS_COUNTED[code] if item in SHORT.get(country, ()) else code for code in codes]


def country_options(spec, country, item):
    """A country's shares over the options of a model; of options that count as one, the last has it all."""
    shares = raw_shares()[country].get(item)
    codes = list(spec.items.codes(item))
    if shares is None:
        return [1 / len(codes)] * len(codes)
    counted = as_counted(country, item, codes)
    last = {code: place for place, code in enumerate(counted)}
    return [shares.get(code, 0) if last[code] == place else 0 for place, code in enumerate(counted)]


# The distances


@pytest.mark.parametrize("codes", [[0, 1], [1, 2, 3, 4], [2, 3, 4], [1, 2, 5, 9], list(range(1, 11))])
def test_wasserstein_is_scipys_over_the_range(codes):
    rng = np.random.default_rng(len(codes))
    for _ in range(20):
        p, q = rng.dirichlet(np.full(len(codes), 0.4), 2)
        expected = stats.wasserstein_distance(codes, codes, p, q) / (max(codes) - min(codes))
        assert wasserstein(p, q, np.array(codes)) == pytest.approx(expected, abs=1e-12)


def test_divergences_by_hand():
    p, q = np.array([0.7, 0.3, 0.0]), np.array([0.2, 0.3, 0.5])
    mixed = [[0.99 * x + 0.01 / 3 for x in each] for each in (q, p)]
    assert smoothed_kl(p, q) == pytest.approx(sum(c * math.log(c / m) for c, m in zip(*mixed, strict=True)))
    soft = [math.exp(x) / sum(map(math.exp, p)) for x in p]
    assert kl_clca(p, q) == pytest.approx(sum(c * math.log(c / s) for c, s in zip(q, soft, strict=True)))
    assert smoothed_kl(q, q) == pytest.approx(0, abs=1e-15)
    perfect = sum(c * math.log(c / (math.exp(c) / sum(map(math.exp, q)))) for c in q)
    assert kl_clca(q, q) == pytest.approx(perfect) and perfect > 0.03  # not 0
    assert kl_clca(p, np.array([0.0, 1.0, 0.0])) == pytest.approx(-math.log(soft[1]))  # a share of 0 adds nothing


def test_every_metric_by_hand(small):
    spec = small()
    layout = render(spec, "heldout").layout
    given = {"a": [0.2, 0.3, 0.5], "b": [0.1, 0.2, 0.3, 0.4], "c": [0.9, 0.1]}
    found = scored(spec, "SE", answer(layout, given.get))
    asked = {"a": ([0, 1, 2], [0.5, 0, 0.5]), "b": ([1, 2, 4, 8], [0.25, 0, 0, 0.75])}
    w1 = {k: stats.wasserstein_distance(c, c, given[k], q) / (c[-1] - c[0]) for k, (c, q) in asked.items()}
    assert w1["a"] == pytest.approx((0.3 + 0) / 2) and w1["b"] == pytest.approx((0.15 + 0.05 * 2 + 0.35 * 4) / 7)

    def js(p, q):
        m = [(x + y) / 2 for x, y in zip(p, q, strict=True)]
        half = [sum(x * math.log(x / y) for x, y in zip(each, m, strict=True) if x) for each in (p, q)]
        return (sum(half) / 2) ** 0.5

    expected = {
        "w1": sum(w1.values()) / 2, "w1_x": w1["a"], "w1_y": w1["b"], "items": 2, "off_options": 0,
        "js": sum(js(given[k], q) for k, (_, q) in asked.items()) / 2, "tv": (0.3 + (0.15 + 0.2 + 0.3 + 0.35) / 2) / 2,
        "accuracy_majority": 0.5,  # a: option 2 against option 0, the first of two equals; b: both the last
        "accuracy_sampled": ((0.1 + 0.25) + (0.025 + 0.3)) / 2, "w1_paraphrase_spread": 0, "w1_order_spread": 0,
    }  # fmt: skip
    assert {name: found[name].value for name in expected} == pytest.approx(expected, abs=1e-12)
    assert {name for name, row in found.items() if row.higher_is_better} == {"accuracy_majority", "accuracy_sampled"}
    assert {(row.country, row.edition, row.n, row.paraphrases) for row in found.values()} == {
        ("SE", "one", 1, ("V", "U"))
    }
    assert 0 < found["w1_split_half"].value < 0.1


def test_prompts_of_an_item_are_averaged_before_the_distance(small):
    """Half of the prompts say 0 and half say 2: together exactly what Sweden says."""
    spec = small()
    answers = answer(render(spec, "heldout").layout, lambda item: [1, 0, 0] if item == "a" else [0.25, 0, 0, 0.75][:4])
    rows = (answers.layout.item == 0) & (answers.layout.order == 1)
    answers.probs[0, rows] = [0, 0, 1, 0]
    found = values(spec, "SE", answers)
    assert found["w1"] == pytest.approx(0, abs=1e-12)
    assert found["w1_order_spread"] == pytest.approx(0)  # 1/2 either way
    answers.probs[0, rows & (answers.layout.paraphrase == 2)] = [1, 0, 0, 0]
    found = values(spec, "SE", answers)
    assert found["w1"] == pytest.approx(0.25 / 2) and found["w1_paraphrase_spread"] == pytest.approx(0.5 / 2)


def test_argmax_and_text(small):
    spec = small()
    layout = render(spec, "heldout").layout
    answers = answer(layout, {"a": [0.4, 0.3, 0.3], "b": [0.1, 0.1, 0.1, 0.7], "c": [1, 0]}.get)
    found = values(spec, "SE", answers, scoring="argmax")
    assert (found["w1_x"], found["w1_y"]) == pytest.approx((0.5, 0.25))  # all on 0 against halves; all on 8 against 3/4
    parsed = np.array([{0: 0, 1: 4, 2: UNPARSED}[i] for i in layout.item])  # 0 is a code, not a missing answer
    parsed[np.flatnonzero(layout.item == 0)[:2]] = UNPARSED
    answers = Answers(layout, answers.probs, answers.off_options, ("?",) * len(layout), parsed)
    found = values(spec, "SE", answers, scoring="text")
    assert (found["unparsed"], found["agreement"]) == pytest.approx((6 / 12, 2 / 6))  # a: 0, its likeliest; b: 4, not 8
    assert (found["w1_x"], found["w1_y"]) == pytest.approx((0.5, (0.25 * 3 + 0.75 * 4) / 7))
    assert values(spec, "NO", answers, scoring="text")["items"] == 2  # c was asked there, and never answered


def test_texts_none_of_which_holds_an_answer(small):
    spec = small()
    layout = render(spec, "heldout").layout
    nothing = Answers(layout, np.ones((1, 12, 4)) / 4, np.zeros((1, 12)), ("?",) * 12, np.full(12, UNPARSED))
    assert values(spec, "SE", nothing, scoring="text") == {"unparsed": 1}


def test_the_split_half_floor(small):
    """Two halves of 100 on codes 0 and 2: mean of |B1 - B2| / 100 for binomials of 100 and 1/2, by enumeration."""
    spec = small([("SE", "a", 0, 0.5, 100), ("SE", "a", 2, 0.5, 100)])
    pmf = stats.binom.pmf(np.arange(101), 100, 0.5)
    exact = (abs(np.subtract.outer(np.arange(101), np.arange(101))) * np.outer(pmf, pmf)).sum() / 100
    answers = answer(render(spec, "heldout").layout, lambda item: [1, 0, 0])
    assert values(spec, "SE", answers)["w1_split_half"] == pytest.approx(exact, rel=0.35)
    assert "w1_split_half" not in values(small(counts=False), "SE", answers)


def test_a_sample_of_one_has_no_halves(small):
    spec = small([("SE", "a", 0, 1.0, 1)])
    found = values(spec, "SE", answer(render(spec, "heldout").layout, lambda item: [1, 0, 0]))
    assert all(map(math.isfinite, found.values()))  # scores.json holds no NaN


# The World Values Survey


@pytest.mark.parametrize("country", COUNTRIES)
@pytest.mark.parametrize("task", ["wvs", "wvs_themes"])
def test_perfect_and_constant_answers_of_every_country(task, country):
    spec = shipped(task)
    layout = render(spec, "heldout").layout
    perfect = values(spec, country, answer(layout, lambda item: country_options(spec, country, item)))
    assert [perfect[name] for name in ("w1", "js", "tv", "kl")] == pytest.approx([0] * 4, abs=1e-6)
    asked = [item for item in spec.items.ids if item in raw_shares()[country]]
    assert perfect["items"] == len(asked) == len(spec.items.ids) - NOT_ASKED.get((task, country), 0)
    w1, tv, majority = [], [], []
    for item in asked:
        codes = as_counted(country, item, spec.items.codes(item))
        middle, shares = codes[len(codes) // 2], raw_shares()[country][item]
        w1.append(sum(share * abs(code - middle) for code, share in shares.items()) / (max(codes) - min(codes)))
        tv.append(1 - shares.get(middle, 0))
        majority.append(shares.get(middle, 0) == max(shares.values()))
    found = values(spec, country, measure_of(spec, country, MeasureOptions()).constant(layout))
    expected = {"w1": w1, "tv": tv, "accuracy_majority": majority}
    assert [found[name] for name in expected] == pytest.approx(list(map(np.mean, expected.values())), abs=2e-5)


@pytest.mark.parametrize("country", SHORT)
def test_three_point_scales(country):
    """Strong answers count as plain ones, and the range is 2."""
    spec = shipped("wvs")
    layout = render(spec, "heldout").layout
    strong = answer(layout, lambda item: [1, 0, 0, 0, 0][: len(spec.items.codes(item))])
    plain = answer(layout, lambda item: [0, 1, 0, 0, 0][: len(spec.items.codes(item))])
    measure = measure_of(spec, country, MeasureOptions())
    for item in SHORT[country]:
        rows = layout.item == spec.items.ids.index(item)
        shares = raw_shares()[country][item]
        assert set(shares) <= {2, 3, 4}
        for each in (strong, plain):
            found = {row.metric: row.value for row in measure.score(each.take(rows), "heldout", "expected")}
            assert found["w1"] == pytest.approx((shares.get(3, 0) + 2 * shares.get(4, 0)) / 2, abs=1e-5)
    whole = layout.item == spec.items.ids.index("Q27")
    assert len({str(measure.score(each.take(whole), "heldout", "expected")) for each in (strong, plain)}) == 2


@pytest.mark.parametrize("country", COUNTRIES)
def test_demonstrations_are_the_commonest_answers(country):
    spec = shipped("wvs")
    layout = render(spec, "fit").layout
    given = measure_of(spec, country, MeasureOptions()).demonstrations(layout)
    for item, code in zip(layout.item, given.tolist(), strict=True):
        name = spec.items.ids[item]
        shares = raw_shares()[country].get(name)
        assert code == (UNPARSED if shares is None else max(shares, key=shares.get)), name


def test_shares_of_the_survey_leave_out_what_is_not_offered():
    specs = [shipped(task) for task in ("wvs", "wvs_themes")]
    codes = {item: set(spec.items.codes(item)) for spec in specs for item in spec.items.ids}
    for rows in raw_shares().values():
        assert all(min(rows[item]) == 1 for item in ("Q241", "Q249") if item in rows)
        assert all(sum(shares.values()) == pytest.approx(1, abs=1e-3) for shares in rows.values())
        assert all(set(shares) <= codes[item] for item, shares in rows.items())
    assert sorted(countries_of(specs[0], None)) == COUNTRIES == sorted(raw_shares())


@pytest.mark.parametrize(
    "country, options, says",
    [
        ("SA", {}, "Saudi Arabia is not in wave 7"),
        ("FR", {}, "no shares of France.*It has BR, CN, DE"),
        ("US", {"edition": "shiped"}, "Did you mean 'shipped'"),
        ("US", {"edition": "2015"}, "--edition '2015': wvs has shipped, extended"),
    ],
)
def test_unknown_countries_and_editions(tmp_path, monkeypatch, country, options, says):
    monkeypatch.setenv("CULTEVAL_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=says):
        measure_of(shipped("wvs"), country, MeasureOptions(**options))


def test_an_imported_edition_and_a_country_without_items(small, tmp_path):
    spec = small()
    (tmp_path / "data" / "fam").mkdir(parents=True)
    write_shares(tmp_path / "data" / "fam" / "mine.csv", [("SE", "a", 0, 1.0, 1), ("IS", "c", 2, 1.0, 1)])
    answers = answer(render(spec, "heldout").layout, lambda item: [0, 0, 1] if item != "c" else [0, 1])
    found = scored(spec, "SE", answers, edition="mine")
    assert (found["w1"].value, found["items"].value, found["w1"].edition) == (1, 1, "mine")
    assert values(spec, "IS", answers, edition="mine")["w1"] == 0
    assert countries_of(spec, "mine") == ("SE", "IS") and countries_of(spec, None) == ("SE", "NO", "FI")
    with pytest.raises(UsageError, match="FI: small: none of its items was asked"):
        measure_of(spec, "FI", MeasureOptions())


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "empty"), ("country,question,code\nSE,a,0\n", ":1: no column 'share'. It needs country, question"),
        ("country;question;code;share\nSE;a;0;1\n", ":1: columns are separated by ';'"),
        ("country,question,code,share\nSE,a,0,0.5\nSE,a,0,0.5\n", ":3: a code 0 of SE is there twice"),
        ("country,question,code,share\nSE,a,0,0.5\nSE,a,1,0.4\n", "a of SE: shares add up to 0.900"),
        ("country,question,code,share\nSE,a,0,1.5\nSE,a,1,-0.5\n", ":2: share 1.5"),
        ("country,question,code,share\nSE,a,0,nan\n", ":2: share nan"),
        ("country,question,code,share\nSE,a,x,1\n", ":2:"), ("country,question,code,share\nSE,a,0\n", ":2:"),
        ("country,question,code,share,count\nSE,a,0,1,many\n", ":2:"), (None, "cannot be read"),
        ("country,question,code,share,count\nSE,a,0,1,-1\n", ":2: count"), (b"\xff\n", "UTF-8"),
    ],
)  # fmt: skip
def test_malformed_share_files(tmp_path, text, says):
    path = tmp_path / "s.csv"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=says):
        load_shares(path)


def test_a_code_that_the_scale_does_not_have(small):
    with pytest.raises(InputError, match=r"code 3 of b in SE, the scale has \[1, 2, 4, 8\]"):
        measure_of(small([("SE", "b", 3, 1.0, 1)]), "SE", MeasureOptions())


# The objective


@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("scoring", ["expected", "argmax"])
@pytest.mark.parametrize("task, country", [("wvs", "NG"), ("wvs", "EG"), ("wvs_themes", "CN"), ("wvs", "DE")])
def test_the_objective_is_the_w1_that_is_scored(task, country, scoring, library):
    spec = shipped(task)
    layout = render(spec, "fit", ProtocolOptions(2, 1)).layout
    rng, width = np.random.default_rng(1), layout.codes.shape[1]
    raw = rng.dirichlet(np.full(width, 0.3), (3, len(layout))) * (np.arange(width) < layout.widths[:, None])
    probs = raw / raw.sum(-1, keepdims=True)
    given = probs if library == "numpy" else pytest.importorskip("torch").tensor(probs)
    losses = np.asarray(measure_of(spec, country, MeasureOptions()).loss_function(layout, scoring)(given))
    for loss, own in zip(losses, probs, strict=True):
        answers = Answers(layout, own[None], np.zeros((1, len(layout))))
        assert loss == pytest.approx(values(spec, country, answers, scoring=scoring, split="fit")["w1"], abs=1e-9)


def test_the_gradient_of_the_objective_by_differences(small):
    torch = pytest.importorskip("torch")
    spec = small()
    layout = render(spec, "fit").layout
    objective = measure_of(spec, "SE", MeasureOptions()).loss_function(layout, "expected")
    probs = torch.tensor([[[0.2, 0.3, 0.5, 0.0], [0.1, 0.2, 0.3, 0.4], [0.9, 0.1, 0.0, 0.0]]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: objective(torch.softmax(p, -1)), (probs.requires_grad_(),))
    objective(probs).sum().backward()
    assert probs.grad[0, :2].abs().sum() > 0 and probs.grad[0, 2].abs().sum() == 0  # c was not asked in Sweden


# The way to a board


def test_scoring_a_protocol_and_lm_evals_hooks_agree():
    spec, rng = shipped("wvs"), np.random.default_rng(4)
    whole = render_protocol(spec, ProtocolOptions())
    raw = rng.uniform(0.05, 1, (1, *whole.layout.codes.shape))
    raw *= np.arange(raw.shape[-1]) < whole.layout.widths[:, None]
    answers = Answers(whole.layout, raw / raw.sum(-1, keepdims=True), np.zeros((1, len(whole))))
    rows = score_answers(spec, answers, "BR", MeasureOptions(), "x")
    wanted = {r.metric: r.value for r in rows if (r.split, r.scoring) == ("heldout", "expected")}
    held = answers.take(of_split(spec, whole.layout, "heldout"))
    setting = {"spec": "culteval.tasks.wvs:wvs.yaml", "country": "BR", "edition": "shipped", "constants": "world",
               "personas": 0, "seed": 0}  # fmt: skip
    logs = np.log(np.where(held.probs[0] > 0, held.probs[0], 1))
    docs = [setting | {"row": row, "choices": ["?"] * n} for row, n in enumerate(held.layout.widths)]
    cells = [hooks.process(doc, [(log, False) for log in own[: len(doc["choices"])]])
             for doc, own in zip(docs, logs, strict=True)]  # fmt: skip
    for metric in ("w1", "js", "tv", "accuracy_sampled"):
        records = [cell[metric] for cell in cells][::-1]  # in any order
        assert getattr(hooks, metric)(records) == pytest.approx(wanted[metric], abs=1e-9)


def test_one_answer_to_every_item_is_collapsed():
    """The lowest code of every scale, whatever its length; and no longer where one item has another answer."""
    spec = shipped("wvs")
    layout = render(spec, "heldout").layout
    first = answer(layout, lambda item: [1.0])
    rows = scored(spec, "US", first)
    assert rows["collapsed"].value == 1 and rows["w1"].note == "collapsed"
    rows = scored(spec, "US", answer(layout, lambda item: [0.0, 1.0] if item == spec.items.ids[0] else [1.0]))
    assert rows["collapsed"].value == 0 and rows["w1"].note is None


def test_not_answering_an_item_counts_as_equal_shares():
    """Left out, the distance would fall where the items that are not answered are the farthest."""
    spec = shipped("wvs_text")
    layout = render(spec, "heldout", ProtocolOptions(3)).layout
    parsed = layout.codes[np.arange(len(layout)), np.random.default_rng(0).integers(0, layout.widths)].astype(int)
    nobody = Answers(layout, np.zeros((1, *layout.codes.shape)), np.ones((1, len(layout))), ("",) * len(layout), parsed)
    whole = scored(spec, "US", nobody, "text")
    quiet = replace(nobody, parsed=np.where(layout.item < 5, UNPARSED, parsed))
    rows = scored(spec, "US", quiet, "text")
    assert (whole["items"].value, rows["items"].value) == (44, 39)
    equal = layout.inside / layout.widths[:, None]
    filled = np.where((layout.item < 5)[:, None], equal, layout.codes == parsed[:, None]) * layout.inside
    expected = scored(spec, "US", Answers(layout, filled[None], np.zeros((1, len(layout)))))
    for name in ("w1", "js", "tv", "kl", "accuracy_sampled"):
        assert rows[name].value == pytest.approx(expected[name].value, abs=1e-12), name
    found = measure_of(spec, "US", MeasureOptions()).sample(quiet, "text")
    assert found.value("accuracy_sampled") == pytest.approx(rows["accuracy_sampled"].value)
    none = replace(nobody, parsed=np.full(len(layout), UNPARSED))
    assert "w1" not in scored(spec, "US", none, "text")
