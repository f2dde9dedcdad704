"""Where a fleet sends requests, and what it does when a replica fails."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from serve_tools import FACTS, STATS, FakeBackend, answers, run, until

from openautoglm.core.errors import BundleError
from openautoglm.engine.request import Piece
from openautoglm.serve.backend import Order
from openautoglm.serve.faults import BadRequest, EngineLost, Fault, Overloaded, TimedOut, Unavailable
from openautoglm.serve.worker.fleet import Fleet, combined, split, total

GOOD = ([Piece(0, (7,)), Piece(0, (8,), finish="stop")], None)
LONG = tuple(range(40))


def failing(fault: Exception, *pieces: Piece) -> FakeBackend:
    return FakeBackend(lambda order: (pieces, fault))


def good() -> FakeBackend:
    return FakeBackend(lambda order: GOOD)


def sent(fleet: Fleet) -> list[int]:
    return [len(replica.orders) for replica in fleet.replicas]  # type: ignore[attr-defined]


async def hold(fleet: Fleet, order: Order) -> asyncio.Task[Any]:
    """A request that stays under way."""
    before = sum(fleet.load)
    task = asyncio.create_task(answers(fleet, order))
    await until(lambda: sum(fleet.load) > before)
    return task


def test_short_prompts_go_where_there_is_least_to_do() -> None:
    async def work() -> None:
        fleet = Fleet([good(), good(), good()])
        gate = asyncio.Event()
        for replica in fleet.replicas:
            replica.gate = gate  # type: ignore[attr-defined]
        tasks = [await hold(fleet, Order((1, 2, number))) for number in range(9)]
        assert fleet.load == (3, 3, 3)
        gate.set()
        await asyncio.gather(*tasks)
        assert fleet.load == (0, 0, 0)

    run(work())


def test_prompts_that_begin_alike_go_together() -> None:
    async def work() -> None:
        fleet = Fleet([good() for _ in range(4)])
        homes = []
        for number in range(32):
            before = sent(fleet)
            for tail in range(3):
                await answers(fleet, Order((*(number + place for place in range(64)), tail)))
            homes.append([now - then for now, then in zip(sent(fleet), before, strict=True)])
        assert all(sorted(home) == [0, 0, 0, 3] for home in homes)
        assert min(sent(fleet)) >= 3 * 2, "prompts that differ are spread"

    run(work())


def test_salts_take_prompts_apart() -> None:
    async def work() -> None:
        fleet = Fleet([good(), good()])
        for number in range(32):
            await answers(fleet, Order(LONG, salt=bytes([number])))
        assert min(sent(fleet)) > 4

    run(work())


def test_a_replica_that_leaves_moves_its_own_prompts_only() -> None:
    async def home(fleet: Fleet, first: int) -> int:
        before = sent(fleet)
        await answers(fleet, Order((first, *LONG)))
        return next(number for number, (now, then) in enumerate(zip(sent(fleet), before, strict=True)) if now > then)

    async def work() -> None:
        fleet = Fleet([good() for _ in range(3)])
        before = [await home(fleet, first) for first in range(30)]
        fleet.replicas[1].ready = False  # type: ignore[attr-defined,misc]
        after = [await home(fleet, first) for first in range(30)]
        assert 1 in before
        assert 1 not in after
        assert [now for now, then in zip(after, before, strict=True) if then != 1] == [n for n in before if n != 1]

    run(work())


def test_load_overrides_a_known_beginning() -> None:
    async def work() -> None:
        fleet = Fleet([good(), good()], slack=2)
        gate = asyncio.Event()
        for replica in fleet.replicas:
            replica.gate = gate  # type: ignore[attr-defined]
        tasks = [await hold(fleet, Order(LONG)) for _ in range(8)]
        assert sorted(fleet.load) == [3, 5], "the favoured one has up to slack more, then one more"
        gate.set()
        await asyncio.gather(*tasks)

    run(work())


@pytest.mark.parametrize("fault", [EngineLost("gone"), Unavailable("starting"), Overloaded("full")],
                         ids=["lost", "unavailable", "overloaded"])
def test_a_request_that_has_shown_nothing_goes_elsewhere(fault: Fault) -> None:
    async def work() -> None:
        bad = failing(fault)
        fleet = Fleet([bad, good()])
        for _ in range(3):
            assert await answers(fleet, Order((1,))) == [([7, 8], "stop")]
        assert bad.orders, "it was tried"
        assert fleet.load == (0, 0)

    run(work())


def test_a_request_that_has_shown_something_fails() -> None:
    async def work() -> None:
        fleet = Fleet([failing(EngineLost("gone"), Piece(0, (7,))) for _ in range(2)])
        with pytest.raises(EngineLost):
            await answers(fleet, Order((1,)))
        assert sum(sent(fleet)) == 1

    run(work())


def test_a_request_that_kills_engines_is_tried_twice_at_most() -> None:
    async def work() -> None:
        fleet = Fleet([failing(EngineLost("gone")) for _ in range(5)])
        with pytest.raises(EngineLost):
            await answers(fleet, Order((1,)))
        assert sum(sent(fleet)) == 2

    run(work())


def test_what_the_client_did_wrong_is_not_tried_again() -> None:
    async def work() -> None:
        fleet = Fleet([failing(BadRequest("no", where="prompt")) for _ in range(2)])
        with pytest.raises(BadRequest):
            await answers(fleet, Order((1,)))
        assert sum(sent(fleet)) == 1

    run(work())


def test_a_full_fleet_says_when_to_come_again() -> None:
    async def work() -> None:
        fleet = Fleet([failing(Overloaded("full", retry_after_s=9)), failing(Unavailable("starting")),
                       failing(Overloaded("full", retry_after_s=4))])
        with pytest.raises(Overloaded) as caught:
            await answers(fleet, Order((1,)))
        assert caught.value.retry_after_s == 4
        assert sent(fleet) == [1, 1, 1]

    run(work())


def test_a_second_try_has_the_time_that_is_left() -> None:
    async def work() -> None:
        first, second = failing(EngineLost("gone")), good()
        first.gate = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, first.gate.set)
        await answers(Fleet([first, second]), Order((1,), timeout_s=30))
        assert second.orders[0].timeout_s is not None
        assert second.orders[0].timeout_s < 29.96
        slow = failing(EngineLost("gone"))
        slow.gate = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, slow.gate.set)
        with pytest.raises(TimedOut):
            await answers(Fleet([slow, good()]), Order((1,), timeout_s=0.01))

    run(work())


def test_leaving_reaches_the_replica() -> None:
    async def work() -> None:
        replica = good()
        replica.gate = asyncio.Event()
        fleet = Fleet([replica])
        stream = fleet.stream(Order((1,)))
        await anext(stream)
        await stream.aclose()
        assert replica.left == 1
        assert fleet.load == (0,)

    run(work())


def test_readiness_probes_and_embeddings_need_one_replica() -> None:
    async def work() -> None:
        fleet = Fleet([failing(EngineLost("gone")), good()])
        await fleet.probe(1)
        assert (await fleet.embed([[1], [2]])).shape == (2, 2)
        fleet.replicas[1].ready = False  # type: ignore[attr-defined,misc]
        assert fleet.ready
        fleet.replicas[0].ready = False  # type: ignore[attr-defined,misc]
        assert not fleet.ready
        assert await answers(fleet, Order((1,))), "what is not ready is tried all the same where nothing else is left"
        with pytest.raises(EngineLost):
            await Fleet([failing(EngineLost("gone"))]).probe(1)

    run(work())


def test_replicas_of_different_models_do_not_start() -> None:
    async def work() -> None:
        odd = FakeBackend(lambda order: GOOD, replace(FACTS, fingerprint="other"))
        fleet = Fleet([good(), odd])
        with pytest.raises(BundleError, match="different models"):
            await fleet.start()
        assert odd.closed

    run(work())


def test_processors_are_shared_evenly() -> None:
    assert split([0, 1, 2, 3, 4], 2) == [(0, 1), (2, 3, 4)]
    assert split([3, 7], 2) == [(3,), (7,)]
    assert split([0], 2) == [(), ()]
    assert sorted(Counter(cpu for part in split(range(13), 5) for cpu in part).values()) == [1] * 13


def test_facts_and_stats_add_up() -> None:
    facts = combined([FACTS, replace(FACTS, max_tokens=64)])
    assert (facts.max_batch, facts.pages, facts.max_tokens, facts.vocab_size) == (16, 128, 64, 50)
    busy = replace(STATS, requests=3, generated_tokens=30, prefix_hit_rate=0.5, ttft_s=2.0, tokens_per_second=10.0)
    more = replace(STATS, requests=1, generated_tokens=5, prefix_hit_rate=0.1, ttft_s=6.0, tokens_per_second=4.0)
    both = total([busy, more])
    assert (both.requests, both.generated_tokens, both.tokens_per_second) == (4, 35, 14.0)
    assert both.prefix_hit_rate == pytest.approx(0.4)
    assert both.ttft_s == pytest.approx(3.0)
    assert total([STATS, STATS]).ttft_s is None
