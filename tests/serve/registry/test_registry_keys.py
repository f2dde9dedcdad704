"""The table of keys."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from openautoglm.serve.faults import Conflict, NotFound
from openautoglm.serve.registry.keys import KeyRecord
from openautoglm.serve.registry.registry import Registry

KEY = KeyRecord("abcdefghijkm", "website", "$argon2id$...", frozenset({"infer", "metrics"}), 60, None)


def test_keys_are_added_found_and_listed(registry: Registry, clock: Any) -> None:
    added = registry.keys.add(replace(KEY, expires_s=clock() + 10), by="ann")
    assert registry.keys.get(KEY.key_id) == added
    assert (added.scopes, added.requests_per_min, added.tokens_per_min) == (KEY.scopes, 60, None)
    assert (added.created_s, added.created_by, added.used_s) == (clock(), "ann", None)
    assert added.live(clock())
    assert not added.live(clock() + 10)
    assert registry.keys.get("nobody") is None
    registry.keys.touch(KEY.key_id)
    assert [key.used_s for key in registry.keys.list()] == [clock()]


def test_a_name_is_used_once_at_a_time(registry: Registry, clock: Any) -> None:
    registry.keys.add(replace(KEY, expires_s=clock() + 10), by="ann")
    other = replace(KEY, key_id="mkjihgfedcba")
    with pytest.raises(Conflict, match="'website' is in use"):
        registry.keys.add(other, by="ann")
    clock.at_s += 11
    registry.keys.add(other, by="ann")
    assert [key.key_id for key in registry.keys.list()] == [KEY.key_id, other.key_id]


@pytest.mark.parametrize("by", ["website", KEY.key_id], ids=["name", "id"])
def test_revoked_is_for_good(registry: Registry, clock: Any, by: str) -> None:
    registry.keys.add(KEY, by="ann")
    assert registry.keys.revoke(by, by="bob").revoked_s is None  # as it was
    gone = registry.keys.get(KEY.key_id)
    assert gone is not None
    assert gone.revoked_s == clock()
    assert not gone.live(clock())
    with pytest.raises(NotFound):
        registry.keys.revoke(by, by="bob")


def test_the_nearest_name_is_told_and_the_log_holds_no_hash(registry: Registry) -> None:
    registry.keys.add(KEY, by="ann")
    with pytest.raises(NotFound, match="did you mean 'website'"):
        registry.keys.revoke("websit", by="bob")
    registry.keys.revoke("website", by="bob")
    entries = registry.audit.list(subject=KEY.key_id)
    assert [entry.action for entry in entries] == ["key.revoke", "key.create"]
    assert "argon2" not in str(entries)
