"""The headline between countries: free of C, by scikit-learn's definition, and said where it cannot be had."""

from __future__ import annotations

import numpy as np
import pytest
from culteval.harness.analysis.between_countries import ALL, LEAST_COUNTRIES, centred
from culteval.tasks.metrics.hofstede import means_with, weights
from culteval.tasks.metrics.reference import DIMENSIONS
from culteval.tasks.score import Score
from scipy import stats

CODES = ("BR", "CN", "DE", "IN", "JP", "US", "SE")
PUBLISHED = dict(zip(CODES, np.random.default_rng(1).uniform(0, 100, (len(CODES), 6)), strict=True))


def rows(country, index, shift=0.0, note=None, skill=0.5):
    """The scores of one country as the measure writes them: index and error by dimension, skill."""
    base = {"task": "t", "country": country, "scoring": "expected", "split": "heldout", "n": 1, "edition": "e",
            "higher_is_better": None, "paraphrases": ("A",), "orders": ("natural",), "note": note}  # fmt: skip
    pairs = {"skill": skill}
    for name, value, target in zip(DIMENSIONS, index, PUBLISHED[country], strict=True):
        pairs |= {name: value + shift, f"{name}_error": value + shift - target}
    return [Score(metric=metric, value=value, **base) for metric, value in pairs.items()]


def of(indices, **more):
    return centred({code: rows(code, index, **more) for code, index in indices.items()}, "expected")


def random_indices(seed=2):
    rng = np.random.default_rng(seed)
    return {code: PUBLISHED[code] * rng.uniform(0.2, 1, 6) + rng.normal(0, 20, 6) for code in CODES}


def test_perfect_constant_and_opposite():
    perfect = of(PUBLISHED)
    assert perfect.explained_variance == pytest.approx(dict.fromkeys((ALL, *DIMENSIONS), 1))
    assert perfect.correlation == pytest.approx(dict.fromkeys((ALL, *DIMENSIONS), 1))
    constant = of(dict.fromkeys(CODES, np.full(6, 40.0)))
    assert constant.explained_variance == pytest.approx(dict.fromkeys((ALL, *DIMENSIONS), 0))
    assert set(constant.correlation.values()) == {None}  # no differences, no correlation
    opposite = of({code: -index for code, index in PUBLISHED.items()})
    assert opposite.explained_variance[ALL] == pytest.approx(-3) and opposite.correlation[ALL] == pytest.approx(-1)


def test_half_the_differences_keep_the_correlation():
    mean = np.mean([*PUBLISHED.values()], axis=0)
    half = of({code: mean + (index - mean) / 2 for code, index in PUBLISHED.items()})
    assert half.explained_variance[ALL] == pytest.approx(0.75) and half.correlation[ALL] == pytest.approx(1)


def test_the_constants_do_not_count():
    """Any C, a number a dimension, leaves every figure but the single-country skill as it is."""
    found = of(random_indices())
    for shift in (-300.0, 57.5):
        moved = of(random_indices(), shift=shift)
        assert moved.explained_variance == pytest.approx(found.explained_variance)
        assert moved.correlation == pytest.approx(found.correlation)
    c = np.random.default_rng(3).normal(0, 100, 6)
    moved = of({code: index + c for code, index in random_indices().items()})
    assert moved.explained_variance == pytest.approx(found.explained_variance)


def test_by_the_definitions_of_the_libraries():
    found, indices = of(random_indices()), random_indices()
    x, y = (np.array([table[code] for code in CODES]) for table in (indices, PUBLISHED))
    each = 1 - np.var(y - x, axis=0) / np.var(y, axis=0)  # sklearn's explained_variance_score, raw values
    assert [found.explained_variance[name] for name in DIMENSIONS] == pytest.approx(each)
    assert found.explained_variance[ALL] == pytest.approx(np.average(each, weights=np.var(y, axis=0)))
    for number, name in enumerate(DIMENSIONS):
        assert found.correlation[name] == pytest.approx(stats.pearsonr(x[:, number], y[:, number]).statistic)
    inner = [(a - a.mean(0)).ravel() for a in (x, y)]
    assert found.correlation[ALL] == pytest.approx(stats.pearsonr(*inner).statistic)


def test_six_countries_with_all_indices():
    few = {code: rows(code, PUBLISHED[code]) for code in CODES[:LEAST_COUNTRIES]}
    assert centred(few, "expected").countries == tuple(sorted(few))
    assert centred(few, "argmax") is None  # nothing was scored there
    few["US"] = [row for row in few["US"] if row.metric != "ivr"]
    assert centred(few, "expected") is None


def test_collapsed_countries_and_the_mean_skill():
    table = {code: rows(code, PUBLISHED[code], skill=number) for number, code in enumerate(CODES)}
    table["US"] = rows("US", PUBLISHED["US"], note="collapsed", skill=8)
    found = centred(table, "expected")
    assert found.collapsed == ("US",) and found.skill == pytest.approx((0 + 1 + 2 + 3 + 4 + 8 + 6) / 7)


def test_from_answers_to_the_headline(tmp_path, submit):
    """Item means made for a country's scores have all of the variance, whatever constants the score is told."""
    from culteval.harness.registry import spec_of
    from culteval.harness.scoring.submission import load_submission
    from culteval.tasks.answers import Answers
    from culteval.tasks.metrics.reference import scores_of
    from culteval.tasks.prompts import ProtocolOptions, render_protocol

    spec = spec_of("vsm13")
    layout, published = render_protocol(spec, ProtocolOptions()).layout, scores_of(spec, None)
    tables = {"world": {}, "zero": {}}
    for code in ("BR", "CN", "DE", "IN", "JP", "US"):
        means = means_with(published.target(code), published.world)
        assert weights() @ means + published.world == pytest.approx(published.target(code))
        probs = np.maximum(1 - abs(layout.codes - means[layout.item][:, None]), 0)
        path = submit(tmp_path / code, {"vsm13": Answers(layout, probs[None], np.zeros((1, len(layout))))}, code)
        for constants, table in tables.items():
            table[code] = load_submission(path / "submission").score(constants=constants)
    for constants, table in tables.items():
        found = centred(table, "expected")
        assert found.explained_variance[ALL] == pytest.approx(1, abs=1e-6)
        assert (found.skill == pytest.approx(1, abs=1e-6)) == (constants == "world")
