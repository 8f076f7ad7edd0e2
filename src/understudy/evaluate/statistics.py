"""Rates, means and comparisons with honest intervals.

Outcomes are given task by task: ``[[1, 0, 1], [1, 1, 0], …]`` holds the samples of each task. Samples of one task are
alike, so they count for less than as many tasks, and every interval here takes that into account.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Outcomes = Sequence[Sequence[float]]
"""For each task the outcomes of its samples; successes are 0 and 1."""

CONFIDENCE = 0.95
NUM_RESAMPLES = 10_000
MAX_DRAWN = 1_000_000
"""Most random numbers that are held at a time."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A rate or mean with its confidence interval, and what it is from."""

    value: float
    low: float
    high: float
    num_tasks: int
    num_samples: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """How two policies differ on the same tasks: second minus first.

    Args:
        difference: of the mean outcomes, every task counting the same.
        low, high: confidence interval of the difference.
        p_value: chance of a difference this large or larger if the two were alike (two-sided).
        method: the test that the p-value is from.
        num_better, num_worse: tasks on which the second did better or worse.
        num_tasks: tasks that both played.
    """

    difference: float
    low: float
    high: float
    p_value: float
    method: str
    num_better: int
    num_worse: int
    num_tasks: int


def wilson_interval(num_successes: float, num_samples: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Return the score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22:209-212).

    Unlike p ± z·sqrt(p(1-p)/n) it stays within 0 and 1 and keeps its coverage near them. The counts need not be whole.
    """
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = num_successes / num_samples
    centre = (p + z * z / (2 * num_samples)) / (1 + z * z / num_samples)
    half = z / (1 + z * z / num_samples) * math.sqrt(p * (1 - p) / num_samples + (z / (2 * num_samples)) ** 2)
    return max(0.0, centre - half), min(1.0, centre + half)


def success_interval(outcomes: Outcomes, confidence: float = CONFIDENCE) -> Estimate:
    """Return the success rate over all samples, with a Wilson interval.

    With several samples of a task, the samples are counted at their effective number n / d, where the design effect d
    is the clustered variance of the rate over its variance if all samples were independent (Korn and Graubard 1998,
    Survey Methodology 24:193-201; with Wilson's interval as in Dean and Pagano 2015, J. Surv. Stat. Methodol.
    3:484-503). d is at least 1; where all outcomes are equal it cannot be estimated, and the tasks alone are counted.

    Raises:
        ValueError: there are no outcomes.
    """
    values, tasks = _flat(outcomes)
    rate, num_samples, num_tasks = float(values.mean()), len(values), len(outcomes)
    effective = float(num_samples)
    if num_samples > num_tasks:
        if rate in (0.0, 1.0) or num_tasks == 1:
            effective = float(num_tasks)
        else:
            independent = rate * (1 - rate) / num_samples
            effective = num_samples / max(1.0, _clustered_variance(values, tasks, num_tasks) / independent)
    low, high = wilson_interval(rate * effective, effective, confidence)
    return Estimate(rate, low, high, num_tasks, num_samples)


def mean_interval(outcomes: Outcomes, confidence: float = CONFIDENCE) -> Estimate:
    """Return the mean over all samples, with a normal interval from the standard error clustered by task.

    The error is that of Liang and Zeger 1986 (Biometrika 73:13-22) for a mean, as Miller 2024 (arXiv:2411.00640) uses
    it for evaluations. With one task the interval is infinite, because nothing says how tasks differ.

    Raises:
        ValueError: there are no outcomes.
    """
    values, tasks = _flat(outcomes)
    mean, num_tasks = float(values.mean()), len(outcomes)
    if num_tasks == 1:
        return Estimate(mean, -math.inf, math.inf, 1, len(values))
    half = NormalDist().inv_cdf((1 + confidence) / 2) * math.sqrt(_clustered_variance(values, tasks, num_tasks))
    return Estimate(mean, mean - half, mean + half, num_tasks, len(values))


def pass_at_k(outcomes: Outcomes, k: int) -> float:
    """Return the chance that at least one of k samples of a task succeeds, averaged over tasks.

    The unbiased estimate 1 - C(n - c, k) / C(n, k) from c successes in n samples (Chen et al. 2021, arXiv:2107.03374).

    Raises:
        ValueError: a task has fewer than k samples, or there are no tasks.
    """
    _check_samples(outcomes, k)
    return float(np.mean([1.0 - math.comb(len(one) - _successes(one), k) / math.comb(len(one), k) for one in outcomes]))


def pass_hat_k(outcomes: Outcomes, k: int) -> float:
    """Return the chance that all of k samples of a task succeed, averaged over tasks (pass^k).

    The unbiased estimate C(c, k) / C(n, k) of τ-bench (Yao et al. 2024, arXiv:2406.12045).

    Raises:
        ValueError: as `pass_at_k`.
    """
    _check_samples(outcomes, k)
    return float(np.mean([math.comb(_successes(one), k) / math.comb(len(one), k) for one in outcomes]))


def mcnemar_p_value(num_better: int, num_worse: int) -> float:
    """Return the exact two-sided p-value of McNemar's test (1947, Psychometrika 12:153-157).

    Of the tasks on which two policies differ, each is better on half of them if they are alike: a binomial test.
    """
    num = num_better + num_worse
    tail = sum(math.comb(num, i) for i in range(min(num_better, num_worse) + 1))
    return float(min(Fraction(1), Fraction(2 * tail, 2**num)))


def compare_paired(first: Outcomes, second: Outcomes, *, confidence: float = CONFIDENCE, seed: int = 0) -> Comparison:
    """Compare two policies on the same tasks, task i of one with task i of the other.

    The interval of outcomes that are all 0 or 1 is Newcombe's, from the two rates' own intervals; that of others is a
    percentile bootstrap over tasks (Efron and Tibshirani 1993, chapter 13). The p-value is McNemar's where each task
    has one sample with outcome 0 or 1, and otherwise that of a permutation test that swaps the two policies task by
    task (Fisher 1935; Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9:39, for the added one).

    Raises:
        ValueError: the two have different numbers of tasks, or none.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"a paired comparison needs the same tasks on both sides, not {len(first)} and {len(second)}")
    means = np.array([[np.mean(one) for one in side] for side in (first, second)])
    differences = means[1] - means[0]
    num_better, num_worse = int((differences > 0).sum()), int((differences < 0).sum())
    rng = np.random.default_rng(seed)
    is_success = all(outcome in (0, 1) for one in (*first, *second) for outcome in one)
    if is_success:
        low, high = _square_and_add(means, success_interval(first, confidence), success_interval(second, confidence))
    else:
        low, high = _bootstrap_interval(differences, confidence, rng)
    if is_success and all(len(one) == 1 for one in (*first, *second)):
        p_value, method = mcnemar_p_value(num_better, num_worse), "McNemar, exact"
    else:
        p_value, method = _permutation_p_value(differences, rng), "paired permutation"
    return Comparison(float(differences.mean()), low, high, p_value, method, num_better, num_worse, len(differences))


def _flat(outcomes: Outcomes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return all outcomes in one row, and the task of each."""
    if not len(outcomes) or not all(len(one) for one in outcomes):
        raise ValueError("there are no outcomes" if not len(outcomes) else "a task has no outcomes")
    values = np.concatenate([np.asarray(one, np.float64) for one in outcomes])
    tasks = np.repeat(np.arange(len(outcomes)), [len(one) for one in outcomes])
    return values, tasks


def _clustered_variance(values: NDArray[np.float64], tasks: NDArray[np.int64], num_tasks: int) -> float:
    """Return the variance of the mean of n values of G tasks: Σ (sum of a task's residuals)² / n² · G / (G - 1)."""
    sums = np.bincount(tasks, weights=values - values.mean(), minlength=num_tasks)
    return float((sums**2).sum()) / len(values) ** 2 * num_tasks / (num_tasks - 1)


def _square_and_add(means: NDArray[np.float64], first: Estimate, second: Estimate) -> tuple[float, float]:
    """Return the interval of the difference of two rates, from their intervals and how they go together.

    With one sample of each task this is method 10 of Newcombe 1998 (Stat. Med. 17:2635-2650), whose continuity
    correction takes 1 / 2n from a positive covariance. Several samples enter through the intervals of the rates, and
    through the covariance of the tasks' means (Zou and Donner 2008, Stat. Med. 27:1693-1702). Unlike a bootstrap it
    does not shrink to nothing where all tasks agree.

    Args:
        means: [2, tasks] mean outcome of each task, of the first and of the second.
    """
    covariance = float(np.mean((means[0] - means[0].mean()) * (means[1] - means[1].mean())))
    if covariance > 0:
        covariance = max(0.0, covariance - 1 / (2 * max(first.num_samples, second.num_samples)))
    spread = float(means[0].std() * means[1].std())
    correlation = covariance / spread if spread > 0 else 0.0
    rates = means.mean(axis=1)
    difference = float(rates[1] - rates[0])

    def reach(below: float, above: float) -> float:
        return math.sqrt(max(0.0, below**2 - 2 * correlation * below * above + above**2))

    low = difference - reach(rates[1] - second.low, first.high - rates[0])
    high = difference + reach(rates[0] - first.low, second.high - rates[1])
    return float(max(-1.0, low)), float(min(1.0, high))


def _bootstrap_interval(
    differences: NDArray[np.float64], confidence: float, rng: np.random.Generator
) -> tuple[float, float]:
    num = len(differences)
    means = np.concatenate([differences[rng.integers(0, num, (size, num))].mean(axis=1) for size in _chunks(num)])
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _permutation_p_value(differences: NDArray[np.float64], rng: np.random.Generator) -> float:
    num = len(differences)
    observed = abs(differences.sum()) - 1e-12
    reached = 0
    for size in _chunks(num):
        signs = rng.integers(0, 2, (size, num), dtype=np.int8) * 2 - 1
        reached += int((np.abs(signs @ differences) >= observed).sum())
    return (reached + 1) / (NUM_RESAMPLES + 1)


def _chunks(num_tasks: int) -> list[int]:
    """Cut the resamples into parts that are small enough to hold."""
    size = max(1, MAX_DRAWN // num_tasks)
    return [min(size, NUM_RESAMPLES - done) for done in range(0, NUM_RESAMPLES, size)]


def _check_samples(outcomes: Outcomes, k: int) -> None:
    if k < 1 or not len(outcomes):
        raise ValueError("k is 1 or more, and there is one task at least")
    fewest = min(len(one) for one in outcomes)
    if fewest < k:
        raise ValueError(f"pass@{k} needs {k} samples of every task; one has {fewest}")


def _successes(samples: Sequence[float]) -> int:
    return sum(1 for outcome in samples if outcome)
