"""Who runs when: exact, as time is passed in."""

from __future__ import annotations

from typing import Any

import pytest

from openautoglm.engine.pages import PagePool
from openautoglm.engine.request import Decoding, Request
from openautoglm.engine.schedule import Plan, Scheduler
from openautoglm.engine.sequence import Bounds, Sequence, Ticket
from openautoglm.engine.settings import EngineSettings

PAGE = 4


class Bench:
    """A scheduler whose steps are pretended: every slot gets token 9."""

    def __init__(self, *, pages: int = 32, max_batch: int = 4, max_batch_tokens: int = 8, **settings: Any) -> None:
        self.settings = EngineSettings(**settings)
        self.pool = PagePool(pages, PAGE)
        self.schedule = Scheduler(self.settings, self.pool, max_batch=max_batch, max_batch_tokens=max_batch_tokens,
                                  table_pages=pages)
        self.number = 0

    def add(self, length: int, now: float = 0.0, *, priority: int = 0, first: int = 0, width: int = 1,
            deadline: float | None = None) -> Sequence:
        """Queue a prompt of its own tokens, or one that begins as the prompts of the same `first`."""
        prompt = [first * 1000 + place for place in range(length)] if first else [self.number * 1000 + 500_000] * length
        order = now / self.settings.ageing_s - priority
        bounds = Bounds(now, order, length + 50, frozenset(), 10**6, width, None)
        ticket = Ticket(Request(prompt, Decoding(max_new_tokens=50)), self.number, bounds)
        sequence = Sequence(ticket)
        sequence.width = width
        ticket.sequences.append(sequence)
        self.number += 1
        self.schedule.add(sequence)
        if deadline is not None:
            self.schedule.watch(ticket, deadline)
        return sequence

    def step(self, now: float = 0.0) -> Plan:
        plan = self.schedule.plan(now)
        self.schedule.commit(plan)
        rows = self.schedule.rows
        for sequence in rows.sequences:
            sequence.tokens.append(9)
        rows.lengths[:rows.count] += 1
        return plan

    def chunks(self, now: float = 0.0) -> list[tuple[int, int, int]]:
        """Step; return the number, start and rows of each chunk."""
        return [(chunk.sequence.ticket.number, chunk.start, chunk.rows) for chunk in self.step(now).chunks]

    def running(self) -> list[int]:
        return sorted(sequence.ticket.number for sequence in (*self.schedule.rows.sequences, *self.schedule.filling))


def test_a_long_prompt_comes_in_pieces_behind_the_rows_that_decode() -> None:
    bench = Bench()
    bench.add(3)
    assert bench.chunks() == [(0, 0, 3)]
    bench.add(20)
    assert bench.chunks() == [(1, 0, 7)]
    assert bench.chunks() == [(1, 7, 7)]
    assert len(bench.schedule.rows.sequences[0].tokens) == 6, "it went on with every step"
    assert bench.chunks() == [(1, 14, 6)]
    assert bench.schedule.rows.count == 2


def test_prompts_share_a_step() -> None:
    bench = Bench()
    for length in (3, 4, 5):
        bench.add(length)
    assert bench.chunks() == [(0, 0, 3), (1, 0, 4), (2, 0, 1)]
    assert bench.chunks() == [(2, 1, 4)]


def test_no_more_run_than_there_are_slots_and_a_wide_request_takes_several() -> None:
    bench = Bench(max_batch=4, max_batch_tokens=64)
    for width in (2, 3, 1):
        bench.add(2, width=width)
    bench.step()
    assert bench.running() == [0], "the wide one is next and waits, nobody overtakes it"
    bench.schedule.remove(bench.schedule.rows.sequences[0])
    bench.step()
    assert bench.running() == [1, 2]


def test_higher_priorities_go_first_and_equal_ones_in_order() -> None:
    bench = Bench(max_batch=1, max_batch_tokens=64)
    for priority in (0, 0, 5, 5, -1):
        bench.add(2, priority=priority)
    served = []
    while not bench.schedule.idle:
        bench.step()
        served += bench.running()
        bench.schedule.remove(bench.schedule.rows.sequences[0])
    assert served == [2, 3, 0, 1, 4]


def test_waiting_makes_up_for_priority() -> None:
    bench = Bench(max_batch=1, max_batch_tokens=64, ageing_s=10.0)
    bench.add(2, now=0.0)
    bench.add(2, now=9.0, priority=1)
    bench.add(2, now=11.0, priority=1)
    served = []
    while not bench.schedule.idle:
        bench.step(now=20.0)
        served += bench.running()
        bench.schedule.remove(bench.schedule.rows.sequences[0])
    assert served == [1, 0, 2], "one level is worth ten seconds, so the last one comes too late"


def test_it_waits_for_company_but_not_for_ever() -> None:
    bench = Bench(min_batch=3, max_wait=0.5)
    bench.add(2, now=1.0)
    plan = bench.step(now=1.1)
    assert (plan.chunks, plan.wake_at) == ([], 1.5)
    bench.add(2, now=1.2)
    assert bench.step(now=1.4).chunks == []
    assert len(bench.step(now=1.5).chunks) == 2
    bench.add(2, now=1.6)
    assert len(bench.step(now=1.6).chunks) == 1, "three together are enough"


def test_enough_company_starts_at_once() -> None:
    bench = Bench(min_batch=2, max_wait=100.0)
    bench.add(2)
    assert bench.step().chunks == []
    bench.add(2)
    assert len(bench.step().chunks) == 2


def test_who_came_last_gives_its_pages_back() -> None:
    bench = Bench(pages=6, max_batch=3, max_batch_tokens=64)
    old, young = bench.add(8, now=0.0), bench.add(8, now=1.0)
    bench.step(now=1.0)
    assert (old.slot, young.slot, bench.pool.available) == (0, 1, 2)
    while not bench.schedule.preemptions:
        bench.step(now=1.0)
    assert bench.running() == [0]
    assert young.pages == []
    assert bench.schedule.waiting == 1
    assert bench.pool.held == len(old.pages)
    bench.schedule.remove(old)
    plan = bench.step(now=2.0)
    assert young.started
    assert [chunk.start for chunk in plan.chunks] == [8], "its own pages are still known"
    assert [chunk.last for chunk in plan.chunks] == [True]


def test_the_lowest_priority_gives_way_before_the_youngest() -> None:
    bench = Bench(pages=8, max_batch=3, max_batch_tokens=64)
    for priority in (0, -1, 0):
        bench.add(8, priority=priority)
    bench.step()
    while not bench.schedule.preemptions:
        bench.step()
    assert bench.running() == [0, 2]


def test_a_prompt_that_is_being_computed_for_another_is_waited_for() -> None:
    bench = Bench(max_batch_tokens=8)
    bench.add(17, first=1)
    bench.add(17, first=1)
    bench.add(4)
    assert bench.chunks() == [(0, 0, 8)]
    assert bench.running() == [0, 2], "the third has overtaken the second"
    assert bench.chunks() == [(0, 8, 8)]
    assert bench.chunks() == [(0, 16, 1), (1, 16, 1), (2, 0, 4)]
    assert bench.pool.hit_tokens == 16


def test_a_prompt_wholly_in_the_cache_computes_its_last_token() -> None:
    bench = Bench()
    bench.add(8, first=1)
    bench.step()
    bench.add(8, first=1)
    assert bench.chunks() == [(1, 4, 4)]


def test_without_the_prefix_cache_everything_is_computed() -> None:
    bench = Bench(prefix_cache=False, max_batch_tokens=64)
    bench.pool = bench.schedule._pool = PagePool(32, PAGE, keep=False)
    bench.add(8, first=1)
    bench.add(8, first=1)
    assert bench.chunks() == [(0, 0, 8), (1, 0, 8)]


@pytest.mark.parametrize("steps", [0, 1, 4])
def test_whoever_is_taken_out_frees_its_pages_at_once(steps: int) -> None:
    bench = Bench(max_batch_tokens=5)
    kept, gone = bench.add(4), bench.add(9)
    for _ in range(steps):
        bench.step()
    bench.schedule.remove(gone)
    assert bench.pool.held == len(kept.pages)
    bench.step()
    assert bench.running() == [0]


def test_deadlines_are_reported_once_and_wake_an_idle_engine() -> None:
    bench = Bench(min_batch=9, max_wait=100.0)
    late = bench.add(4, deadline=5.0)
    bench.add(4, deadline=7.0)
    assert bench.schedule.plan(1.0).wake_at == 5.0
    assert bench.schedule.expired(4.9) == []
    assert bench.schedule.expired(5.0) == [late.ticket]
    assert bench.schedule.expired(6.0) == []


def test_deadlines_of_finished_requests_are_let_go() -> None:
    bench = Bench()
    for number in range(300):
        sequence = bench.add(1, deadline=1e9)
        bench.schedule.remove(sequence)
        sequence.ticket.finishes[0] = "stop"
        assert len(bench.schedule._deadlines) <= 64, number


def test_pages_past_the_next_row_are_lent_from_what_is_left() -> None:
    bench = Bench(pages=3, max_batch_tokens=64)
    sequence = bench.add(4)
    bench.step()
    bench.schedule.plan(0.0)
    assert bench.schedule.extend(sequence, 2) == 2
    assert len(sequence.pages) == 2
    assert bench.schedule.extend(sequence, 20) == 7, "three pages hold its next row and seven more"
    assert bench.pool.available == 0


def test_a_fork_copies_a_page_only_to_write_to_it() -> None:
    bench = Bench(max_batch_tokens=64)
    parent = bench.add(6, width=2)
    plan = bench.schedule.plan(0.0)
    bench.schedule.commit(plan)
    child = Sequence(parent.ticket, 1)
    bench.schedule.fork(parent, child)
    assert child.pages == parent.pages
    for sequence in (parent, child):
        sequence.tokens.append(9)
    bench.schedule.rows.lengths[:2] += 1
    plan = bench.schedule.plan(0.0)
    assert list(plan.copies.values()) == [child.pages[1]]
    assert list(plan.copies) == [parent.pages[1]]
    assert child.pages[0] == parent.pages[0]
    assert bench.schedule.plan(0.0).copies == {}
