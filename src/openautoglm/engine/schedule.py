"""Who runs in the next step: decode rows first, then pieces of prompts, then whoever waits.

A pure data structure: time is passed in, nothing is computed here. A sequence *waits*, then *fills* the cache with its
prompt piece by piece, then *decodes* in a slot of `Rows`. Order is by rank: the time of arrival, less `ageing_s` for
each level of priority; so classes go first, a class is served in order, and nobody is overtaken for ever. When pages
run out, whoever ranks last gives all of its own back and waits again; what it had is computed anew, or found in the
cache. A beam search whose pages are taken back begins anew.
"""

from __future__ import annotations

import heapq
from bisect import insort
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from openautoglm.engine.pages import PagePool, extend_keys
from openautoglm.engine.rows import Rows
from openautoglm.engine.sequence import Sequence, Ticket
from openautoglm.engine.settings import EngineSettings

_rank = attrgetter("rank")
_FEW_DEADLINES = 64


class Chunk(NamedTuple):
    """`rows` tokens of a sequence from `start` on; `last` when its next token can be chosen after them."""

    sequence: Sequence
    start: int
    rows: int
    last: bool


@dataclass
class Plan:
    """What the next step does, besides one row for each slot.

    Attributes:
        copies: pages to copy before the step: target to source.
        chunks: pieces of prompts.
        wake_at: when to plan again though nothing happens; None for no such time.
    """

    copies: dict[int, int] = field(default_factory=dict)
    chunks: list[Chunk] = field(default_factory=list)
    wake_at: float | None = None


class Scheduler:
    """Queues, slots and pages.

    Args:
        max_batch: slots.
        max_batch_tokens: rows of a step.
        table_pages: most pages of a sequence.

    Attributes:
        rows: the sequences that decode.
        filling: those whose prompts are being computed, by rank.
        preemptions: how often pages were taken back.
    """

    def __init__(self, settings: EngineSettings, pool: PagePool, *, max_batch: int, max_batch_tokens: int,
                 table_pages: int) -> None:
        self._settings, self._pool = settings, pool
        self._max_batch, self._max_tokens = max_batch, max_batch_tokens
        self.rows = Rows(max_batch, table_pages)
        self.filling: list[Sequence] = []
        self._waiting: list[Sequence] = []
        self._deadlines: list[tuple[float, int, Ticket]] = []
        self._tidy_at = _FEW_DEADLINES
        self.preemptions = 0

    @property
    def waiting(self) -> int:
        """Sequences in the queue."""
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do, now or later."""
        return not (self.rows.count or self.filling or self._waiting)

    def add(self, sequence: Sequence) -> None:
        """Queue a new sequence."""
        insort(self._waiting, sequence, key=_rank)

    def watch(self, ticket: Ticket, deadline: float) -> None:
        """Report a ticket in `expired` once its deadline has come."""
        if len(self._deadlines) >= self._tidy_at:  # let finished tickets go
            self._deadlines = [entry for entry in self._deadlines if not entry[2].done]
            heapq.heapify(self._deadlines)
            self._tidy_at = max(_FEW_DEADLINES, 2 * len(self._deadlines))
        heapq.heappush(self._deadlines, (deadline, ticket.number, ticket))

    def expired(self, now: float) -> list[Ticket]:
        """Return, once, the unfinished tickets whose deadline has come."""
        late = []
        while self._deadlines and self._deadlines[0][0] <= now:
            ticket = heapq.heappop(self._deadlines)[2]
            if not ticket.done:
                late.append(ticket)
        return late

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is, and give its pages back at once."""
        if sequence.slot >= 0:
            self.seal(sequence, int(self.rows.lengths[sequence.slot]))
            self.rows.remove(sequence)
        elif sequence in self.filling:
            self.filling.remove(sequence)
        else:
            self._waiting.remove(sequence)
        self._pool.release(sequence.pages)
        sequence.pages = []

    def plan(self, now: float) -> Plan:
        """Say what the next step does. Without slots and chunks there is no step."""
        plan = Plan()
        self._make_room(plan)
        if self._waiting:
            self._admit(plan, now)
        budget = self._max_tokens - self.rows.count
        for sequence in self.filling:
            pending = len(sequence.tokens) - sequence.computed
            count = min(pending, budget)
            if count > 0:
                plan.chunks.append(Chunk(sequence, sequence.computed, count, count == pending))
                budget -= count
        if self._deadlines and not (self.rows.count or plan.chunks):
            plan.wake_at = min(self._deadlines[0][0], plan.wake_at or self._deadlines[0][0])
        return plan

    def commit(self, plan: Plan) -> list[Sequence]:
        """Note that the chunks are in the cache; return the sequences that got a slot, in the order of the chunks."""
        started = []
        for sequence, start, count, last in plan.chunks:
            sequence.computed = start + count
            self.seal(sequence, sequence.computed)
            if last:
                self.filling.remove(sequence)
                self.rows.add(sequence)
                started.append(sequence)
        return started

    def seal(self, sequence: Sequence, computed: int) -> None:
        """Make the full pages of a sequence known, `computed` of whose tokens are in the cache."""
        full = computed // self._pool.page_size
        if full > sequence.sealed:
            extend_keys(sequence.keys, sequence.tokens, self._pool.page_size, sequence.ticket.request.salt)
            for number in range(sequence.sealed, full):
                self._pool.seal(sequence.pages[number], sequence.keys[number])
            sequence.sealed = full

    def extend(self, sequence: Sequence, more: int) -> int:
        """Lend a slot's sequence pages for rows past its next one, from what is left; return for how many it has."""
        size = self._pool.page_size
        length = int(self.rows.lengths[sequence.slot]) + 1
        wanted = min(-(-(length + more) // size) - len(sequence.pages), self._pool.available)
        if wanted > 0:
            first = len(sequence.pages)
            sequence.pages += self._pool.take(wanted)
            self.rows.table[sequence.slot, first:first + wanted] = sequence.pages[first:]
            self.rows.room[sequence.slot] = len(sequence.pages) * size
        return min(more, len(sequence.pages) * size - length)

    def fork(self, sequence: Sequence, child: Sequence) -> None:
        """Give `child` a slot; it shares the pages of `sequence`, whose prompt was just computed."""
        length = len(sequence.tokens)
        child.pages = sequence.pages[:-(-length // self._pool.page_size)]
        child.keys, child.sealed = list(sequence.keys), sequence.sealed
        self._pool.share(child.pages)
        self.rows.add(child)
        self.rows.room[sequence.slot] = length

    def _make_room(self, plan: Plan) -> None:
        """Let every slot be written at its next place, by new pages, copies, and taking pages from the last ranks."""
        rows = self.rows
        due = (rows.lengths[:rows.count] >= rows.room[:rows.count]).nonzero()[0].tolist()
        if not due:
            return
        for sequence in sorted((rows.sequences[slot] for slot in due), key=_rank):
            while sequence.slot >= 0 and not self._open(sequence, plan):
                self._preempt(max([*rows.sequences, *self.filling], key=_rank), plan)

    def _open(self, sequence: Sequence, plan: Plan) -> bool:
        """Let one slot be written at its next place; False when there is no page for it."""
        slot, pool = sequence.slot, self._pool
        length = int(self.rows.lengths[slot])
        self.seal(sequence, length)
        number = length // pool.page_size
        if number == len(sequence.pages):
            if not pool.available:
                return False
            sequence.pages += pool.take(1)
            self.rows.table[slot, number] = sequence.pages[number]
        elif pool.shared(sequence.pages[number]):
            if not pool.available:
                return False
            old, (new,) = sequence.pages[number], pool.take(1)
            plan.copies[new] = old
            pool.release([old])
            sequence.pages[number] = self.rows.table[slot, number] = new
        self.rows.room[slot] = len(sequence.pages) * pool.page_size
        return True

    def _preempt(self, sequence: Sequence, plan: Plan) -> None:
        """Let a sequence wait again, without pages; of the beams of a search, the first one, from its prompt on."""
        members = [sequence] if sequence.group is None else list(sequence.group.members)
        for member in members:
            if member.slot >= 0:
                self.rows.remove(member)
            else:
                self.filling.remove(member)
            for page in member.pages:
                if not self._pool.shared(page):
                    plan.copies.pop(page, None)
            self._pool.release(member.pages)
            member.pages, member.sealed, member.computed = [], 0, 0
        if sequence.group is not None:
            sequence = sequence.group.restart()
            sequence.restart(self._pool.page_size)
        insort(self._waiting, sequence, key=_rank)
        self.preemptions += 1

    def _admit(self, plan: Plan, now: float) -> None:
        """Lend pages to those that wait, by rank, as far as slots and pages go."""
        running = self.rows.count + sum(sequence.width for sequence in self.filling)
        if not self._gate(plan, now, running):
            return
        held: list[Sequence] = []
        while self._waiting and len(held) < self._max_batch:
            sequence = self._waiting[0]
            if running + sequence.width > self._max_batch:
                break
            if self._better_later(sequence):
                held.append(self._waiting.pop(0))
            elif self._lend(sequence, running):
                self._waiting.pop(0)
                sequence.started = True
                running += sequence.width
                insort(self.filling, sequence, key=_rank)
            else:
                break
        self._waiting[:0] = held

    def _gate(self, plan: Plan, now: float, running: int) -> bool:
        """Whether enough have come together, one has waited enough, or the first has run before."""
        if running + len(self._waiting) >= self._settings.min_batch or self._waiting[0].started:
            return True
        plan.wake_at = min(sequence.ticket.bounds.arrival for sequence in self._waiting) + self._settings.max_wait
        return now >= plan.wake_at

    def _better_later(self, sequence: Sequence) -> bool:
        """Whether the next page that a sequence needs is being computed for another just now."""
        if not self._settings.prefix_cache or not self.filling:
            return False
        self._know(sequence)
        place = self._pool.known(sequence.keys)
        if place >= self._most_shared(sequence):
            return False
        key = sequence.keys[place]
        return any(len(other.keys) > place and other.keys[place] == key for other in self.filling)

    def _know(self, sequence: Sequence) -> None:
        extend_keys(sequence.keys, sequence.tokens, self._pool.page_size, sequence.ticket.request.salt)

    def _most_shared(self, sequence: Sequence) -> int:
        """Pages that may come from the cache: one token at least is computed, for its logits."""
        return (len(sequence.tokens) - 1) // self._pool.page_size

    def _lend(self, sequence: Sequence, running: int) -> bool:
        """Lend pages for all tokens, if one is left for each sequence that runs."""
        if self._settings.prefix_cache:
            self._know(sequence)
        pages = self._pool.match(sequence.keys[:self._most_shared(sequence)])
        wanted = -(-len(sequence.tokens) // self._pool.page_size) - len(pages)
        if wanted + running > self._pool.available:
            self._pool.release(pages)
            return False
        sequence.sealed = len(pages)
        sequence.computed = sequence.sealed * self._pool.page_size
        sequence.pages = pages + self._pool.take(wanted)
        self._pool.count(len(sequence.tokens), sequence.computed)
        return True
