"""Pieces of one offline HTML page: escaped text, tables, inline figures, light and dark colours."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from analysis import page_sort

STYLE = """
:root { color-scheme: light dark; --ground: #ffffff; --card: #f6f7f9; --ink: #1c1f24;
  --muted: #5c6470; --line: #dfe3e8; --accent: #2b6cb0; --good: #23794a; --bad: #b3352b;
  --warn: #8f5b10; }
@media (prefers-color-scheme: dark) { :root { --ground: #14171c; --card: #1c2027; --ink: #e6e9ee;
  --muted: #a2abb8; --line: #2f3641; --accent: #7fb2e8; --good: #6cc694; --bad: #f08a80;
  --warn: #e0b060; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 2.2rem 1.2rem 4rem; }
h1 { font-size: 1.5rem; margin: 0 0 .2rem; } h2 { font-size: 1.15rem; margin: 2.4rem 0 .6rem; }
h3 { font-size: 1rem; margin: 0 0 .3rem; } p { margin: .4rem 0; }
.muted { color: var(--muted); } .small { font-size: .87rem; }
.headline { margin: 1.2rem 0; padding: 1rem 1.2rem; background: var(--card);
  border-left: 4px solid var(--accent); border-radius: 6px; font-size: 1.12rem; }
.headline.inside { border-color: var(--good); } .headline.outside { border-color: var(--bad); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 1rem 1.2rem; margin: 0 0 1rem; }
.badge { font-size: .78rem; padding: .1rem .55rem; border-radius: 999px; border: 1px solid;
  white-space: nowrap; margin-left: .5rem; vertical-align: 2px; font-weight: 500; }
.good { color: var(--good); } .bad { color: var(--bad); } .warn { color: var(--warn); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .87rem; font-variant-numeric: tabular-nums; }
th, td { padding: .26rem .55rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--muted); font-weight: 600; vertical-align: bottom; }
th.text, td.text { text-align: left; }
th:first-child, td:first-child { padding-left: 0; }
code { font: .85em ui-monospace, SFMono-Regular, Menlo, monospace; overflow-wrap: anywhere; }
.pair { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; align-items: flex-start; }
.pair > .wide { flex: 3 1 26rem; } .pair > .narrow { flex: 2 1 18rem; }
.pair > .half { flex: 1 1 26rem; max-width: 34rem; }
figure { margin: .8rem 0 .2rem; color: var(--muted); }
figure svg { max-width: 100%; height: auto; display: block; }
figcaption { font-size: .87rem; color: var(--muted); }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--muted); }
details[open] > summary { margin-bottom: .4rem; }
"""


def text(value: object) -> str:
    """Any value, escaped."""
    return html.escape(str(value), quote=True)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> str:
    """A table whose first `left` columns are text; every cell is escaped."""

    def line(cells: Sequence[object], tag: str) -> str:
        parts = []
        for index, cell in enumerate(cells):
            kind = ' class="text"' if index < left else ""
            kind += ' scope="col"' if tag == "th" else ""
            parts.append(f"<{tag}{kind}>{text(cell)}</{tag}>")
        return f"<tr>{''.join(parts)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    head = line(heads, "th")
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{body}</tbody></table></div>'


def figure(svg: str, caption: str, ink: str) -> str:
    """An inline SVG whose ink follows the text colour of the page."""
    drawn = svg.replace(ink, "currentColor").replace("<svg ", '<svg role="img" ', 1)
    return f"<figure>{drawn}<figcaption>{text(caption)}</figcaption></figure>"


def badge(word: str, kind: str) -> str:
    """A small word in a pill; kind is good, bad or warn."""
    return f'<span class="badge {text(kind)}">{text(word)}</span>'


def beside(wide: str, narrow: str) -> str:
    """Two pieces side by side where there is room, else one below the other."""
    return (
        f'<div class="pair"><div class="wide">{wide}</div><div class="narrow">{narrow}</div></div>'
    )


def halves(*pieces: str) -> str:
    """Pieces of one width side by side where there is room."""
    parts = "".join(f'<div class="half">{piece}</div>' for piece in pieces)
    return f'<div class="pair">{parts}</div>'


def folded(summary: str, body: str) -> str:
    """A piece that opens on a click; its text is in the page all the same."""
    return f"<details><summary>{text(summary)}</summary>{body}</details>"


def card(head: str, body: str) -> str:
    """A framed piece with a title."""
    return f'<section class="card">{head}{body}</section>'


def title(word: str, tag: str = "") -> str:
    """The title of a card with a badge."""
    return f"<h3>{text(word)}{tag}</h3>"


def muted(value: object) -> str:
    """A paragraph of small grey text."""
    return f'<p class="muted small">{text(value)}</p>'


def page(title: str, body: str) -> str:
    """A whole document that fetches nothing; its tables sort by a click on a head."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; " + page_sort.POLICY
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{text(title)}</title><style>{STYLE}{page_sort.STYLE}</style></head>"
        f"<body><main>{body}</main><script>{page_sort.SCRIPT}</script></body></html>\n"
    )
