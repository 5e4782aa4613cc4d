"""Timing of calls that take turns in rounds.

All calls of a comparison run once per round, in an order that turns from round to round, so that a machine that slows
down or warms up does so for all of them. `pcaseg.benchmarks.intervals` makes ratios with intervals from the rounds.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from pcaseg.benchmarks.rows import Latency, rounded

Call = Callable[[int], object]
"""Runs once; the argument counts the calls, so that inputs may take turns."""

Timer = Callable[[Callable[[], object]], float]
"""Milliseconds of a call."""

LEAST_ROUNDS = 3
MOST_ROUNDS = 100
MOST_REPEATS = 10
"""Calls of a fast backend in one round, beside one call of a slow one."""


@dataclass
class Round:
    """Times of one backend in one round: milliseconds of its calls, and of all of them together."""

    samples_ms: list[float]
    wall_ms: float


@dataclass(frozen=True)
class OwnTime:
    """Result of a call that took its time itself, nearer to the device than a timer around it can."""

    ms: float


def unless_own(timer: Timer) -> Timer:
    """A timer that believes calls which return an `OwnTime`."""

    def timed(call: Callable[[], object]) -> float:
        returned: list[object] = []
        around_ms = timer(lambda: returned.append(call()))
        own = returned[0]
        return own.ms if isinstance(own, OwnTime) else around_ms

    return timed


def perf_timer(call: Callable[[], object]) -> float:
    """By the processor's clock: for calls that return when they are done."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Keeps this process on its first `threads` processors, so that the scheduler does not move it about.

    Pools that start within inherit it. Where the system knows no affinity, nothing happens.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    former = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(former)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, former)


def warm_up(
    call: Call, first_ms: float, timer: Timer = perf_timer, *, most: int = 6, within: float = 0.1
) -> list[float]:
    """Calls until two times in a row differ by less than `within`, at most `most` times with the first, made before.

    Returns:
        All times in ms.
    """
    times = [first_ms]
    while len(times) < most:
        count = len(times)
        times.append(timer(lambda: call(count)))  # noqa: B023 - called at once
        if abs(times[-1] - times[-2]) <= within * times[-1]:
            break
    return times


def interleave(
    calls: Mapping[str, Call],
    expected_ms: Mapping[str, float],
    *,
    seconds: float,
    streams: int = 1,
    timer: Timer = perf_timer,
    progress: Callable[[float], object] = lambda done: None,
) -> dict[str, list[Round]]:
    """Runs all calls in turn, round after round.

    Args:
        calls: by backend.
        expected_ms: of each, from its warm-up: fast ones run several times a round, up to `MOST_REPEATS`.
        seconds: to spend; at least `LEAST_ROUNDS` rounds run whatever they take, at most `MOST_ROUNDS`.
        streams: calls at the same time, each in a thread of its own.
        timer: of a single call.
        progress: told the share of the work that is done, 0..1.
    """
    slowest = max(expected_ms.values())
    repeats = {
        name: min(MOST_REPEATS, max(1, int(slowest / (2 * len(calls) * max(expected_ms[name], 1e-3)))))
        for name in calls
    }
    rounds: dict[str, list[Round]] = {name: [] for name in calls}
    order, start, count = list(calls), time.perf_counter(), 0
    with ThreadPoolExecutor(streams) as pool:
        while count < MOST_ROUNDS and (count < LEAST_ROUNDS or time.perf_counter() - start < seconds):
            for name in order:
                rounds[name].append(_round(calls[name], repeats[name], count, streams, pool, timer))
            order = order[1:] + order[:1]
            count += 1
            progress(min(count / LEAST_ROUNDS, (time.perf_counter() - start) / seconds, 1.0))
    return rounds


def _round(call: Call, repeats: int, count: int, streams: int, pool: ThreadPoolExecutor, timer: Timer) -> Round:
    indices = range(count * repeats * streams, (count + 1) * repeats * streams)
    start = time.perf_counter()
    if streams == 1:
        samples = [timer(lambda: call(index)) for index in indices]  # noqa: B023 - called at once
    else:
        samples = list(pool.map(lambda index: timer(lambda: call(index)), indices))
    return Round(samples, (time.perf_counter() - start) * 1e3)


def regrouped(rounds: Sequence[Round], samples_ms: Sequence[float]) -> list[Round]:
    """Other times of the same calls, in the same order, as rounds."""
    taken = iter(samples_ms)
    return [Round([next(taken) for _ in one.samples_ms], one.wall_ms) for one in rounds]


def latency(rounds: Sequence[Round], *, images: int = 1, streams: int = 1) -> Latency:
    """Sums rounds up; each call segments `images` images."""
    samples = np.array([sample for one in rounds for sample in one.samples_ms])
    p50, p90, p99 = np.percentile(samples, (50, 90, 99))
    wall = sum(one.wall_ms for one in rounds)
    per_ms = images / p50 if streams == 1 else images * len(samples) / wall
    return Latency(
        n=len(samples),
        rounds=len(rounds),
        mean_ms=rounded(samples.mean()),
        min_ms=rounded(samples.min()),
        p50_ms=rounded(p50),
        p90_ms=rounded(p90),
        p99_ms=rounded(p99),
        per_s=rounded(1e3 * per_ms),
        samples_ms=tuple(rounded(sample) for sample in samples),
    )
