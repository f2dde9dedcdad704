"""Which examples make one optimiser step, and how they lie in its rows so that no sample sees another.

Letters in names: B rows of a block, L tokens of a row, N token rows of a batch, T target tokens of the batch.

A *unit* is what stays together: one example, or (layout ``shared``) several examples of one source. A unit
lies in its row as the prompt once, then the targets one after another. Each target continues at the position
where the prompt ends and attends to the prompt and to itself only, so its loss equals that of a row of its
own. The last token of a target predicts nothing and is no input.

Rows of similar length form a *block*. Everything but attention works on the flat rows of all blocks at once;
attention works block by block, so that little is padded and short rows cost little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openautoglm.data.tokens import TokenStore

Layout = Literal["bucket", "packed", "shared"]
Unit = tuple[int, ...]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]

BLOCK_COST_TOKENS = 32
"""What one more block costs, in padded tokens: sets how finely rows are sorted into blocks."""


class Block(NamedTuple):
    """Consecutive rows of one width; `causal` where a plain causal mask separates everything."""

    rows: int
    width: int
    causal: bool


@dataclass(frozen=True)
class Batch:
    """Rows ready for one forward pass, those of all blocks one after another.

    Attributes:
        ids: input ids [N]; 0 where padded.
        positions: rotary positions [N], counted from each prompt's start.
        segments: number of the unit inside its row from 1 [N]; 0 where padded.
        branches: 0 on prompts (and padding), else the number of the target inside its unit from 1 [N].
        blocks: the shapes; their products add up to N.
        rows: index into N of the token that predicts each target token [T].
        labels: the target tokens [T].
        tokens: place in the store's `ids` of each row [N]; -1 where padded.
        targets: place in the store's `ids` of each label [T].
        weights: weight of each target token in the objective [T]; None where all weigh the same.
        examples: examples in the batch.
        real_tokens: tokens of these examples as a user counts them: prompt, target and specials of each.
    """

    ids: Int64
    positions: Int64
    segments: Int64
    branches: Int64
    blocks: tuple[Block, ...]
    rows: Int64
    labels: Int64
    tokens: Int64
    targets: Int64
    weights: Float32 | None
    examples: int
    real_tokens: int

    @property
    def computed_tokens(self) -> int:
        """Token rows that the model computes, padding included."""
        return len(self.ids)


def plan_pass(store: TokenStore, layout: Layout, *, seed: int, number: int, batch: int,
              batch_unit: Literal["rows", "target_tokens"] = "rows", references_per_source: int = 4,
              ) -> list[list[Unit]]:
    """The optimiser steps of pass `number` (from 0), each a list of units; a pure function of its arguments.

    Every example occurs once. Steps are cut evenly, near `batch` rows or target tokens each.
    `references_per_source` bounds the targets of one unit in layout ``shared``.
    """
    rng = np.random.default_rng([seed, number])
    order = rng.permutation(len(store))
    units: list[Unit] = [(int(index),) for index in order]
    if layout == "shared":
        units = _by_source(store, order, references_per_source)
        units = [units[index] for index in rng.permutation(len(units))]
    weights = _weights(store, units, batch_unit)
    return _cut(units, weights, max(1, round(float(weights.sum()) / batch)))


def collate(store: TokenStore, units: Sequence[Unit], layout: Layout, *, row_tokens: int,
            parts: int = 1, weights: Float32 | None = None) -> list[Batch]:
    """Lay one step's units in rows, split into at most `parts` batches for gradient accumulation.

    ``bucket`` and ``shared`` give every unit its own row. ``packed`` fills rows up to `row_tokens`, first fit
    by decreasing length. `weights` of all examples of the store weigh their target tokens.
    """
    sizes = [_unit_tokens(store, unit) for unit in units]
    bins = [[index] for index in range(len(units))]
    if layout == "packed":
        bins = _first_fit(sizes, max(row_tokens, *sizes))
    bins.sort(key=lambda row: -sum(sizes[index] for index in row))
    parts = min(parts, len(bins))
    batches = []
    for part in range(parts):
        chosen = bins[part::parts]
        batches.append(_fill(store, [[units[index] for index in row] for row in chosen],
                             [sum(sizes[index] for index in row) for row in chosen], weights))
    return batches


def in_order(store: TokenStore, *, batch_tokens: int, rows: int | None = None) -> Iterator[Batch]:
    """Up to `rows` examples, evenly spaced over the store, once each: for validation.

    Examples of one source share it. Batches hold about `batch_tokens` computed tokens.
    """
    count = len(store) if rows is None else min(rows, len(store))
    chosen = np.linspace(0, len(store) - 1, count).round().astype(np.int64)
    units = sorted(_by_source(store, chosen, most=8), key=lambda unit: -_unit_tokens(store, unit))
    sizes = np.asarray([_unit_tokens(store, unit) for unit in units], np.int64)
    for piece in _cut(units, sizes, -(-int(sizes.sum()) // batch_tokens)):
        yield from collate(store, piece, "shared", row_tokens=0)


def _by_source(store: TokenStore, order: Int64, most: int) -> list[Unit]:
    """Units of up to `most` examples of one source; sources split evenly (6 at most 4 gives 3 and 3)."""
    sources: dict[int, list[int]] = {}
    for index in order:
        sources.setdefault(int(store.groups[index]), []).append(int(index))
    units: list[Unit] = []
    for members in sources.values():
        pieces = -(-len(members) // most)
        units += [tuple(members[piece::pieces]) for piece in range(pieces)]
    return units


def _weights(store: TokenStore, units: Sequence[Unit], batch_unit: str) -> Int64:
    if batch_unit == "rows":
        return np.asarray([len(unit) for unit in units], np.int64)
    targets = store.lengths - store.prompts
    return np.asarray([int(targets[list(unit)].sum()) for unit in units], np.int64)


def _cut(units: list[Unit], weights: Int64, pieces: int) -> list[list[Unit]]:
    """Cut a sequence into `pieces` of nearly equal weight."""
    pieces = min(pieces, len(units))
    ends = np.cumsum(weights)
    cuts = np.searchsorted(ends, np.arange(1, pieces) * (ends[-1] / pieces), side="left") + 1
    bounds = [0, *(int(cut) for cut in cuts), len(units)]
    return [units[start:stop] for start, stop in pairwise(bounds) if stop > start]


def _unit_tokens(store: TokenStore, unit: Unit) -> int:
    """Input tokens of a unit: the prompt once, every target less its last token."""
    prompt = int(store.prompts[unit[0]])
    return prompt + sum(int(store.offsets[index + 1] - store.offsets[index]) - prompt - 1 for index in unit)


def _first_fit(sizes: Sequence[int], room: int) -> list[list[int]]:
    """First-fit decreasing bin packing; returns indices per bin."""
    free: list[int] = []
    bins: list[list[int]] = []
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        slot = next((i for i, left in enumerate(free) if left >= sizes[index]), None)
        if slot is None:
            free.append(room)
            bins.append([])
            slot = len(bins) - 1
        free[slot] -= sizes[index]
        bins[slot].append(index)
    return bins


def _widths(sizes: Sequence[int]) -> list[int]:
    """Cut rows of falling sizes into blocks; returns every row's padded width.

    Least padding plus `BLOCK_COST_TOKENS` a block, by dynamic programming over the number of rows.
    """
    least = [0]
    first = [0]
    for stop in range(1, len(sizes) + 1):
        costs = [least[start] + sizes[start] * (stop - start) for start in range(stop)]
        start = min(range(stop), key=costs.__getitem__)
        least.append(costs[start] + BLOCK_COST_TOKENS)
        first.append(start)
    widths: list[int] = []
    stop = len(sizes)
    while stop:
        widths[:0] = [sizes[first[stop]]] * (stop - first[stop])
        stop = first[stop]
    return widths


def _fill(store: TokenStore, rows: Sequence[Sequence[Unit]], sizes: Sequence[int],
          weights: Float32 | None = None) -> Batch:
    widths = _widths(sizes)
    ids, positions, segments, branches = np.zeros((4, sum(widths)), np.int64)
    tokens = np.full(sum(widths), -1, np.int64)
    predicting: list[Int64] = []
    targets: list[Int64] = []
    ends = np.cumsum(widths)
    for row, units in enumerate(rows):
        at = int(ends[row]) - widths[row]
        for number, unit in enumerate(units, start=1):
            prompt = int(store.prompts[unit[0]])
            span = slice(at, at + prompt)
            tokens[span] = store.offsets[unit[0]] + np.arange(prompt)
            positions[span], segments[span] = np.arange(prompt), number
            at = end_of_prompt = at + prompt
            for branch, index in enumerate(unit, start=1):
                target = np.arange(store.offsets[index] + prompt, store.offsets[index + 1])
                span = slice(at, at + len(target) - 1)
                tokens[span], positions[span] = target[:-1], np.arange(prompt, prompt + len(target) - 1)
                segments[span], branches[span] = number, branch
                predicting.append(np.concatenate(([end_of_prompt - 1], np.arange(span.start, span.stop))))
                targets.append(target)
                at = span.stop
    members = [index for units in rows for unit in units for index in unit]
    of_tokens = None if weights is None else np.repeat(weights[members], [len(target) for target in targets])
    of_labels = np.concatenate(targets)
    ids[tokens >= 0] = store.ids[tokens[tokens >= 0]]
    return Batch(ids, positions, segments, branches, _blocks(rows, widths), np.concatenate(predicting),
                 store.ids[of_labels].astype(np.int64), tokens, of_labels, of_tokens, len(members),
                 sum(int(store.offsets[index + 1] - store.offsets[index]) for index in members))


def _blocks(rows: Sequence[Sequence[Unit]], widths: Sequence[int]) -> tuple[Block, ...]:
    """Merge neighbouring rows of one width and one kind of mask into blocks."""
    blocks: list[Block] = []
    for units, width in zip(rows, widths, strict=True):
        causal = len(units) == 1 and len(units[0]) == 1
        if blocks and blocks[-1].width == width:
            blocks[-1] = Block(blocks[-1].rows + 1, width, causal and blocks[-1].causal)
        else:
            blocks.append(Block(1, width, causal))
    return tuple(blocks)
