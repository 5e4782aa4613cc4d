"""Ratios of times with 95 % intervals: Student's t on the logarithms of the rounds' medians.

A round is the unit: its calls share the machine's state of that moment. Times of calls scatter by factors, so their
logarithms are near a normal distribution, and a difference of logarithms is a ratio. The ratio is the geometric mean
over rounds. Three rounds make wide intervals because three rounds say little.

Simulated (`tests/benchmarks/test_intervals.py`): at 3, 5 and 8 rounds the true ratio is within 95 % of the time, and
no less often where the noise has far outliers. Rare interruptions of one side alone are taken for outliers: the
interval holds the ratio of undisturbed rounds, not that of long-run means.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit

from pcaseg.benchmarks.rows import Latency, Ratio, RowsError, rounded
from pcaseg.benchmarks.timing import LEAST_ROUNDS
from pcaseg.errors import PcasegError

LEVEL = 0.95

WIDEST_INTERVAL = 0.25
"""Width of a ratio's interval over the ratio. "4 x" with such an interval is 3.5 x to 4.5 x; wider ones support no
statement, whether for few rounds or for unsteady ones."""

WIDEST_SPREAD = 0.5
"""From the 10th to the 90th percentile of the rounds' medians, over their median."""


def check_pairs(name: str, count: int) -> None:
    """Refuses a number of pairs that has no interval, before anything is measured.

    Raises:
        PcasegError: fewer than two.
    """
    if count < 2:
        raise PcasegError(f"{name}={count}: give 2 or more; an interval needs them")


def paired_ratio(numerator: Latency, denominator: Latency) -> Ratio | None:
    """The ratio of two calls that took turns: their rounds are pairs, and a drift that both saw cancels.

    Returns:
        None where there is but one round, which says nothing of noise.

    Raises:
        RowsError: samples cannot be parted into rounds, or the rounds are unequal in number.
    """
    above, below = np.log(round_medians(numerator)), np.log(round_medians(denominator))
    if len(above) != len(below):
        raise RowsError(
            f"{len(above)} and {len(below)} rounds are no pairs, though both calls took turns; "
            "measure anew with pcaseg bench"
        )
    if len(above) < 2:
        return None
    return _interval(float((above - below).mean()), _squared_error(above - below), len(above) - 1)


def unpaired_ratio(numerator: Latency, denominator: Latency) -> Ratio | None:
    """The ratio of calls of two runs, whose rounds have nothing in common: Welch's interval, unequal noise allowed.

    Returns:
        None where a run has but one round, which says nothing of noise.

    Raises:
        RowsError: samples cannot be parted into rounds.
    """
    above, below = np.log(round_medians(numerator)), np.log(round_medians(denominator))
    if min(len(above), len(below)) < 2:
        return None
    errors = _squared_error(above), _squared_error(below)
    degrees = errors[0] ** 2 / (len(above) - 1) + errors[1] ** 2 / (len(below) - 1)
    freedom = sum(errors) ** 2 / degrees if degrees else len(above) + len(below) - 2
    return _interval(float(above.mean() - below.mean()), sum(errors), freedom)


def round_medians(latency: Latency) -> np.ndarray:
    """The median of each round in ms, (rounds,) float.

    Raises:
        RowsError: the samples are not rounds of equal length, or not all above 0.
    """
    samples = np.array(latency.samples_ms)
    if latency.rounds < 1 or samples.size == 0 or samples.size % latency.rounds or not (samples > 0).all():
        raise RowsError(
            f"samples_ms holds {samples.size} values, which are not {latency.rounds} rounds of equal length of "
            "positive times; measure anew with pcaseg bench"
        )
    return np.median(samples.reshape(latency.rounds, -1), axis=1)


def noise_of(latency: Latency, found: Ratio | None) -> str:
    """The reason why a measurement supports no ratio; empty where it does.

    Args:
        latency: of the call.
        found: its ratio; None where there is nothing to hold it against.

    Raises:
        RowsError: samples cannot be parted into rounds.
    """
    medians = round_medians(latency)
    spread = float(np.subtract(*np.percentile(medians, (90, 10))) / np.median(medians))
    if latency.rounds < LEAST_ROUNDS:
        return f"only {latency.rounds} rounds"
    if spread > WIDEST_SPREAD:
        return f"its rounds spread over {spread:.0%} of their median"
    if found is not None and found.high - found.low > WIDEST_INTERVAL * found.value:
        return f"the interval of its ratio, {found.low:.2f} to {found.high:.2f}, is too wide"
    return ""


@dataclass(frozen=True)
class Estimate:
    """A number with a 95 % interval."""

    value: float
    low: float
    high: float


def mean_interval(values: np.ndarray) -> Estimate:
    """The mean of two or more independent values, with its interval by Student's t."""
    reach = float(stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * math.sqrt(values.var(ddof=1) / len(values))
    center = float(values.mean())
    return Estimate(center, center - reach, center + reach)


def _squared_error(logarithms: np.ndarray) -> float:
    """The squared standard error of their mean."""
    return float(logarithms.var(ddof=1) / len(logarithms))


def _interval(center: float, squared_error: float, freedom: float) -> Ratio:
    """The ratio whose logarithm is estimated so, with its interval by Student's t."""
    reach = float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(squared_error)
    return Ratio(*(rounded(math.exp(center + side * reach)) for side in (0, -1, 1)))
