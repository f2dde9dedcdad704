"""The engine: requests of ids in, answers out, many at a time on one program."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from openautoglm.core.errors import GenerationError, ResourceError
from openautoglm.engine.answers import Answers
from openautoglm.engine.batch import BatchBuilder
from openautoglm.engine.choose import Chooser
from openautoglm.engine.embed import Embedder
from openautoglm.engine.generate import Candidate
from openautoglm.engine.intake import Limits, check
from openautoglm.engine.likelihood import Float64, token_logprobs
from openautoglm.engine.pages import PagePool
from openautoglm.engine.request import Decoding, Piece, Request
from openautoglm.engine.sampling import Sampling
from openautoglm.engine.schedule import Scheduler
from openautoglm.engine.sequence import Bounds, Ticket, first_of
from openautoglm.engine.sequence import Sequence as Answer
from openautoglm.engine.settings import EngineSettings
from openautoglm.engine.stats import Counts, Stats, stats_of
from openautoglm.runtime.program import Float32, Program

_NO_DRAFTS: dict[int, list[int]] = {}


class Engine:
    """Generates with a program; see `Generator` for `generate`. For one thread at a time; `AsyncEngine` is for many.

    Args:
        program: made ready to step; its pool of pages is the engine's own from now on.
        stop_ids: ids that end an answer; those of the spec when None.
        vocab_size: ids from here on are padding of the embedding and never generated; all when None.
        clock: seconds, growing.
        hidden: makes a program on the same cache whose steps give hidden states, for embeddings.

    Attributes:
        pool: lends the pages of the program's cache.

    Raises:
        ResourceError: the settings ask for more than the program was loaded for.
    """

    def __init__(self, program: Program, settings: EngineSettings | None = None, *,
                 stop_ids: Sequence[int] | None = None, vocab_size: int | None = None,
                 clock: Callable[[], float] = time.monotonic, hidden: Callable[[], Program] | None = None) -> None:
        self._program, self._settings, self._clock = program, settings or EngineSettings(), clock
        plan, cache = program.plan, program.plan.cache
        self._limits = Limits.of(plan, self._settings, vocab_size)
        self._stops = frozenset(plan.spec.eos_ids if stop_ids is None else stop_ids)
        self.pool = PagePool(cache.pages, cache.page_size, keep=self._settings.prefix_cache)
        self._schedule = Scheduler(self._settings, self.pool, max_batch=self._limits.max_batch,
                                   max_batch_tokens=self._limits.max_batch_tokens,
                                   table_pages=min(-(-plan.spec.max_positions // cache.page_size), cache.pages))
        self._batches = BatchBuilder(cache.page_size, plan.max_rows)
        self._chooser = Chooser(getattr(program, "sample", None), self._limits.vocab_size)
        self._counts = Counts()
        self._embedder = Embedder(hidden, self.pool) if hidden is not None else None
        self._answers = Answers(self._schedule, self.pool, self._counts)
        self._submitted = 0
        self._wake_at: float | None = None

    @property
    def program(self) -> Program:
        """What it runs."""
        return self._program

    @property
    def limits(self) -> Limits:
        """What requests must keep to."""
        return self._limits

    @property
    def stops(self) -> frozenset[int]:
        """Ids that end an answer."""
        return self._stops

    @property
    def embedder(self) -> Embedder | None:
        """Computes hidden states of texts, within `step`; None where the engine was made without."""
        return self._embedder

    @property
    def idle(self) -> bool:
        """Whether no request is under way, and no text."""
        return self._schedule.idle and (self._embedder is None or self._embedder.idle)

    @property
    def failed_steps(self) -> int:
        """Steps that the program could not do."""
        return self._counts.failed_steps

    @property
    def full(self) -> bool:
        """Whether the queue takes no further request."""
        return self._schedule.waiting >= self._limits.max_waiting

    @property
    def wake_at(self) -> float | None:
        """When to step again after a step that did nothing, on the engine's clock; None for no such time."""
        return self._wake_at

    @property
    def stats(self) -> Stats:
        """How the engine stands."""
        return stats_of(self._schedule, self.pool, self._counts)

    def now(self) -> float:
        """The time on the engine's clock, in seconds, for deadlines."""
        return self._clock()

    def submit(self, request: Request, listener: Callable[[Piece], None] | None = None) -> Ticket:
        """Queue a request. `listener` is shown what each step adds to its answers, within `step`.

        Raises:
            GenerationError: it cannot be served, whatever else is under way.
            ResourceError: the queue is full.
        """
        where = f"request {self._submitted}"
        check(request, self._limits, where)
        if self.full:
            raise ResourceError(f"{self._schedule.waiting} requests are waiting already", where=where,
                                remedy="try again later, or raise max_waiting")
        decoding, now = request.decoding, self._clock()
        stops = frozenset(decoding.stop_ids) | (frozenset() if decoding.ignore_stop else self._stops)
        bounds = Bounds(now, now / self._settings.ageing_s - request.priority, self._limits.end(request), stops,
                        self._limits.vocab_size,
                        decoding.num_beams if decoding.num_beams > 1 else min(decoding.n, self._limits.max_batch),
                        self._settings.speculation)
        ticket = Ticket(request, self._submitted, bounds, listener)
        self._schedule.add(first_of(ticket))
        if request.deadline is not None:
            self._schedule.watch(ticket, request.deadline)
        self._submitted += 1
        self._counts.requests += 1
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """End a request with what it has; its pages are free at once. An ended one stays as it is."""
        if not ticket.done:
            self._answers.stop(ticket, "cancelled")

    def step(self) -> bool:
        """Run the program once and hand on what it gave; False when there was nothing to run now.

        Where hidden states are asked for, some rows of them follow.
        """
        stepped = self._step()
        return (self._embedder is not None and self._embedder.step(self._schedule.rows.count)) or stepped

    def _step(self) -> bool:
        now = self._clock()
        for ticket in self._schedule.expired(now):
            self._answers.stop(ticket, "deadline")
        plan = self._schedule.plan(now)
        self._wake_at = plan.wake_at
        rows, chunks = self._schedule.rows, plan.chunks
        if not (rows.count or chunks):
            return False
        for chunk in chunks:
            chunk.sequence.ticket.begin(now)
        drafts = self._drafts() if self._settings.speculation and not (chunks or rows.grouped) else _NO_DRAFTS
        try:
            batch = self._batches.build(rows, chunks, drafts)
            if plan.copies:
                self._program.copy_pages(list(plan.copies.values()), list(plan.copies))
            logits = self._program.step(*batch)
        except Exception as error:  # whatever a program raises concerns the requests of this step only
            self._fail([*rows.sequences, *(chunk.sequence for chunk in chunks)], error)
            return True
        started: list[Answer] = []
        if chunks:
            started = self._schedule.commit(plan)
            self._counts.prompt_tokens += sum(chunk.rows for chunk in chunks)
            if started and (sources := self._answers.fork(started)):
                logits = logits[sources]
        if rows.count:
            self._choose(logits, drafts)
        done = self._clock()
        for sequence in started:
            self._note_first(sequence.ticket, done)
        self._counts.steps += 1
        self._counts.step_seconds += done - now
        return True

    def generate(self, prompts: Sequence[list[int]], settings: Sampling | Decoding) -> list[list[Candidate]]:
        """Return `settings.n` candidates for each prompt, in the order of the prompts, best first for beams.

        A prompt near the model's last position gets fewer than `max_new_tokens`; its candidates are then not
        `finished`. Other requests under way are served meanwhile.

        Raises:
            GenerationError: a prompt is empty, holds foreign ids, or leaves no room for an answer; nothing is begun
                then. Or one of them failed.
        """
        decoding = Decoding.from_sampling(settings) if isinstance(settings, Sampling) else settings
        requests = [Request(prompt, decoding) for prompt in prompts]
        for number, request in enumerate(requests):
            check(request, self._limits, f"prompt {number}")
        tickets: list[Ticket] = []
        try:
            for request in requests:
                while self.full:
                    self.turn()
                tickets.append(self.submit(request))
            for ticket in tickets:
                while not ticket.done:
                    self.turn()
            return [ticket.result() for ticket in tickets]
        finally:
            for ticket in tickets:
                self.cancel(ticket)

    def token_logprobs(self, texts: Iterable[tuple[Sequence[int], int]]) -> list[Float64]:
        """For each text (ids, first), the log-probabilities of its ids from `first` on; see `likelihood`.

        Raises:
            GenerationError: a text cannot be read, or requests are under way.
        """
        if not self.idle:
            raise GenerationError("requests are under way", remedy="ask for likelihoods before or after them")
        return token_logprobs(self._program, self.pool, texts)

    def stream(self, request: Request) -> Iterator[Piece]:
        """Yield what each step adds to a request's answers; beams come when they have ended.

        Raises:
            GenerationError: the request cannot be served, or fails under way.
        """
        pieces: deque[Piece] = deque()
        ticket = self.submit(request, pieces.append)
        try:
            while pieces or not ticket.done:
                while pieces:
                    piece = pieces.popleft()
                    if piece.finish != "error":
                        yield piece
                if not ticket.done:
                    self.turn()
            ticket.result()
        finally:
            self.cancel(ticket)

    def turn(self) -> None:
        """Take a step; where there is nothing to run yet, wait until there is.

        Raises:
            GenerationError: nothing will ever run.
        """
        if self.step() or self._schedule.idle:
            return
        if self._wake_at is None:
            raise GenerationError("requests wait that can never run", remedy="report this as a fault of the engine")
        time.sleep(max(0.0, min(self._wake_at - self._clock(), 1.0)))

    def _drafts(self) -> dict[int, list[int]]:
        """Guess ahead for the slots, as far as rows, logits and pages go."""
        rows, speculation = self._schedule.rows, self._settings.speculation
        if speculation is None or rows.count > speculation.max_sequences:
            return _NO_DRAFTS
        left = self._limits.most_wanted - rows.count
        drafts = {}
        for slot, sequence in enumerate(rows.sequences):
            if sequence.lookup is None:
                continue
            most = min(left, sequence.end - len(sequence.tokens) - 1)
            draft = sequence.lookup.draft(sequence.tokens, most)
            if draft:
                draft = draft[:self._schedule.extend(sequence, len(draft))]
            if draft:
                drafts[slot] = draft
                left -= len(draft)
        return drafts

    def _choose(self, logits: Float32, drafts: dict[int, list[int]]) -> None:
        try:
            chosen = self._chooser.choose(logits, self._schedule.rows, drafts)
        except Exception as error:  # a program's own sampler
            self._fail(list(self._schedule.rows.sequences), error)
        else:
            self._answers.take(chosen, drafts)

    def _fail(self, sequences: list[Answer], error: Exception) -> None:
        """End the requests of a step that failed."""
        self._counts.failed_steps += 1
        for sequence in sequences:
            failure = GenerationError(f"a step of the program failed: {error}",
                                      where=f"request {sequence.ticket.number}",
                                      remedy="see the cause; requests that were not in the step go on")
            failure.__cause__ = error
            self._answers.fail(sequence.ticket, failure)

    def _note_first(self, ticket: Ticket, now: float) -> None:
        if ticket.first_token is None:
            ticket.first_token = now
            self._counts.first_tokens.append(now - ticket.bounds.arrival)
