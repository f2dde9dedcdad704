"""Soak the engine: random arrivals, cancellations, preemptions, malformed requests, failing steps; then count.

Runs in rounds, each with engine settings of its own on the same program. A round ends when every request was answered
or refused. Violations, which make the exit status 1: a request without an answer, pages that no request holds and that
are not free, an error that is not ours, a text that changes with its company, memory that grows.

    python benchmarks/soak.py [--minutes 30] [--model FOLDER] [--target native] [--threads 2] [--pages 20] [--seed 0]

Without a model, a small random one is written to a temporary folder.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from soak_traffic import Traffic, tokenizer, write_model

from openautoglm.core.errors import AutoGLMError, GenerationError
from openautoglm.core.hardware import probe as probe_machine
from openautoglm.engine.engine import Engine
from openautoglm.engine.grammar import GrammarCompiler
from openautoglm.engine.grammar_check import GrammarLimits
from openautoglm.engine.sequence import Ticket
from openautoglm.engine.settings import EngineSettings, Speculation
from openautoglm.runtime.load import TARGETS, load_program
from openautoglm.runtime.native import native_module
from openautoglm.runtime.program import Program

MIB = 1 << 20
MOST_VIOLATIONS = 20
DRAIN_TURNS = 1_000_000


def resident_bytes() -> int:
    """Memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


class Failing:
    """A program some of whose steps fail.

    Args:
        share: of the steps.
    """

    def __init__(self, program: Program, dice: random.Random, share: float) -> None:
        self._program, self._dice, self._share = program, dice, share
        if hasattr(program, "sample"):
            self.sample = program.sample

    def __getattr__(self, name: str) -> Any:
        return getattr(self._program, name)

    def step(self, *arguments: Any) -> Any:
        """See `Program.step`."""
        if self._dice.random() < self._share:
            raise RuntimeError("the soak lets this step fail")
        return self._program.step(*arguments)


class Soak:
    """Drives engines on one program.

    Args:
        traffic: makes the requests.
        fail: share of the steps that fail.
        clock: seconds, growing; the engines' clock, too.

    Attributes:
        counts: of requests by what became of them, of steps and preemptions.
        violations: what must not happen, one sentence each.
        memory, blocks: at the end of each round: seconds and bytes held; Python's blocks of memory in use.
    """

    def __init__(self, program: Program, traffic: Traffic, dice: random.Random, fail: float = 0.0005,
                 clock: Callable[[], float] = time.monotonic) -> None:
        self._program, self._traffic, self._dice, self._fail, self._clock = program, traffic, dice, fail, clock
        self._open: list[Ticket] = []
        self._begin = clock()
        self.counts: Counter[str] = Counter()
        self.violations: list[str] = []
        self.memory: list[tuple[float, int]] = []
        self.blocks: list[int] = []
        engine = Engine(program)
        self._texts = [engine.generate([prompt], decoding)[0][0].ids for prompt, decoding in traffic.probes]

    def run(self, seconds: float, rounds: int) -> None:
        """Soak for so long."""
        self._begin = self._clock()
        for number in range(rounds):
            self._round(self._begin + seconds * (number + 1) / rounds)

    def _round(self, until: float) -> None:
        engine = Engine(Failing(self._program, self._dice, self._fail), self._settings(), clock=self._clock)
        rate, change = 0.0, 0.0
        while (now := self._clock()) < until:
            if now >= change:  # bursts and silence by turns
                rate, change = self._dice.choice([0, 0.05, 0.3, 1.0, 3.0]), now + self._dice.uniform(0.01, 0.2)
            while self._dice.random() < rate / (1 + rate):
                self._submit(engine)
            if self._open and self._dice.random() < 0.02:
                engine.cancel(self._dice.choice(self._open))
            if not engine.step() and engine.idle:
                self._check_idle(engine)
                time.sleep(0.0005)
            self._settle()
        self._drain(engine)
        del engine
        gc.collect()
        self.memory.append((self._clock() - self._begin, resident_bytes()))
        self.blocks.append(sys.getallocatedblocks())

    def _settings(self) -> EngineSettings:
        dice = self._dice
        batch = dice.choice([1, 4, 8, 16])
        waits = dice.random() < 0.3
        return EngineSettings(
            max_batch=batch, max_batch_tokens=dice.choice([batch, 24, 64]) if batch <= 24 else None,
            max_waiting=dice.choice([8, 64, 256]), prefix_cache=dice.random() < 0.8,
            min_batch=dice.choice([2, 4]) if waits else 1, max_wait=0.01 if waits else 0.0,
            ageing_s=dice.choice([0.05, 10.0]),
            speculation=Speculation(ngram=2, max_sequences=8) if dice.random() < 0.5 else None)

    def _submit(self, engine: Engine) -> None:
        self.counts["requests"] += 1
        kind = self._traffic.kind()
        try:
            request = self._traffic.make(kind, self._clock())
            ticket = engine.submit(request, self._traffic.listener(kind))
        except (AutoGLMError, ValueError):  # pydantic's ValidationError is a ValueError
            self.counts["refused"] += 1
            return
        except Exception as error:
            self._violate(f"a request of kind {kind} raised {error!r} when it was submitted")
            return
        if kind == "malformed":
            self._violate(f"a malformed request was taken: {request}")
        self._open.append(ticket)

    def _settle(self) -> None:
        """Take the tickets that are done off the list."""
        if not any(ticket.done for ticket in self._open):
            return
        going = []
        for ticket in self._open:
            if not ticket.done:
                going.append(ticket)
            else:
                self._judge(ticket)
        self._open = going

    def _judge(self, ticket: Ticket) -> None:
        self.counts["error" if ticket.error is not None else str(ticket.finishes[0])] += 1
        try:
            answers = ticket.result()
        except AutoGLMError:
            return
        except Exception as error:
            self._violate(f"request {ticket.number} failed with a foreign error: {error!r}")
            return
        if len(answers) != ticket.request.decoding.n:
            self._violate(f"request {ticket.number} has {len(answers)} answers of {ticket.request.decoding.n}")
        for answer, finish in zip(answers, ticket.finishes, strict=True):
            self._traffic.check(ticket.request, answer.ids, finish, self._violate)
        number = self._traffic.probe_number(ticket.request)
        if number is not None and ticket.finishes[0] in ("stop", "length"):
            self.counts["probes"] += 1
            if answers[0].ids != self._texts[number]:
                self._violate(f"probe {number} gave another text than alone")

    def _drain(self, engine: Engine) -> None:
        for _ in range(DRAIN_TURNS):
            if engine.idle:
                break
            try:
                engine.turn()
            except GenerationError as error:
                self._violate(f"the engine is stuck: {error.message}")
                break
        self._settle()
        for ticket in self._open:
            self._violate(f"request {ticket.number} was never answered")
        self._open.clear()
        self._check_idle(engine)
        stats = engine.stats
        ended = stats.finished + stats.failed + stats.cancelled
        if ended != stats.requests:
            self._violate(f"{stats.requests} requests were taken, {ended} ended")
        for name in ("steps", "failed_steps", "preemptions", "evictions", "generated_tokens", "accepted"):
            self.counts[name] += getattr(stats, name)
        self.counts["prefix hits, percent of a round"] = max(self.counts["prefix hits, percent of a round"],
                                                             round(100 * stats.prefix_hit_rate))

    def _check_idle(self, engine: Engine) -> None:
        stats = engine.stats
        if stats.pages_held or stats.waiting or stats.filling or stats.decoding:
            self._violate(f"an idle engine holds {stats.pages_held} pages, {stats.waiting} waiting, {stats.filling} "
                          f"filling and {stats.decoding} decoding sequences")

    def _violate(self, sentence: str) -> None:
        self.counts["violations"] += 1
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(sentence)


def slope(memory: Iterable[tuple[float, int]]) -> tuple[float, float]:
    """Growth by a straight line through the second half: bytes a second, and over that half."""
    points = np.array(list(memory), float)
    points = points[len(points) // 2:]
    if len(points) < 3:
        return 0.0, 0.0
    rate = float(np.polyfit(points[:, 0], points[:, 1], 1)[0])
    return rate, rate * float(points[-1, 0] - points[0, 0])


def report(soak: Soak, growth_mib: float) -> int:
    """Print the summary; 1 for any violation, else 0."""
    for name, count in soak.counts.items():
        print(f"{name:>32} {count}")
    rate, grown = slope(soak.memory)
    if soak.memory:
        print(f"{'resident memory, MiB':>32} {soak.memory[0][1] / MIB:.1f} at first, {soak.memory[-1][1] / MIB:.1f} "
              f"at last, slope of the second half {60 * rate / 1024:+.1f} KiB a minute")
        print(f"{'blocks in use by Python':>32} {soak.blocks[0]} at first, {soak.blocks[-1]} at last")
    if grown > growth_mib * MIB:
        soak.violations.append(f"memory grew by {grown / MIB:.1f} MiB in the second half")
    for sentence in soak.violations:
        print(f"VIOLATION: {sentence}")
    print("failed" if soak.violations else "passed")
    return int(bool(soak.violations))


def main(arguments: list[str] | None = None) -> int:
    """Soak and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--target")
    parser.add_argument("--threads", type=int, help="of the native target")
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--growth-mib", type=float, default=24.0)
    options = parser.parse_args(arguments)
    target = options.target or ("native" if native_module() and "native" in TARGETS else "torch:cpu")
    dice = random.Random(options.seed)
    with contextlib.ExitStack() as stack:
        model = options.model
        if model is None:
            model = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            write_model(model, options.seed)
        program = load_program(model, target, pages=options.pages, page_size=16, max_rows=64, max_wanted=32,
                               threads=options.threads)
        pieces = tokenizer(None if options.model is None else model).pieces
        compiler = stack.enter_context(GrammarCompiler(pieces, GrammarLimits(time_s=0.5, cache_bytes=2 * MIB)))
        traffic = Traffic(program.plan, compiler, dice, stop_ids=program.plan.spec.eos_ids)
        seconds = 60 * options.minutes
        rounds = max(4, min(40, int(seconds / 20)))
        print(f"{target}, {rounds} rounds in {options.minutes:g} minutes, {options.pages} pages, seed {options.seed}, "
              f"{probe_machine().cores} cores")
        soak = Soak(program, traffic, dice)
        soak.run(seconds, rounds)
        return report(soak, options.growth_mib)


if __name__ == "__main__":
    sys.exit(main())
