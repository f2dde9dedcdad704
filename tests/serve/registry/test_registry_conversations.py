"""Conversations: kept by owner until they expire, bounded, and never mixed up; the cache of responses."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.serve.faults import BadRequest, Conflict, DiskFull, NotFound, StoreLost, TooLarge
from openautoglm.serve.registry import responses
from openautoglm.serve.registry.registry import Registry, open_registry
from openautoglm.serve.registry.settings import RegistrySettings

ASK = [{"role": "user", "content": "日本 \ud800 \0 'x'; DROP TABLE"}]
ANSWER = [{"role": "assistant", "content": "yes"}]


def test_turns_come_back_as_they_were(registry: Registry, clock: Any) -> None:
    head = registry.conversations.append("ann", "talk", ASK, model="reports", expected=0)
    assert (head.turns, head.messages, head.created_s) == (1, (), clock())
    clock.at_s += 60
    registry.conversations.append("ann", "talk", ANSWER, model="other", expected=1)
    read = registry.conversations.read("ann", "talk")
    assert list(read.messages) == [*ASK, *ANSWER]
    assert (read.model, read.turns, read.updated_s) == ("reports", 2, clock())
    assert read.expires_s == clock() + 24 * 3600
    assert [one.name for one in registry.conversations.list("ann")] == ["talk"]


def test_owners_do_not_see_each_other(registry: Registry) -> None:
    registry.conversations.append("ann", "talk", ASK, model="reports")
    registry.conversations.append("bob", "talk", ANSWER, model="reports")
    assert list(registry.conversations.read("bob", "talk").messages) == ANSWER
    registry.conversations.append("ann", "private", ASK, model="reports")
    for refused in (registry.conversations.read, registry.conversations.forget):
        with pytest.raises(NotFound):
            refused("bob", "private")
    registry.conversations.forget("bob", "talk")
    assert list(registry.conversations.read("ann", "talk").messages) == ASK


def test_they_expire_and_begin_anew(registry: Registry, clock: Any) -> None:
    registry.conversations.append("ann", "short", ASK, model="reports", keep_s=100)
    registry.conversations.append("ann", "long", ASK, model="reports", keep_s=10**9)
    clock.at_s += 101
    with pytest.raises(NotFound):
        registry.conversations.read("ann", "short")
    assert [one.name for one in registry.conversations.list("ann")] == ["long"]
    assert registry.conversations.append("ann", "short", ANSWER, model="reports", expected=0).turns == 1
    assert list(registry.conversations.read("ann", "short").messages) == ANSWER
    clock.at_s += 24 * 3600 + 1
    assert registry.tidy()["conversations"] == 2
    assert registry.conversations.list("ann") == []


def test_two_requests_at_once_are_told_apart(registry: Registry) -> None:
    registry.conversations.append("ann", "talk", ASK, model="reports")

    def add(number: int) -> int | None:
        try:
            return registry.conversations.append("ann", "talk", [{"n": number}], model="reports", expected=1).turns
        except Conflict:
            return None

    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(add, range(6)))
    assert sorted(done, key=str) == [2, None, None, None, None, None]
    assert registry.conversations.read("ann", "talk").turns == 2


def test_many_begin_the_same_one(registry: Registry) -> None:
    with ThreadPoolExecutor(6) as pool:
        heads = list(pool.map(lambda number: registry.conversations.append("ann", "talk", [{"n": number}], model="m"),
                              range(6)))
    assert sorted(head.turns for head in heads) == [1, 2, 3, 4, 5, 6]
    read = registry.conversations.read("ann", "talk")
    assert sorted(message["n"] for message in read.messages) == list(range(6))


def test_bounds_store_nothing(url: str, tmp_path: Path) -> None:
    small = RegistrySettings(conversation_turns=3, conversation_bytes=100, conversations_each=2)
    with open_registry(url, tmp_path / "store", small) as registry:
        talks = registry.conversations
        talks.append("ann", "a", ANSWER, model="m")
        with pytest.raises(TooLarge, match="3 turns and 100 bytes"):
            talks.append("ann", "a", [{"n": 1}] * 3, model="m")
        with pytest.raises(TooLarge):
            talks.append("ann", "a", [{"text": "x" * 80}], model="m")
        assert list(talks.read("ann", "a").messages) == ANSWER
        talks.append("ann", "b", ANSWER, model="m")
        with pytest.raises(TooLarge, match="may have 2 conversations"):
            talks.append("ann", "c", ANSWER, model="m")
        assert [one.name for one in talks.list("ann")] == ["b", "a"]
        talks.append("bob", "c", ANSWER, model="m")


@pytest.mark.parametrize("name", ["", "../x", "a b", "x" * 65, "-a", "a/b", "ä", "a\0"])
def test_bad_names(registry: Registry, name: str) -> None:
    for use in (lambda: registry.conversations.read("ann", name), lambda: registry.conversations.forget("ann", name),
                lambda: registry.conversations.append("ann", name, ASK, model="m")):
        with pytest.raises(BadRequest):
            use()


def put(registry: Registry, number: int, size_bytes: int) -> str:
    key = responses.key("ann", "f", {"prompt": number})
    assert registry.responses.put(key, registry.versions.get("reports/1").id, bytes([number]) * size_bytes)
    return key


def test_responses_come_back_until_they_are_old(filled: Registry, clock: Any) -> None:
    key = put(filled, 1, 10)
    assert filled.responses.get(key) == b"\1" * 10
    assert filled.responses.get(responses.key("bob", "f", {"prompt": 1})) is None
    assert filled.responses.put(key, filled.versions.get("reports/1").id, b"newer")
    assert filled.responses.get(key) == b"newer"
    clock.at_s += 24 * 3600
    assert filled.responses.get(key) is None
    put(filled, 2, 1)
    assert filled.responses.size_bytes() == 1


def test_the_least_recently_used_leave_when_bytes_run_out(url: str, tmp_path: Path, clock: Any, make_bundle: Any
                                                          ) -> None:
    small = RegistrySettings(response_cache_bytes=100, response_bytes=60)
    with open_registry(url, tmp_path / "store", small, now=clock) as registry:
        registry.versions.register(make_bundle(1), "reports", by="ann", copy=False)
        keys = []
        for number in range(4):
            keys.append(put(registry, number, 30))
            clock.at_s += 100
            registry.responses.get(keys[0])
        assert [registry.responses.get(key) is not None for key in keys] == [True, False, True, True]
        assert registry.responses.size_bytes() == 90
        version = registry.versions.get("reports/1")
        assert not registry.responses.put("k", version.id, b"x" * 61)
        registry.versions.remove("reports/1", by="ann")
        assert registry.responses.size_bytes() == 0
        assert not registry.responses.put("k", version.id, b"x")
        assert registry.responses.clear() == 0


@pytest.mark.parametrize("fault", [StoreLost("gone"), DiskFull("full")], ids=["lost", "full"])
def test_a_cache_never_fails_a_request(filled: Registry, monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def fail(_: Any) -> Any:
        raise fault

    key = put(filled, 1, 10)
    version = filled.versions.get("reports/1")
    monkeypatch.setattr(filled.database, "read", fail)
    monkeypatch.setattr(filled.database, "write", fail)
    assert filled.responses.get(key) is None
    assert not filled.responses.put(key, version.id, b"x")


ASKS = st.dictionaries(st.text(max_size=4), st.integers() | st.text(max_size=4) | st.booleans() | st.none(), max_size=4)


@given(ASKS, ASKS)
def test_keys_are_equal_for_equal_requests_only(first: dict[str, Any], second: dict[str, Any]) -> None:
    import json

    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (responses.key("a", "f", first) == responses.key("a", "f", second)) == same
    assert responses.key("a", "f", dict(reversed(first.items()))) == responses.key("a", "f", first)
    assert len({responses.key(owner, card, first) for owner in "ab" for card in "fg"}) == 4
