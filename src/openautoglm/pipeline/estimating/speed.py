"""How fast this machine is, measured in a second: products of matrices, and reading memory."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import numpy as np

_SECONDS = 0.15
_SIZE = 512
_BLOCK_BYTES = 64 << 20


@cache
def bytes_per_s(threads: int | None = None, size: int = _BLOCK_BYTES) -> float:
    """Bytes that all threads together read in a second, over and over from blocks of `size` bytes, at most 64 MiB each.

    Small ones stay in the processor's caches.
    """
    count = threads or len(os.sched_getaffinity(0))
    size = max(1 << 16, min(size, _BLOCK_BYTES)) // 4 * 4
    blocks = [np.ones(size // 4, np.float32) for _ in range(count)]
    with ThreadPoolExecutor(count) as team:
        def read() -> None:
            list(team.map(lambda block: float(block.max()), blocks))

        return count * size / _fastest(read)


@cache
def products_per_s() -> float:
    """Operations a second of fp32 products of square matrices, in numpy."""
    left = np.ones((_SIZE, _SIZE), np.float32)
    return float(2 * _SIZE**3 / _fastest(lambda: left @ left))


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest call among those of a short while."""
    work()
    took: list[float] = []
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end or len(took) < 3:
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return min(took)
