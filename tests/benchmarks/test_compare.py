"""What is worse beyond noise is found, and noise is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support_rows import ENVIRONMENT, POINT, make_latency, make_row, make_rows, skipped_row

from pcaseg.benchmarks.compare import compare, comparison_table
from pcaseg.benchmarks.intervals import unpaired_ratio
from pcaseg.benchmarks.rows import RowsError


def regressions(before, after, **options) -> list[str]:
    return [found for comparison in compare(before, after, **options) for found in comparison.regressions]


def test_the_same_rows_pass():
    rows = make_rows()
    compared = compare(rows, rows)
    assert len(compared) == len(rows)
    assert not any(comparison.regressions or comparison.differences for comparison in compared)
    assert {c.verdict for comparison in compared for c in comparison.changes} == {"same"}
    assert "no regression in" in comparison_table(compared)


@pytest.mark.parametrize(("noise", "rounds"), [(0.005, 3), (0.01, 5), (0.03, 2), (0.03, 5), (0.1, 5)])
def test_pure_noise_passes(noise, rounds):
    trials = 100
    failed = 0
    for seed in range(trials):
        before, after = (make_latency(100, rounds=rounds, noise=noise, seed=s) for s in (seed, trials + seed))
        failed += unpaired_ratio(after, before).low > 1.05
    assert failed <= 0.05 * trials


def test_a_planted_slowdown_is_found():
    for seed in range(20):
        found = regressions([make_row(seed=seed)], [make_row(seed=100 + seed, slower=1.1)])
        assert len(found) == 2, "engine and end to end"
        assert "engine" in found[0] and "slower" in found[0]


def test_a_slowdown_within_the_threshold_passes():
    before, after = [make_row(seed=1, noise=0.001)], [make_row(seed=2, noise=0.001, slower=1.03)]
    assert not regressions(before, after)
    assert regressions(before, after, threshold=0.01)


def test_faster_is_said():
    (comparison,) = compare([make_row(seed=1)], [make_row(seed=2, slower=0.8)])
    assert [change.verdict for change in comparison.changes] == ["faster", "faster"]
    assert not comparison.regressions


def test_one_round_says_nothing_about_noise():
    def single(row):
        return replace(row, engine=replace(row.engine, latency=make_latency(500, rounds=1)), end_to_end=None)

    slow = replace(single(make_row()), engine=replace(make_row().engine, latency=make_latency(900, rounds=1)))
    (comparison,) = compare([single(make_row())], [replace(slow, end_to_end=None)])
    assert [change.verdict for change in comparison.changes] == ["one round"]
    assert not comparison.regressions


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "failed", "reason": "one class is wrong"}, "fails now: one class is wrong"),
        ({"accuracy": replace(make_row().accuracy, label_agreement=0.998)}, "label agreement fell"),
        ({"accuracy": replace(make_row().accuracy, relative_error=1.1e-5)}, "relative error grew"),
        ({"accuracy": replace(make_row().accuracy, relative_error=float("nan"))}, "relative error grew"),
        ({"cold": replace(make_row().cold, peak_host_mib=3000.0)}, "peak host memory grew"),
    ],
)
def test_other_regressions(changes, words):
    (found,) = regressions([make_row()], [make_row(**changes)])
    assert words in found


@pytest.mark.parametrize(
    "changes",
    [
        {"accuracy": replace(make_row().accuracy, label_agreement=make_row().accuracy.label_agreement - 0.0009)},
        {"accuracy": replace(make_row().accuracy, relative_error=9e-6)},
        {"cold": replace(make_row().cold, peak_host_mib=make_row().cold.peak_host_mib * 1.09)},
        {"accuracy": None, "cold": None},
    ],
)
def test_no_regressions(changes):
    assert not regressions([make_row()], [make_row(**changes)])


def test_a_failed_row_has_no_speed():
    failed = {"status": "failed", "reason": "wrong"}
    (comparison,) = compare([make_row(**failed)], [make_row(slower=3.0, **failed)])
    assert not comparison.changes and not comparison.regressions


@pytest.mark.parametrize("name", ["cpu", "gpu", "torch", "threads of OpenMP"])
def test_other_machines_and_versions_are_not_compared(name):
    before, after = [make_row(seed=1)], [make_row(seed=2, slower=2.0, environment={**ENVIRONMENT, name: "another"})]
    (comparison,) = compare(before, after)
    assert {change.verdict for change in comparison.changes} == {"not comparable"}
    assert not comparison.regressions
    shown = comparison_table([comparison])
    assert shown.startswith("the environments differ:\n") and f"{name}: " in shown and "another after" in shown
    assert regressions(before, after, allow_different_machines=True)


def test_another_commit_is_what_is_compared():
    changed = make_row(seed=2, slower=1.2, environment={**ENVIRONMENT, "git_commit": "another", "pcaseg": "0.2.0"})
    (comparison,) = compare([make_row(seed=1)], [changed])
    assert len(comparison.regressions) == 2
    assert "git_commit" in comparison_table([comparison])


def test_accuracy_counts_on_another_machine():
    worse = make_row(environment={"cpu": "another"}, status="failed", reason="wrong")
    assert regressions([make_row()], [worse])


def test_rows_without_partner_are_listed():
    shared, gone, new = make_row(), make_row("eager"), make_row(point=replace(POINT, classes=59))
    compared = compare([shared, gone], [shared, new])
    assert [(c.before, c.after) for c in compared] == [(shared, shared), (gone, None), (None, new)]
    shown = comparison_table(compared)
    assert "only before: eager, 20 classes" in shown and "only after: folded, 59 classes" in shown


def test_a_backend_that_no_longer_runs_is_shown():
    skipped = replace(skipped_row("folded", "Triton is not installed"))
    assert "ok, now skipped" in comparison_table(compare([make_row()], [skipped]))


def test_of_rows_measured_again_the_newest_counts():
    older = make_row(seed=1, slower=2.0, created="2026-11-24T08:00:00Z")
    assert not regressions([make_row(seed=2)], [make_row(seed=3), older])


def test_nothing_in_common():
    with pytest.raises(RowsError, match="no row in common"):
        compare([make_row()], [make_row("eager")])


def test_samples_that_are_no_rounds():
    broken = replace(make_latency(500), samples_ms=(1.0, 2.0, 3.0))
    row = make_row()
    with pytest.raises(RowsError, match="not 5 rounds of equal length"):
        compare([row], [replace(row, engine=replace(row.engine, latency=broken))])
