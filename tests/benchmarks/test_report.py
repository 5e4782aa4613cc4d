"""The page says what the rows say, and nothing in a row becomes markup."""

from __future__ import annotations

import functools
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from support_rows import POINT, hostile_rows, make_row, make_rows, skipped_row

from pcaseg.benchmarks.charts import Chart
from pcaseg.benchmarks.plots import pictures_match, plots, write_pictures
from pcaseg.benchmarks.report import html_report
from pcaseg.benchmarks.rows import RowsError
from pcaseg.benchmarks.selection import fastest, main_point, row_groups, sweeps
from pcaseg.errors import MissingDependencyError


class Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not close in order."""

    VOID = ("meta", "link")

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"script", "style", "svg"} & set(self.open) or self.open[-1] == "text":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


@pytest.fixture(autouse=True, scope="module")
def drawn_once():
    """Each chart is drawn once: that the same chart gives the same bytes is held in `test_charts`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Chart, "svg", functools.cache(Chart.svg))
        yield


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(html_report(make_rows()))


def test_headline(page):
    assert "eva-b-384 (PCA-Seg) on AMD EPYC 9B14" in page.text
    assert re.search(
        r"At 59 classes the fastest backend that is right is folded , 13\.\d× as fast as the published model", page.text
    )
    assert re.search(r"95 % interval 1\d\.\d to 1\d\.\d\), end to end: 1\.0\d s instead of 14\.\d s", page.text)


def test_failures_and_weights_are_said_at_the_top(page):
    top = page.text[: page.text.index("Summary")]
    assert "4 rows failed: fast or not, these results are not right." in top
    assert "eager-autocast bfloat16, at 1 class, 20 classes, 59 classes, 150 classes: relative error 7.1e-03" in top
    assert "the labels mean nothing" in top


def test_nothing_to_warn_of():
    text = Page(html_report([make_row("eager", weights="checkpoint"), make_row(weights="checkpoint")])).text
    assert "failed: fast" not in text and "labels mean nothing" not in text


def test_every_section_is_there(page):
    names = [attributes.get("id") for tag, attributes in page.tags if tag == "section"]
    links = [attributes["href"][1:] for tag, attributes in page.tags if tag == "a"]
    assert names == links
    assert len(names) == 10


def test_charts(page):
    assert sum(tag == "svg" for tag, _ in page.tags) == 8
    for title in (
        "How many times as fast",
        "Latency against",
        "Throughput",
        "Where the time goes",
        "Speed",
        "Roofline",
    ):
        assert any(text.startswith(title) for text in page.texts)


def test_what_the_rows_cannot_fill_is_said():
    page = Page(html_report([make_row(stages_ms={}, machine=None, accuracy=None, engine=None, end_to_end=None)]))
    assert not any(tag == "svg" for tag, _ in page.tags)
    assert page.text.count("To see it, measure") == 5
    assert "No backend ran and is right" in page.text


def test_skipped_backends_have_reasons(page):
    assert "Triton kernels need a CUDA device" in page.text
    assert "skipped here: folded-triton, onnxruntime-cuda, onnxruntime-tensorrt, tensorrt" in page.text


def test_only_skipped_rows():
    assert "No backend ran" in Page(html_report([skipped_row("tensorrt", "no GPU")])).text


def test_noise_is_said(page):
    assert "eager-compiled is noisy: its rounds differ by 14 %" in page.text
    assert "ok, noisy" in page.texts


def test_a_noisy_ratio_is_never_the_headline():
    rows = [make_row("eager"), make_row(noise=0.01), make_row("onnxruntime-cpu")]
    noisy = [replace(row, noise="too wide") if row.backend == "folded" else row for row in rows]
    assert fastest(noisy, "engine").backend == "onnxruntime-cpu"


def test_a_failed_row_is_never_the_headline():
    failed = make_row(status="failed", reason="one class is wrong", slower=0.01)
    assert fastest([make_row("eager"), make_row("onnxruntime-cpu"), failed], "engine").backend == "onnxruntime-cpu"


def test_slower_than_eager_is_said():
    slow = make_row(slower=100.0)
    assert "no backend that is right is clearly faster" in Page(html_report([make_row("eager"), slow])).text


def test_a_failed_rows_ratio_is_not_shown():
    source = html_report([make_row("eager"), make_row(status="failed", reason="wrong")])
    body = source[source.index('id="summary"') : source.index('id="classes"')]
    assert body.count("\N{MULTIPLICATION SIGN}</td>") == 2, "eager's own, engine and end to end"


def test_hostile_text_stays_text():
    source = html_report(hostile_rows())
    page = Page(source)
    assert "alert(1)" in page.text
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert source.count("<script>alert") == 0
    assert "\x00" not in source
    source.encode("utf-8")
    for _, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]


def test_no_network(page):
    for tag, attributes in page.tags:
        assert tag not in ("img", "iframe", "object", "embed")
        assert not attributes.get("src") and (attributes.get("href") or "#").startswith(("#", "data:"))


def test_charts_of_a_page_share_no_ids(page):
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingDependencyError, match=r'Jinja2; .*pip install "\.\[benchmarks\]"'):
        html_report([make_row()])


def test_numbers_sort_by_value(page):
    cells = [attributes["data-value"] for tag, attributes in page.tags if "data-value" in attributes]
    assert len(cells) > 300
    assert all(float(cell) == float(cell) for cell in cells)


def test_same_rows_same_page():
    assert html_report(make_rows()) == html_report(make_rows())


def test_no_rows():
    with pytest.raises(RowsError, match="no rows"):
        html_report([])


def test_two_machines_stand_apart():
    rows = [make_row("eager"), make_row(), make_row(environment={"cpu": "a Raspberry"})]
    assert [group.machine for group in row_groups(rows)] == ["AMD EPYC 9B14", "a Raspberry"]
    assert "eva-b-384 (PCA-Seg) on a Raspberry: At 20 classes" in Page(html_report(rows)).text


def test_rows_measured_again_replace_older_ones():
    (group,) = row_groups([make_row(seed=1), make_row(seed=2, created="2026-11-26T08:00:00Z")])
    assert group.older == 1
    assert group.rows[0].created.startswith("2026-11-26")


def test_the_point_to_speak_of_has_most_backends():
    rows = [*make_rows(), *(make_row("folded", replace(POINT, strategy="sliding", classes=n)) for n in range(30))]
    assert main_point(rows) == replace(POINT, classes=59)


def test_sweeps_differ_in_one_quantity():
    ((setting, members), *others) = sweeps(make_rows(), "classes")
    assert not others
    assert {row.point.classes for row in members} == {1, 20, 59, 150, 256, 847}
    assert setting == replace(POINT, classes=0)


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf"), -1.0])
def test_odd_numbers_do_not_stop_the_page(value):
    row = make_row()
    latency = replace(row.engine.latency, p50_ms=value, min_ms=value, p90_ms=value, per_s=value)
    odd = replace(
        row,
        engine=replace(
            row.engine, latency=latency, ratio=replace(row.engine.ratio, value=value, low=value, high=value)
        ),
        end_to_end=None,
        accuracy=replace(row.accuracy, relative_error=value, label_agreement=value),
        stages_ms={"engine": value},
        gmac=value,
        least_mb=value,
        machine=replace(row.machine, matmul_gflops=value),
    )
    others = [make_row(point=replace(POINT, classes=n)) for n in (1, 5)]
    Page(html_report([make_row("eager"), odd, *others]))


def test_plots_are_written_and_checked(tmp_path):
    drawn = plots(make_rows())
    assert not pictures_match(drawn, tmp_path)
    assert [path.name for path in write_pictures(drawn, tmp_path)] == ["latency.svg", "speedup.svg"]
    assert pictures_match(drawn, tmp_path)
    others = [make_row(backend, POINT, seed=5) for backend in ("eager", "folded")]
    assert not pictures_match(plots(others + make_rows()[:8]), tmp_path)


@pytest.mark.parametrize("old, new", [("<path", "<path "), ("</svg>", "</svg> "), ("-->", "--> "), (None, "another")])
def test_a_plot_that_was_changed_matches_nothing(tmp_path, old, new):
    drawn = {"latency.svg": plots(make_rows())["latency.svg"]}
    (path,) = write_pictures(drawn, tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace(old, new, 1) if old else new, encoding="utf-8")
    assert not pictures_match(drawn, tmp_path)


def test_a_plot_follows_every_number_that_it_shows():
    chart = plots(make_rows())["latency.svg"]
    series = chart.series[0]
    marks = (replace(series.marks[0], low=series.marks[0].low * (1 + 1e-12)), *series.marks[1:])
    changed = replace(chart, series=(replace(series, marks=marks), *chart.series[1:]))
    sources = {chart.source(), changed.source(), replace(chart, title="another").source()}
    assert len(sources) == 3 and chart.source() == plots(make_rows())["latency.svg"].source()


def test_plots_need_a_sweep_and_ratios():
    with pytest.raises(RowsError, match="two vocabulary sizes"):
        plots([make_row()])
    alone = [make_row("eager", replace(POINT, classes=n)) for n in (1, 20)]
    with pytest.raises(RowsError, match="no ratios"):
        plots(alone)
