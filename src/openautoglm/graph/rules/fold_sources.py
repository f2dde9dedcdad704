"""Write the sources of weights as simply as they can be said."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import pairwise

from openautoglm.graph.ir import Graph
from openautoglm.graph.rewrite import RewriteGraph
from openautoglm.graph.sources import Concat, Quantised, Rows, Scaled, Source, Tensor


def simplify(source: Source, rows: Mapping[str, int]) -> Source:
    """Return an equal source that is as simple as possible.

    Args:
        rows: how many rows tensors of the checkpoint have, as far as known.
    """
    if isinstance(source, Rows):
        return _rows(simplify(source.of, rows), source.start, source.stop, rows)
    if isinstance(source, Concat):
        return _concat([simplify(part, rows) for part in source.parts], rows)
    if isinstance(source, Scaled):
        by = source.by if isinstance(source.by, float) else simplify(source.by, rows)
        return _scaled(simplify(source.of, rows), by)
    if isinstance(source, Quantised):
        return replace(source, of=simplify(source.of, rows))
    return source


def _rows(of: Source, start: int, stop: int, rows: Mapping[str, int]) -> Source:
    if start == 0 and stop == _height(of, rows):
        return of
    if isinstance(of, Rows):
        return _rows(of.of, of.start + start, of.start + stop, rows)
    if isinstance(of, Concat):
        top = 0
        for part in of.parts:
            height = _height(part, rows)
            if height is None:
                break
            if top <= start and stop <= top + height:
                return _rows(part, start - top, stop - top, rows)
            top += height
    return Rows(of, start, stop)


def _concat(parts: list[Source], rows: Mapping[str, int]) -> Source:
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, Concat) else (part,))]
    merged: list[Source] = []
    for part in flat:
        last = merged[-1] if merged else None
        if isinstance(last, Rows) and isinstance(part, Rows) and last.of == part.of and last.stop == part.start:
            merged[-1] = Rows(last.of, last.start, part.stop)
        else:
            merged.append(part)
    if len(merged) == 1:
        only = merged[0]
        return _rows(only.of, only.start, only.stop, rows) if isinstance(only, Rows) else only
    first = merged[0]
    if isinstance(first, Quantised):
        inner = [part.of for part in merged if isinstance(part, Quantised) and replace(part, of=first.of) == first]
        if len(inner) == len(merged):  # each row is quantised for itself
            return replace(first, of=_concat(inner, rows))
    return Concat(tuple(merged))


def _scaled(of: Source, by: Source | float) -> Source:
    if by == 1.0:
        return of
    if isinstance(of, Scaled) and isinstance(of.by, float) and isinstance(by, float):
        return _scaled(of.of, of.by * by)
    return Scaled(of, by)


def _height(source: Source, rows: Mapping[str, int]) -> int | None:
    """How many rows a source has; None where that is not known."""
    if isinstance(source, Tensor):
        return rows.get(source.name)
    if isinstance(source, Rows):
        return source.stop - source.start
    if isinstance(source, Concat):
        heights = [_height(part, rows) for part in source.parts]
        return None if None in heights else sum(height or 0 for height in heights)
    return _height(source.of, rows)


def heights(graph: Graph) -> dict[str, int]:
    """The rows of the checkpoint's tensors, as far as a graph tells.

    A tensor that is read as a whole has as many as its weight. One that is read in several pieces which leave no gap is
    taken to end where the last of them ends; whoever loads compares with the type of the weight.
    """
    known: dict[str, int] = {}
    pieces: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
    for value in graph.weights.values():
        if isinstance(value.source, Tensor):
            known[value.source.name] = int(value.type.shape[0])
        for piece in _pieces(value.source):
            if isinstance(piece.of, Tensor):
                pieces[piece.of.name].add((piece.start, piece.stop))
    for name, found in pieces.items():
        ordered = sorted(found)
        if len(ordered) > 1 and ordered[0][0] == 0 and all(
                one[1] == other[0] for one, other in pairwise(ordered)):
            known.setdefault(name, ordered[-1][1])
    return known


def _pieces(source: Source | None) -> Iterator[Rows]:
    if isinstance(source, Rows):
        yield source
    if isinstance(source, Concat):
        for part in source.parts:
            yield from _pieces(part)
    elif source is not None and not isinstance(source, Tensor):
        yield from _pieces(source.of)


def _fold(graph: Graph) -> list[str]:
    rows, changed = heights(graph), list[str]()
    for value in graph.weights.values():
        if value.source is not None and (simple := simplify(value.source, rows)) != value.source:
            changed.append(value.name)
            value.source = simple
            if isinstance(simple, Tensor) and simple.name not in graph.weights:
                value.name = simple.name
    graph.weights = {value.name: value for value in graph.weights.values()}
    return changed


fold_sources = RewriteGraph(_fold, "fold_sources")
