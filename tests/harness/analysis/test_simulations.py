"""Simulated: intervals cover, tests keep their level, and differences are found as often as is said."""

from dataclasses import replace

import numpy as np
import pytest
from culteval.harness.analysis.significance import associations, holm, permutation, smallest_difference
from culteval.tasks.intervals import student
from culteval.tasks.sample import SHARE, Metric, Sample, average
from scipy import stats

from ...harness.analysis.test_significance import difference_without_test, sample_of


def within(covered, rate=0.95, low=0.93, high=0.97):
    """The share of hits lies where it should; with 4,000 of them its own standard error is 0.0034."""
    share = np.mean(covered)
    assert low <= share <= high, share


# ---------------------------------------------------------------- coverage

SCALES = {
    "even": [[0.2] * 5] * 4,
    "skewed": [[0.8, 0.1, 0.05, 0.03, 0.02]] * 4,
    "mixed": [[0.7, 0.3, 0, 0, 0], [0.1, 0.2, 0.4, 0.2, 0.1], [0, 0, 0, 0.1, 0.9], [0.5, 0, 0, 0, 0.5]],
}
FACTORS = np.array([35, -35, 25, -25.0])


@pytest.mark.parametrize("n", [20, 50])
@pytest.mark.parametrize("scale", SCALES)
def test_intervals_of_indices_cover(scale, n):
    """Student's interval over personas who tick one of five answers to each of an index's four items."""
    rng, runs = np.random.default_rng(n), 4000
    ticks = np.stack([rng.choice(5, p=p, size=(runs, n)) for p in SCALES[scale]], axis=-1) + 1.0
    truth = sum(f * np.dot(p, np.arange(1, 6)) for f, p in zip(FACTORS, SCALES[scale], strict=True))
    index = ticks @ FACTORS
    low, high = student(index.mean(1), index.std(1, ddof=1) / n**0.5, n)
    within((low <= truth) & (truth <= high))


def test_the_interval_of_an_index_is_that_one():
    """What ``Sample`` offers for complete answers is the interval whose coverage is simulated above."""
    rng = np.random.default_rng(0)
    ticks = rng.integers(1, 6, (20, 4)).astype(float)
    metrics = {"index": Metric(np.arange(4), lambda means: means @ FACTORS)}
    found = replace(sample_of(ticks), metrics=metrics).interval("index")
    each = ticks @ FACTORS
    assert found == pytest.approx(student(each.mean(), each.std(ddof=1) / 20**0.5, 20))


def offered(n, rng, runs, varying, share, other=5):
    """Whether those intervals cover that are offered, where ``varying`` of an index's four items are near-constant.

    Each is answered otherwise by a share of the personas, who take any of the options up to ``other`` instead of 1.
    """
    metrics, covered = {"index": Metric(np.arange(4), lambda means: means @ FACTORS)}, []
    for _ in range(runs):
        some = rng.permutation(4)[: varying or rng.integers(1, 5)]
        q = np.zeros(4)
        q[some] = share or np.exp(rng.uniform(np.log(0.01), np.log(0.5)))
        ticks = np.where(rng.random((n, 4)) < q, rng.integers(2, other + 1, (n, 4)), 1.0)
        found = replace(sample_of(ticks), metrics=metrics).interval("index")
        if found:
            truth = FACTORS @ (1 + q * ((2 + other) / 2 - 1))
            covered.append(found[0] <= truth <= found[1])
    return covered


@pytest.mark.parametrize("n", [20, 50])
@pytest.mark.parametrize("other", [2, 5])
def test_intervals_of_near_constant_answers_cover_where_offered(n, other):
    """One to four items of an index are answered otherwise by a share between 0.01 and 0.5, evenly in its logarithm."""
    covered = offered(n, np.random.default_rng(n + other), 4000, None, None, other)
    within(covered)
    assert 0.3 < len(covered) / 4000 < 0.8


@pytest.mark.parametrize(("share", "most"), [(0.02, 0.01), (0.05, 0.02), (0.1, 0.1)])
def test_near_constant_answers_are_offered_next_to_none(share, most):
    """One item of four answered otherwise by few of 20: Student's interval would cover 33, 64 and 89 %."""
    assert len(offered(20, np.random.default_rng(1), 500, 1, share)) <= most * 500


def test_intervals_cover_where_answers_are_missing():
    """Every fifth answer is unparsed: the jackknife over personas with what was parsed still covers."""
    rng, runs, n = np.random.default_rng(1), 1500, 30
    truth = sum(f * np.dot(p, np.arange(1, 6)) for f, p in zip(FACTORS, SCALES["mixed"], strict=True))
    metrics, covered = {"index": Metric(np.arange(4), lambda means: means @ FACTORS)}, []
    for _ in range(runs):
        ticks = np.stack([rng.choice(5, p=p, size=n) for p in SCALES["mixed"]], axis=-1) + 1.0
        there = (rng.random((n, 4)) < 0.8).astype(float)
        low, high = Sample("personas", np.arange(n), ticks * there, there, metrics).interval("index")
        covered.append(low <= truth <= high)
    within(covered)


@pytest.mark.parametrize("n", [20, 80])
def test_intervals_of_accuracies_cover(n):
    """Questions of a knowledge set, asked in two orders: 0, a half or 1 right; and probabilities."""
    rng, runs = np.random.default_rng(n), 1500
    halves = (rng.random((2, runs, n)) < 0.6).mean(0)
    for values, truth in ((halves, 0.6), (rng.beta(4, 6, (runs, n)), 0.4)):
        found = [sample_of(row, "questions", SHARE).interval("m") for row in values]
        within([low <= truth <= high for low, high in found])


@pytest.mark.parametrize(("n", "least"), [(1, 0.79), (6, 0.83), (12, 0.83), (20, 0.86), (40, 0.85), (160, 0.85)])
def test_intervals_of_shares_cover_on_average_over_shares(n, least):
    """Exact, for questions that are right or wrong: the average over all shares is promised, a single share is not."""
    right = np.arange(n + 1)
    rows = [sample_of(np.arange(n) < k, "questions", SHARE).interval("m") for k in right]
    low, high = np.array(rows).T
    truth = np.linspace(0, 1, 2002)[1:-1]
    chance = stats.binom.pmf(right, n, truth[:, None])
    covered = (chance * ((low <= truth[:, None]) & (truth[:, None] <= high))).sum(1)
    within(covered)
    assert least - 0.02 < covered.min() < 0.93


@pytest.mark.parametrize(("gain", "loss", "n"), [(0.2, 0.1, 50), (0.3, 0.3, 20), (0.2, 0.1, 160)])
def test_intervals_of_paired_differences_cover(gain, loss, n):
    """A gets some questions that B does not and the other way round; none is offered where fewer than five differ."""
    rng, covered = np.random.default_rng(n), []
    for _ in range(1000):
        kind = rng.choice(3, p=[gain, loss, 1 - gain - loss], size=n)
        both = rng.random(n) < 0.5
        a = sample_of(np.where(kind == 0, 1, np.where(kind == 1, 0, both)), "questions", SHARE)
        b = sample_of(np.where(kind == 0, 0, np.where(kind == 1, 1, both)), "questions", SHARE)
        row = difference_without_test(a, b)
        if row["low"] is not None:
            covered.append(row["low"] <= gain - loss <= row["high"])
    within(covered, low=0.93, high=0.97)
    assert len(covered) > 900


@pytest.mark.parametrize("rho", [0.0, 0.6])
def test_intervals_of_rank_correlations_cover(rho):
    """Bivariate normal, twelve countries; tau and rho of the population after Kruskal (1958)."""
    rng, hits = np.random.default_rng(3), {"kendall": [], "spearman": []}
    truth = {"kendall": 2 / np.pi * np.arcsin(rho), "spearman": 6 / np.pi * np.arcsin(rho / 2)}
    for _ in range(1000):
        x, noise = rng.normal(size=(2, 12))
        for found in associations(x, rho * x + (1 - rho**2) ** 0.5 * noise):
            hits[found.statistic].append(found.low <= truth[found.statistic] <= found.high)
    for covered in hits.values():
        within(covered, low=0.925, high=0.975)


# ---------------------------------------------------------------- level and power


def rejected(times, runs, rate=0.05):
    """A binomial tolerance: false alarms neither more nor much fewer than their level allows in 99.9 % of runs."""
    low, high = stats.binom.ppf([0.0005, 0.9995], runs, rate)
    assert low <= times <= high, (times, low, high)


@pytest.mark.parametrize("biased", [None, "squared"])
def test_permutation_tests_keep_their_level(biased):
    """A and B answer alike: 600 comparisons of 20 personas, a mean and a squared distance."""
    rng, runs = np.random.default_rng(5), 600
    value = (lambda means: (means**2).sum(-1)) if biased else average
    metric, p = Metric(np.arange(3), value, biased=biased), []
    for _ in range(runs):
        person = rng.normal(size=(20, 1))
        a, b = (sample_of(np.round(person + rng.normal(size=(20, 3)) + 1)) for _ in range(2))
        p.append(permutation(a, b, [metric], rng, draws=199)[0])
    rejected((np.array(p) <= 0.05).sum(), runs)
    assert min(p) >= 1 / 200


def test_rank_correlations_keep_their_level():
    rng, runs = np.random.default_rng(6), 500
    p = [[found.p for found in associations(*rng.normal(size=(2, 10)))] for _ in range(runs)]
    for column in np.array(p).T:
        rejected((column <= 0.05).sum(), runs)


def test_the_family_keeps_its_level():
    """Holm over ten true hypotheses: one false alarm or more in five of a hundred families at most."""
    rng, runs = np.random.default_rng(7), 2000
    alarms = sum(min(holm(rng.random(10).tolist())) <= 0.05 for _ in range(runs))
    rejected(alarms, runs)


def test_the_smallest_difference_is_found_four_times_in_five():
    rng, runs, n = np.random.default_rng(8), 3000, 20
    true = smallest_difference(1.0, n)
    p = stats.ttest_1samp(rng.normal(true, 1.0, (runs, n)), 0, axis=1).pvalue
    assert 0.78 < (p <= 0.05).mean() < 0.83
    assert smallest_difference(1.0, 1) == float("inf")
