"""The page: its own address for labels, and all that a person does, in a real browser."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from serving_support import SCENES, Running, offer, png, running
from support_browser import look_as, open_browser

from pcaseg.class_lists import first_names
from pcaseg.runtime import Segmenter
from pcaseg.runtime.palette import class_colours
from pcaseg.serving.limits import Limits

NAMES = ("red car", "house", "sky", "road")
MANY = first_names(257)
"""More than a label PNG of 8 bits holds."""

FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
PICTURE = base64.b64encode(png(SCENES[1])).decode()


class PatientSegmenter(Segmenter):
    """A segmenter that is late with names among which is "slow"."""

    def segment_batch(self, images, vocabulary=None):
        time.sleep(1 if vocabulary is not None and "slow" in vocabulary.names else 0)
        return super().segment_batch(images, vocabulary)


@pytest.fixture(scope="module")
def segmenter(trained_tiny: Path) -> Iterator[Segmenter]:
    with Segmenter(trained_tiny, threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(trained_tiny: Path) -> Iterator[Running]:
    made = offer(
        trained_tiny,
        open=lambda: PatientSegmenter(trained_tiny, threads=1),
        vocabularies={"street": ("car", "road"), "many": MANY},
    )
    with running(made, limits=Limits(classes=20)) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile"), *FAKE_CAMERA) as driver:
        driver.set_script_timeout(30)
        yield driver


@pytest.fixture
def page(browser, server):
    """The page, connected."""
    look_as(browser)
    browser.get_log("browser")  # what former tests provoked
    browser.get(server.server.url)
    until(browser, "document.querySelectorAll('#samples button').length")
    yield browser
    # reading pixels back is the test's doing
    assert [entry for entry in browser.get_log("browser") if "getImageData" not in entry["message"]] == []
    hosts = browser.execute_script("return performance.getEntriesByType('resource').map((one) => one.name)")
    assert all(host.startswith((server.server.url, "blob:", "data:")) for host in hosts)


def until(browser, condition: str, seconds: float = 30) -> None:
    """Waits until JavaScript holds."""
    end = time.monotonic() + seconds
    while not browser.execute_script(f"return Boolean({condition})"):
        assert time.monotonic() < end, f"{condition} never came true; the page says: {text(browser, 'alert')}"
        time.sleep(0.05)


def type_names(browser, text: str) -> None:
    field = browser.find_element("id", "names")
    field.clear()
    field.send_keys(text)


def choose(browser, path: Path) -> None:
    browser.find_element("id", "file").send_keys(str(path))


def shown_classes(browser) -> list[str]:
    return browser.execute_script("return state.result ? state.result.classes.map((one) => one.name) : []")


def until_classes(browser, names: tuple[str, ...]) -> None:
    listed = json.dumps(names, separators=(",", ":"))
    until(browser, f"JSON.stringify(state.result?.classes.map((one) => one.name)) === {json.dumps(listed)}")


def drawn(browser) -> np.ndarray:
    """Colours of the overlay, (H, W, 3)."""
    script = """const canvas = document.getElementById("overlay");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return [canvas.height, canvas.width, btoa(Array.from(data, (one) => String.fromCharCode(one)).join(""))];"""
    height, width, data = browser.execute_script(script)
    return np.frombuffer(base64.b64decode(data), np.uint8).reshape(height, width, 4)[:, :, :3]


def download(server: Running, **asked: object) -> bytes:
    return server.ask("/api/segment", json.dumps({"image": PICTURE} | asked).encode()).body


def text(browser, identifier: str) -> str:
    return browser.execute_script("return document.getElementById(arguments[0]).textContent", identifier)


def test_labels_at_the_pages_address(server, segmenter):
    wanted = segmenter(SCENES[1], vocabulary=NAMES)
    found = server.ask("/api/segment", json.dumps({"image": PICTURE, "classes": NAMES}).encode()).json()
    labels = np.frombuffer(zlib.decompress(base64.b64decode(found["labels"])), "<u2").reshape(96, 96)
    assert np.array_equal(labels, wanted.labels)
    assert [one["pixels"] for one in found["classes"]] == wanted.class_pixels().tolist()
    assert [tuple(bytes.fromhex(one[1:])) for one in found["colours"]] == [tuple(c) for c in class_colours(NAMES)]


@pytest.mark.parametrize("vocabulary", ["voc_20b", "many"])
def test_label_pngs(server, segmenter, vocabulary):
    wanted = segmenter(SCENES[1], vocabulary=MANY if vocabulary == "many" else vocabulary)
    found = download(server, vocabulary=vocabulary, file="labels")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(found))), wanted.labels)


def test_overlays_and_summaries(server, segmenter):
    wanted = segmenter(SCENES[1], vocabulary=NAMES)
    for opacity in (0, 0.25, 1):
        overlay = Image.open(io.BytesIO(download(server, classes=NAMES, file="overlay", opacity=opacity)))
        assert np.array_equal(np.asarray(overlay), np.asarray(wanted.overlay(opacity=opacity)))
    summary = json.loads(download(server, classes=NAMES, file="summary"))
    assert summary["classes"] == wanted.summary()["classes"] and summary["backend"] == wanted.backend


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"classes": ["a"]}, 400, "image: is missing"),
        ({"image": 3, "classes": ["a"]}, 400, "image: is missing"),
        ({"image": "\u00e9", "classes": ["a"]}, 400, "is no base64"),
        ({"image": "aGVsbG8gd29ybGQ=", "classes": ["a"]}, 400, "image"),
        ({"image": PICTURE}, 400, "no class names"),
        ({"image": PICTURE, "classes": "a"}, 400, "no list of names"),
        ({"image": PICTURE, "classes": [1]}, 400, "class list"),
        ({"image": PICTURE, "classes": ["a"] * 21}, 413, "21 names"),
        ({"image": PICTURE, "classes": ["a", "a"]}, 400, "a"),
        ({"image": PICTURE, "classes": ["\ud800"]}, 400, "class list"),
        ({"image": PICTURE, "vocabulary": "../x.txt"}, 400, "not registered"),
        ({"image": PICTURE, "vocabulary": "voc_20", "classes": ["a"]}, 400, "give one"),
        ({"image": PICTURE, "classes": ["a"], "file": "model"}, 400, "file: is none"),
        ({"image": PICTURE, "classes": ["a"], "opacity": 2}, 400, "opacity"),
        ({"image": PICTURE, "classes": ["a"], "opacity": "1"}, 400, "opacity"),
        ({"image": PICTURE, "names": ["a"]}, 400, "'names': is unknown"),
        ([], 400, "not an object"),
    ],
)
def test_what_the_pages_address_refuses(server, body, status, said):
    found = server.ask("/api/segment", json.dumps(body).encode())
    assert found.status == status and said in found.sentence


def test_a_picture_in_and_names_typed_give_the_right_pixels(page, server, segmenter, tmp_path):
    for index, kind in ((1, "png"), (2, "bmp")):
        path = tmp_path / f"scene.{kind}"
        path.write_bytes(png(SCENES[index], kind.upper()))
        choose(page, path)
        type_names(page, ", ".join(NAMES))
        until_classes(page, NAMES)
        until(page, "!document.getElementById('legend').hidden")
        wanted = segmenter(path, vocabulary=NAMES)
        assert np.array_equal(drawn(page), class_colours(NAMES)[wanted.labels])
    type_names(page, "tree, grass; sky")  # synonyms
    until_classes(page, ("tree, grass", "sky"))
    wanted = segmenter(SCENES[2], vocabulary=("tree, grass", "sky"))
    type_names(page, "car: wheel, window")  # parts
    until_classes(page, ("car", "car wheel", "car window"))
    type_names(page, "tree, grass; sky")
    until_classes(page, ("tree, grass", "sky"))
    rows = page.execute_script(
        "return [...$('legend').tBodies[0].rows].map((row) => [...row.cells].map((c) => c.textContent))"
    )
    assert sorted(row[0] for row in rows) == ["sky", "tree, grass"]
    shares = {row[0]: row[1] for row in rows}
    assert shares["sky"] == f"{100 * wanted.class_pixels()[1] / wanted.labels.size:.1f} %"
    assert "mean confidence" in text(page, "mean") and wanted.backend in text(page, "timings")
    assert "network" in text(page, "timings") and "2 classes" in text(page, "status")


def test_out_of_date_answers_are_dropped(page):
    page.execute_script("document.querySelector('#samples button').click()")
    until_classes(page, ("car", "sky"))
    type_names(page, "slow, sky")
    until(page, "state.asked >= 2 && state.asking && $('names').value === 'slow, sky'")
    time.sleep(0.4)  # the question is on its way
    type_names(page, "tree, sky")
    until_classes(page, ("tree", "sky"))
    time.sleep(1.2)
    assert shown_classes(page) == ["tree", "sky"] and page.execute_script("return state.dropped") >= 1


def test_scenes_parts_and_registered_vocabularies(page, segmenter):
    page.execute_script("document.querySelector('#samples button').click()")
    until_classes(page, ("car", "sky"))
    page.find_element("id", "parts").click()
    until_classes(page, ("car wheel", "sky"))
    page.execute_script("$('vocabulary').value = 'street'; $('vocabulary').dispatchEvent(new Event('change'))")
    until_classes(page, ("car", "road"))
    assert page.execute_script("return $('names').value") == "car, road"
    wanted = segmenter(SCENES[0], vocabulary=("car", "road"))
    assert np.array_equal(drawn(page), class_colours(("car", "road"))[wanted.labels])


def test_the_camera_and_names_changed_under_load(page):
    """The stream goes on while names change, and what is shown has always its own names."""
    type_names(page, "car, sky")
    page.find_element("id", "camera").click()
    until(page, "state.camera && state.result")
    for names in (("tree", "road"), ("red car", "house", "grass"), ("water",)):
        type_names(page, ", ".join(names))
        until_classes(page, names)
        asked = page.execute_script("return state.asked")
        until(page, f"state.asked > {asked} + 1")
        assert shown_classes(page) == list(names)
        colours = {tuple(colour) for colour in class_colours(names).tolist()}
        assert {tuple(colour) for colour in drawn(page).reshape(-1, 3).tolist()} <= colours
    assert page.execute_script("return [state.result.size.width, $('alert').hidden]") == [640, True]
    page.find_element("id", "camera").click()
    until(page, "!state.camera && $('camera').getAttribute('aria-pressed') === 'false'")


@pytest.mark.parametrize("text_", ["car, car", "a\u200bb", ", ".join(f"name {index}" for index in range(21))])
def test_errors_are_shown_as_sentences_and_go_away(browser, server, text_):
    look_as(browser)
    browser.get(server.server.url)
    until(browser, "document.querySelectorAll('#samples button').length")
    browser.execute_script("document.querySelector('#samples button').click()")
    until_classes(browser, ("car", "sky"))
    browser.execute_script(
        "$('names').value = arguments[0]; $('names').dispatchEvent(new Event('input', {bubbles: true}))", text_
    )
    until(browser, "!$('alert').hidden")
    said = text(browser, "alert")
    assert re.fullmatch(r"[^\n{}]{20,}", said) and "Error" not in said
    type_names(browser, "house")
    until_classes(browser, ("house",))
    assert browser.execute_script("return $('alert').hidden")


def test_a_file_that_is_no_picture(browser, server, tmp_path):
    browser.get(server.server.url)
    until(browser, "document.querySelectorAll('#samples button').length")
    (tmp_path / "notes.png").write_text("these are notes")
    type_names(browser, "car")
    choose(browser, tmp_path / "notes.png")
    until(browser, "!$('alert').hidden")
    assert text(browser, "alert").startswith("image: ")


def test_keyboard_marks_and_downloads(page):
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.querySelector('#samples button').focus()")
    page.switch_to.active_element.send_keys(Keys.ENTER)
    until_classes(page, ("car", "sky"))
    button = page.find_element("css selector", "#legend tbody button")
    button.send_keys(Keys.SPACE)
    marked = page.switch_to.active_element
    assert marked.get_attribute("aria-pressed") == "true"
    script = """const { data } = $("overlay").getContext("2d").getImageData(0, 0, 96, 96);
    return [...new Set(data.filter((_, index) => index % 4 === 3))].sort((a, b) => a - b);"""
    assert page.execute_script(script) == [32, 255]
    marked.send_keys(Keys.ENTER)
    assert page.execute_script(script) == [255]
    page.execute_script(
        "window.saved = []; HTMLAnchorElement.prototype.click = function () { saved.push(this.download); }"
    )
    for one in page.find_elements("css selector", "#downloads button"):
        one.send_keys(Keys.ENTER)
    until(page, "saved.length === 3")
    assert sorted(page.execute_script("return saved")) == ["labels.json", "labels.png", "overlay.png"]


def test_everything_that_can_be_used_has_a_name(page):
    page.execute_script("document.querySelector('#samples button').click()")
    until_classes(page, ("car", "sky"))
    nodes = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    kinds = {"button", "textbox", "combobox", "slider", "image", "img"}
    used = [node for node in nodes if node.get("role", {}).get("value") in kinds and not node.get("ignored")]
    assert len(used) >= 10
    assert [node["role"]["value"] for node in used if not node.get("name", {}).get("value")] == []


@pytest.mark.parametrize("width", [360, 768, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_fits_every_width_and_scheme(page, width, scheme):
    look_as(page, width=width, scheme=scheme)
    page.execute_script("document.querySelector('#samples button').click()")
    until_classes(page, ("car", "sky"))
    content, window = page.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert content <= window == width
    ground = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == {"light": "rgb(245, 246, 248)", "dark": "rgb(13, 17, 23)"}[scheme]
    boxes = page.execute_script(
        "return ['picture', 'overlay'].map((id) => { const b = $(id).getBoundingClientRect(); "
        "return [b.x, b.y, b.width, b.height]; })"
    )
    assert boxes[0] == boxes[1] and boxes[0][2] > 200
    assert abs(boxes[0][2] - boxes[0][3]) < 1  # the scene is square


def test_asks_for_the_token(browser, trained_tiny):
    with running(offer(trained_tiny), token="secret") as server:
        browser.get(server.server.url)
        until(browser, "!$('token').hidden")
        browser.find_element("id", "token-text").send_keys("wrong\n")
        until(browser, "$('alert').textContent.includes('token')")
        browser.find_element("id", "token-text").clear()
        browser.find_element("id", "token-text").send_keys("secret\n")
        until(browser, "$('token').hidden && document.querySelectorAll('#samples button').length")
        browser.get(f"{server.server.url}/#token=secret")
        browser.refresh()
        until(browser, "document.querySelectorAll('#samples button').length")
        assert browser.execute_script("return $('token').hidden")
