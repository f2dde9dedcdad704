"""Batching policies on the same requests: none, static, dynamic and continuous, on one engine.

    python benchmarks/batching.py MODEL [--trace FILE] [--requests 200] [--repeats 3]

Requests come as in a recorded trace (arrival times and token counts, scaled to the machine), or as a Poisson process
with lengths drawn evenly. `none` runs one request after the other; `static` waits for a full batch, runs it to its end
and takes the next; `dynamic` starts a batch when it is full or its oldest request has waited for `--max-wait`, and runs
it to its end; `continuous` lets requests join at every step. First everything comes at once, which gives each policy's
throughput; then requests come at `--load` of what continuous batching served, at `--load-none` of what one after the
other served, and each policy's latencies are taken.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from openautoglm.bench.settings import Replay
from openautoglm.bench.trace import Trace, read_trace, scaled
from openautoglm.engine.engine import Engine
from openautoglm.engine.open import ProgramSettings, open_engine
from openautoglm.engine.request import Decoding, Request
from openautoglm.engine.sequence import Ticket
from openautoglm.engine.settings import EngineSettings
from openautoglm.models.checkpoint import read_spec


class Queue(NamedTuple):
    """What a policy sees: requests under way, requests that wait, how long the oldest has, whether more will come."""

    running: int
    waiting: int
    waited_s: float
    ended: bool


def policies(slots: int, max_wait_s: float) -> dict[str, Callable[[Queue], int]]:
    """How many waiting requests may start."""
    def batch(queue: Queue, due: bool) -> int:
        return slots if not queue.running and (queue.waiting >= slots or queue.ended or due) else 0

    return {"none": lambda queue: 0 if queue.running else 1,
            "static": lambda queue: batch(queue, False),
            "dynamic": lambda queue: batch(queue, queue.waited_s >= max_wait_s),
            "continuous": lambda queue: slots - queue.running}


class Run(NamedTuple):
    """Requests and tokens per second from the first arrival to the last end, and seconds from arrival to end."""

    requests_per_s: float
    tokens_per_s: float
    latencies: list[float]


def serve(engine: Engine, arrivals: Sequence[float], requests: Sequence[Request],
          admit: Callable[[Queue], int]) -> Run:
    """Serve requests as they come."""
    coming = deque(zip(arrivals, requests, strict=True))
    waiting: deque[tuple[float, Request]] = deque()
    running: list[tuple[float, Ticket]] = []
    latencies: list[float] = []
    begin = time.perf_counter()
    while coming or waiting or running:
        now = time.perf_counter() - begin
        while coming and coming[0][0] <= now:
            waiting.append(coming.popleft())
        oldest = now - waiting[0][0] if waiting else 0.0
        for _ in range(min(len(waiting), admit(Queue(len(running), len(waiting), oldest, not coming)))):
            at, request = waiting.popleft()
            running.append((at, engine.submit(request)))
        if not running:
            time.sleep(0.0005)
            continue
        engine.turn()
        now = time.perf_counter() - begin
        latencies += [now - at for at, ticket in running if ticket.done]
        running = [(at, ticket) for at, ticket in running if not ticket.done]
    seconds = time.perf_counter() - begin
    tokens = sum(request.decoding.max_new_tokens for request in requests)
    return Run(len(requests) / seconds, tokens / seconds, latencies)


def trace_of(options: argparse.Namespace) -> Trace:
    """The requests, their times at one a second."""
    dice = np.random.default_rng(7)
    if options.trace is None:
        gaps = dice.exponential(1.0, options.requests)
        return Trace(np.cumsum(gaps) - gaps[0], dice.integers(32, 97, options.requests),
                     dice.integers(16, 129, options.requests))
    settings = Replay(path=options.trace, length_scale=options.length_scale, max_input_len=options.most_input,
                      max_output_len=options.most_output)
    return scaled(read_trace(options.trace), settings, count=options.requests, request_rate=1.0)


def one_round(engine: Engine, options: argparse.Namespace, trace: Trace, requests: list[Request]) -> dict[str, Any]:
    """Every policy: all at once, then at the two rates."""
    chosen = policies(options.slots, options.max_wait)
    found: dict[str, Any] = {name: {} for name in chosen}
    for name, admit in chosen.items():
        run = serve(engine, [0.0] * len(requests), requests, admit)
        found[name] |= {"qps": run.requests_per_s, "tokens_per_s": run.tokens_per_s}
    rates = {"high": options.load * found["continuous"]["qps"], "low": options.load_none * found["none"]["qps"]}
    for label, rate in rates.items():
        for name, admit in chosen.items():
            latencies = serve(engine, (trace.arrival_s / rate).tolist(), requests, admit).latencies
            found[name] |= {f"{label}_mean_s": statistics.fmean(latencies),
                            f"{label}_p99_s": float(np.percentile(latencies, 99))}
    return {**found, "rates": rates}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--trace", type=Path)
    parser.add_argument("--length-scale", type=float, default=0.25, help="of the trace's token counts")
    parser.add_argument("--most-input", type=int, default=256)
    parser.add_argument("--most-output", type=int, default=128)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--slots", type=int, default=16)
    parser.add_argument("--max-wait", type=float, default=0.1, help="of dynamic batching, seconds")
    parser.add_argument("--load", type=float, default=0.8)
    parser.add_argument("--load-none", type=float, default=0.8)
    parser.add_argument("--quantise", default="int8")
    parser.add_argument("--group", type=int, default=0)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    options = arguments()
    recipe = None if options.quantise == "none" else {"format": options.quantise, "group": options.group}
    program = ProgramSettings.model_validate({"quantise": recipe, "threads": options.threads,
                                              "max_wanted": max(64, options.slots)})
    engine = open_engine(options.model, program, EngineSettings(prefix_cache=False, max_batch=options.slots),
                         stop_ids=())
    trace, dice = trace_of(options), np.random.default_rng(3)
    vocabulary = read_spec(options.model).vocab_size
    requests = [Request(tuple(dice.integers(2, vocabulary, int(length)).tolist()),
                        Decoding(max_new_tokens=int(output), ignore_stop=True))
                for length, output in zip(trace.prompt_tokens, trace.output_tokens, strict=True)]
    serve(engine, [0.0] * 4, requests[:4], lambda queue: options.slots)
    rounds = []
    for number in range(options.repeats):
        rounds.append(one_round(engine, options, trace, requests))
        print(json.dumps({"round": number, **rounds[-1]}), flush=True)
    names = list(policies(1, 0))
    table = {name: {measure: statistics.median(each[name][measure] for each in rounds) for measure in rounds[0][name]}
             for name in names}
    times = statistics.median(each["dynamic"]["qps"] / each["none"]["qps"] for each in rounds)
    whole = {"slots": options.slots, "tokens": {"prompt": float(trace.prompt_tokens.mean()),
                                                "answer": float(trace.output_tokens.mean())},
             "median": table, "dynamic_times_none": times,
             "continuous_times_none": statistics.median(each["continuous"]["qps"] / each["none"]["qps"]
                                                        for each in rounds), "rounds": rounds}
    if options.out is not None:
        options.out.write_text(json.dumps(whole, indent=1))
    print(json.dumps({name: value for name, value in whole.items() if name != "rounds"}, indent=1))


if __name__ == "__main__":
    main()
