"""The Hofstede measure: scores of answers worked by hand, the order of aggregation, generated text, and personas."""

import itertools

import numpy as np
import pytest
from culteval.harness.scoring.score import score_answers
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.measure import MeasureOptions

from ..hofstede_answers import DIMENSIONS, HAND, HAND_INDICES, SPEC, by_item, certain, measure, prompts, table, texts

# Scores of hand-worked answers


@pytest.mark.parametrize("scoring", ["expected", "argmax"])
@pytest.mark.parametrize("split", ["fit", "heldout"])
def test_hand_worked_scores(split, scoring):
    scores = table(measure(constants="zero").score(by_item(HAND, split), split, scoring))
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
    wanted = {"off_options", "loss", "l2", "l1", "skill", *DIMENSIONS, *(f"{name}_error" for name in DIMENSIONS),
              "spread", "distinct", "collapsed", "loss_paraphrase_spread"}  # fmt: skip
    rows = []
    for split, scoring in itertools.product(("fit", "heldout"), ("expected", "argmax")):
        part = measure().score(by_item(HAND, split), split, scoring)
        names = wanted | ({"loss_reversed", "loss_order_spread"} if split == "heldout" else set())
        assert {row.metric for row in part} == names
        rows += part
    keys = [(row.metric, row.scoring, row.split) for row in rows]
    assert len(set(keys)) == len(keys) == 2 * 21 + 2 * 23
    for row in rows:
        assert (row.task, row.country, row.edition, row.constants, row.n) == ("vsm13", "SA", "extended", "world", 1)
        assert row.paraphrases == (("A", "B") if row.split == "fit" else ("C", "D"))
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
    assert answers.off_options.max() == 0


def test_mean_first_then_indices_then_loss():
    """Paraphrase C answers m07 with 5, D with 1: the mean is 3, so the loss is 14,358, not the mean of two losses."""
    layout = prompts("heldout").layout
    codes = np.full(96, 3)
    codes[(layout.item == 6) & (layout.paraphrase == 2)] = 5
    codes[(layout.item == 6) & (layout.paraphrase == 3)] = 1
    scores = table(measure(constants="zero").score(certain(codes, layout), "heldout", "expected"))
    assert scores["loss"].value == 14358
    # C alone: PDI +70, (70 - 72)^2 + 9174 = 9178; D alone: PDI -70, 142^2 + 9174 = 29338; their mean is 19258.
    assert scores["loss_paraphrase_spread"].value == 20160
    assert scores["collapsed"].value == 1  # of the means


def test_argmax_is_taken_before_the_mean():
    """Two paraphrases with modes 1 and 5: the mean of the modes is 3, whatever the mode of the mixture is."""
    layout = prompts("fit").layout
    probs = np.zeros((1, 48, 5))
    probs[..., 2] = 1
    seventh = layout.item == 6
    probs[0, seventh & (layout.paraphrase == 0)] = [0.4, 0.3, 0.3, 0, 0]  # expected 1.9
    probs[0, seventh & (layout.paraphrase == 1)] = [0, 0, 0.3, 0.3, 0.4]  # expected 4.1
    answers = Answers(layout, probs, np.zeros((1, 48)))
    assert table(measure(constants="zero").score(answers, "fit", "argmax"))["pdi"].value == 0
    probs[0, seventh & (layout.paraphrase == 1)] = [0, 0, 0.3, 0.4, 0.3]  # mode 4, expected 4.0
    scores = table(measure(constants="zero").score(answers, "fit", "argmax"))
    assert scores["pdi"].value == pytest.approx(-17.5)  # 35 (2.5 - 3)
    scores = table(measure(constants="zero").score(answers, "fit", "expected"))
    assert scores["pdi"].value == pytest.approx(-1.75)  # 35 (2.95 - 3)


def test_reversed_order_is_scored_apart():
    layout = prompts("heldout").layout
    codes = np.where((layout.item == 6) & (layout.order == 1), 5, 3)
    answers = certain(codes, layout)
    answers.off_options[0] = np.where(layout.order == 1, 0.5, 0.1)
    scores = table(measure(constants="zero").score(answers, "heldout", "expected"))
    assert scores["loss"].value == 14358
    assert scores["loss_reversed"].value == 9178
    assert scores["loss_order_spread"].value == 5180
    assert (scores["loss"].note, scores["loss_reversed"].note) == ("collapsed", None)
    assert scores["off_options"].value == pytest.approx(0.1)  # of the orders the loss is asked in


def test_only_the_split_s_own_paraphrases_count():
    layout = prompts("heldout").layout.join(prompts("fit").layout)
    answers = certain(np.where(layout.paraphrase < 2, HAND[layout.item], 3), layout)
    rows = score_answers(SPEC, answers, "SA", MeasureOptions(constants="zero"), "x")
    for split, loss in (("fit", 68533), ("heldout", 14358)):
        for scoring in ("expected", "argmax"):
            scores = table(row for row in rows if (row.split, row.scoring) == (split, scoring))
            assert scores["loss"].value == loss


# Generated text


def test_text_leaves_out_what_was_not_parsed():
    layout = prompts("heldout").layout
    codes = HAND[layout.item].copy()
    codes[(layout.paraphrase == 3) & (layout.item == 0)] = UNPARSED  # one of 48 in natural order
    scores = table(measure(constants="zero").score(texts(codes, layout), "heldout", "text"))
    assert scores["unparsed"].value == pytest.approx(1 / 48)
    assert scores["loss"].value == 68533
    assert "off_options" not in scores


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
    codes = np.where((layout.paraphrase == 3) & (layout.item == 0), UNPARSED, HAND[layout.item])
    rows = measure().score(texts(codes, layout), "heldout", "text")
    assert [row.metric for row in rows if np.isnan(row.value)] == []


# Personas


def panel_answers(people):
    """All 3, but for m07: half of the people say 2, half 4."""
    layout = prompts("heldout", people).layout
    return certain(np.where(layout.item == 6, np.where(layout.persona % 2, 2, 4), 3), layout)


def test_intervals_from_20_personas():
    scores = table(measure(constants="zero").score(panel_answers(20), "heldout", "expected"))
    assert {score.n for score in scores.values()} == {20}
    # PDI by person +-35: standard deviation 35 sqrt(20 / 19), over sqrt(20); t(19 df, 97.5 %) = 2.0930241
    assert scores["pdi"].value == 0
    assert scores["pdi"].high == pytest.approx(16.806043, abs=1e-5)
    assert scores["pdi"].low == pytest.approx(-16.806043, abs=1e-5)
    with_interval = {name for name, score in scores.items() if score.low is not None}
    assert with_interval == {name for name in DIMENSIONS if scores[name].high is not None} == {"pdi"}  # else all alike
    assert {name for name, score in scores.items() if score.high is not None} == with_interval


def test_no_intervals_below_20_personas():
    scores = measure(constants="zero").score(panel_answers(19), "heldout", "expected")
    assert {score.n for score in scores} == {19}
    assert {score.low for score in scores} | {score.high for score in scores} == {None}


def test_an_item_left_out_by_somebody_does_not_cost_the_interval():
    """Persona 4 did not answer m07; the mean of the other 19, whose spread is theirs, stands for it."""
    layout = prompts("heldout", 20).layout
    codes = np.where(layout.item == 6, np.where(layout.persona % 2, 2, 4), 3)
    codes = np.where((layout.item == 6) & (layout.persona == 4), UNPARSED, codes)
    scores = table(measure(constants="zero").score(texts(codes, layout), "heldout", "text"))
    m07 = np.array([2] * 10 + [4] * 9)
    left_out = np.array([np.delete(m07, i).mean() for i in range(19)] + [m07.mean()])  # leaving 4 out changes nothing
    error = 35 * (19 / 20 * ((left_out - left_out.mean()) ** 2).sum()) ** 0.5
    half = 2.0930241 * error
    assert scores["pdi"].value == pytest.approx(35 * (m07.mean() - 3))
    assert (scores["pdi"].low, scores["pdi"].high) == pytest.approx(
        (scores["pdi"].value - half, scores["pdi"].value + half), abs=1e-5
    )
