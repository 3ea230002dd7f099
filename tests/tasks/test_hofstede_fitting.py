"""The Hofstede measure as what is fitted to: nearest answers, demonstrations, and objectives."""

import itertools

import numpy as np
import pytest
from culteval.tasks.answers import Answers
from culteval.tasks.metrics.hofstede import FORMULAS, inverse, weights
from hypothesis import given, settings
from hypothesis import strategies as st

from ..hofstede_answers import DIMENSIONS, HAND, SA, WORLD, by_item, certain, measure, prompts, table

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


@pytest.mark.parametrize("scoring", ["expected", "argmax"])
@pytest.mark.parametrize(("norm", "metric"), [("sse", "loss"), ("l2", "l2"), ("l1", "l1")])
@pytest.mark.parametrize("constants", ["world", "zero"])
def test_the_objective_is_the_score_s_loss(constants, norm, metric, scoring):
    aim = measure("CN", constants=constants, norm=norm)
    answers = random_answers(5, people=3, population=3)
    losses = aim.loss_function(answers.layout, scoring)(answers.probs)
    assert losses.shape == (3,)
    for member in range(3):
        one = Answers(answers.layout, answers.probs[member : member + 1], answers.off_options[member : member + 1])
        scored = table(aim.score(one, "fit", scoring))[metric].value
        assert losses[member] == pytest.approx(scored, rel=1e-12)


def test_hand_worked_objective():
    layout = prompts("fit").layout
    probs = np.concatenate([by_item(HAND, "fit").probs, by_item(np.full(24, 1), "fit").probs])
    for norm, values in (("sse", [68533, 14358]), ("l1", [559, 268]), ("l2", [261.788082, 119.824872])):
        loss = measure(constants="zero", norm=norm).loss_function(layout, "argmax")(probs)
        assert loss == pytest.approx(values)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=25, deadline=None)
def test_rows_in_another_order_score_the_same(seed):
    answers = random_answers(seed)
    rows = np.random.default_rng(seed).permutation(48)
    aim = measure()
    shuffled = aim.loss_function(answers.layout.take(rows), "expected")(answers.probs[:, rows])
    assert shuffled == pytest.approx(aim.loss_function(answers.layout, "expected")(answers.probs), rel=1e-9)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["expected", "argmax"]), st.sampled_from(["SA", "US", "IN"]))
@settings(max_examples=25, deadline=None)
def test_relations_between_metrics(seed, scoring, code):
    rows = table(measure(code).score(random_answers(seed, "heldout"), "heldout", scoring))
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
