"""Small plots as inline SVG: lines, horizontal bars, histograms. No script, no outside resource.

Colours are CSS classes, so one page style (`STYLE`) serves light and dark alike; every text is escaped,
every plot carries a title for screen readers and its marks a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 640, 62, 16, 40, 46
_SERIES = 6

STYLE = """
.plot { width: 100%; max-width: 680px; height: auto; font: 12px system-ui, sans-serif;
  --grid: #e3e6ea; --ink: #3a4149;
  --c0: #2563c9; --c1: #d9730d; --c2: #0f8a6a; --c3: #a63fb0; --c4: #b8930b; --c5: #c2374b; }
.plot text { fill: var(--ink); } .plot .name { font-weight: 600; font-size: 13px; }
.plot .end { text-anchor: end; } .plot .mid { text-anchor: middle; }
.plot .grid { stroke: var(--grid); stroke-width: 1; } .plot .axis { stroke: var(--ink); stroke-width: 1; }
.plot .line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.plot .ring { fill: none; stroke: var(--ink); stroke-width: 2; }
.plot .area { fill-opacity: .22; stroke-width: 1.5; }
.plot .s0 { --c: var(--c0); } .plot .s1 { --c: var(--c1); } .plot .s2 { --c: var(--c2); }
.plot .s3 { --c: var(--c3); } .plot .s4 { --c: var(--c4); } .plot .s5 { --c: var(--c5); }
.plot .line, .plot .area { stroke: var(--c); } .plot .area, .plot .bar, .plot .dot { fill: var(--c); }
@media (prefers-color-scheme: dark) { .plot { --grid: #30363d; --ink: #c3cad2;
  --c0: #6ea8fe; --c1: #f0a35e; --c2: #4cc9a4; --c3: #d68be0; --c4: #e3c04f; --c5: #f07f8f; } }
"""


class Series(NamedTuple):
    """One named line or histogram: `points` are (x, y), or counts of the bins for a histogram."""

    name: str
    points: Sequence[tuple[float, float]]


class _Scale(NamedTuple):
    """Maps data values onto pixels, linearly or by logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        at = math.log10(max(value, self.low)) if self.log else value
        return self.start + (self.end - self.start) * (at - low) / ((high - low) or 1.0)

    def ticks(self) -> list[float]:
        if self.log:
            first, last = math.ceil(math.log10(self.low) - 1e-9), math.floor(math.log10(self.high) + 1e-9)
            if last - first >= 1:
                step = max(1, (last - first) // 6)
                return [10.0**power for power in range(first, last + 1, step)]
        return nice_ticks(self.low, self.high)


def nice_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round values (1, 2 or 5 times a power of ten) within [low, high]."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1.0, 2.0, 5.0, 10.0) if s * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(index * step, 12) for index in range(first, math.floor(high / step + 1e-9) + 1)]


def number(value: float) -> str:
    """A short label of a number: 12,345 · 1.2M · 0.031 · 1e-05."""
    size = abs(value)
    if size >= 1e6:
        unit, name = next(pair for pair in ((1e12, "T"), (1e9, "G"), (1e6, "M")) if size >= pair[0])
        return f"{value / unit:.4g}{name}"
    if value == int(value):
        return f"{int(value):,}"
    return f"{value:,.1f}" if size >= 1000 else f"{value:.3g}"


def _open(title: str, height: int) -> list[str]:
    name = escape(title)
    return [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name}" '
        f'xmlns="http://www.w3.org/2000/svg"><title>{name}</title>',
        f'<text class="name" x="{LEFT}" y="16">{name}</text>',
    ]


def _legend(names: Sequence[str]) -> list[str]:
    if len(names) < 2:
        return []
    out, x = [], float(LEFT)
    for index, name in enumerate(names):
        out.append(f'<rect class="bar s{index % _SERIES}" x="{x:.0f}" y="23" width="10" height="10" rx="2"/>'
                   f'<text x="{x + 14:.0f}" y="32">{escape(name)}</text>')
        x += 30 + 7 * len(name)
    return out


def _axes(x: _Scale, y: _Scale, height: int, x_label: str, y_label: str) -> list[str]:
    floor = height - BOTTOM
    out = []
    for tick in y.ticks():
        at = y(tick)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
                   f'<text class="end" x="{LEFT - 6}" y="{at + 4:.1f}">{number(tick)}</text>')
    for tick in x.ticks():
        at = x(tick)
        out.append(f'<line class="axis" x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}"/>'
                   f'<text class="mid" x="{at:.1f}" y="{floor + 17}">{number(tick)}</text>')
    out.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{floor}" y2="{floor}"/>')
    centre, middle = (LEFT + WIDTH - RIGHT) / 2, (TOP + floor) / 2
    out.append(f'<text class="mid" x="{centre:.0f}" y="{height - 8}">{escape(x_label)}</text>')
    out.append(f'<text class="mid" transform="rotate(-90 14 {middle:.0f})" x="14" y="{middle:.0f}">'
               f"{escape(y_label)}</text>")
    return out


def _range(values: Sequence[float], log: bool, zero: bool) -> tuple[float, float]:
    kept = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    if not kept:
        return (1.0, 10.0) if log else (0.0, 1.0)
    low, high = min(kept), max(kept)
    if log:
        return (low, high) if high > low else (low / 3, low * 3)
    low = min(low, 0.0) if zero else low
    if high > low:
        return low, high
    return low - (abs(low) or 1.0) * 0.5, high + (abs(high) or 1.0) * 0.5


def line_chart(series: Sequence[Series], *, title: str, x_label: str = "", y_label: str = "",
               log_x: bool = False, log_y: bool = False, markers: bool = False, height: int = 300,
               rings: Sequence[tuple[float, float, str]] = ()) -> str:
    """One or more lines over x. Points that are not finite (or not positive on a log axis) break the line.

    Args:
        rings: (x, y, tooltip) of points of the lines to be marked.
    """
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    x = _Scale(*_range(xs, log_x, False), LEFT, WIDTH - RIGHT, log_x)
    y = _Scale(*_range(ys, log_y, False), height - BOTTOM, TOP, log_y)
    out = _open(title, height) + _legend([one.name for one in series]) + _axes(x, y, height, x_label, y_label)
    for index, one in enumerate(series):
        path, pen, dots = [], "M", []
        for px, py in one.points:
            if not (math.isfinite(px) and math.isfinite(py)) or (log_x and px <= 0) or (log_y and py <= 0):
                pen = "M"
                continue
            path.append(f"{pen}{x(px):.1f} {y(py):.1f}")
            pen = "L"
            if markers:
                dots.append(f'<circle class="dot s{index % _SERIES}" cx="{x(px):.1f}" cy="{y(py):.1f}" r="3">'
                            f"<title>{escape(one.name)}: {number(px)}, {number(py)}</title></circle>")
        out.append(f'<path class="line s{index % _SERIES}" d="{" ".join(path)}"/>')
        out += dots
    out += [f'<circle class="ring" cx="{x(px):.1f}" cy="{y(py):.1f}" r="7"><title>{escape(words)}: {number(px)}, '
            f"{number(py)}</title></circle>" for px, py, words in rings]
    return "".join([*out, "</svg>"])


def histogram(edges: Sequence[float], series: Sequence[Series], *, title: str, x_label: str = "",
              y_label: str = "share of rows", height: int = 260) -> str:
    """Stepped outlines over shared bin edges; each series' points are (bin index, height)."""
    top = max((value for one in series for _, value in one.points), default=0.0) or 1.0
    x = _Scale(edges[0], edges[-1], LEFT, WIDTH - RIGHT)
    y = _Scale(0.0, top, height - BOTTOM, TOP)
    out = _open(title, height) + _legend([one.name for one in series]) + _axes(x, y, height, x_label, y_label)
    floor = height - BOTTOM
    for index, one in enumerate(series):
        path = [f"M{x(edges[0]):.1f} {floor}"]
        for bin_, value in one.points:
            left, right, at = x(edges[int(bin_)]), x(edges[int(bin_) + 1]), y(value)
            path.append(f"L{left:.1f} {at:.1f} L{right:.1f} {at:.1f}")
        path.append(f"L{x(edges[-1]):.1f} {floor} Z")
        out.append(f'<path class="area s{index % _SERIES}" d="{" ".join(path)}">'
                   f"<title>{escape(one.name)}</title></path>")
    return "".join([*out, "</svg>"])


def bar_chart(bars: Sequence[tuple[str, float]], *, title: str, unit: str = "",
              label_width: int = 190) -> str:
    """Horizontal bars, one a row, with the label at the left and the value at the end of the bar."""
    row, top = 24, 30
    height = top + row * max(len(bars), 1) + 8
    largest = max((value for _, value in bars), default=0.0) or 1.0
    x = _Scale(0.0, largest, label_width, WIDTH - 90)
    out = _open(title, height)
    for index, (label, value) in enumerate(bars):
        y, length = top + index * row, max(x(value) - label_width, 0.0)
        short = label if len(label) * 7 < label_width else label[: label_width // 7 - 1] + "…"
        text = f"{number(value)}{' ' + unit if unit else ''}"
        out.append(f'<text class="end" x="{label_width - 8}" y="{y + 15}">{escape(short)}</text>'
                   f'<rect class="bar s0" x="{label_width}" y="{y + 3}" width="{length:.1f}" height="16">'
                   f"<title>{escape(label)}: {escape(text)}</title></rect>"
                   f'<text x="{label_width + length + 6:.1f}" y="{y + 15}">{escape(text)}</text>')
    return "".join([*out, "</svg>"])
