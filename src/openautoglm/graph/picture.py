"""A graph as a picture: boxes from top to bottom, arrows for what flows, a frame for each layer. Needs no script.

Layers that repeat each other are drawn once; arrows that leave the last of them leave the one that is drawn. Weights
and what else there is to say of a node stand in its tooltip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from openautoglm.graph.ir import Graph, Node
from openautoglm.graph.sections import Row, Section, sections
from openautoglm.graph.show import summary, text

BOX, HIGH, GAP, PITCH = 280, 48, 22, 84
_LANE, _LANES, _MARGIN, _HEAD = 12, 6, 24, 46
_LETTER = 6.2
_KINDS = (("attention", 2), ("linear", 0), ("norm", 1), ("embedding", 4), ("gather", 4), ("silu", 3), ("add", 3),
          ("mul", 3), ("quantise", 3), ("split", 5), ("rotary", 5))
STYLE = """
.graph { height: auto; max-width: 100%; font: 12px system-ui, sans-serif; background: var(--paper);
  --paper: #ffffff; --ink: #2a3038; --dim: #66707b; --rule: #b9c0c8; --frame: #f5f6f8;
  --c0: #2563c9; --c1: #b8700d; --c2: #0f8a6a; --c3: #a63fb0; --c4: #5a6673; --c5: #8a8f98; --c6: #c2374b; }
.graph text { fill: var(--ink); } .graph .dim { fill: var(--dim); font-size: 11px; } .graph .name { font-weight: 600; }
.graph .frame { fill: var(--frame); stroke: var(--rule); } .graph .flow { fill: none; stroke: var(--rule);
  stroke-width: 1.5; } .graph .tip { fill: var(--rule); }
.graph .box { fill: var(--paper); stroke: var(--c); stroke-width: 1.5; } .graph .bar { fill: var(--c); }
.graph .k0 { --c: var(--c0); } .graph .k1 { --c: var(--c1); } .graph .k2 { --c: var(--c2); }
.graph .k3 { --c: var(--c3); } .graph .k4 { --c: var(--c4); } .graph .k5 { --c: var(--c5); }
.graph .k6 { --c: var(--c6); }
@media (prefers-color-scheme: dark) { .graph { --paper: #0f1318; --ink: #dbe1e8; --dim: #98a2ad; --rule: #49525c;
  --frame: #161b21; --c0: #6ea8fe; --c1: #f0a35e; --c2: #4cc9a4; --c3: #d68be0; --c4: #a9b4bf; --c5: #8a8f98;
  --c6: #f07f8f; } }
"""


@dataclass(frozen=True)
class _Box:
    """A node in its place: the middle of its upper edge, and its rank from the top."""

    node: Node
    row: Row
    x: float
    y: float
    rank: int


def svg(graph: Graph, *, title: str = "graph", fold: bool = True) -> str:
    """Draw a graph; the picture carries its own style."""
    shown = sections(graph, fold=fold)
    frames, boxes = list[str](), dict[Node, _Box]()
    ranks = [_ranks(section) for section in shown]
    columns = max((len(nodes) for rank in ranks for nodes in rank), default=1)
    left = _MARGIN + _LANE * _LANES
    width = left + columns * (BOX + GAP) + _MARGIN
    middle, y, number = left + columns * (BOX + GAP) / 2, float(_HEAD), 0
    for section, rank in zip(shown, ranks, strict=True):
        rows = dict(zip(section.nodes, section.rows, strict=True))
        high = len(rank) * PITCH + 8
        if section.title:
            frames.append(f'<rect class="frame" x="8" y="{y:.0f}" width="{width - 16}" height="{high}" rx="8"/>'
                          f'<text class="dim" x="18" y="{y + 16:.0f}">{escape(section.title)}</text>')
        for nodes in rank:
            for place, node in enumerate(nodes):
                x = middle + (place - (len(nodes) - 1) / 2) * (BOX + GAP)
                boxes[node] = _Box(node, rows[node], x, y + 26, number)
            y, number = y + PITCH, number + 1
        y += 20
    drawn = _drawn(shown)
    body = [*frames, *_flows(boxes, drawn), *(_box(box) for box in boxes.values())]
    name = escape(title)
    return (f'<svg class="graph" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {y:.0f}" width="{width}" '
            f'role="img" aria-label="{name}"><title>{name}</title><style>{STYLE}</style>'
            f'<text class="name" x="18" y="22">{name}</text>'
            f'<text class="dim" x="18" y="38">{escape(summary(graph))}</text>' + "".join(body) + "</svg>")


def html(graph: Graph, *, title: str = "graph", notes: str = "", fold: bool = True) -> str:
    """A page with the picture, the text, and `notes` as they are; one file, no script, nothing from outside."""
    page = "body { font: 14px system-ui, sans-serif; margin: 2rem; color-scheme: light dark; } pre { overflow: auto; }"
    said = f"<h2>Rules</h2><pre>{escape(notes)}</pre>" if notes else ""
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
            f"<style>{page}</style></head><body><h1>{escape(title)}</h1>{svg(graph, title=title, fold=fold)}{said}"
            f"<h2>Text</h2><pre>{escape(text(graph, fold=fold))}</pre></body></html>\n")


def _ranks(section: Section) -> list[list[Node]]:
    """Nodes of a section in rows: each below all of the section that it reads."""
    depth: dict[Node, int] = {}
    for node in section.nodes:
        depth[node] = 1 + max((depth.get(value.producer, -1) for value in node.inputs if value.producer), default=-1)
    rows: list[list[Node]] = [[] for _ in range(1 + max(depth.values(), default=-1))]
    for node, at in depth.items():
        rows[at].append(node)
    return rows


def _drawn(shown: list[Section]) -> dict[Node, Node]:
    """Each node, and the one that is drawn for it."""
    return {node: first for section in shown for nodes in section.repeats
            for node, first in zip(nodes, section.nodes, strict=True)}


def _flows(boxes: dict[Node, _Box], drawn: dict[Node, Node]) -> Iterator[str]:
    """An arrow for each value that a drawn node reads from another; those that skip a rank pass by on the left."""
    lane = 0
    for box in boxes.values():
        makers = dict.fromkeys(value.producer for value in box.node.inputs if value.producer is not None)
        for maker in makers:
            source = boxes[drawn[maker]]
            x1, y1, x2, y2 = source.x, source.y + HIGH, box.x, box.y - 4
            if 0 < box.rank - source.rank <= 1:
                path = f"M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + 18:.0f} {x2:.0f} {y2 - 18:.0f} {x2:.0f} {y2:.0f}"
            else:
                side, lane = _MARGIN + _LANE * (lane % _LANES), lane + 1
                path = (f"M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + 30:.0f} {side} {y1:.0f} {side} {y1 + 34:.0f} "
                        f"L{side} {y2 - 34:.0f} C{side} {y2:.0f} {x2:.0f} {y2 - 30:.0f} {x2:.0f} {y2:.0f}")
            yield (f'<path class="flow" d="{path}"/>'
                   f'<path class="tip" d="M{x2 - 4:.0f} {y2 - 2:.0f} h8 l-4 6 z"/>')


def _box(box: _Box) -> str:
    row, kind = box.row, next((kind for word, kind in _KINDS if word in box.row.operator), 6)
    weights = [f"{weight.name} {weight.shape} {weight.format}".rstrip()
               + (f" = {weight.source}" if weight.source != weight.name else "") for weight in row.weights]
    tip = [f"{row.operator}: {', '.join(row.outputs)}", *row.types, f"reads {', '.join(row.inputs)}", row.attributes,
           *weights]
    matrix = next((f"{weight.shape} {weight.format.partition(',')[0]}".rstrip() for weight in row.weights), "")
    name = _short(row.outputs[0], int((BOX - 28) / _LETTER) - len(matrix))
    x, y = box.x - BOX / 2, box.y
    return (f'<g class="k{kind}"><title>{escape(chr(10).join(line for line in tip if line))}</title>'
            f'<rect class="box" x="{x:.0f}" y="{y:.0f}" width="{BOX}" height="{HIGH}" rx="6"/>'
            f'<rect class="bar" x="{x:.0f}" y="{y + 6:.0f}" width="4" height="{HIGH - 12}"/>'
            f'<text class="name" x="{x + 12:.0f}" y="{y + 19:.0f}">{escape(row.operator)}</text>'
            f'<text class="dim" text-anchor="end" x="{x + BOX - 8:.0f}" y="{y + 37:.0f}">{escape(matrix)}</text>'
            f'<text class="dim" x="{x + 12:.0f}" y="{y + 37:.0f}">{escape(name)}</text></g>')


def _short(name: str, letters: int) -> str:
    return name if len(name) <= letters else f"…{name[1 - letters:]}"
