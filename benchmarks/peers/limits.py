"""What the machine allows: measured by `limits.c`, and turned into tokens per second of a shape."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from peers.shapes import Shape

SOURCE = Path(__file__).with_name("limits.c")
GROUP, SCALE_BYTES = 32, 2
"""Quantised weights are counted with an fp16 scale for each 32 of them."""


def measure(work: Path, threads: int) -> dict[str, float]:
    """GB/s read from memory, and GOP/s of multiply-adds in int8 and fp32; medians of seven.

    Raises:
        subprocess.CalledProcessError: the compiler failed.
    """
    program = work / "limits"
    if not program.exists() or program.stat().st_mtime < SOURCE.stat().st_mtime:
        subprocess.run(["gcc", "-O3", "-march=native", "-fopenmp", str(SOURCE), "-o", str(program)], check=True)
    answer = subprocess.run([str(program), str(threads)], capture_output=True, text=True, check=True, timeout=120)
    found: dict[str, float] = json.loads(answer.stdout)
    return found


@dataclass(frozen=True)
class Limits:
    """Medians of what the machine gave."""

    read_gb_s: float
    int8_gop_s: float
    fp32_gop_s: float

    def of(self, shape: Shape, measure: str, bits: int) -> float | None:
        """The most tokens per second: decoding reads all weights, prompts and many requests multiply all of them.

        Multiplying counts at the int8 peak for 8 and 4 bits, at the fp32 peak above.
        """
        peak = 1e9 * (self.int8_gop_s if bits <= 8 else self.fp32_gop_s)
        if measure == "decode":
            size = bits / 8 + (SCALE_BYTES / GROUP if bits <= 8 else 0.0)
            return 1e9 * self.read_gb_s / (shape.read_parameters * size)
        if measure == "prefill":
            return peak / (2 * shape.layer_parameters)
        if measure.startswith("requests-"):
            return peak / (2 * (shape.layer_parameters + shape.read_parameters))
        return None
