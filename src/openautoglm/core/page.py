"""One self-contained HTML page: headings, tables, plots; no script, no outside resource, light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, NamedTuple

from openautoglm.core.svg import STYLE as PLOT_STYLE

_STYLE = """
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1c2126; --soft: #626b75; --rule: #e1e4e8;
  --card: #ffffff; --mark: #2563c9; --good: #0f8a6a; --warn: #b45309; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e4e8ec; --soft: #9aa4af;
  --rule: #2b3138; --card: #1b1f24; --mark: #6ea8fe; --good: #4cc9a4; --warn: #f0a35e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, -apple-system,
  "Segoe UI", "Noto Sans", "Noto Sans CJK SC", sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 80px; }
header h1 { font-size: 28px; margin: 0 0 4px; letter-spacing: -.01em; } header p { color: var(--soft); margin: 0; }
nav { margin: 18px 0 6px; display: flex; flex-wrap: wrap; gap: 6px 18px; } a { color: var(--mark); }
section { margin-top: 40px; } h2 { font-size: 20px; border-bottom: 1px solid var(--rule); padding-bottom: 6px; }
h3 { font-size: 15px; margin: 24px 0 8px; } .note { color: var(--soft); } .warn { color: var(--warn); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 20px 0; }
.tile { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 14px; }
.tile b { display: block; font-size: 22px; font-weight: 650; font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: 13px; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 16px; }
.plots > svg { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 8px; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: 14px; }
th, td { text-align: left; padding: 6px 12px 6px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
tr.best td { font-weight: 650; } code, pre { font: 12.5px/1.5 ui-monospace, "Cascadia Code", Menlo, monospace; }
pre { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 12px; overflow-x: auto;
  white-space: pre-wrap; overflow-wrap: anywhere; } summary { cursor: pointer; color: var(--mark); }
.sample { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 12px 16px;
  margin: 12px 0; display: grid; grid-template-columns: 1fr 1fr; gap: 4px 24px; overflow-wrap: anywhere; }
.sample .source { grid-column: 1 / -1; color: var(--soft); font-size: 13.5px; }
.sample h4 { margin: 6px 0 2px; font-size: 12px; color: var(--soft); font-weight: 600; }
@media (max-width: 700px) { .sample { grid-template-columns: 1fr; } .plots { grid-template-columns: 1fr; } }
"""


class Section(NamedTuple):
    """One chapter of the page: its heading and its HTML."""

    title: str
    html: str

    @property
    def key(self) -> str:
        """The name of the chapter in links."""
        return self.title.lower().replace(" ", "-")


def page(title: str, subtitle: str, sections: Sequence[Section]) -> str:
    """The whole document."""
    links = "".join(f'<a href="#{section.key}">{escape(section.title)}</a>' for section in sections)
    chapters = "".join(f'<section id="{section.key}"><h2>{escape(section.title)}</h2>{section.html}</section>'
                       for section in sections)
    return ("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{escape(title)}</title><style>{_STYLE}{PLOT_STYLE}</style></head><body><main>"
            f"<header><h1>{escape(title)}</h1><p>{escape(subtitle)}</p></header><nav>{links}</nav>{chapters}"
            "</main></body></html>\n")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], *, best: int | None = None) -> str:
    """A table; columns whose every cell is a number (or empty) stand to the right. `best`: the row set in bold."""
    cells = [list(row) for row in rows]
    numeric = [all(isinstance(row[index], int | float) or row[index] in (None, "") for row in cells)
               for index in range(len(head))]

    def cell(tag: str, index: int, value: Any) -> str:
        return f'<{tag}{" class=n" if numeric[index] else ""}>{escape(show(value))}</{tag}>'

    top = "".join(cell("th", index, name) for index, name in enumerate(head))
    body = "".join(f'<tr{" class=best" if number == best else ""}>'
                   + "".join(cell("td", index, value) for index, value in enumerate(row)) + "</tr>"
                   for number, row in enumerate(cells))
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def tiles(facts: Iterable[tuple[str, Any]]) -> str:
    """Large figures side by side, each with its name."""
    inner = "".join(f'<div class="tile"><b>{escape(show(value))}</b><span>{escape(name)}</span></div>'
                    for name, value in facts)
    return f'<div class="tiles">{inner}</div>'


def plots(charts: Sequence[str]) -> str:
    """Charts side by side where there is room."""
    return f'<div class="plots">{"".join(charts)}</div>' if charts else ""


def folded(summary: str, html: str) -> str:
    """A part that opens on a click."""
    return f"<details><summary>{escape(summary)}</summary>{html}</details>"


def text(words: str, *, kind: str = "") -> str:
    """A paragraph; `kind` is ``note`` or ``warn``."""
    return f'<p class="{kind}">{escape(words)}</p>' if kind else f"<p>{escape(words)}</p>"


def code(words: str) -> str:
    """Text as it is written."""
    return f"<pre>{escape(words)}</pre>"


def show(value: Any) -> str:
    """A value for people."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 1 else f"{value:.4g}"
    return str(value)
