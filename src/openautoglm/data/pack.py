"""Which examples make one optimiser step, and how they lie in its rows so that no sample sees another.

Letters in names: B rows, L tokens of a row, T target tokens of the batch.

A *unit* is what stays together: one example, or (layout ``shared``) several examples of one source. A unit lies in its
row as the prompt once, then the targets one after another. Each target continues at the position where the prompt ends
and attends to the prompt and to itself only, so its loss equals that of a row of its own. The last token of a target
predicts nothing and is no input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from openautoglm.data.tokens import TokenStore

Layout = Literal["bucket", "packed", "shared"]
Unit = tuple[int, ...]
Int64 = NDArray[np.int64]

_POOL_STEPS = 32
"""Steps in one shuffled pool that `bucket` sorts by length."""


@dataclass(frozen=True)
class Batch:
    """Rows ready for one forward pass.

    Attributes:
        ids: input ids; 0 where padded.
        positions: rotary positions, counted from each prompt's start.
        segments: number of the unit inside its row from 1; 0 where padded.
        branches: 0 on prompts (and padding), else the number of the target inside its unit from 1.
        rows: index into the flattened B*L rows of the token that predicts each target token.
        labels: the target tokens.
        causal: every row holds one unit of one target, so a plain causal mask is enough.
        examples: examples in the batch.
        real_tokens: tokens of these examples as a user counts them: prompt, target and specials of each.
    """

    ids: Int64
    positions: Int64
    segments: Int64
    branches: Int64
    rows: Int64
    labels: Int64
    causal: bool
    examples: int
    real_tokens: int

    @property
    def computed_tokens(self) -> int:
        """Token rows that the model computes, padding included."""
        return int(self.ids.size)


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
    steps = max(1, round(float(weights.sum()) / batch))
    if layout != "bucket":
        return _cut(units, weights, steps)
    pools = _cut(units, weights, max(1, round(steps / _POOL_STEPS)))
    lengths = store.lengths
    plan: list[list[Unit]] = []
    for pool in pools:
        pool.sort(key=lambda unit: int(lengths[unit[0]]))
        weights = _weights(store, pool, batch_unit)
        plan += _cut(pool, weights, max(1, round(float(weights.sum()) / batch)))
    return [plan[index] for index in rng.permutation(len(plan))]


def collate(store: TokenStore, units: Sequence[Unit], layout: Layout, *, row_tokens: int,
            parts: int = 1) -> list[Batch]:
    """Lay one step's units in rows, split into at most `parts` batches for gradient accumulation.

    ``bucket`` gives every unit its own row, padded to the longest. ``packed`` and ``shared`` fill rows of `row_tokens`
    (longer only if a unit is), first fit by decreasing length.
    """
    sizes = [_unit_tokens(store, unit) for unit in units]
    if layout == "bucket":
        order = sorted(range(len(units)), key=lambda index: sizes[index])
        bins = [[index] for index in order]
    else:
        bins = _first_fit(sizes, max(row_tokens, *sizes))
    parts = min(parts, len(bins))
    batches = []
    for part in range(parts):
        chosen = bins[part * len(bins) // parts : (part + 1) * len(bins) // parts]
        width = max(sum(sizes[index] for index in row) for row in chosen)
        if layout != "bucket":
            width = max(width, row_tokens)
        batches.append(_fill(store, [[units[index] for index in row] for row in chosen], width))
    return batches


def in_order(store: TokenStore, *, batch_tokens: int, rows: int | None = None) -> Iterator[Batch]:
    """Up to `rows` examples, evenly spaced over the store, once each: for validation.

    Examples of one source share it. Batches hold about `batch_tokens` computed tokens.
    """
    count = len(store) if rows is None else min(rows, len(store))
    chosen = np.linspace(0, len(store) - 1, count).round().astype(np.int64)
    units = _by_source(store, chosen, most=8)
    sizes = [_unit_tokens(store, unit) for unit in units]
    row_tokens = max(sizes)
    bins = _first_fit(sizes, row_tokens)
    step = max(1, batch_tokens // row_tokens)
    for start in range(0, len(bins), step):
        layout = [[units[index] for index in row] for row in bins[start : start + step]]
        yield _fill(store, layout, max(sum(sizes[index] for index in row) for row in bins[start : start + step]))


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
    """Cut a sequence into `pieces` of nearly equal weight; none is empty as long as there are enough units."""
    pieces = min(pieces, len(units))
    ends = np.cumsum(weights)
    cuts = np.searchsorted(ends, np.arange(1, pieces) * (ends[-1] / pieces), side="left") + 1
    bounds = [0, *(int(cut) for cut in cuts), len(units)]
    return [units[start:stop] for start, stop in zip(bounds, bounds[1:], strict=False) if stop > start]


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


def _fill(store: TokenStore, rows: Sequence[Sequence[Unit]], width: int) -> Batch:
    ids, positions, segments, branches = np.zeros((4, len(rows), width), np.int64)
    predicting: list[NDArray[np.int64]] = []
    labels: list[NDArray[np.int32]] = []
    real_tokens = 0
    for row, units in enumerate(rows):
        at = 0
        for number, unit in enumerate(units, start=1):
            prompt = int(store.prompts[unit[0]])
            last_of_prompt = at + prompt - 1
            span = slice(at, at + prompt)
            ids[row, span] = store[unit[0]][:prompt]
            positions[row, span] = np.arange(prompt)
            segments[row, span] = number
            at += prompt
            for branch, index in enumerate(unit, start=1):
                example = store[index]
                target = example[prompt:]
                span = slice(at, at + len(target) - 1)
                ids[row, span] = target[:-1]
                positions[row, span] = np.arange(prompt, prompt + len(target) - 1)
                segments[row, span] = number
                branches[row, span] = branch
                predicting.append(row * width + np.concatenate(([last_of_prompt], np.arange(span.start, span.stop))))
                labels.append(target)
                real_tokens += len(example)
                at = span.stop
    causal = all(len(units) == 1 and len(units[0]) == 1 for units in rows)
    return Batch(ids, positions, segments, branches, np.concatenate(predicting),
                 np.concatenate(labels).astype(np.int64), causal,
                 sum(len(unit) for units in rows for unit in units), real_tokens)
