"""What quantising a large checkpoint takes: peak memory and minutes, on random weights of a named shape.

    python benchmarks/quantise_shape.py E --work DIR --method gptq --memory-limit 3GB --out gptq-E.json

The work is a process of its own, whose peak resident size is read while it runs. A run that was stopped or killed goes
on at the layer that it was at: `seconds` are those of finished layers over all runs, `peak_bytes` is the most of all
runs, `runs` says how often it was started. Weights and calibration ids are random: errors mean nothing here.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from peers.random_shapes import random_checkpoint, shape_of
from pydantic import TypeAdapter

from openautoglm.compress.methods import QuantisationMethod
from openautoglm.compress.quantise import quantise_checkpoint
from openautoglm.core import log
from openautoglm.core.files import read_json, write_json
from openautoglm.pipeline.units import parse_bytes

EVERY_S = 0.5


def end_with_parent() -> None:
    """Two processes must not work in one folder: end when the one that started us is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def child(job: dict[str, Any]) -> None:
    """Quantise; print what it took as the last line of the output."""
    torch.set_num_threads(job["threads"])
    log.configure()
    end_with_parent()
    method = TypeAdapter(QuantisationMethod).validate_python(job["method"])
    chance = random.Random(0)
    texts = [[chance.randrange(job["vocabulary"]) for _ in range(512)] for _ in range(job["tokens"] // 512)]
    facts = quantise_checkpoint(Path(job["checkpoint"]), Path(job["result"]), method, texts or None,
                                memory_limit=job["memory_limit"], workdir=Path(job["workdir"]))
    print(json.dumps({"seconds": facts.seconds, "file_bytes": facts.file_bytes, "average_bits": facts.average_bits,
                      "calibration_tokens": facts.calibration_tokens}), flush=True)


def peak_of(process: subprocess.Popen[str]) -> int:
    """Bytes that a process has held at most so far; 0 once it is gone."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM:")), 0)


def measure(job: dict[str, Any], out: Path) -> dict[str, Any]:
    """Run the child, and keep in `out` the most that it held, so that a kill loses no figure.

    Raises:
        SystemExit: the child failed.
    """
    told = read_json(out) if out.is_file() else {}
    if told.get("job") != job:
        told = {"job": job, "runs": 0, "peak_bytes": 0, "wall_s": 0.0}
    if "seconds" in told:
        return told
    told["runs"] += 1
    before, began = told["wall_s"], time.monotonic()
    with subprocess.Popen([sys.executable, __file__, "--child", json.dumps(job)], stdout=subprocess.PIPE,
                          text=True) as process:
        while process.poll() is None:
            time.sleep(EVERY_S)
            peak = max(told["peak_bytes"], peak_of(process))
            if peak != told["peak_bytes"] or time.monotonic() - began > told["wall_s"] - before + 30:
                write_json(out, told := {**told, "peak_bytes": peak, "wall_s": before + time.monotonic() - began})
        lines = process.communicate()[0].splitlines()
    if process.returncode:
        raise SystemExit(process.returncode)
    told |= {"wall_s": before + time.monotonic() - began, **json.loads(lines[-1])}
    write_json(out, told)
    return told


def main(given: Sequence[str] | None = None) -> None:
    """Measure one method on one shape."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shape", nargs="?", help="S, E, or a preset such as micro")
    parser.add_argument("--work", type=Path, default=Path("quantise-work"),
                        help="checkpoint, result and what is unfinished")
    parser.add_argument("--method", choices=("rtn", "gptq", "awq", "mixed"), default="gptq")
    parser.add_argument("--bits", type=int, default=4)
    parser.add_argument("--group", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=4096, help="of the calibration, in texts of 512")
    parser.add_argument("--memory-limit", default="3GB")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path("quantise-shape.json"))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(given)
    if options.child:
        child(json.loads(options.child))
        return
    if not options.shape:
        parser.error("name a shape")
    form = {"bits": options.bits, "group": options.group}
    mixed = options.method == "mixed"
    method = {"method": "mixed", "base": {"method": "gptq", **form}} if mixed else {"method": options.method, **form}
    place = options.work / f"{options.shape}-{options.method}"
    place.mkdir(parents=True, exist_ok=True)
    job = {"checkpoint": str(random_checkpoint(options.shape, options.work)), "method": method,
           "vocabulary": shape_of(options.shape).vocab, "tokens": options.tokens, "threads": options.threads,
           "memory_limit": parse_bytes(options.memory_limit), "workdir": str(place / "unfinished"),
           "result": str(place / "quantised.safetensors")}
    told = measure(job, options.out)
    print(f"{options.shape}, {shape_of(options.shape).parameters / 1e6:.1f} M parameters, {options.method}: "
          f"peak {told['peak_bytes'] / 1e9:.2f} GB, {told['seconds'] / 60:.1f} minutes of finished layers, "
          f"{told['wall_s'] / 60:.1f} of all {told['runs']} runs, file {told['file_bytes'] / 1e9:.3f} GB, "
          f"{told['average_bits']:.2f} bits a weight, {told['calibration_tokens']} tokens")


if __name__ == "__main__":
    main()
