"""One self-contained HTML page of measured rows: tables and charts, light and dark, without a network.

What the page says stands in `templates/report.html`; this module chooses the rows, charts and tables that it shows.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pcaseg.benchmarks import report_tables as tables
from pcaseg.benchmarks import row_charts
from pcaseg.benchmarks.charts import Chart
from pcaseg.benchmarks.row_charts import times
from pcaseg.benchmarks.rows import BenchRow, Point, RowsError
from pcaseg.benchmarks.selection import (
    SCOPES,
    RowGroup,
    Scope,
    counted,
    fastest,
    is_eager,
    latency_of,
    main_point,
    name_of,
    point_text,
    points_of,
    ratio_of,
    row_groups,
    sweeps,
)
from pcaseg.errors import MissingDependencyError, install_hint

MARK = '<meta name="generator" content="pcaseg report">'
"""Tells our pages from others: nothing else is ever replaced."""

MOST_SETTINGS = 4
"""Settings of which a sweep is drawn; the tables hold all."""


@dataclass(frozen=True)
class ReportFigure:
    """A chart and the setting that it shows."""

    chart: Chart
    caption: str


@dataclass(frozen=True)
class ReportAnswer:
    """Answer for a reader in a hurry: the fastest right backend of a group, or in `instead` why there is none."""

    instead: str = ""
    classes: str = ""
    name: str = ""
    ratio: str = ""
    interval: str = ""
    reference: str = ""
    scope: str = ""
    waited: str = ""


@dataclass(frozen=True)
class ReportGroup:
    """A model on a machine, as the page shows it.

    Attributes:
        name: empty where the page has no other.
        group: its rows.
        point: of which the page speaks first; None where nothing is right.
    """

    name: str
    group: RowGroup
    point: Point | None

    @property
    def rows(self) -> tuple[BenchRow, ...]:
        """All rows."""
        return self.group.rows

    @property
    def at_point(self) -> list[BenchRow]:
        """Rows at the point of which the page speaks first."""
        return [row for row in self.rows if row.point == self.point]

    def caption(self, point: Point) -> str:
        """A point in words, with its group where there are several."""
        words = point_text(point)
        return f"{self.name}: {words}." if self.name else f"{words[0].upper()}{words[1:]}."

    def figures(self, section: str) -> list[ReportFigure]:
        """Every chart of a section that the rows can fill."""
        drawn = ((chart, point) for name, chart, point in _charts(self) if name == section)
        return [ReportFigure(chart, self.caption(point)) for chart, point in drawn if chart]


def html_report(rows: Sequence[BenchRow]) -> str:
    """The page.

    Args:
        rows: of one or several runs. Rows of different models, weights or machines stand apart; of rows that measure
            the same, the newest counts.

    Raises:
        MissingDependencyError: Jinja2 or matplotlib is not installed.
        RowsError: there are none.
    """
    if not rows:
        raise RowsError("there are no rows to report; measure some with pcaseg bench")
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingDependencyError(f"this needs the package Jinja2; {install_hint('benchmarks')}") from error
    environment = Environment(
        loader=PackageLoader("pcaseg.benchmarks"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_typeset,
    )
    held = row_groups(rows)
    found = [ReportGroup(_title(one) if len(held) > 1 else "", one, main_point(one.rows)) for one in held]
    return environment.get_template("report.html").render(
        mark=MARK,
        title=_title(held[0]),
        more=len(held) - 1,
        days=sorted({row.created[:10] for group in held for row in group.rows}),
        groups=found,
        facts=_facts(held),
        failures=_failures(held),
        weights=sorted({row.weights for group in held for row in group.rows}),
        answer=_answer,
        tables=tables,
        points_of=points_of,
        point_text=point_text,
        rows=rows,
    )


def _title(group: RowGroup) -> str:
    return f"{group.model} on {group.machine}"


def _typeset(value: object) -> object:
    """Text without characters that a page cannot hold, in which no percent sign starts a line; markup as it is."""
    if type(value) is not str:
        return value
    return re.sub("[\\x00-\\x08\\x0b\\x0c\\x0e-\\x1f\\ud800-\\udfff]", "\ufffd", value).replace(" %", "\xa0%")


def _answer(shown: ReportGroup) -> ReportAnswer:
    if shown.point is None:
        return ReportAnswer("No backend ran and is right, so there is no speed to speak of.")
    scope: Scope = "end_to_end" if fastest(shown.at_point, "end_to_end") else "engine"
    row = fastest(shown.at_point, scope)
    ratio = ratio_of(row, scope) if row else None
    classes = counted(shown.point.classes, "class", "classes")
    if row is None or ratio is None:
        return ReportAnswer(f"At {classes} no ratio to eager float32 is both right and quiet enough to be quoted.")
    if ratio.low <= 1:
        return ReportAnswer(f"At {classes} no backend that is right is clearly faster than eager float32.")
    eager = next((row for row in shown.at_point if is_eager(row)), None)
    published = eager is not None and eager.computation == "published"
    latency, before = latency_of(row, scope), latency_of(eager, scope) if eager else None
    return ReportAnswer(
        classes=classes,
        name=name_of(row),
        ratio=times(ratio.value),
        interval=f"{times(ratio.low)[:-1]} to {times(ratio.high)[:-1]}",
        reference="the published model, eager in float32" if published else "eager float32",
        scope=SCOPES[scope],
        waited=f": {_duration(latency.p50_ms)} instead of {_duration(before.p50_ms)}" if latency and before else "",
    )


def _duration(ms: float) -> str:
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"


def _facts(found: Sequence[RowGroup]) -> list[tuple[str, int, str]]:
    """Numbers of backends that are right, noisy, failed and skipped: name, number and class of the style sheet."""
    rows = [row for group in found for row in group.rows]
    by_backend: dict[str, Counter[str]] = {}
    for row in rows:
        by_backend.setdefault(name_of(row), Counter())[row.status] += 1
    failed = sum(1 for counts in by_backend.values() if counts["failed"])
    right = sum(1 for counts in by_backend.values() if counts["ok"] and not counts["failed"])
    return [
        ("backends right everywhere", right, ""),
        ("backends that failed", failed, "failed" if failed else ""),
        ("backends skipped", len(by_backend) - right - failed, ""),
        ("noisy rows", sum(1 for row in rows if row.noise), ""),
        ("points measured", len({row.point for row in rows if row.status != "skipped"}), ""),
    ]


def _failures(found: Sequence[RowGroup]) -> dict[tuple[str, str], list[str]]:
    """Points at which rows failed, by backend and reason."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for row in (row for group in found for row in group.rows if row.status == "failed"):
        grouped.setdefault((name_of(row), row.reason), []).append(point_text(row.point).split(", ")[0])
    return grouped


def _charts(shown: ReportGroup) -> Iterator[tuple[str, Chart | None, Point]]:
    """Section, chart and setting of all charts of a group."""
    by_classes = sweeps(shown.rows, "classes")
    for setting, rows in by_classes[:MOST_SETTINGS]:
        for scope in SCOPES:
            yield "classes", row_charts.latency_chart(rows, setting, scope), setting
    for setting, rows in sweeps(shown.rows, "images")[:MOST_SETTINGS]:
        yield "images", row_charts.throughput_chart(rows, setting), setting
    if point := shown.point:
        groups: list[tuple[str, Sequence[BenchRow], Scope]] = [
            (SCOPES[s].capitalize(), shown.at_point, s) for s in SCOPES
        ]
        yield "summary", row_charts.speedup_chart(groups, point_text(point)), point
        for unit in row_charts.UNITS:
            yield "stages", row_charts.stages_chart(shown.rows, point, unit), point
        yield "accuracy", row_charts.accuracy_chart(shown.rows, point), point
        for setting, rows in by_classes[:1] or [(point, shown.at_point)]:
            yield "roofline", row_charts.roofline_chart(rows, setting), setting
