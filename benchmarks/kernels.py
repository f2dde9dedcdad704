"""How near the native kernels come to what this processor can do, limits and kernels measured in the same run.

Limits: byte products and fp32 products in registers, and reading memory, on all threads. A product of few rows is held
against the memory limit (bytes of packed weights a second; the weights take turns so that no cache keeps them),
products of many rows against that of arithmetic (two operations for each weight and row). The limits are measured
again around every kernel: on a machine that others use, compare the columns, not single figures.

    python benchmarks/kernels.py [--threads 2] [--isa avx2] [--rows 1,8,32,512] [--shape 6144x2048] [--rounds 7]
"""

from __future__ import annotations

import argparse
import statistics
import struct
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openautoglm.runtime.native import native_module, why_not

PANEL = 32
TURNS_BYTES = 160 << 20
FORMATS = {"fp32": 1, "bf16": 2, "int8": 3, "int4": 4}


def packed(name: str, outputs: int, inputs: int, group: int) -> NDArray[np.uint8]:
    """A packed matrix of random weights; what they are does not matter here."""
    rng = np.random.default_rng(0)
    head = np.concatenate([np.ones(PANEL, np.float32), np.zeros(PANEL, np.float32)]).view(np.uint8)
    if name in ("int8", "int4"):
        size = group or inputs
        codes = rng.integers(0, 256, (inputs // size, PANEL * size // (1 if name == "int8" else 2)), np.uint8)
        scales = np.full((inputs // size, PANEL), 1 / 1024, np.float16).view(np.uint8)
        body = np.concatenate([scales, codes], axis=1)
    else:
        size = 0
        values = rng.normal(size=(inputs, PANEL)).astype(np.float32).view(np.uint32)
        body = values if name == "fp32" else (values[0::2] >> 16) | (values[1::2] & 0xFFFF0000)
    panel = np.concatenate([head, np.ascontiguousarray(body).view(np.uint8).reshape(-1)])
    panels = -(-outputs // PANEL)
    header = struct.pack("<4sHBBIIIIQQ24x", b"OAGP", 1, FORMATS[name], 0, outputs, inputs, size, PANEL, len(panel),
                         panels * len(panel))
    return np.concatenate([np.frombuffer(header, np.uint8), np.tile(panel, panels)])


def best_and_median(call: Callable[[int], Any], rounds: int, seconds: float = 0.03) -> tuple[float, float]:
    """Seconds of one call(turn), least and median of `rounds` rounds of some calls each."""
    call(0)
    start = time.perf_counter()
    call(1)
    calls = max(1, int(seconds / max(time.perf_counter() - start, 1e-6)))
    times, turn = [], 2
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            call(turn)
            turn += 1
        times.append((time.perf_counter() - start) / calls)
    return min(times), statistics.median(times)


class Limits:
    """What the processor can do: operations and bytes a second, the best of all rounds so far."""

    def __init__(self, team: Any) -> None:
        self.team, self.int8, self.fp32, self.bytes = team, 0.0, 0.0, 0.0
        self._memory = np.ones(TURNS_BYTES, np.uint8)

    def measure(self) -> None:
        """Once more."""
        for _ in range(5):
            self.int8 = max(self.int8, self._rate(lambda: 2 * self.team.burn(True, 100_000_000)))
            self.fp32 = max(self.fp32, self._rate(lambda: 2 * self.team.burn(False, 25_000_000)))
        self.bytes = max(self.bytes, self._rate(lambda: (self.team.walk(self._memory) and 0) or TURNS_BYTES))

    @staticmethod
    def _rate(call: Callable[[], float]) -> float:
        start = time.perf_counter()
        done = call()
        return done / (time.perf_counter() - start)


def product(native: Any, team: Any, limits: Limits, case: tuple[str, int], shape: tuple[int, int], rows: int,
            rounds: int) -> str:
    """One line of the table."""
    (name, group), (outputs, inputs) = case, shape
    blob = packed(name, outputs, inputs, group)
    weights = [native.Packed(blob) for _ in range(max(1, TURNS_BYTES // len(blob)) if rows <= 8 else 1)]
    x = np.random.default_rng(1).normal(size=(rows, inputs)).astype(np.float32)
    out = np.empty((rows, outputs), np.float32)
    limits.measure()
    best, median = best_and_median(lambda turn: team.linear(weights[turn % len(weights)], x, out), rounds)
    limits.measure()
    arithmetic = limits.int8 if name.startswith("int") else limits.fp32
    of_bytes, of_operations = len(blob) / limits.bytes, 2 * rows * outputs * inputs / arithmetic
    limit = max(of_bytes, of_operations)
    figure = f"{len(blob) / median / 1e9:7.1f} GB/s" if of_bytes > of_operations else \
        f"{2 * rows * outputs * inputs / median / 1e9:7.0f} GOP/s"
    return (f"{name:5} {group:4} {outputs:6}x{inputs:<5} {rows:4} {median * 1e6:10.0f} {figure:>14} "
            f"{limit / median:6.2f} {limit / best:6.2f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", default="")
    parser.add_argument("--rows", default="1,8,32,128,512")
    parser.add_argument("--shape", default="6144x2048,512x512")
    parser.add_argument("--formats", default="fp32,bf16,int8/32,int8/128,int4/32,int4/128")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    native = native_module()
    if native is None:
        raise SystemExit(why_not())
    team = native.Team(args.threads, args.isa)
    limits = Limits(team)
    print(f"{team.threads} threads, {team.isa}")
    print("format group    shape     rows  microseconds         rate  share   best")
    for shape in args.shape.split(","):
        for case in args.formats.split(","):
            name, _, group = case.partition("/")
            for rows in map(int, args.rows.split(",")):
                outputs, inputs = map(int, shape.split("x"))
                print(product(native, team, limits, (name, int(group or 0)), (outputs, inputs), rows, args.rounds),
                      flush=True)
    print(f"limits: {limits.int8 / 1e9:.0f} GOP/s int8, {limits.fp32 / 1e9:.0f} GOP/s fp32, "
          f"{limits.bytes / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
