"""Clocks of the training benchmark: seconds, what other processes used meanwhile, and the roof of the machine."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import psutil
import torch

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
_chosen = {"clock": "wall"}


def choose_clock(name: str) -> None:
    """Count wall or CPU seconds from now on."""
    _chosen["clock"] = name


def now() -> float:
    """Seconds of the chosen clock."""
    return CLOCKS[_chosen["clock"]]()


class Stopwatch:
    """Seconds since it was made, and how many cores other processes kept busy meanwhile, on average."""

    def __init__(self) -> None:
        self.clock, self.wall, self.own, self.all = now(), time.perf_counter(), time.process_time(), busy()

    def read(self) -> tuple[float, float]:
        wall = time.perf_counter() - self.wall
        others = busy() - self.all - (time.process_time() - self.own)
        return now() - self.clock, max(0.0, others) / max(wall, 1e-9)


def busy() -> float:
    """CPU seconds that all processes have used on this machine."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))


@dataclass
class Timing:
    """Steps of one contestant; `others` is the number of cores that other processes used during each."""

    seconds: list[float] = field(default_factory=list)
    real: list[int] = field(default_factory=list)
    computed: list[int] = field(default_factory=list)
    flops: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        return [tokens / seconds for tokens, seconds in zip(self.real, self.seconds, strict=True)]


def gemm_limit(dtype: torch.dtype, seconds: float = 2.0) -> float:
    """Best FLOP/s of a large matrix product, the roof of any training here."""
    a, b = torch.randn(2048, 512, dtype=dtype), torch.randn(512, 2048, dtype=dtype)
    best, stop = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < stop:
        started = now()
        a @ b
        best = max(best, 2 * 2048 * 2048 * 512 / (now() - started))
    return best
