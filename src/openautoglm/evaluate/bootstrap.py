"""Percentile bootstrap over cases (Efron, 1979; Koehn, EMNLP 2004), all metrics at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from openautoglm.evaluate.base import Floats, Measured

_CHUNK_CELLS = 2_000_000  # weights held at once: resamples times cases


def resamples(cases: int, count: int, seed: int) -> Iterator[Floats]:
    """Yield weights ``[some, cases]``, `count` rows in all: how often each case is drawn in each resample."""
    generator = np.random.default_rng(seed)
    rows = max(1, _CHUNK_CELLS // cases)
    for start in range(0, count, rows):
        size = min(rows, count - start)
        drawn = generator.integers(0, cases, size=(size, cases))
        drawn += np.arange(size)[:, None] * cases
        yield np.bincount(drawn.ravel(), minlength=size * cases).reshape(size, cases).astype(np.float64)


def intervals(measured: Sequence[Measured], values: Sequence[float], cases: int, *, count: int,
              confidence: float, seed: int) -> list[tuple[float, float]]:
    """Return (low, high) for each metric, from the same `count` resamples of the cases."""
    figures: list[list[Floats]] = [[] for _ in measured]
    for weights in resamples(cases, count, seed):
        for metric, kept in zip(measured, figures, strict=True):
            kept.append(metric.under(weights))
    found = []
    for metric, kept, value in zip(measured, figures, values, strict=True):
        drawn = np.concatenate(kept)
        low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
        shift = value - float(drawn.mean()) if metric.shifted else 0.0
        found.append((float(low) + shift, float(high) + shift))
    return found
