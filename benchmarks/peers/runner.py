"""What all runners share: a job as JSON comes in, one JSON line for each measurement goes out.

A job says which model is loaded how, and which measurements are made. Every measurement uses one call,
`Engine.complete`, so all engines are timed alike: prompts of token ids in, a fixed number of tokens for each out.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from peers.shapes import SHAPES, Shape


@dataclass(frozen=True)
class Job:
    """What a runner shall do.

    Attributes:
        model: file or folder.
        settings: the engine's own.
        measures: names of `MEASURES`.
        reference: fp32 logits of a fixed prompt, .npz.
        started: when the process was started, seconds of `time.time`.
    """

    shape: str
    model: str
    threads: int
    settings: dict[str, Any]
    measures: list[str]
    reference: str
    started: float


class Engine(Protocol):
    """An engine with a model loaded."""

    def complete(self, prompts: Sequence[Sequence[int]], new_tokens: int, top_p: float | None = None) -> None:
        """Give every prompt exactly so many tokens: greedily, or drawn with this top-p at temperature 1."""

    def logits(self, ids: Sequence[int]) -> np.ndarray | None:
        """Logits [tokens, vocab] of a prompt, or None where the engine does not show them."""


class Session:
    """An engine, its job, and the prompts it is given."""

    def __init__(self, engine: Engine, job: Job) -> None:
        self.engine, self.job, self.shape = engine, job, SHAPES[job.shape]
        self.random = random.Random(0)

    def prompts(self, number: int, length: int) -> list[list[int]]:
        """New random prompts, none of them seen before."""
        return [[self.random.randrange(2, self.shape.vocab) for _ in range(length)] for _ in range(number)]

    def seconds(self, number: int, length: int, new_tokens: int, top_p: float | None = None) -> float:
        """Wall seconds of so many requests."""
        prompts = self.prompts(number, length)
        begin = time.perf_counter()
        self.engine.complete(prompts, new_tokens, top_p)
        return time.perf_counter() - begin

    def median(self, measure: Callable[[], float]) -> float:
        """The median of the shape's inner repeats."""
        return statistics.median(measure() for _ in range(self.shape.inner_repeats))


def start(session: Session) -> dict[str, float]:
    """Seconds from the start of the process to the first token of 16; MiB then resident, and at most so far."""
    session.seconds(1, 16, 1)
    seconds = time.time() - session.job.started
    return {"start": seconds, "resident": memory("VmRSS"), "load_peak": memory("VmHWM")}


def error(session: Session) -> dict[str, float]:
    """Relative logit error against fp32: the norm of the difference over the norm."""
    with np.load(session.job.reference) as reference:
        ids, wanted = reference["ids"], reference["logits"]
    got = session.engine.logits([int(number) for number in ids])
    if got is None:
        return {}
    return {"error": float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted)),
            "agree": float((got.argmax(-1) == wanted.argmax(-1)).mean())}


def decode(session: Session) -> dict[str, float]:
    """Tokens per second at batch 1 behind a prompt of 32."""
    steps = session.shape.decode_tokens
    session.seconds(1, 16, 4)
    return {"decode": session.median(lambda: 1 / step_seconds(session, 1, 32, steps))}


def step_seconds(session: Session, number: int, length: int, steps: int) -> float:
    """Seconds of a decoding step of so many requests: a run of many tokens less a run of one.

    Raises:
        RuntimeError: the machine was too busy for the difference to mean anything.
    """
    first = session.seconds(number, length, 1)
    seconds = (session.seconds(number, length, 1 + steps) - first) / steps
    if seconds <= 0:
        raise RuntimeError("the machine was too busy: the longer run took less time")
    return seconds


def prefill(session: Session) -> dict[str, float]:
    """Prompt tokens per second of a prompt of 512, up to its first token."""
    return {"prefill": session.median(lambda: 512 / session.seconds(1, 512, 1))}


def requests(session: Session, number: int) -> dict[str, float]:
    """Output tokens per second of so many requests, 128 tokens in and 128 out, all there from the start."""
    return {f"requests-{number}": number * 128 / session.seconds(number, 128, 128)}


def scaled(session: Session, numbers: Sequence[int], length: int) -> dict[str, float]:
    """The same, put together from parts where a whole run takes minutes.

    The prompts' time is that of 8 prompts of `length`, scaled; a step's that of requests of 16 to 24 tokens. A shorter
    context makes steps a little faster than they are in a whole run, so the figure errs in favour of the engine.
    """
    session.seconds(8, 16, 2)
    prompts, found = session.seconds(8, length, 1) / 8 * 128 / length, {}
    for number in numbers:
        step = step_seconds(session, number, 16, 32 if session.shape.name == "S" else 8)
        found[f"scaled-{number}"] = number * 128 / (number * prompts + 127 * step)
    return found


def trial(session: Session) -> dict[str, float]:
    """A rough figure of 8 requests, to choose among settings."""
    return {"trial-8": scaled(session, (8,), 32)["scaled-8"]}


def sampling(session: Session) -> dict[str, float]:
    """Decoded tokens per second at batch 32, greedy and with top-p 0.9, measured in turns, and the share it costs."""
    steps = 127 if session.shape.name == "S" else 16

    def rate(top_p: float | None) -> float:
        first = session.seconds(32, 4, 1, top_p)
        return 32 * steps / (session.seconds(32, 4, 1 + steps, top_p) - first)

    pairs = [(rate(None), rate(0.9)) for _ in range(3)]
    greedy, drawn = (statistics.median(side) for side in zip(*pairs, strict=True))
    return {"greedy-32": greedy, "sampled-32": drawn,
            "sampling-cost": statistics.median(1 - drawn / greedy for greedy, drawn in pairs)}


MEASURES: dict[str, Callable[[Session], dict[str, float]]] = {
    "start": start, "error": error, "decode": decode, "prefill": prefill, "sampling": sampling, "trial": trial,
    "requests-8": lambda session: requests(session, 8), "requests-32": lambda session: requests(session, 32),
    "scaled": lambda session: scaled(session, (8, 32), 128),
}


def memory(entry: str) -> float:
    """MiB of an entry of /proc/self/status: VmRSS is resident now, VmHWM was at most."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{entry}:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {entry}")


def busy_seconds() -> float:
    """CPU seconds that all processes have used on this machine."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def main(make: Callable[[Job, Shape], Engine],
         more: dict[str, Callable[[Session], dict[str, float]]] | None = None) -> None:
    """Run the job that the first argument holds; the logit error comes last, the peak of memory is without it."""
    job = Job(**json.loads(sys.argv[1]))
    measures = MEASURES | (more or {})
    begin = time.perf_counter()
    session = Session(make(job, SHAPES[job.shape]), job)
    emit({"load": time.perf_counter() - begin})
    peak = None
    for name in job.measures:
        if name == "error":  # it may load the model a second time
            peak = memory("VmHWM")
        wall, own, everyone = time.perf_counter(), time.process_time(), busy_seconds()
        try:
            values = measures[name](session)
        except Exception as problem:  # one failed measurement must not hide the others
            emit({}, name=name, failed=f"{type(problem).__name__}: {problem}")
            continue
        others = busy_seconds() - everyone - (time.process_time() - own)
        emit(values, name=name, others=max(0.0, others / (time.perf_counter() - wall)))
    emit({"peak": peak or memory("VmHWM")})


def emit(values: dict[str, float], **facts: object) -> None:
    """Print measurements as one line of JSON."""
    print(json.dumps({"values": values, **facts}), flush=True)
