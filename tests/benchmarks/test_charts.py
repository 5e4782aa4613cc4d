"""Charts are well-formed, whole, deterministic and legible."""

from __future__ import annotations

import doctest
import itertools
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from support_rows import HOSTILE

from pcaseg.benchmarks import charts, compare, report_page, report_tables, row_charts, selection, stages, svg
from pcaseg.benchmarks.charts import Bar, Mark, Series, Stack
from pcaseg.benchmarks.svg import Axis

SVG = "{http://www.w3.org/2000/svg}"
LINES = [
    Series("eager", "eager", (Mark(1, 3400.0, 3300.0, 3600.0), Mark(847, 40000.0))),
    Series("folded float16", "folded", (Mark(1, 70.0), Mark(20, 700.0), Mark(847, 9000.0)), dashed=True),
    Series(HOSTILE, "of no backend", (Mark(20, 100.0),), hollow=True),
]
CHARTS = {
    "lines": lambda: charts.line_chart("Lines", "Told.", LINES, x=Axis("classes", "log"), y=Axis("ms", "log")),
    "linear": lambda: charts.line_chart("Lines", "Told.", LINES, x=Axis("classes"), y=Axis(HOSTILE)),
    "scatter": lambda: charts.scatter(HOSTILE, HOSTILE, LINES, x=Axis("classes", "log"), y=Axis("ms", "log")),
    "roofline": lambda: charts.roofline("Roof", "Told.", LINES, gflops=145.0, gb_s=13.0),
    "bars": lambda: charts.bars(
        "Bars",
        "Told.",
        [("Engine", [Bar("folded", "folded", 13.9, "13.9", 13.1, 14.2), Bar(HOSTILE, "?", 0.0, "0")]), ("", [])],
        axis=Axis("ratio"),
        reference=1.0,
    ),
    "stacks": lambda: charts.stacked_bars(
        "Stacks",
        "Told.",
        [Stack("folded", (("encoder", 3.0), (HOSTILE, 1.0)), "4")],
        axis=Axis("ms"),
        names=["encoder"],
    ),
}


@pytest.fixture(params=CHARTS)
def chart(request) -> str:
    return CHARTS[request.param]()


def test_well_formed_and_told(chart):
    root = ElementTree.fromstring(chart)
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert root[0].text and root[1].text
    assert "script" not in {element.tag.removeprefix(SVG) for element in root.iter()}
    assert not re.search(r"(href|src|url\()", chart)


def test_same_input_same_bytes():
    for make in CHARTS.values():
        assert make() == make()


def test_everything_lies_inside(chart):
    root = ElementTree.fromstring(chart)
    width, height = map(float, root.get("viewBox").split()[2:])
    for text in root.iter(f"{SVG}text"):
        assert 0 <= float(text.get("x")) <= width
        assert 0 <= float(text.get("y")) <= height
    for path in root.iter(f"{SVG}path"):
        for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path.get("d")):
            assert -10 <= float(x) <= width and -10 <= float(y) <= height


def test_colours_are_defined_in_both_schemes(chart):
    used = set(re.findall(r"var\((--[\w-]+)\)", chart)) - {"--c"}
    light, dark = chart.split("prefers-color-scheme:dark", 1)
    for name in used:
        assert f"{name}:" in light and f"{name}:" in dark


def test_numbers_are_read_out():
    told = ElementTree.fromstring(CHARTS["lines"]())[1].text
    assert "folded float16: 70 at 1, 700 at 20, 9k at 847" in told


def test_every_mark_is_drawn():
    root = ElementTree.fromstring(CHARTS["scatter"]())
    marks = [e for e in root.iter() if (e.get("class") or "").split()[:1] in (["mark"], ["hollow"])]
    assert len(marks) == sum(len(series.marks) for series in LINES)


def test_more_names_than_places_go_to_a_legend():
    crowd = [Series(f"backend number {n}", "folded", (Mark(1.0, 1.0),)) for n in range(60)]
    drawn = charts.scatter("Crowd", "Told.", crowd, x=Axis("x", "log"), y=Axis("y", "log"))
    texts = [text.text for text in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
    assert all(f"backend number {n}" in texts for n in range(60))


@pytest.mark.parametrize(("low", "high"), [(1e-9, 1e9), (3.0, 3.0), (0.9, 1.1), (1.0, 847.0), (5e-5, 2.0)])
def test_log_axes_hold_their_values(low, high):
    scale = svg.fit(Axis("", "log"), [low, high], 0.0, 100.0)
    assert 0 <= scale(low) <= scale(high) <= 100
    assert 2 <= len(scale.ticks) <= 10
    assert all(0 <= scale(value) <= 100 for value, _ in scale.ticks)


@pytest.mark.parametrize("high", [0.0, 1e-7, 0.3, 1.0, 14.2, 99.9, 100.0, 123456.0])
def test_linear_axes_hold_their_values(high):
    scale = svg.fit(Axis(""), [high], 0.0, 100.0)
    assert scale(0) == 0 and scale(high) <= 100 + 1e-9
    assert 2 <= len(scale.ticks) <= 7


BLINDNESS = {  # Machado, Oliveira and Fernandes 2009, severity 1, linear RGB
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "deuteranopia": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "tritanopia": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = XYZ @ rgb.clip(0, 1) / np.array([0.9505, 1.0, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("blindness", BLINDNESS)
def test_backends_stay_apart_for_every_eye(scheme, blindness):
    seen = {name: lab(np.array(BLINDNESS[blindness]) @ linear(value[scheme])) for name, value in svg.BACKENDS.items()}
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 20, f"{one} and {other} look alike"


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme):
    def contrast(one: str, other: str) -> float:
        low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
        return (high + 0.05) / (low + 0.05)

    paper = svg.INK["bg"][scheme]
    assert all(contrast(value[scheme], paper) >= 3 for value in svg.BACKENDS.values())
    assert all(contrast(svg.INK[name][scheme], paper) >= 4.5 for name in ("ink", "muted"))


def test_no_two_backends_share_a_marker():
    assert len({svg.marker_of(name) for name in svg.BACKENDS}) == len(svg.BACKENDS)


@pytest.mark.parametrize("module", [svg, selection, row_charts, report_page, report_tables, compare])
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_every_stage_has_its_colour_and_its_place():
    assert set(svg.STAGES) == set(stages.STAGES)
