"""Intervals and tests, held against statsmodels and scipy, against enumeration, and against simulated truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint

from understudy.evaluate import compare_paired, mean_interval, pass_at_k, pass_hat_k, success_interval
from understudy.evaluate.statistics import _bootstrap_interval, mcnemar_p_value, wilson_interval


def singles(*outcomes: float) -> list[list[float]]:
    return [[outcome] for outcome in outcomes]


@given(
    st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.8, 0.95, 0.99])
)
def test_wilson_agrees_with_statsmodels(counts: tuple[int, int], confidence: float) -> None:
    expected = proportion_confint(*counts, alpha=1 - confidence, method="wilson")
    assert wilson_interval(*counts, confidence) == pytest.approx(expected, abs=1e-9)


def test_one_sample_of_each_task_gives_wilsons_interval() -> None:
    estimate = success_interval(singles(*[1] * 30, *[0] * 10))
    assert (estimate.value, estimate.num_tasks, estimate.num_samples) == (0.75, 40, 40)
    assert (estimate.low, estimate.high) == pytest.approx(proportion_confint(30, 40, method="wilson"))


def test_samples_that_merely_repeat_their_task_add_no_certainty() -> None:
    once = success_interval(singles(*[1] * 30, *[0] * 10))
    tenfold = success_interval([[1] * 10] * 30 + [[0] * 10] * 10)
    assert (tenfold.low, tenfold.high) == pytest.approx((once.low, once.high), abs=0.005)
    assert (tenfold.num_tasks, tenfold.num_samples) == (40, 400)


def test_where_all_samples_agree_the_tasks_alone_count() -> None:
    estimate = success_interval([[1] * 5] * 20)
    assert (estimate.low, estimate.high) == pytest.approx(proportion_confint(20, 20, method="wilson"))


def test_independent_samples_count_almost_in_full() -> None:
    rng = np.random.default_rng(0)
    outcomes = rng.integers(0, 2, (200, 5)).tolist()
    estimate = success_interval(outcomes)
    full = wilson_interval(estimate.value * 1000, 1000)
    assert estimate.high - estimate.low == pytest.approx(full[1] - full[0], rel=0.1)


@pytest.mark.parametrize(("alpha", "beta"), [(8, 2), (1, 1), (0.3, 0.1)])
def test_the_clustered_interval_covers_the_truth_as_often_as_it_says(alpha: float, beta: float) -> None:
    rng = np.random.default_rng(1)
    truth, covered, covered_by_naive = alpha / (alpha + beta), 0, 0
    for _ in range(400):
        rates = rng.beta(alpha, beta, 60)
        outcomes = (rng.random((60, 8)) < rates[:, None]).astype(int)
        estimate = success_interval(outcomes.tolist())
        covered += estimate.low <= truth <= estimate.high
        naive = wilson_interval(outcomes.sum(), outcomes.size)
        covered_by_naive += naive[0] <= truth <= naive[1]
    assert covered / 400 > 0.92
    assert covered_by_naive < covered


def test_the_clustered_error_of_a_mean_agrees_with_statsmodels() -> None:
    rng = np.random.default_rng(2)
    outcomes = [rng.normal(rng.normal(), 1, rng.integers(1, 6)).tolist() for _ in range(30)]
    values = np.concatenate(outcomes)
    groups = np.repeat(np.arange(30), [len(one) for one in outcomes])
    fit = OLS(values, np.ones_like(values)).fit(
        cov_type="cluster", cov_kwds={"groups": groups, "use_correction": False}
    )
    error = fit.bse[0] * math.sqrt(30 / 29)
    estimate = mean_interval(outcomes)
    assert estimate.value == pytest.approx(values.mean())
    assert estimate.high - estimate.value == pytest.approx(stats.norm.ppf(0.975) * error)


def test_one_task_says_nothing_about_others() -> None:
    assert mean_interval([[1.0, 2.0]]).high == math.inf


@given(st.lists(st.integers(0, 1), min_size=1, max_size=7), st.data())
def test_pass_at_k_and_pass_hat_k_are_averages_over_all_choices_of_k_samples(
    samples: list[int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(samples)))
    choices = list(itertools.combinations(samples, k))
    assert pass_at_k([samples], k) == pytest.approx(np.mean([any(choice) for choice in choices]))
    assert pass_hat_k([samples], k) == pytest.approx(np.mean([all(choice) for choice in choices]))


def test_pass_at_k_is_averaged_over_tasks_and_needs_k_samples() -> None:
    assert pass_at_k([[1, 0], [0, 0]], 1) == 0.25
    assert pass_at_k([[1, 0], [0, 0]], 2) == 0.5
    with pytest.raises(ValueError, match="pass@3 needs 3 samples of every task; one has 2"):
        pass_at_k([[1, 0, 0], [0, 0]], 3)


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_agrees_with_statsmodels(num_better: int, num_worse: int) -> None:
    expected = mcnemar([[5, num_better], [num_worse, 5]], exact=True).pvalue
    assert mcnemar_p_value(num_better, num_worse) == pytest.approx(expected, abs=1e-12)


def test_a_planted_difference_is_found_and_its_size_is_right() -> None:
    rng = np.random.default_rng(3)
    first = singles(*(rng.random(300) < 0.5).astype(int).tolist())
    second = singles(*(rng.random(300) < 0.7).astype(int).tolist())
    found = compare_paired(first, second)
    assert found.method == "McNemar, exact"
    assert found.p_value < 0.01
    assert 0 < found.low < 0.2 < found.high
    assert found.difference == pytest.approx((found.num_better - found.num_worse) / 300)


@pytest.mark.parametrize("num_samples", [1, 4])
def test_where_there_is_no_difference_one_is_found_as_rarely_as_promised(num_samples: int) -> None:
    rng = np.random.default_rng(4)
    found, covered = 0, 0
    for trial in range(100):
        rates = rng.beta(2, 2, 50)
        first, second = ((rng.random((50, num_samples)) < rates[:, None]).astype(int).tolist() for _ in range(2))
        comparison = compare_paired(first, second, seed=trial)
        found += comparison.p_value < 0.05
        covered += comparison.low <= 0 <= comparison.high
    assert found <= 11
    assert covered >= 88


def test_the_permutation_test_agrees_with_scipy() -> None:
    rng = np.random.default_rng(5)
    first = rng.random((25, 3))
    second = first + rng.normal(0.08, 0.2, (25, 3))
    ours = compare_paired(first.tolist(), second.tolist())
    theirs = stats.permutation_test(
        (second.mean(1), first.mean(1)), lambda a, b, axis: (a - b).mean(axis), permutation_type="samples",
        n_resamples=20_000, rng=np.random.default_rng(6), vectorized=True,
    )  # fmt: skip
    assert ours.method == "paired permutation"
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=0.012)
    theirs_interval = stats.bootstrap(
        ((second - first).mean(1),), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(7)
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs_interval.low, theirs_interval.high), abs=0.005)


def test_equal_policies_have_no_difference_at_all() -> None:
    comparison = compare_paired([[0.5, 0], [1, 1]], [[0, 0.5], [1, 1]])
    assert (comparison.difference, comparison.p_value, comparison.low, comparison.high) == (0.0, 1.0, 0.0, 0.0)
    assert (comparison.num_better, comparison.num_worse) == (0, 0)


@pytest.mark.parametrize(
    ("table", "published"),
    [((1, 1, 7, 12), (-0.507, -0.026)), ((59, 6, 16, 80), (-0.1186, -0.0046))],
    ids=["Bentur 2009", "Cavo 2012"],
)
def test_the_interval_of_paired_rates_is_newcombes_as_published(table, published) -> None:
    """Examples of chapter 8 of Fagerland, Lydersen and Laake 2017, Statistical Analysis of Contingency Tables."""
    both, only_first, only_second, neither = table
    first = singles(*[1] * (both + only_first), *[0] * (only_second + neither))
    second = singles(*[1] * both, *[0] * only_first, *[1] * only_second, *[0] * neither)
    found = compare_paired(second, first)
    assert (found.low, found.high) == pytest.approx(published, abs=6e-4)


def test_a_difference_on_every_task_is_still_not_certain() -> None:
    found = compare_paired(singles(*[0] * 20), singles(*[1] * 20))
    alone = proportion_confint(20, 20, method="wilson")[0]
    assert found.low == pytest.approx(1 - math.hypot(1 - alone, 1 - alone))
    assert (found.difference, found.high) == (1.0, 1.0)
    none = compare_paired(singles(*[0] * 20), singles(*[0] * 20))
    assert none.low == -none.high < -0.1


@pytest.mark.parametrize(("num_tasks", "num_samples"), [(15, 1), (15, 4), (60, 4)])
def test_the_interval_of_a_difference_covers_the_truth_as_often_as_it_says(num_tasks: int, num_samples: int) -> None:
    """Also where both rates are near their bounds and go together, where a bootstrap covers far less."""
    rng = np.random.default_rng(8)
    covered, covered_by_bootstrap = 0, 0
    for _ in range(300):
        rates = rng.beta(0.3, 2, num_tasks)
        first, second = (
            (rng.random((num_tasks, num_samples)) < some[:, None]).astype(int) for some in (rates, 0.1 + 0.9 * rates)
        )
        truth = 0.1 - 0.1 * 0.3 / 2.3
        found = compare_paired(first.tolist(), second.tolist())
        covered += found.low <= truth <= found.high
        low, high = _bootstrap_interval((second - first).mean(1), 0.95, np.random.default_rng(0))
        covered_by_bootstrap += low <= truth <= high
    assert covered / 300 >= 0.93
    assert covered >= covered_by_bootstrap


def test_nothing_to_count_is_refused() -> None:
    for bad in ([], [[]]):
        with pytest.raises(ValueError, match="no outcomes"):
            success_interval(bad)
    with pytest.raises(ValueError, match="the same tasks"):
        compare_paired([[1]], [[1], [0]])
