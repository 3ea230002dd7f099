"""``culteval identify``: distances to every country, the double-centred matrix, ranks, permutations, and bad input."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from culteval.errors import CultevalError, InputError, UsageError
from culteval.harness.analysis import identification as nearest
from culteval.harness.analysis.identification import distances, double_centred, identification, permutation_p, pooled
from culteval.harness.cli.main import cli
from culteval.harness.registry import spec_of
from culteval.harness.scoring.score import score_answers
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.measure import MeasureOptions, countries_of, measure_of
from culteval.tasks.metrics.hofstede import means_with
from culteval.tasks.metrics.reference import scores_of
from culteval.tasks.prompts import ProtocolOptions, render_protocol

SIX = ("BR", "CN", "DE", "IN", "MX", "US")


def random_answers(name, personas=0, seed=0, text=False, calibrate=False):
    layout = render_protocol(spec_of(name), ProtocolOptions(personas, seed, calibrate=calibrate)).layout
    rng = np.random.default_rng(seed)
    probs = rng.uniform(0.01, 1, (1, *layout.codes.shape)) ** 3 * layout.inside
    parsed = np.array([rng.choice(codes[:n]) for codes, n in zip(layout.codes, layout.widths, strict=True)])
    parsed[rng.uniform(size=len(parsed)) < 0.05] = UNPARSED
    texts = ("?",) * len(layout) if text else None
    return Answers(
        layout, probs / probs.sum(-1, keepdims=True), np.zeros((1, len(layout))), texts,
        parsed.astype(int) if text else None,
    )  # fmt: skip


def like(country, strength=1.0, noise=0.0, seed=0):
    """Answers to vsm13 part of the way from the world's mean to a country, with a shift common to all and noise."""
    spec = spec_of("vsm13")
    layout, scores = render_protocol(spec, ProtocolOptions()).layout, scores_of(spec, None)
    means = 3 + strength * (means_with(scores.target(country), scores.world) - 3)
    means += np.linspace(-0.4, 0.4, 24) + noise * np.random.default_rng(seed).normal(size=24)
    probs = np.maximum(1 - abs(layout.codes - np.clip(means, 1, 5)[layout.item][:, None]), 0)
    return Answers(layout, probs[None], np.zeros((1, len(layout))))


def call(*words, code=0):
    done = CliRunner().invoke(cli, ["identify", *map(str, words)])
    if isinstance(done.exception, CultevalError):
        raise done.exception
    assert done.exit_code == code, done.output
    return done.output


# ---------------------------------------------------------------- one submission


@pytest.mark.parametrize("personas", [0, 3])
@pytest.mark.parametrize("name, scoring", [("vsm13_text", r) for r in ("expected", "argmax", "text")] + [
    (name, r) for name in ("wvs_text", "iw_map_text") for r in ("expected", "argmax", "text")])  # fmt: skip
def test_a_distance_is_the_headline_of_score(name, scoring, personas):
    """What is pooled for speed gives what ``score --country all`` gives from all answers to items asked everywhere."""
    spec, options = spec_of(name), MeasureOptions()
    answers = random_answers(name, personas, text=True, calibrate=name.startswith("wvs"))
    if name == "wvs_text":
        measures = [measure_of(spec, code, options) for code in countries_of(spec, None)]
        everywhere = sorted(set.intersection(*(set(each.items) for each in measures)))
        assert 35 < len(everywhere) < 44
        free = answers.layout.item >= len(spec.items.ids)
        answers = answers.take(np.isin(answers.layout.item, everywhere) | free)
    found = distances(spec, answers, scoring, options, "US")
    assert set(found) == set(countries_of(spec, None)) and list(found.values()) == sorted(found.values())
    for code in ("US", "BR", "CN"):  # BR and US have shortened scales
        rows = score_answers(spec, answers, code, options, "a")
        metric = spec.metadata.headline.metric
        row = next(s for s in rows if (s.metric, s.scoring, s.split) == (metric, scoring, "heldout"))
        assert found[code] == pytest.approx(row.value, rel=1e-9)


def test_an_item_without_an_answer():
    """No index can be formed: one line. In a survey of shares the item has equal shares."""
    for name in ("vsm13_text", "wvs_text"):
        answers = random_answers(name, text=True)
        parsed = np.where(answers.layout.item == 3, UNPARSED, answers.parsed)
        answers = Answers(answers.layout, answers.probs, answers.off_options, answers.texts, parsed)
        if name == "wvs_text":
            mean = pooled(answers, "text")
            assert len(mean.layout) == len(spec_of(name).items.ids)
            assert mean.probs[0, mean.layout.item == 3].max() == 1 / mean.layout.widths[mean.layout.item == 3][0]
            assert distances(spec_of(name), answers, "text", MeasureOptions(), "US")
            continue
        with pytest.raises(InputError, match="scored by text"):
            distances(spec_of(name), answers, "text", MeasureOptions(), "US")


def test_every_person_is_read_once_only(monkeypatch):
    """Countries are compared with the pooled answers, so their number costs little however many people there are."""
    sizes = []
    from culteval.tasks.metrics.survey import HofstedeSurvey

    def watched(method):
        def counted(self, of, *rest):
            sizes.append(len(getattr(of, "layout", of)))
            return method(self, of, *rest)

        return counted

    for name in ("score", "loss_function"):
        monkeypatch.setattr(HofstedeSurvey, name, watched(getattr(HofstedeSurvey, name)))
    distances(spec_of("vsm13"), random_answers("vsm13", 5), "expected", MeasureOptions(), "US")
    assert sizes[0] == 5 * 96 and set(sizes[1:]) == {24} and len(sizes) > 60


def test_the_nearest_are_listed_and_drawn(tmp_path, submit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    run = submit(tmp_path / "run", {"vsm13": like("JP", 1.0)}, "SA", fitted="JP")
    text = call(run, "--top", 3, "--plot", tmp_path / "n.svg")
    shown = json.loads(call(run / "submission", "--json"))
    (row,) = shown["submissions"]
    assert row["aligned_to"] == "JP" and row["distances"][row["rank"] - 1]["country"] == "JP"
    assert [each["distance"] for each in row["distances"]] == sorted(each["distance"] for each in row["distances"])
    assert row["nearest_country"] == row["distances"][0]["country"]
    assert shown["identification"] is None and len(row["distances"]) == len(countries_of(spec_of("vsm13"), None))
    bars = [line.split("━")[0].split() for line in text.splitlines() if "━" in line]
    assert [line[0] for line in bars][:3] == ["1", "2", "3"] and len(bars) == 3 + (row["rank"] > 3)
    assert "◆ own" in text and "no identification rank" in text
    svg = (tmp_path / "n.svg").read_text(encoding="utf-8")
    assert svg.count("</svg>") == 1 and ">Japan<" in svg


# ---------------------------------------------------------------- an aligned set


def by_loops(rows, codes):
    table = [[rows[i][j] for j in codes] for i in codes]
    n = len(codes)
    mean = sum(map(sum, table)) / n**2
    columns = [sum(table[i][j] for i in range(n)) / n for j in range(n)]
    return [[table[i][j] - sum(table[i]) / n - columns[j] + mean for j in range(n)] for i in range(n)]


def test_the_matrix_by_loops():
    rng = np.random.default_rng(0)
    rows = {i: {j: float(rng.uniform()) for j in (*SIX, "ZZ")} for i in SIX}
    found = identification(rows, rng)
    assert found.countries == SIX and np.allclose(found.centred, by_loops(rows, SIX))
    assert np.allclose(found.centred.sum(0), 0) and np.allclose(found.centred.sum(1), 0)
    for i in range(6):
        row = found.centred[i].tolist()
        assert found.ranks[i] == sorted(row).index(row[i]) + 1
    ranks = [sorted(row).index(row[i]) + 1 for i, row in enumerate(found.centred.tolist())]
    assert found.mean_rank == pytest.approx(sum(ranks) / 6) and found.permutations == 720


def test_centring_removes_the_constants():
    """Squared distances under any C: the matrix is -2 x' . y'."""
    rng = np.random.default_rng(1)
    x, y, c = rng.normal(size=(6, 6)), rng.normal(size=(6, 6)), rng.normal(0, 50, 6)
    for shift in (0, c):
        table = ((x[:, None] + shift - y[None]) ** 2).sum(-1)
        assert np.allclose(double_centred(table), -2 * (x - x.mean(0)) @ (y - y.mean(0)).T)


def test_equal_answers_know_nothing():
    """The same answers for every country: all ranks are the middle, and p is 1."""
    row = dict(zip(SIX, [3.1, 0.7, 9.9, 2.2, 0.1, 5.0], strict=True))
    found = identification(dict.fromkeys(SIX, row), np.random.default_rng(0))
    assert found.ranks.tolist() == [3.5] * 6 and found.mean_rank == 3.5 and found.p == 1


def test_p_needs_six_countries():
    rows = {i: {j: float(i != j) for j in SIX} for i in SIX}
    assert identification(rows, np.random.default_rng(0)).p == pytest.approx(1 / 720)
    five = identification({i: rows[i] for i in SIX[:5]}, np.random.default_rng(0))
    assert five.p is None and five.permutations == 0 and five.mean_rank == 1
    with pytest.raises(UsageError, match="too different questions"):
        identification({"US": rows["US"]}, np.random.default_rng(0))


def test_countries_are_compared_on_the_items_asked_in_all_of_them():
    """Answers as those of Egypt's people; it was asked 42 of 44 items. A far item that Egypt lacks moves nobody."""
    spec, options = spec_of("wvs"), MeasureOptions()
    asked = set(measure_of(spec, "EG", options).items)
    own = next(i for i in measure_of(spec, "US", options).items if i not in asked)
    answers = random_answers("wvs", 0)
    probs = answers.probs.copy()
    probs[0, answers.layout.item == own] = np.eye(probs.shape[2])[0]
    other = replace(answers, probs=probs)
    one, two = (distances(spec, each, "expected", options, "US") for each in (answers, other))
    assert "EG" in one and one == pytest.approx(two, rel=1e-12)


def test_countries_that_were_asked_other_questions_are_not_compared(monkeypatch):
    spec, options = spec_of("wvs"), MeasureOptions()
    monkeypatch.setattr(nearest, "ALIKE", 0.96)
    found = distances(spec, random_answers("wvs", 0), "expected", options, "US")
    assert "EG" not in found and "CN" in found
    assert "EG" in distances(spec, random_answers("wvs", 0), "expected", options, "EG")
    rows = {
        "US": {"US": 1.0, "CN": 2.0, "EG": 3.0},
        "CN": {"US": 1.0, "CN": 2.0},
        "EG": {"EG": 1.0, "US": 2.0, "CN": 2.0},
    }
    assert identification(rows, np.random.default_rng(0)).countries == ("CN", "US")
    rows = {one: dict.fromkeys((*SIX, "XX"), 1.0) | {one: 0.0} for one in SIX} | {"XX": {"XX": 0.1}}
    assert identification(rows, np.random.default_rng(0)).countries == tuple(sorted(SIX))


def test_p_is_uniform_over_the_labellings():
    """Exactly: of all labellings of one matrix, a share p has a value of p or less."""
    ranks = np.random.default_rng(2).permuted(np.tile(np.arange(1.0, 7), (6, 1)), axis=1)
    orders = list(itertools.permutations(range(6)))
    sums = np.array([sum(ranks[i, order[i]] for i in range(6)) for order in orders])
    values = np.array([(sums <= total).mean() for total in sums])  # by hand
    for order, value in list(zip(orders, values, strict=True))[::71]:
        assert permutation_p(ranks[:, order], np.random.default_rng(0)) == (pytest.approx(value), 720)
    for level in np.unique(values):
        assert (values <= level).mean() == pytest.approx(level)


@pytest.mark.parametrize("n", [7, 12])  # all labellings, and 9,999 at random
def test_p_is_uniform_where_nothing_is_known(n, monkeypatch):
    """Distances of noise: as many p-values at or below a level as the level says, less what ties cost."""
    monkeypatch.setattr(nearest, "PERMUTATIONS", 499)
    rng, times = np.random.default_rng(3), 200 if n == 7 else 400
    codes = [f"{i:02d}" for i in range(n)]
    values = []
    for _ in range(times):
        table = rng.normal(size=(n, n)) + 3 * rng.normal(size=n) + 3 * rng.normal(size=(n, 1))  # countries differ
        rows = {i: dict(zip(codes, row.tolist(), strict=True)) for i, row in zip(codes, table, strict=True)}
        values.append(identification(rows, rng).p)
    for level in (0.05, 0.1, 0.25, 0.5, 0.75):
        slack = 3 * (level * (1 - level) / times) ** 0.5
        assert level - slack - 0.06 < np.mean(np.array(values) <= level) < level + slack, level
    assert min(values) > 0


def test_a_set_of_the_right_countries_is_identified(tmp_path, submit, monkeypatch):
    """A tenth of the way to each country under noise and a shift common to all: ranks are low, p is small."""
    monkeypatch.setenv("COLUMNS", "120")
    runs = [submit(tmp_path / c, {"vsm13": like(c, 0.4, 0.05, i)}, c) for i, c in enumerate(SIX)]
    shown = json.loads(call(*runs, "--json"))
    found = shown["identification"]
    assert found["countries"] == list(SIX) and found["mean_identification_rank"] < 1.5 and found["p"] < 0.01
    assert found["mean_identification_rank"] == sum(found["identification_ranks"]) / 6
    assert shown["between_countries"]["explained_variance"]["all"] > 0.3
    wrong = [submit(tmp_path / f"w{c}", {"vsm13": like(c, 0.4, 0.05, i)}, d)
             for i, (c, d) in enumerate(zip(SIX, SIX[1:] + SIX[:1], strict=True))]  # fmt: skip
    other = json.loads(call(*wrong, "--json"))["identification"]
    assert other["mean_identification_rank"] > 3 and other["p"] > 0.3
    text = call(*runs, "--plot", tmp_path / "m.svg")
    assert "p = 0.00" in text and "720 permutations" in text and "between-country R2 0." in text
    assert "mean identification rank" in (tmp_path / "m.svg").read_text(encoding="utf-8")


def test_shares_are_compared_too(tmp_path, submit):
    spec = spec_of("wvs")
    layout = render_protocol(spec, ProtocolOptions()).layout
    for code in SIX:
        measure = measure_of(spec, code, MeasureOptions())
        probs = np.full((1, *layout.codes.shape), 0.02) * layout.inside
        rows = np.arange(len(layout))
        probs[0, rows, (layout.codes == measure.demonstrations(layout)[:, None]).argmax(-1)] += 1
        answers = Answers(layout, probs / probs.sum(-1, keepdims=True), np.zeros((1, len(layout))))
        submit(tmp_path / code, {"wvs": answers}, code)
    shown = json.loads(call(*(tmp_path / code for code in SIX), "--json"))
    assert shown["metric"] == "w1" and shown["identification"]["p"] < 0.05 and shown["between_countries"] is None


def test_the_seed_decides_what_is_drawn():
    rng = np.random.default_rng(4)
    ranks = rng.permuted(np.tile(np.arange(1.0, 13), (12, 1)), axis=1)
    drawn = [permutation_p(ranks, np.random.default_rng(seed)) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] and drawn[0][1] == 9_999 and drawn[0] != drawn[2]
    assert abs(drawn[0][0] - drawn[2][0]) < 0.03


# ---------------------------------------------------------------- what is no set, and bad input


def test_why_there_is_no_matrix(tmp_path, submit):
    answers = {code: like(code) for code in ("US", "CN")}
    one, two = (submit(tmp_path / code, {"vsm13": each}, code) for code, each in answers.items())
    again = submit(tmp_path / "again", {"vsm13": like("US", 0.2)}, "US", seed=1)
    other = submit(tmp_path / "other", {"vsm13": like("BR")}, "BR", aligner="gd")
    lost = submit(tmp_path / "lost", {"vsm13": like("BR")}, "US", fitted="AQ")
    for paths, why in (((one, two, again), "more than one is aligned to United States"),
                       ((one, other), "differ in more than the country: aligner"), ((one, lost), "no Antarctica"),
                       ((one, one), "several submissions")):  # fmt: skip
        assert why in " ".join(call(*paths).split())
    with pytest.raises(UsageError, match="--plot: no figure"):
        call(one, other, "--plot", tmp_path / "x.svg")
    assert "p needs 6 countries" in " ".join(call(one, two).split())


def test_bad_input_is_one_line(tmp_path, submit):
    vsm = submit(tmp_path / "vsm", {"vsm13": like("US")}, "US")
    both = submit(tmp_path / "both", {"general": random_answers("general"), "wvs": random_answers("wvs")}, "US")
    quiz = submit(tmp_path / "quiz", {"general": random_answers("general")}, "US")
    pairs = submit(tmp_path / "pairs", {"cdeval_core": random_answers("cdeval_core")}, "US")
    assert json.loads(call(both, "--json"))["task"] == "wvs"  # the first that has countries
    bad = tmp_path / "bad"
    shutil.copytree(vsm, bad)
    manifest = bad / "submission" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"vsm13"', '"vsm13\\u202e"'))
    for words, kind, match in (
        ((vsm, both), UsageError, "no task that all"), ((quiz,), UsageError, "general: it has no countries"),
        ((pairs,), UsageError, "no distance to countries"), ((tmp_path,), InputError, "cannot be read"),
        ((vsm, "--task", "wvs"), UsageError, "they share vsm13"), ((bad,), InputError, "cannot be shown"),
        ((vsm, "--scoring", "text"), UsageError, "vsm13 has expected, argmax"),
        ((vsm, "--edition", "1999"), UsageError, "1999"), ((vsm, "--plot", "x.png"), UsageError, "SVG"),
    ):  # fmt: skip
        with pytest.raises(kind, match=match) as caught:
            call(*words)
        assert "\n" not in str(caught.value).strip() or str(caught.value).count("\n") < 2
    assert "Missing argument" in call(code=2)


@pytest.mark.parametrize("name", ["[bold]x[/bold]", "$\\frac{1}{2}$", "$x", "<script>alert(1)</script>"])
def test_names_are_shown_as_they_are(tmp_path, submit, name, monkeypatch):
    """A stranger's name is neither rich markup nor mathematics nor a tag."""
    monkeypatch.setenv("COLUMNS", "150")
    runs = [submit(tmp_path / code, {"vsm13": like(code)}, code, aligner=name) for code in ("US", "CN")]
    for paths in (runs, runs[:1]):
        text = call(*paths, "--plot", tmp_path / "x.svg")
        assert name in text
        assert "<script" not in (tmp_path / "x.svg").read_text(encoding="utf-8")
