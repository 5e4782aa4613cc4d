"""Charts are well-formed, whole, deterministic and legible."""

from __future__ import annotations

import doctest
import itertools
import re
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from support_rows import HOSTILE

from pcaseg.benchmarks import chart_colours, charts, compare, report_tables, row_charts, selection, stages
from pcaseg.benchmarks.charts import BarsChart, ChartAxis, ChartBar, ChartMark, ChartSeries, MarksChart
from pcaseg.errors import MissingDependencyError

SVG = "{http://www.w3.org/2000/svg}"
LINES = (
    ChartSeries("eager", "eager", (ChartMark(1, 3400.0, 3300.0, 3600.0), ChartMark(847, 40000.0))),
    ChartSeries("folded float16", "folded", (ChartMark(1, 70.0), ChartMark(20, 700.0), ChartMark(847, 9000.0)), True),
    ChartSeries(HOSTILE, "of no backend", (ChartMark(20, 100.0),), hollow=True),
)
LOG = ChartAxis("classes", "log"), ChartAxis("ms", "log")
FOLDED = ChartBar("folded", (("folded", 13.9),), "13.9", 13.1, 14.2)
CHARTS = {
    "lines": MarksChart("Lines", "Told.", LINES, *LOG),
    "linear": MarksChart("Lines", "Told.", LINES, ChartAxis("classes"), ChartAxis(HOSTILE)),
    "marks": MarksChart(HOSTILE, HOSTILE, LINES, *LOG, joined=False),
    "roofline": MarksChart("Roof", "Told.", LINES, *LOG, joined=False, roofs=("roofs", 145.0, 13.0)),
    "bars": BarsChart(
        "Bars",
        "Told.",
        (("Engine", (FOLDED, ChartBar(HOSTILE, (("?", 0.0),), "0"))), ("", (FOLDED,))),
        ChartAxis("ratio"),
        reference=1.0,
    ),
    "stacks": BarsChart(
        "Stacks",
        "Told.",
        (("", (ChartBar("folded", (("encoder", 3.0), (HOSTILE, 1.0)), "4"),)),),
        ChartAxis("ms"),
        legend=("encoder", HOSTILE),
    ),
}


@pytest.fixture(scope="module")
def drawn() -> dict[str, str]:
    return {name: chart.svg() for name, chart in CHARTS.items()}


@pytest.fixture(params=CHARTS)
def chart(request, drawn) -> str:
    return drawn[request.param]


def test_well_formed_and_told(chart):
    root = ElementTree.fromstring(chart)
    assert root.tag == f"{SVG}svg" and root.get("role") == "img"
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]
    assert root[0].text and root[1].text
    assert "script" not in {element.tag.removeprefix(SVG) for element in root.iter()}
    assert not re.search(r"(href=\"|url\(|src=\")(?!#)", chart)


@pytest.mark.parametrize("name", ["lines", "bars"])
def test_same_input_same_bytes(drawn, name):
    assert drawn[name] == CHARTS[name].svg()


def test_everything_lies_inside(chart):
    root = ElementTree.fromstring(chart)
    width, height = map(float, root.get("viewBox").split()[2:])
    for element in (*root.iter(f"{SVG}text"), *root.iter(f"{SVG}use")):
        assert 0 <= float(element.get("x")) <= width
        assert 0 <= float(element.get("y")) <= height


def test_colours_follow_the_scheme(chart):
    light, dark = ElementTree.fromstring(chart).find(f"{SVG}style").text.split("prefers-color-scheme:dark")
    used = set(re.findall(r"var\((--[\w-]+)\)", chart))
    assert len(used) > 4
    assert all(f"{name}:" in light and f"{name}:" in dark for name in used)
    assert not re.search(r"(fill|stroke): *(#|rgb|black|white)", chart), "a colour that stays as it is"


def test_ids_are_unique_in_a_page_of_charts(drawn):
    ids = re.findall(r'\bid="([^"]*)"', "".join(drawn.values()))
    assert len(ids) == len(set(ids)) > 10
    for chart in drawn.values():
        own = set(re.findall(r'\bid="([^"]*)"', chart))
        assert set(re.findall(r'(?:href="|url\()#([^")]*)', chart)) <= own


def test_texts_are_texts(chart):
    """A name may look like formulas or markup and stays what it is."""
    assert 'd="M' not in "".join(re.findall(r"<text.*?</text>", chart))
    odd = MarksChart("$a$", "Told.", (ChartSeries("$b_1$ <b>", "eager", (ChartMark(1, 1),)),), *LOG).svg()
    texts = [text.text for text in ElementTree.fromstring(odd).iter(f"{SVG}text")]
    assert "$a$" in texts and "$b_1$ <b>" in texts


def test_numbers_are_read_out(drawn):
    told = ElementTree.fromstring(drawn["lines"])[1].text
    assert "folded float16: 70 at 1, 700 at 20, 9k at 847" in told
    assert "Engine: folded 13.9" in CHARTS["bars"].told() and "folded encoder 3" in CHARTS["stacks"].told()


@pytest.mark.parametrize("name", ["lines", "marks"])
def test_every_mark_is_drawn(drawn, name):
    root = ElementTree.fromstring(drawn[name])
    marks = [use for group in root.iter(f"{SVG}g") if group.get("class") == "marks" for use in group.iter(f"{SVG}use")]
    assert len(marks) == sum(len(series.marks) for series in LINES)


def test_every_bar_has_its_length(drawn):
    root = ElementTree.fromstring(drawn["stacks"])
    bars = [group[0].get("d") for group in root.iter(f"{SVG}g") if group.get("class") == "bar"]
    spans = [[float(x) for x in re.findall(r"[ML] ([\d.]+) ", path)] for path in bars]
    first, second = (max(xs) - min(xs) for xs in spans)
    assert first == pytest.approx(3 * second, rel=1e-3)
    assert max(spans[0]) == pytest.approx(min(spans[1]), abs=1e-3)


@pytest.mark.parametrize("values", [(1e-9, 1e9), (3.0, 3.0), (0.9, 1.1), (1.0, 847.0), (5e-5, 2.0)])
def test_axes_hold_their_values_and_have_ticks(values):
    series = (ChartSeries("s", "eager", tuple(ChartMark(value, value) for value in values)),)
    root = ElementTree.fromstring(MarksChart("", "", series, ChartAxis("", "log"), ChartAxis("")).svg())
    assert 4 <= len([text for text in root.iter(f"{SVG}text") if re.match(r"[\d.]", text.text or "")]) <= 30
    (clip,) = (rect for rect in root.iter(f"{SVG}rect") if rect.get("height"))
    left, top = float(clip.get("x")), float(clip.get("y"))
    for group in (group for group in root.iter(f"{SVG}g") if group.get("class") == "marks"):
        for use in group.iter(f"{SVG}use"):
            assert left <= float(use.get("x")) <= left + float(clip.get("width"))
            assert top <= float(use.get("y")) <= top + float(clip.get("height"))


def test_a_readers_settings_of_matplotlib_neither_matter_nor_change(drawn):
    import matplotlib

    with matplotlib.rc_context({"font.size": 33, "axes.facecolor": "#123456"}):
        assert CHARTS["bars"].svg() == drawn["bars"]
        assert matplotlib.rcParams["font.size"] == 33


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r'matplotlib; .*pip install "\.\[benchmarks\]"'):
        CHARTS["lines"].svg()


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
    seen = {
        name: lab(np.array(BLINDNESS[blindness]) @ linear(value[scheme]))
        for name, value in chart_colours.BACKENDS.items()
    }
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 20, f"{one} and {other} look alike"


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast(scheme):
    def contrast(one: str, other: str) -> float:
        low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (one, other))
        return (high + 0.05) / (low + 0.05)

    paper = chart_colours.INK["bg"][scheme]
    assert all(contrast(value[scheme], paper) >= 3 for value in chart_colours.BACKENDS.values())
    assert all(contrast(chart_colours.INK[name][scheme], paper) >= 4.5 for name in ("ink", "muted"))


def test_no_two_backends_share_a_marker():
    assert len({chart_colours.marker(name) for name in chart_colours.BACKENDS}) == len(chart_colours.BACKENDS)


@pytest.mark.parametrize("module", [charts, selection, row_charts, report_tables, compare])
def test_examples(module):
    result = doctest.testmod(module)
    assert result.attempted and not result.failed


def test_every_stage_has_its_colour_and_its_place():
    assert set(chart_colours.STAGES) == set(stages.STAGES)


def test_every_light_colour_is_one_variable():
    light = [pair[0] for pair in chart_colours.colours().values()]
    assert len(light) == len(set(light))
