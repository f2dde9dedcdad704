"""Time and memory of a training step: everything learns, or the lower half is frozen, without and with its cache.

    python benchmarks/freeze.py --preset base --rounds 12 --out freeze.json
    python benchmarks/freeze.py --threads 1 --clock cpu      (seconds of this process, for a busy machine)

Time: the steps of all ways alternate in one process; the medians are compared. Memory: each way trains in a process of
its own, whose peak resident size counts (imports included; what imports alone take is shown). Texts are random ids with
lengths like those of E2E: 30 tokens of prompt and 28 of target.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from openautoglm.data.tokens import TokenStore, store_from_ids
from openautoglm.models import hf
from openautoglm.models.presets import preset
from openautoglm.train.loop import Run
from openautoglm.train.settings import TrainSettings

CLOCKS = {"wall": time.monotonic, "cpu": time.process_time}
WAYS = ("full", "frozen", "frozen, cached", "full, 8bit")


def random_store(vocabulary: int, examples: int) -> TokenStore:
    """Prompts of 20 to 40 tokens, targets of 18 to 38."""
    chance = np.random.default_rng(0)
    rows = []
    for _ in range(examples):
        prompt, target = int(chance.integers(20, 41)), int(chance.integers(18, 39))
        rows.append((chance.integers(0, vocabulary, prompt + target), prompt))
    return store_from_ids(rows)


def settings(way: str, layers: int, rows: int) -> TrainSettings:
    """The settings of a way; `layers` is the model's count, `rows` the examples of a step."""
    freeze = {"layers": layers // 2, "cache": way == "frozen, cached"} if way.startswith("frozen") else None
    return TrainSettings(batch=rows, precision="fp32", freeze=freeze,  # type: ignore[arg-type]
                         optimiser_state="8bit" if "8bit" in way else "fp32")


class Way:
    """One way to train, step by step."""

    def __init__(self, name: str, options: argparse.Namespace, folder: Path) -> None:
        size, examples, self.clock = options.preset, options.examples, CLOCKS[options.clock]
        spec = preset(size)
        store = random_store(spec.vocab_size, examples)
        self.run = Run(hf.build(spec, seed=0), store, None, settings(name, spec.layers, options.rows), folder, None)
        self.plan = self.run._plan()
        started = self.clock()
        freeze = self.run.settings.freeze
        if freeze is not None and freeze.cache:
            from openautoglm.train.states import FrozenStates

            self.run.frozen = FrozenStates(self.run.model, store, freeze, folder, self.run.precision)
        self.filled_s = self.clock() - started

    def step(self, number: int) -> float:
        """Do a step; return its seconds."""
        started = self.clock()
        self.run._step(self.plan[number % len(self.plan)], len(self.plan))
        return self.clock() - started


def child(name: str, options: argparse.Namespace, steps: int) -> None:
    """Train a few steps and print the peak resident size; ``imports`` trains nothing."""
    if name != "imports":
        with tempfile.TemporaryDirectory() as folder:
            way = Way(name, options, Path(folder))
            for number in range(steps):
                way.step(number)
    status = Path("/proc/self/status").read_text()  # ru_maxrss would start from the parent's size
    print(next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")))


def peak_bytes(name: str, options: argparse.Namespace) -> int:
    """Peak resident size of a process that trains one way."""
    done = subprocess.run([sys.executable, __file__, "--preset", options.preset, "--rows", str(options.memory_rows),
                           "--examples", str(options.examples), "--threads", str(options.threads), "--child", name],
                          capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Alternate the ways, then let each train by itself."""
    with tempfile.TemporaryDirectory() as folder:
        ways = {name: Way(name, options, Path(folder) / str(number))
                for number, name in enumerate(WAYS)}
        seconds: dict[str, list[float]] = {name: [] for name in WAYS}
        for number in range(options.rounds + 1):
            for name, way in ways.items():
                took = way.step(number)
                if number:  # the first round warms up
                    seconds[name].append(took)
            print(f"round {number}: " + ", ".join(f"{name} {times[-1]:.2f} s" for name, times in seconds.items()
                                                  if times), flush=True)
        filled_s = ways["frozen, cached"].filled_s
        tokens = ways["full"].run.store.tokens
        del ways
    imports = peak_bytes("imports", options)
    memory = {name: peak_bytes(name, options) for name in WAYS}
    full_s = seconds["full"]
    rows = [{"way": name, "seconds": round(statistics.median(times), 3), "all_seconds": [round(t, 3) for t in times],
             "time_ratio": round(statistics.median(a / b for a, b in zip(times, full_s, strict=True)), 3),
             "peak_mib": round(memory[name] / 2**20), "memory_ratio": round(memory[name] / memory["full"], 3)}
            for name, times in seconds.items()]
    return {"preset": options.preset, "parameters": preset(options.preset).parameters, "rows": rows,
            "rows_timed": options.rows, "rows_of_memory": options.memory_rows, "clock": options.clock,
            "threads": options.threads, "imports_mib": round(imports / 2**20), "cache_filled_s": round(filled_s, 1),
            "store_tokens": tokens, "torch": torch.__version__, "load_average": os.getloadavg()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="base")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--examples", type=int, default=1280)
    parser.add_argument("--rows", type=int, default=64, help="examples of a timed step")
    parser.add_argument("--memory-rows", type=int, default=64, help="examples of a step whose memory is measured")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.clock == "cpu" and options.threads != 1:
        parser.error("--clock cpu needs --threads 1: threads that wait for each other burn time too")
    torch.set_num_threads(options.threads)
    if options.child:
        child(options.child, options, steps=2)
        return
    result = measure(options)
    print(f"{result['preset']}, {result['parameters']:,} parameters, {options.rows} rows, imports "
          f"{result['imports_mib']} MiB, cache filled in {result['cache_filled_s']} s")
    for row in result["rows"]:
        print(f"  {row['way']:16}{row['seconds']:7.2f} s  {row['time_ratio']:.2f} of full   {row['peak_mib']:6} MiB  "
              f"{row['memory_ratio']:.2f} of full")
    if options.out:
        options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
