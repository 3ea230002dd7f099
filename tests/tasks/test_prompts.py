"""Tests of prompts, answers as arrays, and synthetic respondents."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from culteval.tasks.answers import Answers, Layout, chosen, item_means, read
from culteval.tasks.personas import draw_personas
from culteval.tasks.prompts import ORDERS, ProtocolOptions, _padded, join, render
from culteval.tasks.schema import Split, Splits
from culteval.tasks.spec import load_spec
from hypothesis import given
from hypothesis import strategies as st

VSM = Path(__file__).parents[2] / "tasks" / "vsm13"
SPEC = load_spec(VSM / "vsm13.yaml")
ITEMS = [f"m{i:02d}" for i in range(1, 25)]


# Questions


def test_a_question_with_a_stem_letter_by_letter():
    text, choices = SPEC.items.present("m01", "A", "natural")
    assert choices == ("1", "2", "3", "4", "5")
    assert text == (
        "Give only the number of your answer.\n"
        "1 = top importance\n"
        "2 = high importance\n"
        "3 = medium importance\n"
        "4 = low importance\n"
        "5 = minimal or no importance\n"
        "In a perfect job, how important is it that you keep enough hours free for yourself and your family?"
    )


def test_a_question_without_a_stem_in_reversed_order():
    text, choices = SPEC.items.present("m20", "A", "reversed")
    assert choices == ("1", "2", "3", "4", "5")  # in code order, whichever way they are listed
    assert text == (
        "Give only the number of your answer.\n"
        "5 = constantly\n"
        "4 = often\n"
        "3 = at times\n"
        "2 = rarely\n"
        "1 = at no time\n"
        "How often are employees scared to disagree with their boss?"
    )


@pytest.mark.parametrize("paraphrase", "ABCD")
@pytest.mark.parametrize("item", ITEMS)
def test_reversed_order_turns_the_lines_and_nothing_else(paraphrase, item):
    texts = SPEC.items.paraphrases[paraphrase]
    natural = SPEC.items.present(item, paraphrase, "natural").text.split("\n")
    turned = SPEC.items.present(item, paraphrase, "reversed").text.split("\n")
    assert len(natural) == 7
    assert [line[:4] for line in natural[1:6]] == ["1 = ", "2 = ", "3 = ", "4 = ", "5 = "]
    assert turned == [natural[0], natural[5], natural[4], natural[3], natural[2], natural[1], natural[6]]
    assert natural[0] == texts.instruction
    assert natural[6].endswith(texts.items[item])


@pytest.mark.parametrize("paraphrase", "ABCD")
def test_neighbours_share_everything_but_the_question(paraphrase):
    """Items of one scale and stem share instruction, scale and stem letter by letter, so it is computed once."""
    texts = SPEC.items.paraphrases[paraphrase]
    first, tenth = (SPEC.items.present(item, paraphrase, "natural").text for item in ("m01", "m10"))
    shared = first[: -len(texts.items["m01"])]
    assert tenth.startswith(shared)
    assert shared.endswith(texts.stems["job"] + " ")


# Rendering


def test_fit_is_two_paraphrases_in_natural_order():
    prompts = render(SPEC, "fit")
    assert len(prompts) == len(prompts.layout) == len(prompts.texts) == len(prompts.choices) == 48
    assert prompts.task == "vsm13"
    assert prompts.layout.item.tolist() == [*range(24), *range(24)]
    assert prompts.layout.paraphrase.tolist() == [0] * 24 + [1] * 24
    assert prompts.layout.order.tolist() == [0] * 48
    assert prompts.layout.persona.tolist() == [0] * 48
    assert prompts.layout.personas == 1


def test_heldout_is_two_other_paraphrases_in_both_orders():
    prompts = render(SPEC, "heldout")
    assert len(prompts) == 96
    assert prompts.layout.paraphrase.tolist() == [2] * 48 + [3] * 48
    assert prompts.layout.order.tolist() == ([0] * 24 + [1] * 24) * 2


@pytest.mark.parametrize("split", ["fit", "heldout"])
def test_levels_are_those_of_the_whole_protocol(split):
    layout = render(SPEC, split).layout
    assert layout.items == tuple(ITEMS)
    assert layout.paraphrases == ("A", "B", "C", "D")
    assert layout.orders == ORDERS == ("natural", "reversed")
    assert {layout.item.dtype, layout.paraphrase.dtype, layout.order.dtype, layout.persona.dtype} == {np.dtype("int32")}
    assert layout.codes.dtype == np.float64
    assert (layout.codes == [1.0, 2.0, 3.0, 4.0, 5.0]).all()
    assert layout.widths.dtype == np.int32 and layout.widths.shape == (len(layout),)
    assert (layout.widths == 5).all()


def test_each_row_is_the_question_its_columns_name():
    prompts = render(SPEC, "heldout", ProtocolOptions(personas=2))
    layout, people = prompts.layout, draw_personas(SPEC, 2, 0, "heldout")
    assert len(prompts) == 192
    for row in range(0, 192, 17):
        paraphrase, order = "ABCD"[layout.paraphrase[row]], ("natural", "reversed")[layout.order[row]]
        text = SPEC.items.present(ITEMS[layout.item[row]], paraphrase, order).text
        assert prompts.texts[row] == f"{people[layout.persona[row]]}\n{text}"
        assert prompts.choices[row] == ("1", "2", "3", "4", "5")


def test_personas_are_personas_and_come_first():
    prompts = render(SPEC, "fit", ProtocolOptions(personas=3))
    assert len(prompts) == 144
    assert prompts.layout.personas == 3
    assert prompts.layout.persona.tolist() == [0] * 48 + [1] * 48 + [2] * 48
    plain, people = render(SPEC, "fit").texts, draw_personas(SPEC, 3, 0, "fit")
    for number, persona in enumerate(people):
        assert prompts.texts[48 * number : 48 * (number + 1)] == tuple(f"{persona}\n{text}" for text in plain)


def test_all_prompts_of_a_split_differ():
    assert len(set(render(SPEC, "heldout", ProtocolOptions(personas=2)).texts)) == 192


def test_fit_and_heldout_share_no_prompt():
    assert not set(render(SPEC, "fit").texts) & set(render(SPEC, "heldout").texts)


def test_an_order_alone():
    splits = Splits(
        fit=Split(paraphrases=("A",), orders=("natural",)), heldout=Split(paraphrases=("B",), orders=("reversed",))
    )
    prompts = render(replace(SPEC, metadata=SPEC.metadata.model_copy(update={"splits": splits})), "heldout")
    assert len(prompts) == 24
    assert prompts.layout.order.tolist() == [1] * 24
    assert prompts.layout.paraphrase.tolist() == [1] * 24


def test_rows_taken_keep_text_and_columns_together():
    prompts = render(SPEC, "heldout")
    some = prompts.take(np.array([95, 30, 0]))
    assert some.texts == (prompts.texts[95], prompts.texts[30], prompts.texts[0])
    assert some.layout.item.tolist() == [23, 6, 0]
    assert some.layout.paraphrase.tolist() == [3, 2, 2]
    assert some.layout.order.tolist() == [1, 1, 0]
    assert some.layout.paraphrases == ("A", "B", "C", "D")


def test_join_puts_the_second_after_the_first():
    first, second = render(SPEC, "fit"), render(SPEC, "heldout", ProtocolOptions(personas=2))
    both = join(first, second)
    assert len(both) == len(both.layout) == 240
    assert both.texts == first.texts + second.texts
    assert both.layout.paraphrase[:48].tolist() == [0] * 24 + [1] * 24
    assert both.layout.paraphrase[48:96].tolist() == [2] * 48
    assert both.layout.personas == 2
    assert both.layout.codes.shape == (240, 5)
    assert both.layout.widths.tolist() == [5] * 240


def test_short_scales_are_padded_with_zeros():
    assert _padded([(1, 2, 3), (1, 2)]).tolist() == [[1.0, 2.0, 3.0], [1.0, 2.0, 0.0]]


# Layouts and answers


def small():
    """Two items in paraphrases A and B, natural and reversed: eight rows, the item fastest, the paraphrase slowest."""
    columns = {
        "item": np.array([0, 1, 0, 1, 0, 1, 0, 1], dtype=np.int32),
        "order": np.array([0, 0, 1, 1, 0, 0, 1, 1], dtype=np.int32),
        "paraphrase": np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.int32),
        "persona": np.zeros(8, dtype=np.int32),
        "widths": np.full(8, 3, dtype=np.int32),
    }
    return Layout(("x", "y"), ("A", "B"), ORDERS, 1, codes=np.tile([1.0, 2.0, 3.0], (8, 1)), **columns)


@pytest.mark.parametrize(
    ("paraphrases", "orders", "rows"),
    [
        (("A",), ("natural",), [0, 1]),
        (("B",), ("natural", "reversed"), [4, 5, 6, 7]),
        (("A", "B"), ("reversed",), [2, 3, 6, 7]),
        (("Z",), ("natural",), []),
        ((), ("natural",), []),
    ],
)
def test_where_finds_paraphrases_and_orders(paraphrases, orders, rows):
    assert np.flatnonzero(small().where(paraphrases, orders)).tolist() == rows


def test_mask_and_indices_take_the_same_rows():
    layout = small()
    by_mask = layout.take(np.array([False] * 6 + [True] * 2))
    by_rows = layout.take(np.array([6, 7]))
    assert by_mask.item.tolist() == by_rows.item.tolist() == [0, 1]
    assert by_mask.codes.shape == by_rows.codes.shape == (2, 3)
    assert by_mask.widths.tolist() == by_rows.widths.tolist() == [3, 3]


def test_item_means_average_each_item_over_its_rows():
    layout = small().take(np.array([0, 2, 4, 1]))  # x three times, y once
    assert item_means(layout) @ np.array([1.0, 2.0, 6.0, 5.0]) == pytest.approx([3.0, 5.0])


PROBS = np.array(
    [
        [0.1, 0.2, 0.4, 0.2, 0.1],
        [0.5, 0.0, 0.0, 0.0, 0.5],
        [0.0, 0.25, 0.0, 0.75, 0.0],
        [0.2, 0.2, 0.2, 0.2, 0.2],
        [0.0, 0.1, 0.45, 0.45, 0.0],
    ]
)
CODES = np.tile(np.arange(1.0, 6.0), (5, 1))


def test_expected_is_the_probability_weighted_code():
    # Row 3: 2 * 0.25 + 4 * 0.75 = 3.5; row 5: 0.2 + 1.35 + 1.8 = 3.35
    assert read(PROBS, CODES, "expected") == pytest.approx([3.0, 3.0, 3.5, 3.0, 3.35], abs=1e-12)


def test_argmax_is_the_code_of_the_likeliest_and_the_first_of_equals():
    assert read(PROBS, CODES, "argmax").tolist() == [3.0, 1.0, 4.0, 1.0, 3.0]


def test_of_options_that_nobody_told_of_none_is_the_likeliest():
    """An endpoint that lists no option: equal shares, all probability off the options. Else the first of equals is."""
    layout = replace(small(), widths=np.array([2, 2, *[3] * 6], dtype=np.int32))
    probs = (layout.inside / layout.widths[:, None])[None]
    answers = Answers(layout, probs, np.array([[1.0, 1 - 1e-9, *[0.5] * 6]]))
    values = answers.values("argmax")[0]
    assert np.isnan(values[0]) and not np.isnan(values[1:]).any() and not np.isnan(answers.values("expected")).any()
    assert chosen(answers, "argmax").sum(-1).tolist() == [0.0] + [1.0] * 7
    rounded = replace(answers, probs=np.array([0.6, 0.4, 0.0]) * np.ones((1, 8, 1)), off_options=np.ones((1, 8)))
    assert rounded.values("argmax").tolist() == [[1.0] * 8]


def test_argmax_gives_codes_and_not_positions():
    assert read(np.array([[0.1, 0.9]]), np.array([[0.0, 10.0]]), "argmax").tolist() == [10.0]


@pytest.mark.parametrize("scoring", ["expected", "argmax"])
def test_a_population_is_read_one_by_one(scoring):
    population = np.stack([PROBS, PROBS[:, ::-1]])
    answers = read(population, CODES, scoring)
    assert answers.shape == (2, 5)
    # From the other end: 6 - expected; argmax takes the first of equals there too.
    mirrored = {"expected": [3.0, 3.0, 2.5, 3.0, 2.65], "argmax": [3.0, 1.0, 2.0, 1.0, 2.0]}[scoring]
    assert answers[1] == pytest.approx(mirrored)


def test_padding_counts_for_nothing():
    probs, codes = np.array([[0.25, 0.75, 0.0]]), np.array([[1.0, 2.0, 0.0]])
    assert read(probs, codes, "expected") == pytest.approx([1.75])
    assert read(probs, codes, "argmax").tolist() == [2.0]


def test_text_is_the_code_of_the_parsed_option():
    assert read(np.array([[0.0, 1.0, 0.0]]), np.array([[3.0, 2.0, 1.0]]), "text").tolist() == [2.0]


@pytest.mark.parametrize("scoring", ["mean", ""])
def test_another_scoring_is_an_error(scoring):
    with pytest.raises(ValueError, match="unknown answer scoring"):
        read(PROBS, CODES, scoring)


@given(st.lists(st.floats(0.01, 1), min_size=5, max_size=5))
def test_scorings_stay_on_the_scale_and_agree_with_a_sorted_list(mass):
    probs = np.array([mass]) / sum(mass)
    assert 1 <= read(probs, CODES[:1], "expected")[0] <= 5 + 1e-12
    best = read(probs, CODES[:1], "argmax")[0]
    assert probs[0, int(best) - 1] == max(probs[0])
    assert all(probs[0, i] < max(probs[0]) for i in range(int(best) - 1))


def answers_with_text():
    parsed = np.array([1, 2, -1, 3, 3, 2, 1, -1])
    texts = ("1", "2", "?", "3", "3", "2", "1", "?")
    return Answers(small(), np.full((1, 8, 3), 1 / 3), np.arange(8.0)[None] / 10, texts, parsed)


def test_unparsed_text_is_nan():
    values = answers_with_text().values("text")
    assert values.shape == (1, 8)
    assert np.isnan(values[0]).tolist() == [False, False, True, False, False, False, False, True]
    assert np.nan_to_num(values[0]).tolist() == [1, 2, 0, 3, 3, 2, 1, 0]


def test_answers_taken_keep_their_parts_together():
    some = answers_with_text().take(np.array([7, 1]))
    assert some.texts == ("?", "2")
    assert some.parsed.tolist() == [-1, 2]
    assert some.off_options.tolist() == [[0.7, 0.1]]
    assert some.layout.item.tolist() == [1, 1]
    assert some.probs.shape == (1, 2, 3)


def test_no_text_cannot_be_read():
    answers = Answers(small(), np.full((1, 8, 3), 1 / 3), np.zeros((1, 8)))
    with pytest.raises(ValueError, match="no generated text"):
        answers.values("text")


# Personas

EDUCATION = {
    "primary schooling": 0.2, "a secondary school certificate": 0.4, "vocational training": 0.2,
    "a university degree": 0.2,
}  # fmt: skip
JOBS = {
    "a farm worker": 0.1, "a factory worker": 0.15, "a shop assistant": 0.15, "a driver": 0.1, "a builder": 0.1,
    "an office clerk": 0.15, "a teacher": 0.1, "a nurse": 0.1, "a manager": 0.05,
}  # fmt: skip
PERSONA = re.compile(
    rf"You are a (\d\d)-year-old (woman|man) with ({'|'.join(EDUCATION)}), working as ({'|'.join(JOBS)})\."
)


def test_nobody_is_nobody():
    assert draw_personas(SPEC, 0, 3, "fit") == ()


def test_the_same_seed_draws_the_same_panel():
    assert draw_personas(SPEC, 30, 7, "fit") == draw_personas(SPEC, 30, 7, "fit")
    assert draw_personas(SPEC, 30, 7, "fit") != draw_personas(SPEC, 30, 8, "fit")


@pytest.mark.parametrize("seed", range(5))
def test_fit_and_heldout_are_other_people(seed):
    fit, heldout = draw_personas(SPEC, 20, seed, "fit"), draw_personas(SPEC, 20, seed, "heldout")
    assert len(fit) == len(heldout) == 20
    assert sum(a == b for a, b in zip(fit, heldout, strict=True)) == 0
    assert len(set(fit) & set(heldout)) <= 1  # 3,600 kinds of people: a chance twin may occur


@pytest.mark.parametrize("split", ["fit", "heldout"])
def test_a_persona_says_age_gender_education_and_job_and_no_more(split):
    """Nothing else fits the pattern, so no country and no nationality can be in it."""
    for text in draw_personas(SPEC, 2000, 0, split):
        assert PERSONA.fullmatch(text), text


def test_no_persona_names_a_country():
    import pycountry

    names = {entry.name.lower() for entry in pycountry.countries} | {"american", "arab", "chinese", "indian", "saudi"}
    words = " ".join([*EDUCATION, *JOBS, *draw_personas(SPEC, 500, 0, "fit")]).lower()
    assert not [name for name in names if re.search(rf"\b{re.escape(name)}\b", words)]


def test_shares_are_those_of_the_file():
    people = [PERSONA.fullmatch(text).groups() for text in draw_personas(SPEC, 5000, 1, "fit")]
    ages = [int(person[0]) for person in people]
    assert (min(ages), max(ages)) == (20, 69)
    assert np.mean(ages) == pytest.approx(44.5, abs=1)
    # The standard error of a share is at most 0.0071 here.
    for column, shares in ((1, {"woman": 0.5, "man": 0.5}), (2, EDUCATION), (3, JOBS)):
        drawn = Counter(person[column] for person in people)
        assert set(drawn) == set(shares)
        for name, share in shares.items():
            assert drawn[name] / 5000 == pytest.approx(share, abs=0.03), name


def test_attributes_are_drawn_independently():
    people = [PERSONA.fullmatch(text).groups() for text in draw_personas(SPEC, 5000, 2, "heldout")]
    women = [person for person in people if person[1] == "woman"]
    assert sum(p[2] == "a university degree" for p in women) / len(women) == pytest.approx(0.2, abs=0.03)
    managers = [person for person in people if person[3] == "a manager"]
    assert np.mean([int(p[0]) for p in managers]) == pytest.approx(44.5, abs=4)
