"""The report in a real browser: Chromium, headless, through chromedriver."""

from __future__ import annotations

import pytest
from support_browser import look_as, open_browser
from support_rows import hostile_rows, make_gpu_rows, make_rows

from pcaseg.benchmarks.plots import plots, write_pictures
from pcaseg.benchmarks.report import html_report

OVERLAPS = """
const boxes = (svg, selector) => [...svg.querySelectorAll(selector)].map((e) => [e, e.getBoundingClientRect()]);
const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 2 && b.top < a.bottom - 2;
const found = [];
for (const svg of document.querySelectorAll("svg")) {
  const name = svg.querySelector("title").textContent, frame = svg.getBoundingClientRect();
  const texts = boxes(svg, "text"), marks = boxes(svg, ".marks use, .bar path");
  for (const [i, [text, box]] of texts.entries()) {
    if (box.left < frame.left || box.right > frame.right || box.top < frame.top || box.bottom > frame.bottom)
      found.push(`${name}: ${text.textContent} is cut off`);
    for (const [other, at] of texts.slice(i + 1))
      if (meet(box, at)) found.push(`${name}: ${text.textContent} on ${other.textContent}`);
    for (const [, at] of marks) if (meet(box, at)) found.push(`${name}: ${text.textContent} on a mark`);
  }
}
return found;
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reports")
    for name, rows in (("report", make_rows()), ("full", make_gpu_rows()), ("hostile", hostile_rows())):
        (folder / f"{name}.html").write_text(html_report(rows), encoding="utf-8")
    write_pictures(plots(make_gpu_rows()), folder)
    return folder


@pytest.fixture
def opened(browser, reports):
    """Opens a file at a width and in a scheme."""

    def open_file(name: str = "report.html", *, width: int = 1280, scheme: str = "light"):
        look_as(browser, width=width, scheme=scheme)
        browser.get((reports / name).as_uri())
        return browser

    return open_file


def column(browser, table: int, index: int) -> list[str]:
    """Sort values of a column of a table of measurements."""
    script = """const table = document.querySelectorAll("#summary table, #points table")[arguments[0]];
    const cells = [...table.tBodies[0].rows].map((row) => row.cells[arguments[1]]);
    return cells.map((cell) => cell.dataset.value ?? cell.textContent);"""
    return browser.execute_script(script, table, index)


def header(browser, table: int, index: int):
    script = """const table = document.querySelectorAll("#summary table, #points table")[arguments[0]];
    return [...table.tHead.rows].at(-1).cells[arguments[1]];"""
    return browser.execute_script(script, table, index)


@pytest.mark.parametrize("name", ["report.html", "hostile.html"])
def test_loads_without_errors_or_requests(opened, name):
    browser = opened(name)
    assert browser.title.startswith("pcaseg bench: ")
    assert browser.get_log("browser") == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert browser.execute_script("return document.scripts.length") == 1


@pytest.mark.parametrize("width", [1280, 360])
def test_every_chart_is_drawn(opened, width):
    browser = opened(width=width)
    script = """return [...document.querySelectorAll("svg")].map((svg) => {
      const box = svg.getBoundingClientRect();
      const drawn = [...svg.querySelectorAll(".marks use, .bar path")].filter((e) => e.getBBox().width > 0);
      return [svg.querySelector("title").textContent, box.width, box.height, drawn.length];
    })"""
    charts = browser.execute_script(script)
    assert [title.split(",")[0] for title, *_ in charts] == [
        "How many times as fast as eager float32",
        *2 * ["Latency against vocabulary size"],
        "Throughput against images per call",
        *2 * ["Where the time goes"],
        "Speed against accuracy",
        "Roofline",
    ]
    for title, chart_width, height, drawn in charts:
        assert chart_width > 300 and height > 150 and drawn >= 5, title


@pytest.mark.parametrize("name", ["report.html", "full.html", "hostile.html"])
@pytest.mark.parametrize("width", [1280, 360])
def test_no_label_lies_on_another_or_on_a_mark(opened, name, width):
    assert opened(name, width=width).execute_script(OVERLAPS) == []


def test_text_of_charts_is_legible_on_a_telephone(opened):
    script = """const sizes = [...document.querySelectorAll("svg")].map((svg) =>
      parseFloat(getComputedStyle(svg.querySelector("g:not(.head) > text")).fontSize) * svg.getScreenCTM().a);
    return Math.min(...sizes);"""
    assert opened(width=360).execute_script(script) >= 9


def test_clicking_a_heading_sorts_by_number(opened):
    browser = opened()
    before = column(browser, 0, 2)
    head = header(browser, 0, 2)
    head.find_element("tag name", "button").click()
    up = column(browser, 0, 2)
    assert head.get_attribute("aria-sort") == "ascending"
    assert up == sorted(before, key=float) and up != before
    head.find_element("tag name", "button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(browser, 0, 2) == up[::-1]


def test_missing_values_stand_last_either_way(opened):
    browser = opened()
    ratio = header(browser, 0, 6)
    for expected in ("ascending", "descending"):
        ratio.find_element("tag name", "button").click()
        assert ratio.get_attribute("aria-sort") == expected
        values = column(browser, 0, 6)
        assert values[-1] == "\N{EN DASH}"
        assert values[:-1] == sorted(values[:-1], key=float, reverse=expected == "descending")


def test_keyboard_sorts_and_marks_one_column(opened):
    from selenium.webdriver.common.keys import Keys

    browser = opened()
    name, status = header(browser, 0, 0), header(browser, 0, 1)
    button = name.find_element("tag name", "button")
    browser.execute_script("arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    names = column(browser, 0, 0)
    assert names == sorted(names) and name.get_attribute("aria-sort") == "ascending"
    button.send_keys(Keys.SPACE)
    assert column(browser, 0, 0) == names[::-1]
    button.send_keys(Keys.TAB)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert status.get_attribute("aria-sort") == "ascending" and name.get_attribute("aria-sort") is None


def test_tables_sort_apart(opened):
    browser = opened()
    other = column(browser, 1, 0)
    header(browser, 0, 0).find_element("tag name", "button").click()
    assert column(browser, 1, 0) == other


@pytest.mark.parametrize("name", ["report.html", "full.html", "hostile.html"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_the_page_never_scrolls_sideways(opened, name, width):
    browser = opened(name, width=width)
    content, window = browser.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert content <= window == width


def test_dark_scheme(opened):
    script = """const style = (selector) => getComputedStyle(document.querySelector(selector));
    const fills = [".paper path", ".head text", ".marks use", ".bar path"].map((kind) => style(`svg ${kind}`).fill);
    return [style("body").backgroundColor, style("body").color, ...fills];"""
    light = opened(scheme="light").execute_script(script)
    dark = opened(scheme="dark").execute_script(script)
    assert all(one != other for one, other in zip(light, dark, strict=True))
    assert light[0] == "rgb(245, 246, 248)" and dark[0] == "rgb(13, 17, 23)"


def test_print_is_light_and_shows_whole_tables(opened):
    browser = opened(scheme="dark")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    script = "return getComputedStyle(document.querySelector('.scroll')).overflowX"
    assert browser.execute_script(script) == "visible"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.parametrize("name", ["latency.svg", "speedup.svg"])
def test_plots_stand_alone(opened, name):
    browser = opened(name, scheme="dark")
    assert browser.get_log("browser") == []
    fill = browser.execute_script("return getComputedStyle(document.querySelector('.paper path')).fill")
    assert fill == "rgb(22, 27, 34)"
