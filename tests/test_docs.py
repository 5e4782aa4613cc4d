"""README and docs: their commands exist, their code runs, their links lead somewhere, their tables match their rows."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

import pcaseg
from pcaseg.benchmarks import tables
from pcaseg.cli import build_parser

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README_WORDS = 1500


def reading_order() -> list[Path]:
    """README, then the pages as the site lists them."""

    class Loader(yaml.SafeLoader):
        """Without the tags that only mkdocs knows."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)
    found: list[Path] = []

    def walk(entry: object) -> None:
        if isinstance(entry, str):
            found.append(DOCS / entry)
        else:
            for one in entry.values() if isinstance(entry, dict) else entry:
                walk(one)

    walk(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])
    return [ROOT / "README.md", *found]


PAGES = reading_order()
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
OTHERS = [ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "gpu" / "README.md"]
OTHERS += [ROOT / "examples" / "ros2" / "pcaseg_ros" / "README.md"]


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    language: str
    text: str


BLOCKS = [
    Block(str(page.relative_to(ROOT)), language, text)
    for page, content in TEXTS.items()
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", content, re.DOTALL | re.MULTILINE)
]


def commands(block: Block, *starts: str) -> list[str]:
    return [line.split("  #")[0].strip() for line in block.text.splitlines() if line.startswith(starts)]


TYPED = [command for block in BLOCKS if block.language in ("bash", "sh") for command in commands(block, "pcaseg ")]
"""Blocks marked `sh` need a GPU or data sets, or write into the sources: their commands are parsed, not run."""

INLINE = [code for text in TEXTS.values() for code in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)]


@pytest.mark.parametrize("command", sorted(set(TYPED)))
def test_commands_parse(command):
    assert build_parser().parse_args(shlex.split(command)[1:]).run


def test_there_are_commands():
    assert {shlex.split(command)[1] for command in TYPED} >= {
        *("presets", "import", "export", "build", "check", "bench", "report", "segment", "vocab"),
        *("train", "evaluate", "datasets", "doctor"),
    }


@pytest.mark.parametrize("code", sorted({code for code in INLINE if re.match(r"pcaseg [a-z]", code)}))
def test_commands_within_sentences_name_what_exists(code, capsys):
    """They may leave out what a command requires, but no option is invented."""
    words = shlex.split(code)
    with pytest.raises(SystemExit) as end:
        build_parser().parse_args([words[1], *words[2:3] * (words[1] == "datasets"), "--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in words if word.startswith("--"))


def test_modules_that_are_run_exist():
    modules = {module for text in TEXTS.values() for module in re.findall(r"python -m (pcaseg[\w.]*)", text)}
    assert len(modules) > 10
    for module in sorted(modules):
        found = importlib.util.find_spec(module)
        assert found and found.origin, module
        path = Path(found.origin)
        if path.name == "__init__.py":
            path = path.with_name("__main__.py")
        assert '__name__ == "__main__"' in path.read_text(encoding="utf-8") or path.name == "__main__.py", module


def test_targets_of_make_exist():
    targets = set(
        re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    )
    named = {target for text in TEXTS.values() for target in re.findall(r"\bmake ([a-z-]+)`", text)}
    assert len(named) > 4
    assert named <= targets


def test_python_blocks_name_what_exists():
    blocks = [block for block in BLOCKS if block.language == "python"]
    assert len(blocks) > 4
    for block in blocks:
        for node in ast.walk(ast.parse(block.text)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pcaseg":
                assert hasattr(pcaseg, node.attr), block.page


def test_mentioned_class_lists_and_presets_are_complete():
    for name in (*pcaseg.class_list_names(), *pcaseg.presets()):
        assert f"`{name}`" in "".join(TEXTS.values())


def test_files_that_are_named_exist():
    named = {
        code
        for code in INLINE
        if re.fullmatch(r"(pcaseg|kernels|export|benchmarks|tests|docs|examples)/[\w./-]*", code)
    }
    assert len(named) > 30
    assert not [
        path
        for path in sorted(named)
        if "NAME" not in path and "results/gpu" not in path and not (ROOT / path).exists()
    ]


def test_functions_and_tests_that_the_design_page_names_exist():
    text = TEXTS[DOCS / "design.md"]
    pairs = re.findall(r"`(pcaseg/[\w/]+\.py)`: `(\w+)`(?:, `(\w+)`)?", text)
    pairs += [
        (f"pcaseg/deploy/{module}.py", name)
        for module, name in re.findall(r"`(algebra|spatial|semantic|epl|decoder)\.((?!py`)\w+)`", text)
    ]
    for row in re.findall(
        r"^\|(.+\.py.+)\|$", text.split("## Where the network computes")[1].split("##")[0], re.MULTILINE
    ):
        for folder, cell in zip(("pcaseg/model", "pcaseg/deploy", "kernels"), row.split("|")[1:], strict=True):
            assert not cell.strip() or (ROOT / folder / cell.strip(" `")).is_file(), cell
    pairs += [("tests/deploy/test_rewrites.py", name) for name in re.findall(r"`(test_\w+)`", text)]
    assert len(pairs) > 20
    for path, *names in pairs:
        source = (ROOT / path).read_text(encoding="utf-8")
        for name in filter(None, names):
            assert re.search(rf"^ *(?:def|class) {name}\b", source, re.MULTILINE), (path, name)


def test_readme_is_short():
    assert len(TEXTS[ROOT / "README.md"].split()) <= README_WORDS


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        target, _, anchor = link.partition("#")
        assert not target.startswith(("http:", "https:", "/")), link  # all that is needed lies in the sources
        path = page.parent / target if target else page
        assert path.exists(), link
        assert not anchor or anchor in anchors(path), link


def test_every_page_is_on_the_site():
    assert sorted(PAGES[1:]) == sorted(DOCS.rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


def test_the_site_builds_strictly_with_its_pictures(site):
    assert (site / "results" / "latency.svg").is_file()
    assert "fold_batch_norm" in (site / "api" / "deploy.html").read_text(encoding="utf-8")


def test_the_site_loads_nothing_from_elsewhere(site):
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"?(https?:[^\" >]+)", page.read_text(encoding="utf-8")
        )
        assert not loaded, page


def test_tables_match_their_rows():
    assert tables.main(["--check"]) == 0
    assert "onnxruntime-cpu" in TEXTS[ROOT / "README.md"]


def test_every_table_stands_on_a_page():
    standing = re.findall(r"<!-- table: (\w+) -->\n", "".join(TEXTS.values()))
    assert sorted(standing) == sorted(tables.TABLES)


def test_changed_rows_are_noticed(monkeypatch, capsys):
    monkeypatch.setitem(tables.TABLES, "check", lambda _: "| another table |")
    assert tables.main(["--check"]) == 1
    assert capsys.readouterr().err.startswith("docs/accuracy.md: not what the rows say")


def test_a_table_of_no_name_is_one_sentence():
    with pytest.raises(pcaseg.PcasegError, match="table 'latncy': choose one of ablation, bench,"):
        tables.fill("<!-- table: latncy -->\n<!-- end -->")


@pytest.mark.slow
def test_all_that_can_be_typed_runs(tmp_path):
    """Each command and Python block once, in reading order, with a seeded checkpoint and a photograph as named."""
    from pcaseg.benchmarks.demo import write_checkpoint, write_photograph

    write_checkpoint("eva-b-384", tmp_path / "model_final.pth")
    write_photograph(tmp_path / "photo.png")
    (tmp_path / "photo.png").rename(tmp_path / "photo.jpg")  # content counts, not the ending
    done: set[str] = set()
    for block in BLOCKS:
        if block.language == "bash":
            typed = {
                one: [sys.executable, *python_words(one)] for one in commands(block, "pcaseg ", "python -m pcaseg")
            }
        elif block.language == "python":
            typed = {block.text: [sys.executable, "-c", block.text]}
        else:
            continue
        for text, words in typed.items():
            if text not in done:
                assert subprocess.run(words, cwd=tmp_path).returncode == 0, f"{block.page}: {text}"
                done.add(text)
    assert len(done) > 25


def python_words(command: str) -> list[str]:
    """What Python is called with for a command of `pcaseg` or `python -m`."""
    words = shlex.split(command)
    return ["-m", "pcaseg.cli", *words[1:]] if words[0] == "pcaseg" else words[1:]
