"""The Hofstede measure: its formulas worked by hand, the published scores, and names of countries."""

import numpy as np
import pytest
from culteval.errors import InputError, UsageError
from culteval.tasks.countries import country, name_of
from culteval.tasks.measure import countries_of
from culteval.tasks.metrics.hofstede import FORMULAS, ITEMS, distance, is_collapsed, weights
from culteval.tasks.metrics.reference import load_scores
from hypothesis import given, settings
from hypothesis import strategies as st

from ..hofstede_answers import DIMENSIONS, HAND, HAND_INDICES, SA, SPEC, VSM, WORLD, by_item, measure, table

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
        ("SA", {"edition": "2015"}, "edition '2015' has no Hofstede scores for Saudi Arabia.*edition` extended"),
        ("AQ", {}, "no Hofstede scores for Antarctica"),
        ("SA", {"constants": "wrold"}, r"--constants 'wrold': not one of world, zero\. Did you mean 'world'\?"),
        ("SA", {"norm": "ssee"}, r"--norm 'ssee': not one of sse, l2, l1\. Did you mean 'sse'\?"),
        ("SA", {"edition": "extnded"}, r"`edition` 'extnded'.*2015, extended\. Did you mean 'extended'\?"),
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


def test_a_table_without_published_rows_has_no_world_mean(tmp_path):
    (tmp_path / "scores.csv").write_text("iso2,pdi,idv,mas,uai,lto,ivr,source\nDE,1,2,3,4,5,6,mine\n")
    with pytest.raises(InputError, match="no mean"):
        _ = load_scores(tmp_path / "scores.csv", "extended").world


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
