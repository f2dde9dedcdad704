"""The guard: deny by default, one hash for a key, revocation and outages, floods of wrong keys."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from openautoglm.core.errors import TaskError
from openautoglm.serve.faults import Overloaded, RateLimited, StoreLost, Unauthorised
from openautoglm.serve.guard import secret
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.rights import SCOPES
from openautoglm.serve.guard.settings import GuardSettings
from openautoglm.serve.registry.keys import KeyRecord
from openautoglm.serve.registry.registry import Registry

KEY_ID, TOKEN, HASH = secret.mint()
HEADER = f"Bearer {TOKEN}"
RECORD = KeyRecord(KEY_ID, "website", HASH, frozenset({"infer"}))


class Clock:
    def __init__(self) -> None:
        self.at_s = 1000.0

    def __call__(self) -> float:
        return self.at_s


class Keys:
    """Keys in a dict, with counts of what was asked."""

    def __init__(self, *records: KeyRecord) -> None:
        self.records = {record.key_id: record for record in records}
        self.asked = self.touched = 0
        self.lost = False

    def get(self, key_id: str) -> KeyRecord | None:
        self.asked += 1
        if self.lost:
            raise StoreLost("gone")
        return self.records.get(key_id)

    def touch(self, key_id: str) -> None:
        self.touched += 1
        self.records[key_id] = replace(self.records[key_id], used_s=1e12)


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys whose hash was computed, in order."""
    computed: list[str] = []
    verify = secret.verify

    def counted(token: str, hashed: str | None) -> bool:
        computed.append(token)
        return verify(token, hashed)

    monkeypatch.setattr(secret, "verify", counted)
    return computed


def guard_of(keys: Keys, clock: Clock, **settings: Any) -> Guard:
    return Guard(keys, GuardSettings(**settings), now=clock, clock=clock)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, timeout=60))


def test_the_right_key_is_let_in_with_its_scopes(hashes: list[str]) -> None:
    record = replace(RECORD, requests_per_min=5)
    guard = guard_of(Keys(record), Clock(), requests_per_min=9, tokens_per_min=99)
    who = run(guard.authenticate(HEADER, "10.0.0.1"))
    assert (who.scopes, who.key_id, who.requests_per_min, who.tokens_per_min) == ({"infer"}, KEY_ID, 5, 99)
    for header in (f"bearer {TOKEN}", f"BEARER   {TOKEN} ", f" Bearer {TOKEN}"):
        assert run(guard.authenticate(header, "10.0.0.1")) == who
    assert hashes == [TOKEN]


OTHER = secret.mint()[1]
WRONG = {"none": None, "empty": "", "no-key": "Bearer", "blank": "Bearer  ", "basic": f"Basic {TOKEN}", "bare": TOKEN,
         "unknown": f"Bearer {OTHER}", "own-id-other-secret": f"Bearer {TOKEN[:21]}{OTHER[21:]}",
         "one-letter": f"Bearer {TOKEN[:-1]}{'x' if TOKEN[-1] != 'x' else 'y'}", "longer": f"{HEADER}x",
         "twice": f"{HEADER}, {HEADER}", "huge": "Bearer " + "x" * 100_000, "nul": f"{HEADER}\0",
         "odd": "Bearer \ud800",
         "prefix": f"Bearer {TOKEN[:30]}", "hash": f"Bearer {HASH}"}


@pytest.mark.parametrize("header", WRONG.values(), ids=WRONG.keys())
def test_all_else_is_refused_alike(header: str | None) -> None:
    guard = guard_of(Keys(RECORD), Clock())
    with pytest.raises(Unauthorised) as caught:
        run(guard.authenticate(header, "10.0.0.1"))
    assert caught.value.row.status == 401
    assert TOKEN not in str(caught.value)


@pytest.mark.parametrize("change", [{"revoked_s": 1.0}, {"expires_s": 999.0}, {"expires_s": 1000.0}],
                         ids=["revoked", "expired", "expires-now"])
def test_a_dead_key_is_told_the_same_as_a_wrong_one(change: dict[str, float]) -> None:
    dead = guard_of(Keys(replace(RECORD, **change)), Clock())
    unknown = guard_of(Keys(), Clock())
    told = []
    for guard in (dead, unknown):
        with pytest.raises(Unauthorised) as caught:
            run(guard.authenticate(HEADER, "10.0.0.1"))
        told.append(str(caught.value))
    assert told[0] == told[1]


def test_an_unknown_id_costs_as_much_as_a_known_one(hashes: list[str]) -> None:
    with pytest.raises(Unauthorised):
        run(guard_of(Keys(), Clock()).authenticate(HEADER, "10.0.0.1"))
    assert hashes == [TOKEN]


def test_what_has_not_the_form_of_a_key_costs_nothing(hashes: list[str]) -> None:
    keys = Keys(RECORD)
    with pytest.raises(Unauthorised):
        run(guard_of(keys, Clock()).authenticate("Bearer sk-1234", "10.0.0.1"))
    assert (hashes, keys.asked) == ([], 0)


def test_a_check_is_believed_for_a_while_then_the_store_is_asked(hashes: list[str]) -> None:
    keys, clock = Keys(RECORD), Clock()
    guard = guard_of(keys, clock, cached_s=10, remembered_s=60)

    async def ask(after_s: float) -> tuple[int, int]:
        clock.at_s += after_s
        await guard.authenticate(HEADER, "10.0.0.1")
        return keys.asked, len(hashes)

    assert [run(ask(after_s)) for after_s in (0, 5, 4.9, 0.2, 5, 5.1, 50)] == [
        (1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (3, 1), (4, 2)]
    assert keys.touched == 1


def test_revoking_works_at_once_here_and_soon_elsewhere() -> None:
    keys, clock = Keys(RECORD), Clock()
    here, elsewhere = guard_of(keys, clock, cached_s=10), guard_of(keys, clock, cached_s=10)
    for guard in (here, elsewhere):
        run(guard.authenticate(HEADER, "10.0.0.1"))
    keys.records[KEY_ID] = replace(RECORD, revoked_s=clock())
    here.forget(KEY_ID)
    with pytest.raises(Unauthorised):
        run(here.authenticate(HEADER, "10.0.0.1"))
    run(elsewhere.authenticate(HEADER, "10.0.0.1"))
    clock.at_s += 10
    with pytest.raises(Unauthorised):
        run(elsewhere.authenticate(HEADER, "10.0.0.1"))


def test_a_key_that_expires_is_refused_in_that_moment() -> None:
    clock = Clock()
    guard = guard_of(Keys(replace(RECORD, expires_s=1005.0)), clock, cached_s=300)
    run(guard.authenticate(HEADER, "10.0.0.1"))
    clock.at_s = 1005.0
    with pytest.raises(Unauthorised):
        run(guard.authenticate(HEADER, "10.0.0.1"))


@pytest.mark.parametrize("change", [None, HASH.replace("m=19456", "m=19457")], ids=["removed", "another-hash"])
def test_a_key_that_was_replaced_is_refused(change: str | None) -> None:
    keys, clock = Keys(RECORD), Clock()
    guard = guard_of(keys, clock, cached_s=1)
    run(guard.authenticate(HEADER, "10.0.0.1"))
    keys.records = {} if change is None else {KEY_ID: replace(RECORD, hash=change)}
    clock.at_s += 2
    with pytest.raises(Unauthorised):
        run(guard.authenticate(HEADER, "10.0.0.1"))


def test_known_keys_work_through_an_outage_and_new_ones_do_not() -> None:
    keys, clock = Keys(RECORD), Clock()
    guard = guard_of(keys, clock, cached_s=10, outage_s=100)
    run(guard.authenticate(HEADER, "10.0.0.1"))
    keys.lost = True
    clock.at_s += 50
    assert run(guard.authenticate(HEADER, "10.0.0.1")).key_id == KEY_ID
    asked = keys.asked
    assert run(guard.authenticate(HEADER, "10.0.0.1")).key_id == KEY_ID
    assert keys.asked == asked  # not every request waits for a store that is gone
    with pytest.raises(StoreLost):
        run(guard.authenticate(f"Bearer {OTHER}", "10.0.0.1"))
    clock.at_s += 51
    with pytest.raises(StoreLost):
        run(guard.authenticate(HEADER, "10.0.0.1"))
    keys.lost = False
    assert run(guard.authenticate(HEADER, "10.0.0.1")).key_id == KEY_ID


def test_many_requests_with_one_key_compute_one_hash(hashes: list[str]) -> None:
    guard = guard_of(Keys(RECORD), Clock(), hash_at_once=1)

    async def work() -> None:
        known = await asyncio.gather(*(guard.authenticate(HEADER, "10.0.0.1") for _ in range(50)))
        assert {who.key_id for who in known} == {KEY_ID}

    run(work())
    assert hashes == [TOKEN]


def test_one_request_asks_the_store_again_and_the_others_do_not_wait() -> None:
    keys, clock = Keys(RECORD), Clock()
    guard = guard_of(keys, clock, cached_s=10)

    async def work() -> None:
        await guard.authenticate(HEADER, "10.0.0.1")
        clock.at_s += 11
        await asyncio.gather(*(guard.authenticate(HEADER, "10.0.0.1") for _ in range(20)))

    run(work())
    assert keys.asked == 2


def test_a_flood_of_wrong_keys_is_stopped_by_address(hashes: list[str]) -> None:
    clock = Clock()
    guard = guard_of(Keys(RECORD), clock, failures_per_min=4)

    async def work() -> list[type[BaseException]]:
        run_ = [guard.authenticate(f"Bearer {OTHER[:-2]}{number:02d}", "10.0.0.1") for number in range(20)]
        return [type(one) for one in await asyncio.gather(*run_, return_exceptions=True)]

    kinds = run(work())
    assert kinds.count(RateLimited) >= 20 - 4 - 2
    assert len(hashes) <= 4 + 2
    with pytest.raises(RateLimited):  # nobody is known yet, so the right key has to wait too
        run(guard.authenticate(HEADER, "10.0.0.1"))
    assert run(guard.authenticate(HEADER, "10.0.0.2")).key_id == KEY_ID
    assert run(guard.authenticate(HEADER, "10.0.0.1")).key_id == KEY_ID  # known now, whatever others send
    with pytest.raises(RateLimited):
        run(guard.authenticate(f"Bearer {OTHER}", "10.0.0.1"))
    clock.at_s += 15 * 3
    with pytest.raises(Unauthorised):
        run(guard.authenticate(f"Bearer {OTHER}", "10.0.0.1"))


def test_callers_that_wait_for_a_hash_are_bounded() -> None:
    guard = guard_of(Keys(RECORD), Clock(), hash_at_once=1, hash_waiting=3)

    async def work() -> list[object]:
        headers = [f"Bearer {OTHER[:-2]}{number:02d}" for number in range(10)]
        return await asyncio.gather(*(guard.authenticate(header, "10.0.0.1") for header in headers),
                                    return_exceptions=True)

    kinds = [type(one) for one in run(work())]
    assert kinds.count(Overloaded) == 7
    assert kinds.count(Unauthorised) == 3


def test_logs_hold_the_id_and_never_the_key(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(Unauthorised):
        run(guard_of(Keys(), Clock()).authenticate(HEADER, "10.0.0.1"))
    record = caplog.records[-1]
    assert (record.key_id, record.client) == (KEY_ID, "10.0.0.1")  # type: ignore[attr-defined]
    assert TOKEN[21:] not in str([vars(one) for one in caplog.records])


def test_keys_are_off_on_loopback_only() -> None:
    guard = Guard(None, bind="127.0.0.1")
    assert not guard.keyed
    assert run(guard.authenticate(None, "127.0.0.1")).scopes == set(SCOPES)
    for bind in ("0.0.0.0", "::", "10.0.0.1", "example.org"):
        with pytest.raises(TaskError, match="serves this machine only"):
            Guard(None, bind=bind)
    assert Guard(Keys(), bind="0.0.0.0").keyed


def test_rates_of_a_key_hold_over_its_requests() -> None:
    guard = guard_of(Keys(RECORD), Clock(), requests_per_min=2)
    who = run(guard.authenticate(HEADER, "10.0.0.1"))
    guard.admit(who)
    guard.admit(who, 10).settle(5)
    with pytest.raises(RateLimited):
        guard.admit(who)


def test_with_the_registry_s_table(registry: Registry) -> None:
    registry.keys.add(RECORD, by="ann")
    guard = Guard(registry.keys, GuardSettings(cached_s=0), now=registry.database.now)
    assert run(guard.authenticate(HEADER, "10.0.0.1")).key_id == KEY_ID
    used = registry.keys.get(KEY_ID)
    assert used is not None
    assert used.used_s == registry.database.now()
    registry.keys.revoke("website", by="ann")
    with pytest.raises(Unauthorised):
        run(guard.authenticate(HEADER, "10.0.0.1"))
