"""Tests of the text read-out: what counts as an answer, what as none, and readings known to be generous."""

from __future__ import annotations

import pytest
from culteval.tasks.answers import UNPARSED
from culteval.tasks.parsing import parse_code
from hypothesis import example, given
from hypothesis import strategies as st

FIVE = ("1", "2", "3", "4", "5")
CODES = (1, 2, 3, 4, 5)


def test_unparsed_is_no_code():
    assert UNPARSED == -1


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("1", 1),
        ("5", 5),
        (" 2\n", 2),
        ("3.", 3),
        ("3. because", 3),
        ("3.\n4.", 3),
        ("4...", 4),
        ("(4)", 4),
        ("[4]", 4),
        ("2)", 2),
        ("**3**", 3),
        ("#3", 3),
        ('"5"', 5),
        ("Answer: 2", 2),
        ("Answer:2", 2),
        ("My answer is 4, not 2.", 4),
        ("3,", 3),
        ("3 = medium importance", 3),
        ("3=medium importance", 3),
        ("4/5", 4),
        ("4 out of 5", 4),
        ("+2", 2),
    ],
)
def test_a_free_standing_option_is_read(text, code):
    assert parse_code(text, FIVE, CODES) == code


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "five",
        "I cannot say.",
        "0",
        "6",
        "10",  # holds a 1, but as part of another number
        "51",
        "100",
        "01",
        "3.5",  # between two options: neither
        "3.0",
        "1.5.2",
        ".5",
        "3rd",
        "m03",
        "Q1",
        "_3_",
        "1e3",
        "３",  # full-width: a digit, but none of the options as they were printed
        "٣",
    ],
)
def test_anything_else_is_no_answer(text):
    assert parse_code(text, FIVE, CODES) == UNPARSED


@pytest.mark.parametrize("text", ["7 or 3", "10, then 2", "At 35 years of age: 4", "0 1 2 3"])
def test_a_number_outside_the_scale_is_not_rescued_by_a_later_one(text):
    assert parse_code(text, FIVE, CODES) == UNPARSED


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("-1", UNPARSED),
        ("1-5", UNPARSED),  # the scale repeated instead of an answer: not its low end
        ("1\N{EN DASH}5", UNPARSED),
        ("3,5", UNPARSED),  # a decimal comma
        ("On a scale of 1 to 5: 4", 4),
        ("1-5? I say 2.", 2),
    ],
)
def test_ranges_and_negative_numbers_are_no_answers(text, code):
    assert parse_code(text, FIVE, CODES) == code


def test_a_dash_before_the_answer_is_a_bullet():
    assert parse_code("- 4", FIVE, CODES) == 4


@pytest.mark.parametrize(("choices", "text", "code"), [
    (("1", "2"), "3", UNPARSED), (("1", "2"), "2", 2), (tuple(map(str, range(1, 11))), "10", 10),
    (("0", "1"), "0", 0), ((), "1", UNPARSED),
])  # fmt: skip
def test_only_the_item_s_own_options_count(choices, text, code):
    assert parse_code(text, choices, tuple(map(int, choices))) == code


@pytest.mark.parametrize(("text", "code"), [
    ("A", 1), ("B.", 2), ("(C)", 3), ("Answer: B", 2), ("**C**", 3), ("B, not A", 2), ("A good day. B", 2),
    ("I am for C", 3), ("D", UNPARSED), ("D, then A", UNPARSED), ("b", UNPARSED), ("2", UNPARSED), ("ABC", UNPARSED),
    ("", UNPARSED),
])  # fmt: skip
def test_letters_are_read_where_options_are_letters(text, code):
    assert parse_code(text, ("A", "B", "C"), (1, 2, 3)) == code
    # The other way round, each letter stands for the option that is listed at its place.
    turned = {1: 3, 2: 2, 3: 1, UNPARSED: UNPARSED}[code]
    assert parse_code(text, ("C", "B", "A"), (1, 2, 3)) == turned


@given(st.text(st.characters(exclude_categories=("Nd",)), max_size=40))
@example("²")
@example("½ Ⅳ ③")
def test_text_without_digits_is_never_an_answer(text):
    assert parse_code(text, FIVE, CODES) == UNPARSED


@given(st.text(max_size=40))
def test_whatever_comes_back_is_a_code_or_unparsed(text):
    assert parse_code(text, FIVE, CODES) in {-1, 1, 2, 3, 4, 5}


@given(
    st.sampled_from(["", " ", "Answer: ", "(", "I choose ", "**", "\n"]),
    st.integers(1, 5),
    st.sampled_from(["", ".", ")", "\n", " because", ", 9", "!"]),
)
def test_the_option_between_ordinary_marks_is_found(before, code, after):
    assert parse_code(f"{before}{code}{after}", FIVE, CODES) == code


@given(st.integers(6, 10**30), st.sampled_from(["", "I say ", "("]), st.sampled_from(["", ".", " or 2", "\n3"]))
def test_no_number_above_the_scale_is_an_answer(number, before, after):
    assert parse_code(f"{before}{number}{after}", FIVE, CODES) == -1
