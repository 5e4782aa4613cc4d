"""The report's page: its style, its one script, and tables that can be sorted. Complete without the script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from pcaseg.benchmarks.svg import escaped

CSS = """
:root{color-scheme:light dark;--page:#f5f6f8;--card:#fff;--ink:#1b2330;--muted:#566070;--rule:#dfe3e8;
--soft:#eef0f3;--link:#0067a8;--bad:#b3261e;--bad-bg:#fdecea;--warn:#7a5200;--warn-bg:#fdf3dc;--good:#00664f}
@media screen and (prefers-color-scheme:dark){:root{--page:#0d1117;--card:#161b22;--ink:#e8ecf1;--muted:#a3adba;
--rule:#2a313b;--soft:#1f262f;--link:#7cc0f8;--bad:#ff9a90;--bad-bg:#3b1a18;--warn:#f0c878;--warn-bg:#332812;
--good:#5fd3b0}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--page);color:var(--ink);overflow-wrap:anywhere;
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Liberation Sans",Arial,sans-serif}
main{max-width:1264px;margin:0 auto;padding:48px 24px 96px}
h1,h2,h3,p,dl,ul,figure{margin:0}
h1{font-size:32px;line-height:1.2;letter-spacing:-.01em;font-weight:680}
h2{font-size:22px;line-height:1.3;letter-spacing:-.005em;font-weight:650;margin-bottom:6px}
h3{font-size:15px;line-height:1.4;font-weight:600;margin:32px 0 10px}
a{color:var(--link);text-underline-offset:2px}
section{margin-top:64px;scroll-margin-top:16px}
.eyebrow{color:var(--muted);font-size:14px;margin-bottom:8px}
.answer{font-size:20px;line-height:1.5;max-width:44em;margin-top:20px}
.answer strong{font-weight:680}
.text{color:var(--muted);max-width:44em}.text+.text{margin-top:8px}
.facts{display:flex;flex-wrap:wrap;gap:16px 48px;margin-top:28px}
.facts dt{color:var(--muted);font-size:13px}.facts dd{margin:0;font-size:24px;font-weight:600;line-height:1.25;
font-variant-numeric:tabular-nums}
.banner{border-left:4px solid;border-radius:4px;padding:14px 18px;margin-top:24px;max-width:56em}
.banner.bad{color:var(--bad);background:var(--bad-bg)}.banner.warn{color:var(--warn);background:var(--warn-bg)}
.banner ul{margin:6px 0 0;padding-left:20px;color:var(--ink);font-size:14px}
nav{margin-top:32px;padding-top:16px;border-top:1px solid var(--rule);font-size:14px;line-height:1.9}
nav a{margin-right:20px;white-space:nowrap}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:24px;margin-top:24px;
align-items:start}
figure{background:var(--card);border:1px solid var(--rule);border-radius:10px;padding:8px;max-width:556px;min-width:0}
figure svg{display:block;width:100%;height:auto}
@media (min-width:900px){figure:only-child{grid-column:1/-1;max-width:none;display:grid;align-items:center;
grid-template-columns:minmax(0,540px) minmax(0,1fr)}figure:only-child figcaption{font-size:14.5px;padding:0 40px;
max-width:36em}}
figcaption{color:var(--muted);font-size:13px;line-height:1.5;padding:2px 4.2% 12px}
figcaption p+p{margin-top:10px;font-size:13px}
.scroll{overflow-x:auto;margin-top:16px;background:var(--card);border:1px solid var(--rule);border-radius:10px;
overflow-wrap:normal}
.scroll:focus-visible,button:focus-visible,a:focus-visible{outline:2px solid var(--link);outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:13px;line-height:1.35;font-variant-numeric:tabular-nums}
caption{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
th,td{padding:9px 7px;text-align:left;vertical-align:top;border-top:1px solid var(--rule)}
thead tr:first-child th{border-top:0}thead .bands th{padding-bottom:0}
thead th{color:var(--muted);font-weight:500;font-size:12.5px;vertical-align:bottom;white-space:normal}
thead .bands th{white-space:nowrap}
thead .bands th{color:var(--ink);font-weight:600}thead .bands+tr th{border-top:0}
.n{text-align:right}td.n{white-space:nowrap}.band{border-left:1px solid var(--rule)}
tbody th{font-weight:600;min-width:9.2em;max-width:18em}
td{max-width:26em}
table:not(:has(.n)) tbody th{width:18em}
th:last-child,td:last-child{padding-right:12px}
.scroll tbody th:first-child,.scroll thead tr:last-child th:first-child{position:sticky;left:0;background:var(--card);
z-index:1}
tbody tr:hover>*{background:var(--soft)}
small{display:block;color:var(--muted);font-size:12px;font-weight:400}
.ok{color:var(--good)}.failed{color:var(--bad);font-weight:600}.noisy{color:var(--warn)}.faint{color:var(--muted)}
th button{font:inherit;color:inherit;background:none;border:0;padding:0;margin:0;cursor:pointer;text-align:inherit;
position:relative}
th button:hover{color:var(--ink);text-decoration:underline;text-underline-offset:3px}
th button::after{content:"\\2195";position:absolute;left:100%;bottom:0;width:7px;
text-align:center;font-size:10px;opacity:.4}
[aria-sort=ascending] button::after{content:"\\2191";opacity:1}
[aria-sort=descending] button::after{content:"\\2193";opacity:1}
[aria-sort=ascending] button,[aria-sort=descending] button{color:var(--ink)}
.notes{color:var(--muted);font-size:13.5px;margin-top:10px;padding-left:18px;max-width:60em}
.words{display:grid;grid-template-columns:minmax(9em,13em) 1fr;gap:0 24px;margin-top:20px;max-width:60em}
.words dt{font-weight:600;padding:9px 0;border-top:1px solid var(--rule)}
.words dd{margin:0;padding:9px 0;border-top:1px solid var(--rule);color:var(--muted)}
@media (max-width:640px){main{padding:28px 16px 64px}.facts{display:grid;grid-template-columns:1fr 1fr}
h1{font-size:25px}h2{font-size:20px}.answer{font-size:18px}
section{margin-top:48px}.facts{gap:14px 32px}.words{grid-template-columns:1fr}.words dd{border-top:0;padding-top:0}
.words dt{padding-bottom:2px}figure{padding:2px}th,td{padding:8px}tbody th{min-width:8em;max-width:11em}}
@page{size:landscape;margin:12mm}
@media print{thead th,thead .bands th{font-size:7pt}
body{background:#fff;font-size:11pt}main{max-width:none;padding:0}nav{display:none}section{margin-top:28pt}
.scroll{overflow:visible;border:0}table{font-size:7pt}th,td{padding:3px 4px}small{font-size:6.5pt}figure,tr{
break-inside:avoid}h2,h3{break-after:avoid}.figures{grid-template-columns:1fr 1fr}
th button::after{content:none}tbody th{min-width:0}.scroll tbody th:first-child{position:static}}
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const numeric = head.classList.contains("n");
      const key = (row) => {
        const cell = row.cells[column];
        if (!numeric) return cell.textContent.trim();
        return cell.dataset.value === undefined ? NaN : Number(cell.dataset.value);
      };
      const compare = (a, b) => {
        if (!numeric) return (up ? 1 : -1) * a.localeCompare(b, "en", { numeric: true });
        if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
        return up ? a - b : b - a;
      };
      body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))));
    });
  });
}
"""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes:
        text: shown.
        small: on a line below it.
        value: what a numeric column is sorted by; None stands last.
        kind: a class of the style sheet.
    """

    text: str
    small: str = ""
    value: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        title: in the head.
        numeric: whether it is aligned and sorted as numbers.
        band: what stands above it and its neighbours of the same band.
    """

    title: str
    numeric: bool = True
    band: str = ""


def table(caption: str, columns: Sequence[Column], rows: Sequence[Sequence[Cell]]) -> str:
    """A sortable table in a container of its own that scrolls; the first cell of each row is its heading.

    Args:
        caption: read out, not shown.
        columns: at least one.
        rows: as many cells each.
    """
    bands = [(band, len(list(group))) for band, group in groupby(columns, key=lambda column: column.band)]
    starts = {sum(length for _, length in bands[:i]) for i, (band, _) in enumerate(bands) if i and len(bands) > 1}
    kinds = [
        " ".join(name for name in ("n" if column.numeric else "", "band" if i in starts else "") if name)
        for i, column in enumerate(columns)
    ]
    above = ""
    if len(bands) > 1:
        cells = (
            f'<th colspan="{n}"{_kind("band" if i else "")}>{escaped(band)}</th>' for i, (band, n) in enumerate(bands)
        )
        above = f'<tr class="bands">{"".join(cells)}</tr>'
    heads = (f'<th scope="col"{_kind(kind)}>{escaped(c.title)}</th>' for c, kind in zip(columns, kinds, strict=True))
    body = "".join(_row(row, kinds) for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(caption)}"><table class="sortable">'
        f"<caption>{escaped(caption)}</caption><thead>{above}<tr>{''.join(heads)}</tr></thead>"
        f"<tbody>{body}</tbody></table></div>"
    )


def _row(row: Sequence[Cell], kinds: Sequence[str]) -> str:
    cells = (_cell(cell, kind, "td" if i else "th") for i, (cell, kind) in enumerate(zip(row, kinds, strict=True)))
    return f"<tr>{''.join(cells)}</tr>"


def _cell(cell: Cell, kind: str, tag: str) -> str:
    scope = ' scope="row"' if tag == "th" else ""
    value = "" if cell.value is None or not math.isfinite(cell.value) else f' data-value="{cell.value!r}"'
    small = f"<small>{escaped(cell.small)}</small>" if cell.small else ""
    return f"<{tag}{scope}{_kind(f'{kind} {cell.kind}'.strip())}{value}>{escaped(cell.text)}{small}</{tag}>"


def _kind(names: str) -> str:
    return f' class="{names}"' if names else ""


def section(name: str, title: str, *parts: str) -> str:
    """A section that the page's contents link to."""
    return f'<section id="{name}"><h2>{escaped(title)}</h2>{"".join(parts)}</section>'


def text(sentence: str) -> str:
    """A paragraph."""
    return f'<p class="text">{prose(sentence)}</p>'


def prose(sentence: str) -> str:
    """Escaped text in which no percent sign starts a line.

    >>> prose("95 % of <all>")
    '95\\xa0% of &lt;all&gt;'
    """
    return escaped(sentence).replace(" %", "\N{NO-BREAK SPACE}%")


def figure(chart: str, *captions: str) -> str:
    """A chart and what to see in it."""
    said = "".join(f"<p>{prose(caption)}</p>" for caption in captions)
    return f"<figure>{chart}<figcaption>{said}</figcaption></figure>"


def figures(*drawn: str) -> str:
    """Figures side by side where there is room."""
    return f'<div class="figures">{"".join(drawn)}</div>'


def words(pairs: Sequence[tuple[str, str]]) -> str:
    """Terms and what they mean."""
    listed = "".join(f"<dt>{escaped(term)}</dt><dd>{prose(meaning)}</dd>" for term, meaning in pairs)
    return f'<dl class="words">{listed}</dl>'


MARK = '<meta name="generator" content="pcaseg report">'
"""Tells our pages from others: nothing else is ever replaced."""


def page(title: str, body: str) -> str:
    """The whole document; its policy forbids every request."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f'{MARK}<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<link rel="icon" href="data:,"><title>{escaped(title)}</title><style>{CSS}</style></head>'
        f"<body><main>{body}</main><script>{SCRIPT}</script></body></html>\n"
    )
