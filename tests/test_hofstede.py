"""Tests of the Hofstede measure: formulas worked by hand, published scores, and the order of aggregation."""

from __future__ import annotations

import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from culteval.errors import InputError, UsageError
from culteval.harness.scoring import score_answers
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.countries import country, name_of
from culteval.tasks.measure import MeasureOptions, countries_of, measure_of
from culteval.tasks.metrics.hofstede import FORMULAS, ITEMS, distance, inverse, is_collapsed, weights
from culteval.tasks.metrics.reference import load_scores
from culteval.tasks.prompts import Asking, render
from culteval.tasks.spec import load_spec
from hypothesis import given, settings
from hypothesis import strategies as st

VSM = Path(__file__).parent.parent / "tasks" / "vsm13"
SPEC = load_spec(VSM / "vsm13.yaml")
DIMENSIONS = ("pdi", "idv", "mas", "uai", "lto", "ivr")
SA = np.array([72.0, 48.0, 43.0, 64.0, 27.0, 14.0])
# Sums over the 62 complete rows of the matrix of 2015, added up apart from the package.
WORLD = np.array([3634.0, 2837.0, 3045.0, 4151.0, 3085.0, 2945.0]) / 62

# m01 .. m24 of one imaginary group
HAND = np.array([1, 2, 3, 4, 5, 1, 4, 2, 5, 4, 2, 5, 1, 4, 3, 5, 4, 1, 5, 2, 4, 2, 5, 3])
HAND_INDICES = {
    "pdi": -5,  # 35 (m07 4 - m02 2) + 25 (m20 2 - m23 5) =   70 -  75
    "idv": 245,  # 35 (m04 4 - m01 1) + 35 (m09 5 - m06 1) =  105 + 140
    "mas": 0,  # 35 (m05 5 - m03 3) + 35 (m08 2 - m10 4) =   70 -  70; with the misprint's 25 it were 20
    "uai": -55,  # 40 (m18 1 - m15 3) + 25 (m21 4 - m24 3) =  -80 +  25
    "lto": -45,  # 40 (m13 1 - m14 4) + 25 (m19 5 - m22 2) = -120 +  75
    "ivr": 65,  # 35 (m12 5 - m11 2) + 40 (m17 4 - m16 5) =  105 -  40
}


def measure(code="SA", **options):
    return measure_of(SPEC, code, MeasureOptions(**options))


@cache
def prompts(split, people=0):
    return render(SPEC, split, Asking(respondents=people))


def certain(codes, layout, **text):
    """Answers that put all probability on ``codes`` (prompts,)."""
    probs = (layout.codes == np.asarray(codes)[:, None]).astype(float)[None]
    return Answers(layout, probs, np.zeros((1, len(layout))), **text)


def by_item(codes, split="heldout", people=0):
    layout = prompts(split, people).layout
    return certain(np.asarray(codes)[layout.item], layout)


def texts(codes, layout):
    return certain(np.where(codes == UNPARSED, 3, codes), layout, texts=("?",) * len(layout), parsed=codes)


def table(scores):
    scores = list(scores)
    found = {score.metric: score for score in scores}
    assert len(found) == len(scores)
    return found


# The six formulas


def test_hand_worked_indices():
    assert (weights() @ HAND).tolist() == list(HAND_INDICES.values())


def test_single_steps():
    """One item one step up from the middle moves one index by its coefficient."""
    moved = {7: 35, 2: -35, 20: 25, 23: -25, 4: 35, 1: -35, 9: 35, 6: -35, 5: 35, 3: -35, 8: 35, 10: -35, 18: 40,
             15: -40, 21: 25, 24: -25, 13: 40, 14: -40, 19: 25, 22: -25, 12: 35, 11: -35, 17: 40, 16: -40}  # fmt: skip
    assert len(moved) == 24
    for item, by in moved.items():
        answers = np.full(24, 3)
        answers[item - 1] = 4
        index = weights() @ answers
        assert np.flatnonzero(index).size == 1
        assert index.sum() == by, item


def test_second_coefficient_of_masculinity_is_35():
    assert weights()[2, [7, 9]].tolist() == [35.0, -35.0]  # m08, m10


@pytest.mark.parametrize(
    ("name", "up", "down", "extreme"),
    [
        ("pdi", (7, 20), (2, 23), 240),
        ("idv", (4, 9), (1, 6), 280),
        ("mas", (5, 8), (3, 10), 280),
        ("uai", (18, 21), (15, 24), 260),
        ("lto", (13, 19), (14, 22), 260),
        ("ivr", (12, 17), (11, 16), 300),
    ],
)
def test_ranges(name, up, down, extreme):
    answers = np.full(24, 3)
    answers[[i - 1 for i in up]], answers[[i - 1 for i in down]] = 5, 1
    index = dict(zip(DIMENSIONS, weights() @ answers, strict=True))
    assert index.pop(name) == extreme
    assert set(index.values()) == {0}
    assert (weights() @ (6 - answers))[DIMENSIONS.index(name)] == -extreme


@given(st.lists(st.floats(1, 5), min_size=24, max_size=24))
@settings(max_examples=50)
def test_no_answers_leave_the_ranges(means):
    assert (abs(weights() @ np.array(means)) <= np.array([240, 280, 280, 260, 260, 300]) + 1e-9).all()


def test_each_item_is_in_one_formula_as_the_item_file_says():
    used = {ITEMS[i - 1]: name for name, (_, p, q, _, r, s) in FORMULAS.items() for i in (p, q, r, s)}
    assert used == {item: key.dimension for item, key in SPEC.items.items.items()}
    assert len(used) == 24


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("constants", ["world", "zero"])
def test_constant_answers_give_the_constants_exactly(code, constants):
    scores = table(measure(constants=constants).score(by_item(np.full(24, code)), "heldout", "expected"))
    expected = WORLD if constants == "world" else np.zeros(6)
    assert [scores[name].value for name in DIMENSIONS] == expected.tolist()
    assert scores["skill"].value == 0


def test_norms():
    error = np.array([[3.0, -4.0, 0, 0, 0, 0], [1, 1, 1, -1, -1, -1]])
    assert distance(error, "sse").tolist() == [25, 6]
    assert distance(error, "l2") == pytest.approx([5, 2.449489742783178])
    assert distance(error, "l1").tolist() == [7, 6]


def test_collapse_is_less_than_a_quarter_of_a_step():
    means = np.full(24, 2.0)
    assert is_collapsed(means)
    means[5] = 2.2499
    assert is_collapsed(means)
    means[5] = 2.25
    assert not is_collapsed(means)


# Published scores


@pytest.mark.parametrize("edition", ["2015", "extended"])
def test_world_constants(edition):
    world = load_scores(VSM / "hofstede.csv", edition).world
    assert np.round(world, 1).tolist() == [58.6, 45.8, 49.1, 67.0, 49.8, 47.5]
    assert world == pytest.approx(WORLD, abs=1e-12)


@pytest.mark.parametrize(
    ("code", "printed", "exact"),
    [  # printed: from constants rounded to one decimal, as METHODS has it; exact: from the means of 62 rows
        ("SA", 1873, 1870.49974),
        ("US", 3983, 3983.015869),
        ("CN", 4714, 4710.693288),
        ("IN", 1584, 1580.725546),
    ],
)
def test_where_the_constant_answer_lands(code, printed, exact):
    scores = table(measure(code).score(by_item(np.full(24, 3)), "heldout", "expected"))
    assert scores["loss"].value == pytest.approx(exact, abs=1e-5)
    assert abs(scores["loss"].value - printed) < 4  # up to 0.05 a constant, times twice the error


def test_zero_constants_start_at_the_sum_of_squared_targets():
    # 72^2 + 48^2 + 43^2 + 64^2 + 27^2 + 14^2 = 5184 + 2304 + 1849 + 4096 + 729 + 196
    scores = table(measure(constants="zero").score(by_item(np.full(24, 5)), "heldout", "argmax"))
    assert scores["loss"].value == 14358


def test_editions():
    strict, extended = countries_of(SPEC, "2015"), countries_of(SPEC, "extended")
    assert (len(strict), len(extended)) == (62, 94)
    assert set(strict) < set(extended)
    assert countries_of(SPEC, None) == extended
    assert ("SA" in strict, "SA" in extended) == (False, True)
    assert {"US", "CN", "IN"} <= set(strict)
    assert "EG" not in extended


def test_targets_are_the_published_figures():
    assert measure("SA").target.tolist() == SA.tolist()
    assert measure("US", edition="2015").target.tolist() == [40, 91, 62, 46, 26, 68]
    assert measure("SK").target.tolist() == [104, 52, 110, 51, 77, 28]  # above 100, and not clipped
    assert measure("PK").target[5] == 0  # a score, not a gap


def test_estimates_are_marked():
    assert measure("SA").caution == "the published scores of Saudi Arabia rest on estimates (edition extended)"
    assert measure("US").caution is None
    assert measure("US", edition="2015").caution is None


@pytest.mark.parametrize(
    ("code", "options", "words"),
    [
        ("EG", {}, "Egypt has no published score for ivr "),
        ("KG", {}, "Kyrgyzstan has no published score for pdi, idv, mas, uai "),
        ("SA", {"edition": "2015"}, "edition '2015' has no Hofstede scores for Saudi Arabia.*--edition extended"),
        ("AQ", {}, "no Hofstede scores for Antarctica"),
        ("SA", {"constants": "wrold"}, r"--constants 'wrold': not one of world, zero\. Did you mean 'world'\?"),
        ("SA", {"norm": "ssee"}, r"--norm 'ssee': not one of sse, l2, l1\. Did you mean 'sse'\?"),
        ("SA", {"edition": "extnded"}, r"--edition 'extnded'.*2015, extended\. Did you mean 'extended'\?"),
        ("SA", {"edition": "2014"}, r"Did you mean '2015'\?"),
    ],
)
def test_what_cannot_be_had_is_a_usage_error(code, options, words):
    with pytest.raises(UsageError, match=words) as caught:
        measure(code, **options)
    assert caught.value.exit_code == 2


HEADER = "iso2,pdi,idv,mas,uai,lto,ivr,source\n"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (HEADER + "US,1,2,3,4,5,6,matrix-2015\nSA,1,2,x,4,5,6,s\n", r"scores\.csv:3: .*'x'"),
        ("iso2,pdi\nUS,1\n", r"scores\.csv:1: no column 'idv'"),
        (HEADER.replace(",source", "") + "US,1,2,3,4,5,6\n", r"scores\.csv:1: no column 'source'"),
    ],
)
def test_malformed_scores_name_line_and_field(tmp_path, body, words):
    (tmp_path / "scores.csv").write_text(body, encoding="utf-8")
    with pytest.raises(InputError, match=words):
        load_scores(tmp_path / "scores.csv", "extended")


@pytest.mark.parametrize("text", ["SA", "sa", "SAU", "sau", "Saudi Arabia", "saudi arabia", " Saudi Arabia\n"])
def test_a_country_by_code_or_name(text):
    found = country(text)
    assert (found.code, found.name) == ("SA", "Saudi Arabia")


@pytest.mark.parametrize(("text", "code", "name"), [
    ("Vietnam", "VN", "Vietnam"), ("south korea", "KR", "South Korea"), ("usa", "US", "United States"),
    ("Iran", "IR", "Iran"), ("Czechia", "CZ", "Czechia"),
])  # fmt: skip
def test_countries_go_by_the_names_people_use(text, code, name):
    assert (country(text).code, country(text).name) == (code, name)


@pytest.mark.parametrize("known", [(), ("CN", "IN", "SA", "US")])
def test_a_slip_is_put_right(known):
    with pytest.raises(UsageError, match=r"'Saudi Arabiaa': no such country\. Did you mean 'Saudi Arabia'\?"):
        country("Saudi Arabiaa", known)


@pytest.mark.parametrize("text", ["", "zz", "Atlantis-on-Sea"])
def test_no_such_country(text):
    with pytest.raises(UsageError, match="no such country"):
        country(text)


def test_names_of_codes():
    assert (name_of("CN"), name_of("ZZ")) == ("China", "ZZ")


# Scores of hand-worked answers


@pytest.mark.parametrize("readout", ["expected", "argmax"])
@pytest.mark.parametrize("split", ["fit", "heldout"])
def test_hand_worked_scores(split, readout):
    scores = table(measure(constants="zero").score(by_item(HAND, split), split, readout))
    assert {name: scores[name].value for name in DIMENSIONS} == HAND_INDICES
    # errors: -5 - 72, 245 - 48, 0 - 43, -55 - 64, -45 - 27, 65 - 14
    errors = dict(zip(DIMENSIONS, (-77, 197, -43, -119, -72, 51), strict=True))
    assert {name: scores[f"{name}_error"].value for name in DIMENSIONS} == errors
    assert scores["loss"].value == 68533  # 5929 + 38809 + 1849 + 14161 + 5184 + 2601
    assert scores["l2"].value == pytest.approx(261.788082)  # 261.788082^2 = 68533
    assert scores["l1"].value == 559
    assert scores["skill"].value == pytest.approx(-3.7731578)  # 1 - 68533 / 14358
    assert scores["spread"].value == pytest.approx(1.4427740)  # sqrt(297 / 24 - (77 / 24)^2)
    assert scores["distinct"].value == 5
    assert scores["collapsed"].value == 0
    assert {score.note for score in scores.values()} == {None}
    assert [scores[name].norm for name in ("loss", "l2", "l1", "skill", "pdi")] == ["sse", "l2", "l1", "sse", None]


def test_rows_are_unique_and_say_what_they_are_about():
    wanted = {"outside_mass", "loss", "l2", "l1", "skill", *DIMENSIONS, *(f"{name}_error" for name in DIMENSIONS),
              "spread", "distinct", "collapsed", "loss_wording_spread"}  # fmt: skip
    rows = []
    for split, readout in itertools.product(("fit", "heldout"), ("expected", "argmax")):
        part = measure().score(by_item(HAND, split), split, readout)
        names = wanted | ({"loss_reversed", "loss_order_spread"} if split == "heldout" else set())
        assert {row.metric for row in part} == names
        rows += part
    keys = [(row.metric, row.readout, row.split) for row in rows]
    assert len(set(keys)) == len(keys) == 2 * 21 + 2 * 23
    for row in rows:
        assert (row.task, row.country, row.edition, row.constants, row.n) == ("vsm13", "SA", "extended", "world", 1)
        assert row.wordings == (("A", "B") if row.split == "fit" else ("C", "D"))
        turned = {"loss_reversed": ("reversed",), "loss_order_spread": ("natural", "reversed")}
        assert row.orders == turned.get(row.metric, ("natural",))
        assert (row.low, row.high) == (None, None)
    better = {row.metric: row.higher_is_better for row in rows}
    assert [better[name] for name in ("loss", "skill", "pdi", "pdi_error", "collapsed")] == [
        False, True, None, None, False]  # fmt: skip


def test_constant_answers_are_called_collapsed():
    scores = table(measure().score(by_item(np.full(24, 2)), "heldout", "argmax"))
    assert (scores["collapsed"].value, scores["spread"].value, scores["distinct"].value) == (1, 0, 1)
    assert {scores[name].note for name in ("loss", "skill", "pdi", "loss_reversed")} == {"collapsed"}


def test_the_constant_row_is_the_middle_of_the_scale():
    layout = prompts("fit").layout
    answers = measure().constant(layout)
    assert answers.values("expected").tolist() == answers.values("argmax").tolist() == [[3.0] * 48]
    assert answers.outside.max() == 0


def test_mean_first_then_indices_then_loss():
    """Wording C answers m07 with 5, D with 1: the mean is 3, so the loss is 14,358 and not the mean of two losses."""
    layout = prompts("heldout").layout
    codes = np.full(96, 3)
    codes[(layout.item == 6) & (layout.wording == 2)] = 5
    codes[(layout.item == 6) & (layout.wording == 3)] = 1
    scores = table(measure(constants="zero").score(certain(codes, layout), "heldout", "expected"))
    assert scores["loss"].value == 14358
    # C alone: PDI +70, (70 - 72)^2 + 9174 = 9178; D alone: PDI -70, 142^2 + 9174 = 29338; their mean is 19258.
    assert scores["loss_wording_spread"].value == 20160
    assert scores["collapsed"].value == 1  # of the means


def test_argmax_is_taken_before_the_mean():
    """Two wordings with modes 1 and 5: the mean of the modes is 3, whatever the mode of the mixture is."""
    layout = prompts("fit").layout
    probs = np.zeros((1, 48, 5))
    probs[..., 2] = 1
    seventh = layout.item == 6
    probs[0, seventh & (layout.wording == 0)] = [0.4, 0.3, 0.3, 0, 0]  # expected 1.9
    probs[0, seventh & (layout.wording == 1)] = [0, 0, 0.3, 0.3, 0.4]  # expected 4.1
    answers = Answers(layout, probs, np.zeros((1, 48)))
    assert table(measure(constants="zero").score(answers, "fit", "argmax"))["pdi"].value == 0
    probs[0, seventh & (layout.wording == 1)] = [0, 0, 0.3, 0.4, 0.3]  # mode 4, expected 4.0
    scores = table(measure(constants="zero").score(answers, "fit", "argmax"))
    assert scores["pdi"].value == pytest.approx(-17.5)  # 35 (2.5 - 3)
    scores = table(measure(constants="zero").score(answers, "fit", "expected"))
    assert scores["pdi"].value == pytest.approx(-1.75)  # 35 (2.95 - 3)


def test_reversed_order_is_scored_apart():
    layout = prompts("heldout").layout
    codes = np.where((layout.item == 6) & (layout.order == 1), 5, 3)
    answers = certain(codes, layout)
    answers.outside[0] = np.where(layout.order == 1, 0.5, 0.1)
    scores = table(measure(constants="zero").score(answers, "heldout", "expected"))
    assert scores["loss"].value == 14358
    assert scores["loss_reversed"].value == 9178
    assert scores["loss_order_spread"].value == 5180
    assert (scores["loss"].note, scores["loss_reversed"].note) == ("collapsed", None)
    assert scores["outside_mass"].value == pytest.approx(0.1)  # of the orders the loss is asked in


def test_only_the_split_s_own_wordings_count():
    layout = prompts("heldout").layout.join(prompts("fit").layout)
    answers = certain(np.where(layout.wording < 2, HAND[layout.item], 3), layout)
    rows = score_answers(SPEC, answers, "SA", MeasureOptions(constants="zero"), "x")
    for split, loss in (("fit", 68533), ("heldout", 14358)):
        for readout in ("expected", "argmax"):
            scores = table(row for row in rows if (row.split, row.readout) == (split, readout))
            assert scores["loss"].value == loss


# Generated text


def test_text_leaves_out_what_was_not_parsed():
    layout = prompts("heldout").layout
    codes = HAND[layout.item].copy()
    codes[(layout.wording == 3) & (layout.item == 0)] = UNPARSED  # one of 48 in natural order
    scores = table(measure(constants="zero").score(texts(codes, layout), "heldout", "text"))
    assert scores["unparsed"].value == pytest.approx(1 / 48)
    assert scores["loss"].value == 68533
    assert "outside_mass" not in scores


def test_an_item_without_valid_text_leaves_no_loss():
    layout = prompts("heldout").layout
    codes = HAND[layout.item].copy()
    codes[layout.item == 0] = UNPARSED
    scores = table(measure().score(texts(codes, layout), "heldout", "text"))
    assert set(scores) == {"unparsed", "unparsed_reversed", "agreement"} and scores["agreement"].value == 1
    assert scores["unparsed"].value == scores["unparsed_reversed"].value == pytest.approx(2 / 48)


def test_text_unreadable_in_reversed_order_only():
    layout = prompts("heldout").layout
    codes = np.where(layout.order == 1, UNPARSED, HAND[layout.item])
    scores = table(measure(constants="zero").score(texts(codes, layout), "heldout", "text"))
    assert scores["loss"].value == 68533
    assert "loss_reversed" not in scores and "loss_order_spread" not in scores


def test_no_score_is_nan():
    layout = prompts("heldout").layout
    codes = np.where((layout.wording == 3) & (layout.item == 0), UNPARSED, HAND[layout.item])
    rows = measure().score(texts(codes, layout), "heldout", "text")
    assert [row.metric for row in rows if np.isnan(row.value)] == []


# Respondents


def panel_answers(people):
    """All 3, but for m07: half of the people say 2, half 4."""
    layout = prompts("heldout", people).layout
    return certain(np.where(layout.item == 6, np.where(layout.respondent % 2, 2, 4), 3), layout)


def test_intervals_from_20_respondents():
    scores = table(measure(constants="zero").score(panel_answers(20), "heldout", "expected"))
    assert {score.n for score in scores.values()} == {20}
    # PDI by person +-35: standard deviation 35 sqrt(20 / 19), over sqrt(20); t(19 df, 97.5 %) = 2.0930241
    assert scores["pdi"].value == 0
    assert scores["pdi"].high == pytest.approx(16.806043, abs=1e-5)
    assert scores["pdi"].low == pytest.approx(-16.806043, abs=1e-5)
    with_interval = {name for name, score in scores.items() if score.low is not None}
    assert with_interval == {name for name in DIMENSIONS if scores[name].high is not None} == {"pdi"}  # else all alike
    assert {name for name, score in scores.items() if score.high is not None} == with_interval


def test_no_intervals_below_20_respondents():
    scores = measure(constants="zero").score(panel_answers(19), "heldout", "expected")
    assert {score.n for score in scores} == {19}
    assert {score.low for score in scores} | {score.high for score in scores} == {None}


def test_an_item_left_out_by_somebody_does_not_cost_the_interval():
    """Respondent 4 did not answer m07; the mean of the other 19, whose spread is theirs, stands for it."""
    layout = prompts("heldout", 20).layout
    codes = np.where(layout.item == 6, np.where(layout.respondent % 2, 2, 4), 3)
    codes = np.where((layout.item == 6) & (layout.respondent == 4), UNPARSED, codes)
    scores = table(measure(constants="zero").score(texts(codes, layout), "heldout", "text"))
    m07 = np.array([2] * 10 + [4] * 9)
    left_out = np.array([np.delete(m07, i).mean() for i in range(19)] + [m07.mean()])  # leaving 4 out changes nothing
    error = 35 * (19 / 20 * ((left_out - left_out.mean()) ** 2).sum()) ** 0.5
    half = 2.0930241 * error
    assert scores["pdi"].value == pytest.approx(35 * (m07.mean() - 3))
    assert (scores["pdi"].low, scores["pdi"].high) == pytest.approx(
        (scores["pdi"].value - half, scores["pdi"].value + half), abs=1e-5
    )


# Inverse modelling


def brute_force(a, p, q, b, r, s, target):
    """Nearest four answers: among equals, those nearest to the middle of the scale."""
    combos = itertools.product((1, 2, 3, 4, 5), repeat=4)
    return min((abs(a * (w - x) + b * (y - z) - target), sum((c - 3) ** 2 for c in (w, x, y, z)))
               for w, x, y, z in combos)  # fmt: skip


@pytest.mark.parametrize("name", DIMENSIONS)
@pytest.mark.parametrize("target", [0, 14, 43, 72, -60, 112, 300])
def test_inverse_is_exact(name, target):
    row = DIMENSIONS.index(name)
    targets = np.zeros(6)
    targets[row] = target
    codes = inverse(targets, np.zeros(6))
    a, p, q, b, r, s = FORMULAS[name]
    four = codes[[p - 1, q - 1, r - 1, s - 1]]
    miss = abs((weights() @ codes)[row] - target)
    assert (miss, ((four - 3) ** 2).sum()) == brute_force(a, p, q, b, r, s, target)
    assert (np.delete(codes, [p - 1, q - 1, r - 1, s - 1]) == 3).all()


@pytest.mark.parametrize(
    ("code", "constants", "floor"),
    [  # world: 2.60 + 5.03 + 37.37 + 4.20 + 5.03 + 2.25 for SA; zero: 4 + 169 + 64 + 1 + 4 + 1
        ("SA", "zero", 243), ("US", "zero", 266), ("CN", "zero", 246), ("IN", "zero", 371),
        ("SA", "world", 56.4674818), ("US", "world", 275.5965140), ("CN", "world", 383.5965140),
        ("IN", "world", 62.6610302),
    ],
)  # fmt: skip
def test_demonstrations_reach_the_floor_of_argmax_answers(code, constants, floor):
    layout = prompts("fit").layout
    aim = measure(code, constants=constants)
    codes = aim.demonstrations(layout)
    assert codes.shape == (48,)
    assert set(codes.tolist()) <= {1, 2, 3, 4, 5}
    assert codes[:24].tolist() == codes[24:].tolist()
    loss = table(aim.score(certain(codes, layout), "fit", "argmax"))["loss"].value
    assert loss == pytest.approx(floor, abs=1e-6)


def test_demonstrations_follow_the_rows_of_the_layout():
    layout = prompts("heldout").layout
    rows = np.array([95, 6, 30, 0])
    aim = measure(constants="zero")
    # SA with C = 0: PDI 70 = 35 (4 - 2) is nearest to 72, and m24 is 2: 40 (3 - 2) + 25 (3 - 2) = 65 for UAI 64.
    assert aim.demonstrations(layout.take(rows)).tolist() == [2, 4, 4, 2]


@pytest.mark.parametrize("constants", ["world", "zero"])
@given(codes=st.lists(st.integers(1, 5), min_size=24, max_size=24))
@settings(max_examples=50)
def test_no_integer_answers_beat_the_demonstrations(constants, codes):
    shift = WORLD if constants == "world" else np.zeros(6)
    best = abs(weights() @ inverse(SA, shift) + shift - SA)
    assert (abs(weights() @ np.array(codes) + shift - SA) >= best - 1e-9).all()


# Objectives


def random_answers(seed, split="fit", people=0, population=1):
    layout = prompts(split, people).layout
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.full(5, 0.4), (population, len(layout)))
    return Answers(layout, probs, rng.uniform(0, 1, (population, len(layout))))


@pytest.mark.parametrize("readout", ["expected", "argmax"])
@pytest.mark.parametrize(("norm", "metric"), [("sse", "loss"), ("l2", "l2"), ("l1", "l1")])
@pytest.mark.parametrize("constants", ["world", "zero"])
def test_the_objective_is_the_score_s_loss(constants, norm, metric, readout):
    aim = measure("CN", constants=constants, norm=norm)
    answers = random_answers(5, people=3, population=3)
    losses = aim.objective(answers.layout, readout)(answers.probs)
    assert losses.shape == (3,)
    for member in range(3):
        one = Answers(answers.layout, answers.probs[member : member + 1], answers.outside[member : member + 1])
        scored = table(aim.score(one, "fit", readout))[metric].value
        assert losses[member] == pytest.approx(scored, rel=1e-12)


def test_hand_worked_objective():
    layout = prompts("fit").layout
    probs = np.concatenate([by_item(HAND, "fit").probs, by_item(np.full(24, 1), "fit").probs])
    for norm, values in (("sse", [68533, 14358]), ("l1", [559, 268]), ("l2", [261.788082, 119.824872])):
        loss = measure(constants="zero", norm=norm).objective(layout, "argmax")(probs)
        assert loss == pytest.approx(values)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_rows_in_another_order_score_the_same(seed):
    answers = random_answers(seed)
    rows = np.random.default_rng(seed).permutation(48)
    aim = measure()
    shuffled = aim.objective(answers.layout.take(rows), "expected")(answers.probs[:, rows])
    assert shuffled == pytest.approx(aim.objective(answers.layout, "expected")(answers.probs), rel=1e-9)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["expected", "argmax"]), st.sampled_from(["SA", "US", "IN"]))
@settings(max_examples=25, deadline=None)
def test_relations_between_metrics(seed, readout, code):
    rows = table(measure(code).score(random_answers(seed, "heldout"), "heldout", readout))
    value = {name: row.value for name, row in rows.items()}
    errors = [value[f"{name}_error"] for name in DIMENSIONS]
    null = {"SA": 1870.49974, "US": 3983.015869, "IN": 1580.725546}[code]
    assert value["loss"] == pytest.approx(sum(error**2 for error in errors))
    assert value["l2"] ** 2 == pytest.approx(value["loss"])
    assert value["l1"] == pytest.approx(sum(map(abs, errors)))
    assert value["l2"] <= value["l1"] * (1 + 1e-12)
    assert value["skill"] == pytest.approx(1 - value["loss"] / null, abs=1e-6)
    assert value["loss_order_spread"] == pytest.approx(abs(value["loss"] - value["loss_reversed"]))
    assert 1 <= value["distinct"] <= 5


def test_a_table_without_published_rows_has_no_world_mean(tmp_path):
    (tmp_path / "scores.csv").write_text("iso2,pdi,idv,mas,uai,lto,ivr,source\nDE,1,2,3,4,5,6,mine\n")
    with pytest.raises(InputError, match="no mean"):
        _ = load_scores(tmp_path / "scores.csv", "extended").world
