"""A model larger than its memory: tokens a second with layers streamed from disk, beside what the disk can read.

    python benchmarks/streaming.py --model FOLDER --limit-mib 1024

FOLDER holds a checkpoint; its weights are packed in bf16 where they are not yet. The disk's limit is measured in the
same round: the packed file is read from its beginning to its end in blocks of a layer's size, with nothing of it in
the system's page cache. Then a process of its own, whose data may not exceed the limit (RLIMIT_DATA), opens the model
with this `memory_limit` and decodes greedily, the page cache emptied of the file once more. Every token must bring in
what does not stay in memory, so the tokens a second are held against those that reading alone would allow. Rounds
alternate; the figures are medians.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from openautoglm.core.errors import AutoGLMError
from openautoglm.engine.engine import Engine
from openautoglm.engine.request import Decoding, Request
from openautoglm.engine.settings import EngineSettings
from openautoglm.models.checkpoint import read_spec
from openautoglm.runtime.load import load_program
from openautoglm.runtime.native_load import pack_checkpoint

BLOCK = 32 << 20
CACHE_TOKENS, PAGE = 256, 16
STACKS = 32 << 20
"""What threads reserve for their stacks and hardly use."""


def forget(path: Path) -> None:
    """Let the page cache drop a file."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(handle)


def read_speed(path: Path) -> float:
    """Bytes a second of one reading from the beginning to the end."""
    buffer, total = bytearray(BLOCK), 0
    begin = time.perf_counter()
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            total += count
    return total / (time.perf_counter() - begin)


def reserved_bytes() -> int:
    """What the process has reserved of data and does not use: RLIMIT_DATA counts it, memory does not hold it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    data, used = (int(lines[name].split()[0]) << 10 for name in ("VmData", "RssAnon"))
    return max(0, data - used)


def child(model: Path, limit: int, tokens: int, threads: int) -> None:
    """Decode under the limit, and say how it went."""
    most = limit + reserved_bytes() + STACKS
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    begin = time.perf_counter()
    program = load_program(model, "native", dtype="bf16", cache="bf16", page_size=PAGE, pages=CACHE_TOKENS // PAGE,
                           max_rows=32, max_wanted=1, memory_limit=limit, threads=threads)
    engine = Engine(program, EngineSettings(max_batch=1), stop_ids=())
    opened = time.perf_counter()
    request = Request(list(range(2, 18)), Decoding(max_new_tokens=tokens + 1, ignore_stop=True))
    times = [time.perf_counter() for _ in engine.stream(request)]
    print(json.dumps({
        "open_s": opened - begin, "first_s": times[0] - opened, "tokens_s": (len(times) - 1) / (times[-1] - times[0]),
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10, "load": getattr(program, "load", "unknown"),
        "weights_in_memory": program.facts.weight_bytes}))


def packed_file(model: Path) -> Path:
    """The packed weights, written where there are none that this version loads."""
    try:
        load_program(model, "native", dtype="bf16", load="map", page_size=PAGE, pages=1, max_rows=1, max_wanted=1)
    except AutoGLMError:
        return pack_checkpoint(model, None, "bf16")
    return model / "packed-bf16.safetensors"


def passing_bytes(model: Path, packed: Path, held: int) -> int:
    """What a token must bring in: all weights but those that stay and the table of embeddings."""
    spec = read_spec(model)
    return packed.stat().st_size - 2 * spec.vocab_size * spec.hidden_size - held


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--limit-mib", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    limit = options.limit_mib << 20
    if options.child:
        child(options.model, limit, options.tokens, options.threads)
        return
    packed = packed_file(options.model)
    print(f"{packed.stat().st_size / 1e9:.2f} GB of weights under {options.limit_mib} MiB, {options.threads} threads",
          flush=True)
    columns: dict[str, list[float]] = {}
    read_speed(packed)  # what lies below the system's own cache, a host's or a controller's, has seen the file, too
    for number in range(options.repeats):
        forget(packed)
        disk = read_speed(packed)
        forget(packed)
        command = [sys.executable, __file__, "--child", *sys.argv[1:]]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        bound = passing_bytes(options.model, packed, found["weights_in_memory"])
        row = {"disk GB/s": disk / 1e9, "tok/s": found["tokens_s"],
               "GB a token": bound / 1e9, "share of disk": found["tokens_s"] * bound / disk,
               "open s": found["open_s"], "first token s": found["first_s"], "peak MiB": found["peak"] / (1 << 20)}
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
        print(f"round {number + 1}, {found['load']}: "
              + ", ".join(f"{name} {value:.3g}" for name, value in row.items()), flush=True)
    print("\n| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns))
    print("| " + " | ".join(f"{statistics.median(values):.3g}" for values in columns.values()) + " |")


if __name__ == "__main__":
    main()
