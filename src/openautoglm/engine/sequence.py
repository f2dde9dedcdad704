"""One answer under way: its tokens, its place in the cache, and what choosing its tokens needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from openautoglm.core.errors import AutoGLMError
from openautoglm.engine.beam import BeamGroup
from openautoglm.engine.generate import Candidate
from openautoglm.engine.penalties import Shaper
from openautoglm.engine.request import Finish, Piece, Request, Watcher
from openautoglm.engine.sample import Uniforms
from openautoglm.engine.settings import Speculation
from openautoglm.engine.speculate import Lookup


class Bounds(NamedTuple):
    """What an engine sets for a request.

    Attributes:
        arrival: when it came, in seconds of the engine's clock.
        order: of service, lower first; see `Scheduler`.
        end: length at which an answer ends, prompt included.
        stops: ids that end an answer.
        vocab_size: ids that may be generated are below.
        width: slots that it needs to begin.
        speculation: how to guess ahead; None for not at all.
    """

    arrival: float
    order: float
    end: int
    stops: frozenset[int]
    vocab_size: int
    width: int
    speculation: Speculation | None


class Ticket:
    """A submitted request: its answers as they come.

    Attributes:
        number: of the request; counts up.
        begun: when its prompt was begun; None before, and again once that was told (see `waited`).
        first_token: when its first token came; None before.
        candidates: finished answers by number; None while one goes on.
        finishes: why each ended.
        error: what went wrong; all its answers end then.
        sequences: those that go on.
    """

    def __init__(self, request: Request, number: int, bounds: Bounds,
                 listener: Callable[[Piece], None] | None = None) -> None:
        self.request, self.number, self.bounds, self.listener = request, number, bounds, listener
        count = request.decoding.n
        self.begun: float | None = None
        self.first_token: float | None = None
        self.candidates: list[Candidate | None] = [None] * count
        self.finishes: list[Finish | None] = [None] * count
        self.error: AutoGLMError | None = None
        self.sequences: list[Sequence] = []

    @property
    def done(self) -> bool:
        """Whether every answer has ended."""
        return None not in self.finishes

    def begin(self, now: float) -> None:
        """Its prompt is begun, maybe once more."""
        if self.begun is None and self.first_token is None:
            self.begun = now

    def waited(self) -> float | None:
        """How long it waited before it was begun, in seconds; None where that was told before."""
        begun, self.begun = self.begun, None
        return None if begun is None else begun - self.bounds.arrival

    def result(self) -> list[Candidate]:
        """The answers, best first for beams.

        Raises:
            AutoGLMError: the request failed.
        """
        if self.error is not None:
            raise self.error
        return [candidate for candidate in self.candidates if candidate is not None]

    def end(self, copy: int, candidate: Candidate, finish: Finish) -> None:
        """Note the end of one answer."""
        self.candidates[copy], self.finishes[copy] = candidate, finish


class Sequence:
    """The tokens of one answer, prompt first, and their pages.

    Attributes:
        copy: number of the answer among its request's.
        tokens: all ids so far; those from `computed` on are not in the cache yet.
        prompt_tokens: how many of them are the prompt.
        end, stops: see `Bounds`.
        rank: (order, number of the request, number of the copy); lower goes first.
        width: slots that its request needs when it starts to generate.
        started: whether it had pages before.
        pages: its pages in order.
        keys: digests of its full pages, as far as they are known.
        sealed: how many of its pages are known to the pool.
        computed: tokens in the cache, while it has no slot; with one, `Rows.lengths` says it.
        slot: its row among those that decode; -1 when it does not.
        group: the beams that it belongs to.
        alternatives: how many likeliest ids to report of each token; None for no report.
        scored: whether log-probabilities are wanted.
        plain: a token needs nothing but to be appended.
    """

    __slots__ = ("alternatives", "computed", "copy", "end", "group", "keys", "logprob", "lookup", "pages", "plain",
                 "prompt_tokens", "rank", "scored", "sealed", "shaper", "slot", "started", "stops", "ticket", "tokens",
                 "uniforms", "watcher", "width")

    def __init__(self, ticket: Ticket, copy: int = 0) -> None:
        request, bounds = ticket.request, ticket.bounds
        decoding = request.decoding
        self.ticket, self.copy, self.end, self.stops = ticket, copy, bounds.end, bounds.stops
        self.rank = (bounds.order, ticket.number, copy)
        self.tokens = list(request.prompt)
        self.prompt_tokens = len(self.tokens)
        self.width, self.started = 1, False
        self.pages: list[int] = []
        self.keys: list[bytes] = []
        self.sealed = self.computed = 0
        self.slot = -1
        self.logprob = 0.0
        self.shaper = self._new_shaper()
        self.uniforms = Uniforms(request.prompt, decoding.seed, copy) if decoding.temperature > 0 else None
        self.watcher: Watcher | None = request.watch() if request.watch is not None else None
        self.alternatives = decoding.logprobs
        beams = decoding.num_beams > 1
        self.scored = not beams and (decoding.score or self.alternatives is not None)
        self.lookup = Lookup(bounds.speculation) if bounds.speculation is not None and not beams else None
        self.group: BeamGroup[Sequence] | None = None
        self.plain = not (self.shaper or self.watcher or self.scored or beams or ticket.listener)

    @property
    def generated(self) -> int:
        """Tokens of the answer so far."""
        return len(self.tokens) - self.prompt_tokens

    def restart(self, page_size: int) -> None:
        """Forget the answer so far, as the first beam of a search that begins anew."""
        del self.tokens[self.prompt_tokens:]
        del self.keys[self.prompt_tokens // page_size:]
        self.width = self.ticket.bounds.width
        self.shaper = self._new_shaper()
        self.ticket.sequences[:] = [self]

    def _new_shaper(self) -> Shaper | None:
        request, bounds = self.ticket.request, self.ticket.bounds
        if request.grammar is None and not request.decoding.shapes_logits:
            return None
        grammar = request.grammar.copy() if request.grammar is not None else None
        return Shaper(request.prompt, request.decoding, bounds.stops, bounds.vocab_size, grammar)


def first_of(ticket: Ticket) -> Sequence:
    """The sequence with which the answers to a request begin: the first beam, or the first of its copies."""
    decoding, bounds = ticket.request.decoding, ticket.bounds
    first = Sequence(ticket)
    first.width = bounds.width
    if decoding.num_beams > 1:
        first.group = BeamGroup(first, decoding, bounds.stops, bounds.end - first.prompt_tokens)
    ticket.sequences.append(first)
    return first
