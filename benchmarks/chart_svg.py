"""SVG of charts: matplotlib's drawing made light or dark as the reader's system is, and told what it shows."""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from pcaseg.benchmarks.chart_colours import colours

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SVG = "{http://www.w3.org/2000/svg}"
_HREF = "{http://www.w3.org/1999/xlink}href"
_KINDS = ("head", "paper", "marks", "line", "bar")
"""Groups that keep their name, as a class."""


def svg_text(figure: Figure, *, title: str, description: str, source: str) -> str:
    """A figure as SVG whose palette colours follow the reader's scheme.

    Args:
        figure: in light colours of the palette.
        title, description: read out.
        source: the SHA-256 of what the figure is made from, kept in `data-source`; a comment at the end holds that of
            the drawing itself.
    """
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    root = ElementTree.fromstring(written.getvalue())
    root.remove(root[0])  # a style for `*`, which would hold for a whole page
    variables = {light: f"var(--{name})" for name, (light, _) in colours().items()}
    for element in root.iter():
        _adapt(element, variables, f"c{source[:8]}-")
    width, height = map(float, root.attrib["viewBox"].split()[2:])
    root.attrib |= {"width": f"{1.4 * width:.0f}", "height": f"{1.4 * height:.0f}", "class": "chart", "role": "img"}
    root.set("data-source", source)
    for place, (tag, text) in enumerate((("title", title), ("desc", description), ("style", _style()))):
        child = ElementTree.Element(_SVG + tag)
        child.text = _NO_XML.sub("\N{REPLACEMENT CHARACTER}", text)
        root.insert(place, child)
    ElementTree.register_namespace("", _SVG.strip("{}"))
    drawn = ElementTree.tostring(root, encoding="unicode")
    return f"{drawn}<!-- {hashlib.sha256(drawn.encode()).hexdigest()} -->\n"


def _adapt(element: ElementTree.Element, variables: Mapping[str, str], prefix: str) -> None:
    """Colours become variables, names become classes, and ids those of one chart among several of a page."""
    attributes = element.attrib
    if "style" in attributes:
        attributes["style"] = re.sub("#[0-9a-f]{6}", lambda m: variables.get(m[0], m[0]), attributes["style"])
    if name := attributes.pop("id", None):
        referred = element.tag in (f"{_SVG}path", f"{_SVG}clipPath")
        attributes |= {"id": prefix + name} if referred else {"class": name} if name in _KINDS else {}
    if target := attributes.pop(_HREF, None):
        attributes["href"] = f"#{prefix}{target[1:]}"
    if "clip-path" in attributes:
        attributes["clip-path"] = attributes["clip-path"].replace("#", f"#{prefix}")


_NO_XML = re.compile("[^\\t\\n\\r\\x20-\\ud7ff\\ue000-\\ufffd\\U00010000-\\U0010ffff]")


def _style() -> str:
    light, dark = ("".join(f"--{name}:{pair[i]};" for name, pair in colours().items()) for i in (0, 1))
    return (
        f".chart{{{light}stroke-linejoin:round}}@media screen and (prefers-color-scheme:dark){{.chart{{{dark}}}}}"
        ".chart text{font-variant-numeric:tabular-nums;font-family:"
        "system-ui,-apple-system,'Segoe UI',Roboto,'Liberation Sans',Arial,sans-serif!important}"
    )
