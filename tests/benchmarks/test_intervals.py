"""Intervals hold the true ratio as often as they say, and noise is called noise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from support_rows import make_latency

from pcaseg.benchmarks.intervals import LEVEL, noise_of, paired_ratio, unpaired_ratio
from pcaseg.benchmarks.rows import Latency, Ratio, RowsError

TEMPLATE = make_latency(1.0)
TRIALS = 2000
TRUTH = 4.0
MAKERS = {"paired": paired_ratio, "unpaired": unpaired_ratio}
Noise = Callable[[np.random.Generator, int], np.ndarray]


def normal(rng: np.random.Generator, rounds: int) -> np.ndarray:
    return rng.normal(0, 0.05, rounds)


def heavy(rng: np.random.Generator, rounds: int) -> np.ndarray:
    """Student's t with three degrees of freedom: far outliers are usual."""
    return 0.03 * rng.standard_t(3, rounds)


def interrupted(rng: np.random.Generator, rounds: int) -> np.ndarray:
    """Steady rounds, of which one in ten is held up by half its time and more."""
    return rng.normal(0, 0.02, rounds) + (rng.random(rounds) < 0.1) * rng.exponential(0.5, rounds)


def latency_of(values) -> Latency:
    """Rounds of one call each."""
    samples = tuple(float(value) for value in values)
    return replace(TEMPLATE, n=len(samples), rounds=len(samples), samples_ms=samples)


def coverage(kind: str, above: Noise, below: Noise, rounds: int) -> float:
    """The share of trials whose interval holds the true ratio."""
    rng, held = np.random.default_rng(0), 0
    for _ in range(TRIALS):
        slow = latency_of(10 * TRUTH * np.exp(above(rng, rounds)))
        fast = latency_of(10 * np.exp(below(rng, rounds)))
        found = MAKERS[kind](slow, fast)
        held += found.low <= TRUTH <= found.high
    return held / TRIALS


@pytest.mark.parametrize("rounds", [3, 5, 8])
@pytest.mark.parametrize("kind", MAKERS)
def test_intervals_hold_the_truth_as_often_as_they_say(kind, rounds):
    """Welch's interval of very few rounds is a little too wide (0.967 at three against three), never too narrow."""
    assert LEVEL - 0.02 <= coverage(kind, normal, normal, rounds) <= LEVEL + 0.025


@pytest.mark.parametrize("rounds", [3, 8])
@pytest.mark.parametrize("noise", [heavy, interrupted])
@pytest.mark.parametrize("kind", MAKERS)
def test_far_outliers_on_both_sides_widen_intervals(kind, noise, rounds):
    """They hold the truth at least as often, because outliers widen them more than they move them."""
    assert coverage(kind, noise, noise, rounds) >= LEVEL - 0.01


@pytest.mark.parametrize("rounds", [3, 8])
def test_interruptions_of_one_side_leave_the_ratio_of_undisturbed_rounds(rounds):
    assert coverage("paired", interrupted, lambda rng, rounds: rng.normal(0, 0.02, rounds), rounds) >= LEVEL - 0.01


@pytest.mark.parametrize("rounds", [3, 8])
def test_unequal_noise_of_two_runs(rounds):
    quiet: Noise = lambda rng, rounds: rng.normal(0, 0.01, rounds)  # noqa: E731
    assert LEVEL - 0.02 <= coverage("unpaired", normal, quiet, rounds) <= LEVEL + 0.025


def test_a_drift_that_hits_both_leaves_the_paired_ratio_alone():
    drift = np.linspace(1, 3, 12)
    slow, fast = latency_of(60 * drift), latency_of(20 * drift)
    found = paired_ratio(slow, fast)
    assert (found.value, found.low, found.high) == pytest.approx((3, 3, 3))
    apart = unpaired_ratio(slow, fast)
    assert apart.value == pytest.approx(3) and apart.high / apart.low > 1.5


@pytest.mark.parametrize("make", MAKERS.values())
def test_turned_round_it_is_the_reciprocal(make):
    one, other = make_latency(100, noise=0.05, seed=1), make_latency(30, noise=0.02, seed=2)
    found, turned = make(one, other), make(other, one)
    assert (found.value, found.low, found.high) == pytest.approx(
        (1 / turned.value, 1 / turned.high, 1 / turned.low), rel=1e-5
    )


@pytest.mark.parametrize("make", MAKERS.values())
def test_equal_rounds_have_no_width(make):
    assert make(latency_of([8.0, 8.0, 8.0]), latency_of([4.0, 4.0, 4.0])) == Ratio(2.0, 2.0, 2.0)


def test_a_round_counts_once_whatever_its_calls():
    """Its median does: the many calls of a fast backend are no more rounds."""
    slow = latency_of([10.0, 11.0, 12.0])
    fast = replace(slow, n=9, samples_ms=(1.0, 5.0, 9.0, 5.5, 5.5, 60.0, 6.0, 6.0, 6.0))
    assert paired_ratio(slow, fast) == Ratio(2.0, 2.0, 2.0)


@pytest.mark.parametrize("make", MAKERS.values())
def test_one_round_has_no_interval(make):
    assert make(latency_of([10.0]), latency_of([5.0])) is None


def test_rounds_that_are_no_pairs():
    with pytest.raises(RowsError, match="3 and 2 rounds are no pairs"):
        paired_ratio(latency_of([1.0, 1.0, 1.0]), latency_of([1.0, 1.0]))


def test_noise_is_called_noise():
    rng = np.random.default_rng(0)
    steady = latency_of(10 * (1 + 0.01 * rng.standard_normal(20)))
    wild = latency_of(10 * rng.lognormal(0, 0.8, 20))
    base = latency_of(50 * (1 + 0.01 * rng.standard_normal(20)))
    assert noise_of(steady, paired_ratio(base, steady)) == ""
    assert "spread" in noise_of(wild, paired_ratio(base, wild))
    assert "too wide" in noise_of(steady, Ratio(5.0, 4.0, 6.0))
    assert "2 rounds" in noise_of(latency_of([10.0, 10.0]), None)


def test_three_unsteady_rounds_support_no_ratio():
    """The range of three rounds that differ by 10 % is narrow; what they say of the next is not."""
    base = latency_of([50.0, 50.0, 50.0])
    assert "too wide" in noise_of(latency_of([10.0, 11.0, 10.5]), paired_ratio(base, latency_of([10.0, 11.2, 10.5])))
    many = latency_of([10.0, 11.2, 10.5] * 5)
    assert noise_of(many, paired_ratio(latency_of([50.0] * 15), many)) == ""
