"""Two runs of `pcaseg bench` against each other: what became slower, less right or larger, beyond noise."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pcaseg.benchmarks.intervals import unpaired_ratio
from pcaseg.benchmarks.rows import BenchRow, Latency, Ratio, RowsError
from pcaseg.benchmarks.selection import SCOPES, Scope, key_of, latency_of, name_of, newest, point_text
from pcaseg.text_tables import terminal_table

Verdict = Literal["slower", "faster", "same", "one round", "not comparable"]
"""`one round`: nothing is known of the noise between rounds; `not comparable`: the environments differ."""

AGREEMENT_LOSS = 0.001
ERROR_GROWTH, LEAST_ERROR = 2.0, 1e-5
MEMORY_GROWTH = 1.10

FREE_WORDS = {"pcaseg", "git", "commit", "sha256", "clock", "clocks", "mhz", "load", "temperature", "date", "time"}
"""Words in names of the environment that two runs may differ in and still be held against each other: what is
compared, and what a machine does from one minute to the next."""


@dataclass(frozen=True)
class Change:
    """Latency of one scope, after over before.

    Attributes:
        ratio: by `unpaired_ratio`; above 1 is slower. Of the medians where a run has but one round.
        low, high: its 95 % interval; NaN where a run has but one round.
    """

    scope: Scope
    before_ms: float
    after_ms: float
    ratio: float
    low: float
    high: float
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """One backend at one point, before and after; one of the two is None where it has no partner.

    Attributes:
        changes: of the scopes that both measured.
        regressions: what became worse beyond noise, a sentence each.
        differences: what differs in the environment: name, before, after.
    """

    before: BenchRow | None
    after: BenchRow | None
    changes: tuple[Change, ...] = ()
    regressions: tuple[str, ...] = ()
    differences: tuple[tuple[str, str, str], ...] = ()

    @property
    def row(self) -> BenchRow:
        """The later of the two."""
        row = self.after or self.before
        assert row is not None
        return row


def compare(
    before: Sequence[BenchRow],
    after: Sequence[BenchRow],
    *,
    threshold: float = 0.05,
    allow_different_machines: bool = False,
) -> list[Comparison]:
    """Pairs rows by model, backend, computation, precision and point, of several the newest, and judges each pair.

    Latency has regressed if the whole interval of its ratio lies beyond `1 + threshold`, so that noise does not count.

    Args:
        before, after: rows of the two runs.
        threshold: how much slower is still no regression.
        allow_different_machines: whether latencies count although the environments differ.

    Raises:
        RowsError: the runs have nothing in common, or samples cannot be parted into their rounds.
    """
    old, new = ({key_of(row): row for row in newest(rows)} for rows in (before, after))
    if not old.keys() & new.keys():
        raise RowsError(
            "the two runs have no row in common (same preset, backend, computation, precision and point); "
            "measure both with the same options of pcaseg bench"
        )
    pairs = [_pair(old[key], row, threshold, allow_different_machines) for key, row in new.items() if key in old]
    gone = [Comparison(row, None) for key, row in old.items() if key not in new]
    return [*pairs, *gone, *(Comparison(None, row) for key, row in new.items() if key not in old)]


def _pair(before: BenchRow, after: BenchRow, threshold: float, allow_different_machines: bool) -> Comparison:
    differences = _differences(before, after)
    comparable = allow_different_machines or not any(blocks(name) for name, _, _ in differences)
    changes = []
    for scope in SCOPES:
        old, new = latency_of(before, scope), latency_of(after, scope)
        if old and new:
            changes.append(_change(scope, old, new, threshold, comparable))
    regressions = [
        f"{SCOPES[c.scope]} {(c.ratio - 1):.0%} slower (95 % interval {c.low - 1:+.0%} to {c.high - 1:+.0%})"
        for c in changes
        if c.verdict == "slower"
    ]
    regressions += _other_regressions(before, after)
    return Comparison(before, after, tuple(changes), tuple(regressions), differences)


def _change(scope: Scope, before: Latency, after: Latency, threshold: float, comparable: bool) -> Change:
    found = unpaired_ratio(after, before)
    verdict: Verdict = "same"
    if not comparable:
        verdict = "not comparable"
    elif found is None:
        verdict = "one round"
    elif found.low > 1 + threshold:
        verdict = "slower"
    elif found.high < 1 / (1 + threshold):
        verdict = "faster"
    ratio = found or Ratio(after.p50_ms / before.p50_ms, math.nan, math.nan)
    return Change(scope, before.p50_ms, after.p50_ms, ratio.value, ratio.low, ratio.high, verdict)


def _other_regressions(before: BenchRow, after: BenchRow) -> list[str]:
    """Losses apart from time."""
    found = []
    if before.status == "ok" and after.status == "failed":
        found.append(f"was right, fails now: {after.reason}")
    old, new = before.accuracy, after.accuracy
    if old and new:
        if old.label_agreement - new.label_agreement > AGREEMENT_LOSS:
            found.append(f"label agreement fell from {old.label_agreement:.3%} to {new.label_agreement:.3%}")
        limit = max(LEAST_ERROR, ERROR_GROWTH * old.relative_error)  # not a number after: grown; before: no worse now
        if not new.relative_error <= limit and not math.isnan(old.relative_error):
            found.append(f"relative error grew from {old.relative_error:.1e} to {new.relative_error:.1e}")
    if before.cold and after.cold and after.cold.peak_host_mib > MEMORY_GROWTH * before.cold.peak_host_mib:
        found.append(
            f"peak host memory grew from {before.cold.peak_host_mib:,.0f} to {after.cold.peak_host_mib:,.0f} MiB"
        )
    return found


def _differences(before: BenchRow, after: BenchRow) -> tuple[tuple[str, str, str], ...]:
    names = dict.fromkeys((*before.environment, *after.environment))
    values = ((name, before.environment.get(name, "none"), after.environment.get(name, "none")) for name in names)
    return tuple(value for value in values if value[1] != value[2])


def blocks(name: str) -> bool:
    """True where latencies measured with different values of this part of the environment cannot be compared.

    >>> blocks("cpu"), blocks("torch"), blocks("git_commit"), blocks("gpu clocks MHz")
    (True, True, False, False)
    """
    return not FREE_WORDS & set(re.split(r"[^a-z0-9]+", name.lower()))


def comparison_table(comparisons: Iterable[Comparison]) -> str:
    """The comparisons as text for a terminal: differing environments, a line per pair and scope, regressions.

    Args:
        comparisons: of `compare`.
    """
    comparisons = list(comparisons)
    paired = [c for c in comparisons if c.before and c.after]
    lines = _environment_lines(paired)
    headers = ("backend", "classes", "images", "scope", "before ms", "after ms", "ratio", "95 % interval", "verdict")
    table: list[tuple[str, ...]] = []
    for comparison in paired:
        table += [_cells(comparison, change) for change in comparison.changes]
        if not comparison.changes and _status_text(comparison) != "skipped":
            table.append((*_where(comparison), "", "", "", "", "", _status_text(comparison)))
    lines += [terminal_table(headers, table, align="lrrlrrrrl"), ""]
    for title, side in (("only before", "before"), ("only after", "after")):
        alone = [c for c in comparisons if (c.after if side == "before" else c.before) is None]
        lines += [f"{title}: {name_of(c.row)}, {point_text(c.row.point)}, {c.row.status}" for c in alone]
    worse = [(c, regression) for c in paired for regression in c.regressions]
    lines += [f"REGRESSION {name_of(c.row)}, {point_text(c.row.point)}: {regression}" for c, regression in worse]
    if not worse:
        lines.append(f"no regression in {len(paired)} pair{'s' if len(paired) != 1 else ''} of rows")
    return "\n".join(lines) + "\n"


def _environment_lines(paired: Sequence[Comparison]) -> list[str]:
    differing = dict.fromkeys(difference for c in paired for difference in c.differences)
    if not differing:
        return []
    lines = ["the environments differ:"]
    lines += [f"  {name}: {before} before, {after} after" for name, before, after in differing]
    if any(change.verdict == "not comparable" for c in paired for change in c.changes):
        lines.append("so latencies are not compared; accuracy and memory are")
    return [*lines, ""]


def _where(comparison: Comparison) -> tuple[str, str, str]:
    point = comparison.row.point
    return name_of(comparison.row), str(point.classes), str(point.images)


def _status_text(comparison: Comparison) -> str:
    before, after = (row.status if row else "" for row in (comparison.before, comparison.after))
    return before if before == after else f"{before}, now {after}"


def _cells(comparison: Comparison, change: Change) -> tuple[str, ...]:
    interval = "" if math.isnan(change.low) else f"{change.low:.3f} to {change.high:.3f}"
    times = f"{change.before_ms:.2f}", f"{change.after_ms:.2f}", f"{change.ratio:.3f}"
    return (*_where(comparison), SCOPES[change.scope], *times, interval, change.verdict)
