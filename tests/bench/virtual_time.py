"""A load in virtual time: the loop's clock jumps to the next timer, so that minutes take no time and nothing is late.

A scripted client answers with set delays; it may also burn time as a busy generator would.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from openautoglm.bench.client import FailedError, Mark, Pulse
from openautoglm.bench.drive import Drive, Driver
from openautoglm.bench.pace import LoopPacer
from openautoglm.bench.plan import Ask, Plan
from openautoglm.bench.prompts import Prompt
from openautoglm.bench.settings import Arrivals, Judgement


class _Jump(selectors.DefaultSelector):
    """Waits for nothing but what is on its way through a socket: time is moved on instead.

    Attributes:
        look_s: real seconds to look whether something comes before time is moved on.
    """

    now = 1000.0
    look_s = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready = super().select(0) or (super().select(self.look_s) if self.look_s and timeout != 0 else [])
        if not ready and timeout:
            self.now += timeout
        assert ready or timeout is not None, "nothing will ever happen"
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own."""

    def __init__(self, look_s: float = 0.0) -> None:
        self._jump = _Jump()
        self._jump.look_s = look_s
        super().__init__(self._jump)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._jump.now

    def burn(self, seconds: float) -> None:
        """Let time pass while the loop is busy."""
        self._jump.now += seconds


def run_virtual(work: Callable[[], Coroutine[Any, Any, Any]], look_s: float = 0.0) -> Any:
    """Run a coroutine on a virtual clock; with sockets of this machine where `look_s` is set."""
    loop = VirtualLoop(look_s)
    try:
        return loop.run_until_complete(work())
    finally:
        loop.close()


class ScriptedClient:
    """Answers each request as ``script(number)`` says: (seconds to the first token, seconds between tokens, tokens).

    Args:
        slots: requests that are served together; others wait in the server. None: all.
        burn_s: what the generator computes for each event.
        fail: kind of the failure of a request, empty for none.
    """

    model = "scripted"

    def __init__(self, script: Callable[[int], tuple[float, float, int]], *, slots: int | None = None,
                 burn_s: float = 0.0, fail: Callable[[int], str] = lambda number: "") -> None:
        self._script, self._fail, self._burn_s = script, fail, burn_s
        self._slots = asyncio.Semaphore(slots) if slots else None
        self.pulse = Pulse()
        self.prepared: list[Ask] = []

    async def open(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    def prepare(self, ask: Ask) -> Ask:
        self.prepared.append(ask)
        return ask

    async def send(self, mark: Mark) -> None:
        loop = asyncio.get_running_loop()
        mark.sent_s = loop.time()
        number = mark.ask.number
        kind = self._fail(number)
        if kind:
            raise FailedError(kind, "as scripted")
        if self._slots is None:
            await self._answer(mark, number, loop)
        else:
            async with self._slots:
                mark.queue_s = loop.time() - mark.sent_s
                await self._answer(mark, number, loop)

    async def _answer(self, mark: Mark, number: int, loop: asyncio.AbstractEventLoop) -> None:
        first_s, gap_s, tokens = self._script(number)
        for place in range(tokens):
            await asyncio.sleep(gap_s if place else first_s)
            self.pulse.at_s = loop.time()
            mark.token_s.append(self.pulse.at_s)
            if self._burn_s:
                assert isinstance(loop, VirtualLoop)
                loop.burn(self._burn_s)
        mark.prompt_tokens, mark.output_tokens = 10, tokens

    def digest(self, mark: Mark) -> Iterator[None]:
        return iter(())


def plan_of(times: Any) -> Plan:
    """A plan of requests at these times."""
    return Plan(tuple(Ask(number, float(at_s), Prompt("word"), 8, number) for number, at_s in enumerate(times)))


def drive(client: Callable[[], ScriptedClient], plan: Plan, arrivals: Arrivals | None = None,
          judge: Judgement | None = None) -> Drive:
    """Put a plan on a client in virtual time."""
    async def work() -> Drive:
        made = client()
        driver = Driver(made, made.pulse, LoopPacer(), arrivals or Arrivals(request_rate=1), judge or Judgement())
        return await driver.run(plan)

    found: Drive = run_virtual(work)
    return found
