"""The engine itself as a client: no HTTP, no text; what remains is what the engine takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from openautoglm.bench.client import FailedError, Mark, Pulse
from openautoglm.bench.plan import Ask
from openautoglm.bench.prompts import Prompt
from openautoglm.bench.settings import Prompts
from openautoglm.core.errors import AutoGLMError, ResourceError
from openautoglm.engine.async_engine import AsyncEngine
from openautoglm.engine.engine import Engine
from openautoglm.engine.request import Decoding, Piece, Request
from openautoglm.engine.sequence import Ticket
from openautoglm.engine.stats import Stats
from openautoglm.text.template import Template
from openautoglm.text.tokenizer import Tokenizer

Encode = Callable[[Prompt], Sequence[int]]
ENDED_WELL = ("stop", "length")


class QueueClock:
    """An engine that notes when a request leaves its queue; it stands in an `AsyncEngine` in place of the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._waiting: list[Ticket] = []
        self.queue_s: dict[Request, float] = {}

    @property
    def idle(self) -> bool:
        """See `Engine.idle`."""
        return self._engine.idle

    @property
    def wake_at(self) -> float | None:
        """See `Engine.wake_at`."""
        return self._engine.wake_at

    @property
    def stats(self) -> Stats:
        """See `Engine.stats`."""
        return self._engine.stats

    def now(self) -> float:
        """See `Engine.now`."""
        return self._engine.now()

    def submit(self, request: Request, listener: Callable[[Piece], None] | None = None) -> Ticket:
        """See `Engine.submit`."""
        ticket = self._engine.submit(request, listener)
        self._waiting.append(ticket)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """See `Engine.cancel`."""
        self._engine.cancel(ticket)

    def step(self) -> bool:
        """See `Engine.step`; a request that gets its first place in this step has waited until now."""
        now = self._engine.now()
        done = self._engine.step()
        if self._waiting:
            still = []
            for ticket in self._waiting:
                if ticket.done or any(sequence.started for sequence in ticket.sequences):
                    self.queue_s[ticket.request] = max(0.0, now - ticket.bounds.arrival)
                else:
                    still.append(ticket)
            self._waiting = still
        return done


class EngineClient:
    """See `openautoglm.bench.client.Client`.

    Args:
        engine: belongs to the client from now on.
        encode: makes ids of a prompt.
        model: its name, for people.
    """

    def __init__(self, engine: Engine, encode: Encode, prompts: Prompts, pulse: Pulse, *, model: str,
                 now: Callable[[], float] = time.monotonic) -> None:
        self._clock = QueueClock(engine)
        self._engine = AsyncEngine(cast(Engine, self._clock))
        self._encode, self._prompts, self._pulse, self._model, self._now = encode, prompts, pulse, model, now

    @property
    def model(self) -> str:
        """The name of the bundle."""
        return self._model

    @property
    def stats(self) -> Stats:
        """How the engine stands."""
        return self._engine.stats

    async def open(self) -> None:
        """Start the engine's thread."""
        self._engine.start()

    async def close(self) -> None:
        """End the engine's thread."""
        self._engine.close()

    def prepare(self, ask: Ask) -> Request:
        """The request for the engine."""
        prompts = self._prompts
        decoding = Decoding(max_new_tokens=ask.max_tokens, ignore_stop=prompts.ignores_eos,
                            temperature=prompts.temperature, top_p=prompts.top_p, seed=ask.seed)
        return Request(tuple(self._encode(ask.prompt)), decoding)

    async def send(self, mark: Mark) -> None:
        """Submit it and wait for its last piece.

        Raises:
            FailedError: ``refused`` where the queue is full, ``engine`` for every other fault.
        """
        request = cast(Request, mark.payload)
        mark.sent_s = self._now()
        mark.prompt_tokens = len(request.prompt)
        try:
            async with aclosing(cast(Any, self._engine.stream(request))) as pieces:
                async for piece in pieces:
                    if piece.ids:
                        at_s = self._pulse.at_s = self._now()
                        mark.token_s.append(at_s)
                        mark.output_tokens += len(piece.ids)
                    if piece.finish is not None and piece.finish not in ENDED_WELL:
                        raise FailedError("engine", f"the answer ended: {piece.finish}")
        except ResourceError as error:
            raise FailedError("refused", str(error)) from error
        except AutoGLMError as error:
            raise FailedError("engine", str(error)) from error
        finally:
            queued = self._clock.queue_s.pop(request, None)
            mark.queue_s = mark.queue_s if queued is None else queued

    def digest(self, mark: Mark) -> Iterator[None]:
        """There is nothing left to read."""
        return iter(())


def encoder(tokenizer: Tokenizer | None, template: Template | None) -> Encode:
    """How prompts become ids: in the template's form, as a server would, or as plain text where there is none.

    A prompt that is known by its ids alone stays as it is.
    """
    def encode(prompt: Prompt) -> Sequence[int]:
        if prompt.ids and not prompt.text:
            return prompt.ids
        if tokenizer is None:
            raise FailedError("engine", "there is no tokenizer for a prompt of text")
        if template is None:
            return tokenizer.encode(prompt.text)
        return template.prompt(prompt.text, prompt.turns[:-1], tokenizer)

    return encode
