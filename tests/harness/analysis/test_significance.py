"""Differences and their tests by hand and by property, and neither offered where none is owed."""

from dataclasses import replace

import numpy as np
import pytest
from culteval.errors import UsageError
from culteval.harness.analysis.significance import (
    LEAST_PAIRS,
    Points,
    associations,
    compared,
    detectable,
    differences,
    holm,
    permutation,
    shared,
    smallest_difference,
)
from culteval.harness.registry import spec_of
from culteval.tasks.answers import UNPARSED, Answers
from culteval.tasks.intervals import wilson, wilson_of_mean
from culteval.tasks.measure import MeasureOptions, measure_of
from culteval.tasks.prompts import ProtocolOptions, render
from culteval.tasks.sample import Metric, Sample, average, standard_error
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

OPTIONS = MeasureOptions()


def sample_of(values, unit="personas", bounds=None, biased=None, others=None):
    """A sample whose one metric is the mean of values (units,) or (units, cells)."""
    values = np.asarray(values, dtype=float)
    values = values[:, None] if values.ndim == 1 else values
    metric = Metric(np.arange(values.shape[1]), average, bounds=bounds, biased=biased)
    counts = np.ones(values.shape)
    return Sample(unit, np.arange(len(values)), values, counts, {"m": metric} | (others or {}))


def difference_without_test(a, b):
    from culteval.harness.analysis.significance import _interval

    return {"low": None, "high": None} | _interval(a, b, "m")


@pytest.mark.parametrize(("differing", "owed"), [(0, False), (4, False), (5, True)])
def test_five_personas_must_answer_otherwise_than_most(differing, owed):
    """Whoever says nothing does not; and a difference that is the same for all is no sample of differences."""
    ticks, counts = np.full((20, 2), 3.0), np.ones((20, 2))
    ticks[:differing, 0] = 4
    counts[15:, 0] = 0
    sample = replace(sample_of(ticks * counts), counts=counts)
    assert (sample.interval("m") is not None) == owed
    row = difference_without_test(sample, replace(sample_of(2 * counts), counts=counts))
    assert (row["low"] is not None) == owed
    assert owed or f"{differing} of 20 personas unlike most" in row["note"]


def test_wilson_of_zeros_and_ones_is_wilson_a_trifle_wider():
    right = np.array([1.0] * 31 + [0.0] * 19)
    plain = stats.binomtest(31, 50).proportion_ci(method="wilson")
    low, high = wilson_of_mean(0.62, right.std(ddof=1) / 50**0.5, 50)
    assert plain.low - 0.01 < low < plain.low < plain.high < high < plain.high + 0.01
    assert wilson_of_mean(1.0, 0.0, 12) == wilson(1.0, 12) and wilson_of_mean(0.5, 0.0, 12) == wilson(0.5, 12)


def test_holm_by_hand():
    assert holm([0.01, None, 0.04, 0.03]) == pytest.approx([0.03, None, 0.06, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == [] and holm([None]) == [None]


@given(st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=30))
def test_holm_never_helps_and_keeps_the_order(p):
    adjusted = holm(p)
    pairs = [(x, y) for x, y in zip(p, adjusted, strict=True) if x is not None]
    assert all(x <= y <= 1 for x, y in pairs)
    assert [y for _, y in sorted(pairs)] == sorted(y for _, y in pairs)


def test_an_exact_p():
    """Eight units that all differ by one: of 2^8 arrangements two are as far out as the one observed."""
    a, b = sample_of(np.ones(8)), sample_of(np.zeros(8))
    p = permutation(a, b, [a.metrics["m"]], np.random.default_rng(0), draws=20_000)[0]
    assert p == pytest.approx(2 / 2**8, rel=0.25)


def random_answers(task, people=0, seed=0, country=None, text=False):
    spec = spec_of(task)
    layout = render(spec, "heldout", ProtocolOptions(people)).layout
    rng = np.random.default_rng(seed)
    probs = rng.random(layout.codes.shape) ** 3 * layout.inside
    probs = probs / np.maximum(probs.sum(-1, keepdims=True), 1e-300)
    places = rng.integers(0, np.maximum(layout.widths, 1))
    parsed = layout.codes[np.arange(len(layout)), places].astype(int) if text else None
    texts = tuple(map(str, parsed)) if text else None
    return spec, Answers(layout, probs[None], np.zeros((1, len(layout))), texts, parsed)


def test_personas_are_resampled_and_a_squared_loss_is_not_given_an_interval():
    spec, a = random_answers("vsm13", 20, 1)
    _, b = random_answers("vsm13", 20, 2)
    rows = differences(spec, a, b, "SA", OPTIONS, np.random.default_rng(0), scorings=("expected",))
    by = {row.metric: row for row in rows}
    assert set(by) == {"loss", "pdi", "idv", "mas", "uai", "lto", "ivr"}
    assert {row.unit for row in rows} == {"personas"} and {row.n for row in rows} == {20}
    assert by["loss"].low is None and "biased" in by["loss"].note and by["loss"].p is not None
    for name in ("pdi", "ivr"):
        assert by[name].low < by[name].difference < by[name].high and by[name].note is None
        assert by[name].difference == pytest.approx(by[name].a - by[name].b)
        assert by[name].p <= by[name].adjusted
    scores = {row.metric: row.value for row in measure_of(spec, "SA", OPTIONS).score(a, "heldout", "expected")}
    assert {name: row.a for name, row in by.items()} == pytest.approx({name: scores[name] for name in by})


def silent(answers, rows):
    """The same texts, but for some prompts nothing that can be read."""
    return replace(answers, parsed=np.where(rows, UNPARSED, answers.parsed))


@pytest.mark.parametrize("task", ["wvs_text", "probes"])
@pytest.mark.parametrize("paired", [True, False])
def test_not_answering_what_one_would_be_far_off_in_is_no_gain(task, paired):
    """The same answers, but for the third of the items on which they are worst; by items where personas differ."""
    spec, base = random_answers(task, 8, 1, text=True)
    measure = measure_of(spec, "US", OPTIONS)
    metric = "w1" if task == "wvs_text" else "pole_accuracy"
    items = np.unique(base.layout.item[base.layout.widths > 0])
    worst = sorted(items, key=lambda item: measure.sample(base.take(base.layout.item == item), "text").value(metric))
    far = worst[-len(worst) // 3 :] if metric == "w1" else worst[: len(worst) // 3]
    rows_far = np.isin(base.layout.item, far)
    quiet = silent(base, rows_far)
    whole, rest = (measure.sample(each, "text").value(metric) for each in (base, base.take(~rows_far)))
    assert abs(whole - rest) > 0.03
    rows = differences(spec, quiet, base, "US", OPTIONS, np.random.default_rng(0), scorings=("text",), paired=paired)
    row = next(row for row in rows if row.metric == metric)
    assert row.difference == 0 and row.a == row.b == pytest.approx(rest) and row.p in (None, 1)
    assert f"prompts of {len(far)} items left out: no valid answer on one side" in row.note


def test_a_question_without_an_answer_is_wrong_and_stays():
    """An endpoint that tells of no option: equal shares, all probability off the options."""
    spec, base = random_answers("culture_core", 0, 1)
    quiet = base.layout.item % 2 == 0
    equal = base.layout.inside / base.layout.widths[:, None]
    probs, outside = np.where(quiet[:, None], equal, base.probs), np.where(quiet, 1.0, base.off_options)
    quiet = replace(base, probs=probs, off_options=outside)
    rows = differences(spec, quiet, base, "SA", OPTIONS, np.random.default_rng(0), scorings=("argmax",))
    row = next(row for row in rows if row.metric == "accuracy_all")
    assert row.n == 160 and row.a < row.b and row.note is None


@pytest.mark.parametrize(("people", "tested"), [(0, False), (LEAST_PAIRS - 1, False), (LEAST_PAIRS, True)])
def test_too_few_personas_carry_nothing_and_say_so(people, tested):
    spec, a = random_answers("vsm13", people, 1)
    _, b = random_answers("vsm13", people, 2)
    rows = differences(spec, a, b, "SA", OPTIONS, np.random.default_rng(0))
    assert {row.low for row in rows} == {None} and all(row.note for row in rows)
    assert all((row.p is not None) == tested for row in rows)


def test_questions_are_resampled():
    spec, a = random_answers("culture_core", 0, 1)
    _, b = random_answers("culture_core", 0, 2)
    rows = differences(spec, a, b, "SA", OPTIONS, np.random.default_rng(0), scorings=("argmax",))
    assert {(row.metric, row.unit, row.n) for row in rows} == {
        ("accuracy", "questions", 20), ("accuracy_all", "questions", 160)}  # fmt: skip
    assert all(row.low < row.difference < row.high for row in rows)


def test_shares_have_tests_on_distances_and_an_interval_where_linear():
    spec, a = random_answers("wvs", 20, 1)
    _, b = random_answers("wvs", 20, 2)
    rows = differences(spec, a, b, "US", OPTIONS, np.random.default_rng(0), scorings=("expected",))
    by = {row.metric: row for row in rows}
    assert set(by) == {"w1", "js", "tv", "accuracy_sampled"}
    assert [by[name].low for name in ("w1", "js", "tv")] == [None] * 3
    assert by["accuracy_sampled"].low < by["accuracy_sampled"].high
    scores = {row.metric: row for row in measure_of(spec, "US", OPTIONS).score(a, "heldout", "expected")}
    assert {name: row.a for name, row in by.items()} == pytest.approx({name: scores[name].value for name in by})
    assert scores["accuracy_sampled"].low < scores["accuracy_sampled"].value < scores["accuracy_sampled"].high
    assert scores["w1"].low is None


@pytest.mark.parametrize("task", ["vsm13", "wvs", "culture_core", "cdeval_core", "general", "synthetic_survey"])
def test_with_itself_and_with_the_labels_swapped(task):
    people = 8 if task in ("vsm13", "wvs", "synthetic_survey") else 0
    spec, a = random_answers(task, people, 1)
    _, b = random_answers(task, people, 2)
    country = spec.metadata.default_country

    def rows(one, two):
        return differences(spec, one, two, country, OPTIONS, np.random.default_rng(0))

    for row in rows(a, a):
        assert (row.difference, row.p, row.adjusted, row.low) == (0, 1, 1, None)
        assert row.note == "the answers do not differ"
    there, back = rows(a, b), rows(b, a)
    assert there and any(row.difference for row in there)
    for one, other in zip(there, back, strict=True):
        assert (one.metric, one.a, one.b) == (other.metric, other.b, other.a)
        assert one.difference == pytest.approx(-other.difference) and one.p == pytest.approx(other.p, abs=0.03)
        if one.low is not None:
            assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_other_personas_are_not_paired():
    spec, a = random_answers("vsm13", 20, 1)
    _, b = random_answers("vsm13", 30, 2)
    rows = differences(spec, a, b, "SA", OPTIONS, np.random.default_rng(0), paired=False)
    assert {(row.low, row.p, row.n) for row in rows} == {(None, None, 20)}
    assert all("different personas" in row.note for row in rows)


def test_one_unparsed_text_costs_one_answer_and_no_interval():
    spec, a = random_answers("vsm13_text", 20, 1, text=True)
    parsed = a.parsed.copy()
    parsed[a.layout.item == 6] = np.where(a.layout.persona[a.layout.item == 6] == 3, UNPARSED, 2)
    a = replace(a, parsed=parsed)
    _, b = random_answers("vsm13_text", 20, 2, text=True)
    by = {r.metric: r for r in differences(spec, a, b, "SA", OPTIONS, np.random.default_rng(0), scorings=("text",))}
    assert by["pdi"].low < by["pdi"].difference < by["pdi"].high and by["pdi"].n == 20
    scores = {row.metric: row for row in measure_of(spec, "SA", OPTIONS).score(a, "heldout", "text")}
    assert scores["unparsed"].value > 0 and all(scores[name].low is not None for name in ("pdi", "idv", "ivr"))


def test_an_item_that_one_persona_alone_answered_has_no_error():
    values, counts = np.random.default_rng(0).normal(size=(20, 2)), np.ones((20, 2))
    counts[1:, 1] = 0
    sample = replace(sample_of(values), sums=values * counts, counts=counts)
    assert sample.interval("m") is None
    row = difference_without_test(sample, replace(sample, sums=sample.sums + counts))
    assert row["low"] is None and "only" in row["note"]


def test_shared_prompts_are_matched_by_name_not_by_place():
    _, a = random_answers("vsm13", 4, 1)
    _, b = random_answers("vsm13", 4, 2)
    mixed = np.random.default_rng(0).permutation(len(b.layout))[: len(b.layout) // 2]
    one, two = shared(a, b.take(mixed))
    for name in ("item", "paraphrase", "order", "persona"):
        assert (getattr(one.layout, name) == getattr(two.layout, name)).all()
    assert len(one.layout) == len(mixed)
    assert sorted(two.probs[0, :, 0]) == sorted(b.probs[0, mixed, 0])


def test_rank_correlations_need_ten_countries():
    with pytest.raises(UsageError, match="9 countries") as caught:
        associations(np.arange(9.0), np.arange(9.0))
    assert len(str(caught.value).splitlines()) == 1
    assert associations(np.ones(12), np.arange(12.0)) == ()
    tau, rho = associations(np.arange(12.0), -np.arange(12.0))
    assert (tau.value, rho.value) == pytest.approx((-1, -1)) and tau.p < 0.001 and tau.low is rho.high is None


def test_seeds_are_points():
    assert Points((725.0, 1352.0, 932.0)).shown(",.0f") == "725, 1,352, 932 (725 to 1,352)"
    assert Points((0.5,)).shown(".2f") == "0.50"


def test_what_the_protocols_detect():
    assert {row.difference for row in detectable(spec_of("vsm13"))} == {None}
    by = {row.metric: row for row in detectable(spec_of("vsm13"), 20)}
    assert by["pdi"].difference == pytest.approx(smallest_difference(480, 20)) and "loss" not in by
    found = {row.metric: (row.unit, row.n) for row in detectable(spec_of("culture_core"))}
    assert found == {"accuracy": ("questions", 20), "accuracy_all": ("questions", 160)}


def test_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=30)
    without = (values.sum() - values) / 29
    assert standard_error(without) == pytest.approx(values.std(ddof=1) / 30**0.5)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**31), st.integers(LEAST_PAIRS, 25), st.floats(0, 0.5))
def test_whatever_is_missing_no_number_is_nan(seed, units, missing):
    rng = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        there = (rng.random((units, 3)) >= missing).astype(float)
        sides.append(replace(sample_of(rng.normal(size=(units, 3)) * there), counts=there))
    for row in compared(*sides, rng, paired=True):
        numbers = [row[k] for k in ("a", "b", "difference", "low", "high", "p", "detectable") if row[k] is not None]
        assert np.isfinite(numbers).all()
        assert row["p"] is None if row["n"] < LEAST_PAIRS else 0 < row["p"] <= 1
