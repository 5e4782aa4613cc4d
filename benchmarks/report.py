"""One self-contained HTML page of measured rows: tables and charts, light and dark, without a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pcaseg.benchmarks import report_tables as tables
from pcaseg.benchmarks import row_charts
from pcaseg.benchmarks.report_page import figure, figures, page, section, text
from pcaseg.benchmarks.row_charts import times
from pcaseg.benchmarks.rows import BenchRow, Point, RowsError
from pcaseg.benchmarks.selection import (
    SCOPES,
    RowGroup,
    Scope,
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
from pcaseg.benchmarks.svg import escaped

WEIGHTS = {
    "seeded": "The weights are drawn from a seed, not trained: times, memory and agreement between backends are real, "
    "the labels mean nothing.",
    "clip-only": "CLIP's weights are real, the aggregator's are drawn from a seed: times, memory and agreement between "
    "backends are real, the labels mean nothing.",
}

MOST_SETTINGS = 4
"""Settings of which a sweep is drawn; the tables hold all."""

CONTENTS = (
    ("summary", "Summary"),
    ("classes", "Vocabulary size"),
    ("images", "Images per call"),
    ("stages", "Stages"),
    ("accuracy", "Accuracy"),
    ("roofline", "Roofline"),
    ("points", "All points"),
    ("skipped", "Skipped"),
    ("environment", "Environment"),
    ("columns", "What the columns mean"),
)


def html_report(rows: Sequence[BenchRow]) -> str:
    """The page.

    Args:
        rows: of one or several runs. Rows of different models, weights or machines stand apart; of rows that measure
            the same, the newest counts.

    Raises:
        RowsError: there are none.
    """
    if not rows:
        raise RowsError("there are no rows to report; measure some with pcaseg bench")
    found = row_groups(rows)
    body = [_headline(found), _contents(), section("summary", "Summary", *(_summary(s, found) for s in found))]
    body += [_vocabulary(found), _throughput(found), _stages(found), _accuracy(found), _roofline(found)]
    body += [_every_point(found), _skipped(rows), _environment(found)]
    body.append(section("columns", "What the columns mean", tables.columns_list()))
    return page(f"pcaseg bench: {found[0].model} on {found[0].machine}", "".join(body))


def _headline(found: Sequence[RowGroup]) -> str:
    """What a reader in a hurry needs: what was measured, who wins, by how much, and whether to believe it."""
    days = sorted({row.created[:10] for group in found for row in group.rows})
    period = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    parts = [f'<header><p class="eyebrow">pcaseg bench, {escaped(period)}</p>']
    first = found[0]
    more = "" if len(found) == 1 else f" and {len(found) - 1} more"
    parts.append(f"<h1>{escaped(first.model)} on {escaped(first.machine)}{more}</h1>")
    for group in found:
        named = "" if len(found) == 1 else f"{group.model} on {group.machine}: "
        parts.append(f'<p class="answer">{escaped(named)}{_answer(group)}</p>')
    parts.append(_facts(found))
    parts.append(_failures(found))
    for kind in sorted({row.weights for group in found for row in group.rows} & set(WEIGHTS)):
        parts.append(f'<p class="banner warn">{escaped(WEIGHTS[kind])}</p>')
    return "".join(parts) + "</header>"


def _answer(group: RowGroup) -> str:
    """The fastest right backend in one sentence, as HTML."""
    point = main_point(group.rows)
    if point is None:
        return "No backend ran and is right, so there is no speed to speak of."
    at = [row for row in group.rows if row.point == point]
    scope: Scope = "end_to_end" if fastest(at, "end_to_end") else "engine"
    row = fastest(at, scope)
    ratio = row and ratio_of(row, scope)
    classes = f"{point.classes} class{'es' if point.classes != 1 else ''}"
    if row is None or ratio is None:
        return f"At {escaped(classes)} no ratio to eager float32 is both right and quiet enough to be quoted."
    if ratio.low <= 1:
        return f"At {escaped(classes)} no backend that is right is clearly faster than eager float32."
    latency, eager = latency_of(row, scope), next((row for row in at if is_eager(row)), None)
    reference = eager and latency_of(eager, scope)
    waited = f": {_duration(latency.p50_ms)} instead of {_duration(reference.p50_ms)}" if latency and reference else ""
    published = (
        "the published model, eager in float32" if eager and eager.computation == "published" else "eager float32"
    )
    interval = f"95\N{NO-BREAK SPACE}% interval {times(ratio.low)[:-1]} to {times(ratio.high)[:-1]}"
    return (
        f"At {escaped(classes)} the fastest backend that is right is <strong>{escaped(name_of(row))}</strong>, "
        f"<strong>{times(ratio.value)}</strong> as fast as {published} ({interval}), "
        f"{SCOPES[scope]}{waited} per call."
    )


def _duration(ms: float) -> str:
    return f"{ms / 1000:.3g} s" if ms >= 1000 else f"{ms:.3g} ms"


def _facts(found: Sequence[RowGroup]) -> str:
    """How many backends are right, noisy, failed and skipped."""
    rows = [row for group in found for row in group.rows]
    by_backend: dict[str, Counter[str]] = {}
    for row in rows:
        by_backend.setdefault(name_of(row), Counter())[row.status] += 1
    failed = sum(1 for counts in by_backend.values() if counts["failed"])
    right = sum(1 for counts in by_backend.values() if counts["ok"] and not counts["failed"])
    facts = [
        ("backends right everywhere", right, ""),
        ("backends that failed", failed, "failed" if failed else ""),
        ("backends skipped", len(by_backend) - right - failed, ""),
        ("noisy rows", sum(1 for row in rows if row.noise), ""),
        ("points measured", len({row.point for row in rows if row.status != "skipped"}), ""),
    ]
    listed = "".join(f'<div><dt>{name}</dt><dd class="{kind}">{n}</dd></div>' for name, n, kind in facts)
    return f'<dl class="facts">{listed}</dl>'


def _failures(found: Sequence[RowGroup]) -> str:
    failed = [row for group in found for row in group.rows if row.status == "failed"]
    if not failed:
        return ""
    grouped: dict[tuple[str, str], list[str]] = {}
    for row in failed:
        grouped.setdefault((name_of(row), row.reason), []).append(point_text(row.point).split(", ")[0])
    items = "".join(
        f"<li>{escaped(name)}, at {escaped(', '.join(dict.fromkeys(at)))}: {escaped(reason)}</li>"
        for (name, reason), at in grouped.items()
    )
    return (
        f'<div class="banner bad" role="alert"><strong>{len(failed)} row{"s" if len(failed) > 1 else ""} failed: '
        f"fast or not, these results are not right.</strong><ul>{items}</ul></div>"
    )


def _contents() -> str:
    links = " ".join(f'<a href="#{name}">{title}</a>' for name, title in CONTENTS)
    return f'<nav aria-label="Contents">{links}</nav>'


def _summary(group: RowGroup, found: Sequence[RowGroup]) -> str:
    """The point of the headline: its ratios and its table."""
    point = main_point(group.rows)
    if point is None:
        return _named(group, found) + text("Nothing that ran is right.")
    at = [row for row in group.rows if row.point == point]
    groups: list[tuple[str, Sequence[BenchRow], Scope]] = [(SCOPES[s].capitalize(), at, s) for s in SCOPES]
    chart = row_charts.speedup_chart(groups, point_text(point))
    caption = "The dotted line is eager float32. Thin marks at the ends of bars are 95 % intervals."
    drawn = figures(figure(chart, caption)) if chart else text("Measure eager too, to get ratios to it.")
    older = text(f"{group.older} older rows of the same measurements are left out.") if group.older else ""
    return _named(group, found) + text(f"{point_text(point)}.") + older + tables.point_table(group.rows, point) + drawn


def _vocabulary(found: Sequence[RowGroup]) -> str:
    drawn = []
    for group in found:
        for setting, rows in sweeps(group.rows, "classes")[:MOST_SETTINGS]:
            for scope in SCOPES:
                chart = row_charts.latency_chart(rows, setting, scope)
                drawn.append((chart, _caption(group, found, setting)))
    return _charts(
        "classes",
        "Latency against vocabulary size",
        "How long a call takes when more classes are asked for. Published computations pad every vocabulary to 256 "
        "classes, so their time does not fall with it. Uprights reach from the fastest call to the 90th percentile.",
        drawn,
        "To see it, measure at least two vocabulary sizes.",
    )


def _throughput(found: Sequence[RowGroup]) -> str:
    drawn = []
    for group in found:
        for setting, rows in sweeps(group.rows, "images")[:MOST_SETTINGS]:
            drawn.append((row_charts.throughput_chart(rows, setting), _caption(group, found, setting)))
    return _charts(
        "images",
        "Throughput against images per call",
        "Whether several images in one call are cheaper than one after the other; a level line says that they are not.",
        drawn,
        "To see it, measure at least two numbers of images per call.",
    )


def _stages(found: Sequence[RowGroup]) -> str:
    parts = []
    for group in found:
        point = main_point(group.rows)
        if point and (chart := row_charts.stages_chart(group.rows, point, "ms")):
            shares = row_charts.stages_chart(group.rows, point, "percent") or ""
            caption = _caption(group, found, point)
            parts.append(figures(figure(chart, caption), figure(shares, caption)))
            parts.append(tables.stage_table(group.rows, point))
    said = text(
        "Medians of each stage of one image, and the share that each has. What a graph does inside cannot be parted; "
        "there the network is one stage, engine."
    )
    lacking = text("To see it, measure with one image per call, which times the stages.")
    return section("stages", "Where the time goes", *([said, *parts] if parts else [lacking]))


def _accuracy(found: Sequence[RowGroup]) -> str:
    drawn = []
    for group in found:
        if point := main_point(group.rows):
            drawn.append((row_charts.accuracy_chart(group.rows, point), _caption(group, found, point)))
    return _charts(
        "accuracy",
        "Speed against accuracy",
        "Fast is up, right is left. Hollow marks failed their gate; an error of 0 stands at the left edge.",
        drawn,
        "To see it, measure at least two backends at one point, one of which differs from eager float32.",
    )


def _roofline(found: Sequence[RowGroup]) -> str:
    drawn = []
    for group in found:
        for setting, rows in sweeps(group.rows, "classes")[:1] or _alone(group):
            drawn.append((row_charts.roofline_chart(rows, setting), _caption(group, found, setting)))
    return _charts(
        "roofline",
        "Roofline",
        "How near each backend comes to what the machine can do. The slope is the speed of memory, the level the speed "
        "of a large float32 matrix product, both measured in the same run; a lower precision may rise above it. "
        "Operations and bytes are those that the computation cannot avoid, a mark for each vocabulary size.",
        drawn,
        "To see it, measure with operation counts and the machine's own speed, which pcaseg bench does by default.",
    )


def _alone(group: RowGroup) -> list[tuple[Point, list[BenchRow]]]:
    point = main_point(group.rows)
    return [(point, [row for row in group.rows if row.point == point])] if point else []


def _every_point(found: Sequence[RowGroup]) -> str:
    parts = []
    for group in found:
        for point in points_of(row for row in group.rows if row.status != "skipped"):
            parts.append(f"<h3>{escaped(_caption(group, found, point))}</h3>")
            parts.append(tables.point_table(group.rows, point))
    return section("points", "All points", text("Click a heading to sort by it."), *parts)


def _skipped(rows: Sequence[BenchRow]) -> str:
    if not any(row.status == "skipped" for row in rows):
        return section("skipped", "Skipped backends", text("None: everything asked for ran."))
    said = text("These cannot run on this machine as it is.")
    return section("skipped", "Skipped backends", said, tables.skipped_table(rows))


def _environment(found: Sequence[RowGroup]) -> str:
    parts = [
        _named(group, found) + tables.environment_table(group.rows) + tables.engine_table(group.rows) for group in found
    ]
    return section("environment", "Environment", *parts)


def _charts(name: str, title: str, said: str, drawn: Sequence[tuple[str | None, str]], lacking: str) -> str:
    """A section of figures, or what to measure to get them."""
    shown = [(chart, caption) for chart, caption in drawn if chart]
    if len(shown) == 1:
        return section(name, title, figures(figure(shown[0][0], said, shown[0][1])))
    return section(
        name, title, *([text(said), figures(*(figure(*pair) for pair in shown))] if shown else [text(lacking)])
    )


def _caption(group: RowGroup, found: Sequence[RowGroup], point: Point) -> str:
    """A point in words, with its group where there are several."""
    words = point_text(point)
    return _capital(words) if len(found) == 1 else f"{group.model} on {group.machine}: {words}."


def _capital(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _named(group: RowGroup, found: Sequence[RowGroup]) -> str:
    return "" if len(found) == 1 else f"<h3>{escaped(group.model)} on {escaped(group.machine)}</h3>"
