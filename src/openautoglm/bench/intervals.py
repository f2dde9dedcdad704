"""Intervals of figures by a bootstrap of two stages: repetitions are drawn, and in each of them blocks of neighbours.

Requests that are near in time share their queue, so they are drawn in blocks (Kuensch 1989); with one repetition the
blocks alone speak, and an interval says nothing about another start of the server. Davison & Hinkley 1997, section 3.8.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from openautoglm.bench.figures import Measured, Values, percentile_names
from openautoglm.bench.settings import Judgement
from openautoglm.evaluate.bootstrap import resamples

BLOCKS = 20
_MOST_CELLS = 200_000_000  # resamples times values of one latency
_FEWEST = 200
Floats = NDArray[np.float64]
Interval = tuple[float, float]


def intervals(runs: Sequence[Measured], judge: Judgement, seed: int) -> dict[str, Interval]:
    """Low and high of each figure that has at least ten requests in every repetition."""
    found: dict[str, Interval] = {}
    names = [name for name in runs[0].latencies if all(name in run.latencies for run in runs)]
    for name in names:
        values = [run.latencies[name] for run in runs]
        if min(len(np.unique(one.owner)) for one in values) < 10:
            continue
        drawn = _together([_latency(one, judge, seed + place) for place, one in enumerate(values)], seed)
        keys = [f"mean_{name}_ms", f"median_{name}_ms", *percentile_names(name, judge.percentiles)]
        found |= dict(zip(keys, _bounds(drawn, judge), strict=True))
    if min(run.figures["completed"] for run in runs) >= 10:
        for name, rates in _RATES.items():
            if runs[0].figures[name] is not None:
                drawn = _together([_rate(run, rates(run), judge, seed + place) for place, run in enumerate(runs)], seed)
                found |= {name: _bounds(drawn, judge)[0]}
    return found


_RATES: dict[str, Callable[[Measured], Floats]] = {
    "request_throughput": lambda run: np.ones(len(run.ends_s)),
    "output_throughput": lambda run: run.output_tokens,
    "total_token_throughput": lambda run: run.input_tokens + run.output_tokens,
    "request_goodput": lambda run: run.good}


def _latency(values: Values, judge: Judgement, seed: int) -> Floats:
    """[resamples, figures] mean, median and percentiles of blocks drawn with replacement."""
    blocks = min(BLOCKS, int(values.owner.max()) + 1)
    order = np.argsort(values.ms, kind="stable")
    sorted_ms = values.ms[order]
    block = (values.owner[order] * blocks) // (int(values.owner.max()) + 1)
    sums, counts = np.bincount(block, sorted_ms, blocks), np.bincount(block, minlength=blocks)
    shares = np.array([50.0, *judge.percentiles]) / 100
    count = int(np.clip(_MOST_CELLS // len(sorted_ms), min(_FEWEST, judge.resamples), judge.resamples))
    rows = []
    for weights in resamples(blocks, count, seed):
        for row in weights:
            total = row @ counts
            if not total:
                continue
            reached = np.searchsorted(np.cumsum(row[block]), shares * total)
            rows.append([row @ sums / total, *sorted_ms[np.minimum(reached, len(sorted_ms) - 1)]])
    return np.array(rows)


def _rate(run: Measured, amounts: Floats, judge: Judgement, seed: int) -> Floats:
    """[resamples, 1] a throughput, from equal slices of time drawn with replacement."""
    duration = run.figures["duration"]
    slices = np.minimum((run.ends_s / duration * BLOCKS).astype(np.int64), BLOCKS - 1)
    sums = np.bincount(slices, amounts, BLOCKS)
    drawn = [weights @ sums for weights in resamples(BLOCKS, judge.resamples, seed)]
    found: Floats = np.concatenate(drawn)[:, None] / duration
    return found


def _together(runs: Sequence[Floats], seed: int) -> Floats:
    """[resamples, figures] means over repetitions drawn with replacement."""
    count = min(len(run) for run in runs)
    if len(runs) == 1:
        return runs[0]
    dice = np.random.default_rng((seed, 5))
    stacked = np.stack([run[:count] for run in runs])
    drawn = dice.integers(0, len(runs), (count, len(runs)))
    rows = dice.integers(0, count, (count, len(runs)))
    means: Floats = stacked[drawn, rows].mean(axis=1)
    return means


def _bounds(drawn: Floats, judge: Judgement) -> list[Interval]:
    tail = (1 - judge.confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
