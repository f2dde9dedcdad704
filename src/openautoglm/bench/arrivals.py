"""Arrival times of an open loop, in seconds from its start: they depend on the settings and the seed alone.

Gaps are gamma distributed with the mean ``1 / rate``; the shape is the burstiness. Shape 1 is the exponential
distribution, so a Poisson process; an infinite shape is a constant gap.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from openautoglm.bench.settings import USUAL_PROMPTS, Arrivals

Seconds = NDArray[np.float64]
_MORE = 1.2
_MOST = 10_000_000


def arrival_times(settings: Arrivals, seed: int) -> Seconds:
    """[requests] when each request arrives, in order.

    There are `num_prompts` of them or as many as `duration_s` holds, whichever is less. With an infinite rate all
    arrive at once.
    """
    dice = np.random.default_rng((seed, 1))
    limit = math.inf if settings.duration_s is None else settings.duration_s
    if math.isinf(settings.request_rate):
        return np.zeros(settings.num_prompts or USUAL_PROMPTS)
    if settings.num_prompts is not None:
        count = settings.num_prompts
    elif math.isinf(limit):
        count = USUAL_PROMPTS
    else:
        count = 0
    bursts = -(-count // settings.burst_size) if count else 0
    times = _bursts(settings, dice, bursts, limit)
    each = np.repeat(times, settings.burst_size)
    each = each[each < limit]
    return each[:count] if count else each


def _bursts(settings: Arrivals, dice: np.random.Generator, count: int, limit: float) -> Seconds:
    """When bursts begin: `count` of them, or all before `limit` where `count` is 0."""
    rate = settings.request_rate / settings.burst_size
    if count:
        return _gaps(settings.burstiness, rate, count, dice)
    parts: list[Seconds] = []
    start = 0.0
    while start < limit:
        more = min(_MOST, int((limit - start) * rate * _MORE) + 16)
        parts.append(start + _gaps(settings.burstiness, rate, more, dice, first=not parts))
        start = float(parts[-1][-1])
    return np.concatenate(parts)


def _gaps(burstiness: float, rate: float, count: int, dice: np.random.Generator, *, first: bool = True) -> Seconds:
    """Sums of `count` gaps; the first arrival of a constant rate is at 0."""
    if math.isinf(burstiness):
        return (np.arange(count) + (0 if first else 1)) / rate
    return np.cumsum(dice.gamma(burstiness, 1 / (rate * burstiness), count))
