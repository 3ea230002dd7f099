"""Tests of the text answer scoring: what counts as an answer, what as none, and readings known to be generous."""

from __future__ import annotations

import time

import pytest
from culteval.tasks.answers import UNPARSED
from culteval.tasks.extraction import parse_code
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
        "²",
        "½",
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
    ("I am for C", 3), ("D", UNPARSED), ("D, then A", UNPARSED), ("b", 2), ("d", UNPARSED), ("2", UNPARSED),
    ("ABC", UNPARSED), ("", UNPARSED),
])  # fmt: skip
def test_letters_are_read_where_options_are_letters(text, code):
    assert parse_code(text, ("A", "B", "C"), (1, 2, 3)) == code
    # The other way round, each letter stands for the option that is listed at its place.
    turned = {1: 3, 2: 2, 3: 1, UNPARSED: UNPARSED}[code]
    assert parse_code(text, ("C", "B", "A"), (1, 2, 3)) == turned


@given(st.text(st.characters(exclude_categories=("Nd", "No", "Lo")), max_size=40))  # Lo: Chinese numerals
@example("²")
@example("½ Ⅳ")
@example("一般 二者 三思")
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


NONE, LETTERS, NINE = UNPARSED, tuple("ABCD"), tuple("ABCDEFGHI")
SAID = [  # what is said, and what a person hears who offered A to D
    ("I would choose B.", "B"), ("I would say A.", "A"), ("I was thinking B", "B"), ("I am sure it is C", "C"),
    ("I could live with D", "D"), ("(b)", "B"), ("b)", "B"), ("b.", "B"), ("b. because it is fair", "B"),
    ("**b**", "B"), ("option b", "B"), ("The answer is c.", "C"), ("**B**", "B"), ("Answer: B", "B"),
    ("Option B", "B"), ("B) two people", "B"), ("B.Two people", "B"), (r"\boxed{B}", "B"),
    (r"The answer is \boxed{b}.", "B"), ("<answer>B</answer>", "B"), ("<answer>b</answer>", "B"), ("Ｂ", "B"),
    ("Ⓑ", "B"), ("B\u200b", "B"), ("\u200fB", "B"), ("B - Two people", "B"), ("A: two people", "A"), ("A (tea)", "A"),
    ("As an AI, B", "B"), ("Definitely C!", "C"), ("Option A is best", "A"), ("I choose A, since it is fair", "A"),
    ("The best is D, not A", "D"), ("B, A would be too formal", "B"), ("I choose B over A", "B"),
    ("Unlike A, I choose B", "B"), ("Option A says tea, option C says milk. The answer is D.", "D"),
    ("<think>A or B? Not A.</think>\n\nB", "B"), ("A) tea\nB) milk\nC) wine\nD) water\nAnswer: C", "C"),
    ("Vitamin C is good, so A", "A"), ("Plan B aside, I pick D", "D"), ("The U.S. answer: B", "B"),
    ("Not A, but C", "C"), ("A is wrong: B", "B"), ("A does not fit. B does.", "B"), ("I do not shake hands (B)", "B"),
    ("B\n\nQuestion: and this?\nAnswer: C", "B"), ("Neither A nor B fits me.", NONE), ("Neither (A) nor (B)", NONE),
    ("not B", NONE), ("I can't choose", NONE), ("I can’t choose between A and B.", NONE), ("None of them", NONE),
    ("none of A, B, C or D", NONE), ("Never B", NONE), ("I don't think the answer is B.", NONE),
    ("I would not be happy with B", NONE), ("B isn't right", NONE), ("A or B", NONE), ("A and B", NONE), ("B/C", NONE),
    ("Both A and C", NONE), ("A, B", NONE), ("A, B, C or D", NONE), ("option A or option B", NONE),
    ("The answer is A or B", NONE), ("Answer: A. No, my answer is B", NONE), ("A) tea B) milk C) wine D) water", NONE),
    ("A. tea\nB. milk\nC. wine\nD. water", NONE), ("E", NONE), ("e)", NONE), ("A good day", NONE),
    ("I am a man", NONE), ("I", NONE), ("Vitamin B", NONE), ("Plan B", NONE), ("hepatitis B", NONE), ("T-shirt", NONE),
    ("B&B", NONE), ("D.C. is the capital", NONE), ("e.g. a good one", NONE), ("C++", NONE), ("A-levels", NONE),
    ("person(s)", NONE), ("N/A", NONE), ("a good day", NONE), ("Б", NONE), ("ب", NONE), ("<think>It is B", NONE),
    ("It's a B-movie", NONE), ("X, then A", NONE), ("我选择B。", "B"), ("选B", "B"), ("答案是B。", "B"),
    ("答案：Ｂ", "B"), ("B选项", "B"), ("我會選C，因為公平", "C"), ("不是A，而是B", "B"), ("选②和B", "B"),
    ("A和B都不适合我", NONE), ("我不会选择B", NONE), ("我不知道是A还是B", NONE), ("A或者B", NONE), ("维生素B", NONE),
    ("我没有答案", NONE), ("既不是A也不是B", NONE), ("Bを選びます。", "B"), ("答えはBです", "B"),
    ("Aではなく、Cです", "C"), ("Bは選びません", NONE), ("AかBです", NONE), ("AもBも選びません", NONE),
    ("저는 B를 선택합니다.", "B"), ("정답은 C입니다", "C"), ("A가 아니라 C", "C"), ("B는 아닙니다", NONE),
    ("A 또는 B", NONE), ("A도 B도 아닙니다", NONE), ("الإجابة: B", "B"), ("أختار الخيار C.", "C"), ("ليس A بل C", "C"),
    ("لا أختار B", NONE), ("A أو B", NONE), ("لا A ولا B", NONE), ("उत्तर B है", "B"),
    ("मैं विकल्प C चुनता हूँ।", "C"), ("A नहीं, C", "C"), ("B नहीं", NONE), ("A या B", NONE), ("न A न B", NONE),
]  # fmt: skip
COUNTED = [  # the same on a scale from 1 to 5
    ("On a scale of 1 to 5 I choose 4", 4), ("On a scale from 1-5, 4", 4), ("Between 1 and 5, I choose 4", 4),
    ("4 out of 5", 4), ("4/5", 4), ("Rating: 4 / 5", 4), ("On a 5-point scale, 4", 4), ("I would say 4", 4),
    ("3️⃣", 3), ("I'd go with option 2, since 3 is too much", 2), ("option3", 3), ("No. 3", 3),
    ("<think>1 = utmost</think>3", 3), ("1 = utmost; 3", 3), ("3=of moderate importance", 3), ("4 rather than 2", 4),
    ("3 is too much, so 2", 2), ("World War 2 taught me: 4", 4), ("Question 3: 4", 4), ("Not at all important (4)", 4),
    ("4 = not important", 4), ("3, 9", 3), ("Answer: 4 = minor", 4), ("2. Agree", 2), ("3%", 3), ("③", 3), ("<3>", 3),
    (r"$\boxed{3}$", 3), ("1 = a\n2 = b\n3 = c\n4 = d\n5 = e\n\nMy answer is 2", 2),
    ("At 35 years of age, I choose 4", 4), ("neither 1 nor 2", NONE), ("I wouldn't say 3", NONE), ("2 or 3", NONE),
    ("1, 2, 3, 4, 5", NONE), ("1 2 3 4 5", NONE), ("1 = a\n2 = b\n3 = c\n4 = d\n5 = e", NONE), ("3.5", NONE),
    ("3,5", NONE), ("10", NONE), ("4/10", NONE), ("2–3", NONE), ("World War 2", NONE), ("in 2020", NONE), ("Q3", NONE),
    ("I have 3 children", NONE), ("24: 3", NONE), ("-1", NONE), ("between 1 and 5", NONE), ("1 through 5", NONE),
    ("5-point", NONE), ("3 people", NONE), ("<think>3", NONE), ("答案是3", 3), ("我选３。", 3), ("3分", 3), ("三", 3),
    ("三。", 3), ("从1到5，我选4", 4), ("满分5分，我打4分", 4), ("第3个", 3), ("不重要（4）", 4), ("4 不重要", 4),
    ("不太重要，4", 4), ("一般", NONE), ("三思", NONE), ("1到5", NONE), ("既不是1也不是2", NONE), ("我不选3", NONE),
    ("我有3个孩子", NONE), ("2或3", NONE), ("10分", NONE), ("3です", 3), ("答えは３です。", 3), ("3番", 3),
    ("5段階で4です", 4), ("1から5で4", 4), ("3ではなく4", 4), ("3ではありません", NONE), ("3입니다", 3),
    ("3번을 선택합니다", 3), ("5점 만점에 4점", 4), ("1부터 5까지 중 4", 4), ("3은 아닙니다", NONE), ("2나 3명", NONE),
    ("الإجابة ٣", 3), ("٣", 3), ("۴", 4), ("أختار ٤ من ٥", 4), ("من ١ إلى ٥: ٤", 4), ("٣٫٥", NONE), ("ليس ٣", NONE),
    ("٢ أو ٣", NONE), ("١٠", NONE), ("उत्तर ३ है", 3), ("मेरा उत्तर ४ है।", 4), ("१ से ५ में ४", 4), ("३ नहीं", NONE),
    ("न १ न २", NONE), ("२ या ३", NONE), ("१०", NONE),
]  # fmt: skip


@pytest.mark.parametrize(("text", "option"), SAID)
def test_what_a_person_hears_of_letters(text, option):
    codes = dict(zip(LETTERS, range(1, 5), strict=True)) | {NONE: NONE}
    assert parse_code(text, LETTERS, (1, 2, 3, 4)) == codes[option]


@pytest.mark.parametrize(("text", "code"), COUNTED)
def test_what_a_person_hears_of_numbers(text, code):
    assert parse_code(text, FIVE, CODES) == code


@pytest.mark.parametrize(("text", "code"), [
    ("I am a man", NONE), ("I would choose B", 2), ("I and my wife choose B", 2), ("I", 9), ("I.", 9), ("Answer: I", 9),
    ("(I)", 9), ("I is right", 9), ("A or I", NONE), ("Option I: tea", 9), ("I, as a man, choose C", 3),
])  # fmt: skip
def test_the_ninth_option_is_no_pronoun(text, code):
    assert parse_code(text, NINE, tuple(range(1, 10))) == code


@pytest.mark.parametrize("piece", ["not the ", "A or ", "answer ", "1, ", "((B", "选B", " ", "不 3 ", "1.", "\nB"])
def test_long_texts_take_no_long_time(piece):
    text, begun = piece * (20_000 // len(piece)), time.process_time()
    for choices, codes in ((NINE, tuple(range(1, 10))), (FIVE, CODES)):
        for ending in ("", "x", " B", " 3"):
            parse_code(text + ending, choices, codes)
    assert time.process_time() - begun < 20  # of 8 readings; what backtracks takes hours
