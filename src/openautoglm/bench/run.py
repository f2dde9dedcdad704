"""One load from its settings to its result."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from openautoglm.bench.client import Client, Mark, Pulse
from openautoglm.bench.drive import Driver
from openautoglm.bench.figures import measure
from openautoglm.bench.monitor import Monitor, Source
from openautoglm.bench.pace import ThreadPacer
from openautoglm.bench.plan import Planner
from openautoglm.bench.result import Run, summarise
from openautoglm.bench.settings import LoadSettings
from openautoglm.bench.words import Vocabulary
from openautoglm.core.errors import LoadError
from openautoglm.core.hardware import probe
from openautoglm.core.progress import Progress, progress

_OTHER = 1_000_003  # the warm-up's random numbers are not those of a repetition


class Target(Protocol):
    """What is put under load."""

    @property
    def head(self) -> Mapping[str, Any]:
        """``backend``, ``label`` and what else names it in the result."""

    def vocabulary(self) -> Vocabulary:
        """What made prompts are made of."""

    def client(self, pulse: Pulse, now: Callable[[], float]) -> Client:
        """A client, to be opened and closed once."""

    def sources(self) -> list[Source]:
        """What is looked at during a repetition; called once the client is open."""


def run_load(settings: LoadSettings, target: Target, on_marks: Callable[[int, list[Mark]], None] | None = None
             ) -> dict[str, Any]:
    """Put a load on a target, as often as asked for, and return the result (see `openautoglm.bench.result`).

    Args:
        on_marks: is given the number of each repetition and its requests, e.g. to keep them.

    Raises:
        DataError: a trace or a data set cannot be read.
        LoadError: the target does not answer, or fails a request of the warm-up.
    """
    planner = Planner(settings, target.vocabulary())
    return asyncio.run(_run(settings, target, planner, on_marks))


async def _run(settings: LoadSettings, target: Target, planner: Planner,
               on_marks: Callable[[int, list[Mark]], None] | None) -> dict[str, Any]:
    pulse, pacer = Pulse(), ThreadPacer()
    client = target.client(pulse, pacer.now)
    runs: list[Run] = []
    notes: list[str] = []
    try:
        await client.open()
        for repetition in range(settings.judge.repetitions):
            plan = await asyncio.to_thread(planner.plan, repetition)
            notes = list(dict.fromkeys([*notes, *plan.notes]))
            if not plan.asks:
                raise LoadError("the plan holds no request", remedy="raise the duration, the rate or num_prompts")
            label = f"load {repetition + 1}/{settings.judge.repetitions}" if settings.judge.repetitions > 1 else "load"
            with progress(len(plan.asks), label, "requests", live=False) as bar:
                driver = Driver(client, pulse, pacer, settings.arrivals, settings.judge, _counter(bar))
                failed = await driver.warm_up(planner.plan(repetition + _OTHER, settings.judge.num_warmups))
                if failed is not None:
                    raise LoadError(f"a request of the warm-up failed: {failed.error}: {failed.detail}",
                                    where=client.model, remedy="see to the server first, or give --num-warmups 0")
                monitor = Monitor(target.sources(), settings.judge.sample_s)
                monitor.start()
                try:
                    drive = await driver.run(plan)
                finally:
                    looks = await asyncio.to_thread(monitor.stop)
            runs.append(Run(drive, measure(drive, settings.judge), looks))
            if on_marks is not None:
                on_marks(repetition, drive.marks)
    finally:
        await client.close()
        pacer.close()
    head = {**target.head, "model_id": client.model}
    return await asyncio.to_thread(summarise, head, settings, runs, notes, probe())


def _counter(bar: Progress) -> Callable[[Mark], None]:
    failed = 0

    def count(mark: Mark) -> None:
        nonlocal failed
        failed += not mark.ok
        bar.advance(1, **({"failed": failed} if failed else {}))

    return count
