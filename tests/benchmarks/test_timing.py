"""The timing measures what was planted, and says when it cannot."""

from __future__ import annotations

import os
import time

import pytest

from pcaseg.benchmarks import timing
from pcaseg.benchmarks.intervals import paired_ratio
from pcaseg.benchmarks.timing import Round


def spin(milliseconds: float):
    """A call that keeps the processor busy for a time."""

    def call(index: int) -> None:
        end = time.perf_counter() + milliseconds / 1e3
        while time.perf_counter() < end:
            pass

    return call


@pytest.mark.timing
def test_a_planted_delay_of_5_ms_is_measured_within_10_percent():
    calls = {"plain": spin(4), "delayed": spin(9)}
    rounds = timing.interleave(calls, {"plain": 4, "delayed": 9}, seconds=1.5)
    plain, delayed = (timing.latency(rounds[name]) for name in calls)
    assert delayed.p50_ms - plain.p50_ms == pytest.approx(5, rel=0.1)
    found = paired_ratio(plain, delayed)
    assert found.low <= 4 / 9 * 1.05 and found.high >= 4 / 9 * 0.95


def test_all_run_in_every_round_and_the_order_turns():
    seen: list[str] = []
    calls = {name: lambda index, name=name: seen.append(name) for name in "abc"}
    rounds = timing.interleave(calls, dict.fromkeys("abc", 1.0), seconds=1e-9)
    assert [len(rounds[name]) for name in "abc"] == [timing.LEAST_ROUNDS] * 3
    assert ["".join(seen[i : i + 3]) for i in range(0, 9, 3)] == ["abc", "bca", "cab"]


def test_fast_calls_run_several_times_a_round_on_inputs_in_turn():
    indices: list[int] = []
    rounds = timing.interleave({"slow": spin(1), "fast": indices.append}, {"slow": 100.0, "fast": 1.0}, seconds=1e-9)
    assert {len(one.samples_ms) for one in rounds["fast"]} == {timing.MOST_REPEATS}
    assert indices == list(range(timing.LEAST_ROUNDS * timing.MOST_REPEATS))
    assert timing.latency(rounds["fast"]).n == len(indices) and timing.latency(rounds["slow"]).n == 3


@pytest.mark.timing
def test_streams_run_at_the_same_time():
    sleep = lambda index: time.sleep(0.05)  # noqa: E731
    rounds = timing.interleave({"a": sleep}, {"a": 50.0}, seconds=1e-9, streams=4)["a"]
    found = timing.latency(rounds, streams=4)
    assert found.n == 12 and 50 <= found.p50_ms < 100
    assert found.per_s > 1.5 / 0.05  # one after the other there would be 20 a second


def test_warm_up_ends_when_two_times_agree():
    times = iter([100.0, 60.0, 58.0, 1.0])
    assert timing.warm_up(lambda index: None, 500.0, lambda call: next(times)) == [500.0, 100.0, 60.0, 58.0]
    growing = iter(range(1, 100))
    assert len(timing.warm_up(lambda index: None, 1.0, lambda call: 2.0 ** next(growing))) == 6


def test_percentiles():
    found = timing.latency([Round([1.0, 2.0, 3.0], 6.0), Round([4.0, 5.0, 6.0], 15.0)], images=2)
    assert (found.n, found.rounds, found.min_ms, found.p50_ms, found.mean_ms) == (6, 2, 1, 3.5, 3.5)
    assert found.samples_ms == (1, 2, 3, 4, 5, 6) and found.per_s == pytest.approx(2000 / 3.5, rel=1e-5)


def test_regrouped_keeps_the_rounds():
    rounds = [Round([9.0, 9.0], 20.0), Round([9.0], 10.0)]
    assert [one.samples_ms for one in timing.regrouped(rounds, [1.0, 2.0, 3.0])] == [[1.0, 2.0], [3.0]]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system knows no affinity")
def test_pinning_ends_with_its_block():
    before = os.sched_getaffinity(0)
    with timing.pinned(1):
        assert os.sched_getaffinity(0) == {min(before)}
    assert os.sched_getaffinity(0) == before
