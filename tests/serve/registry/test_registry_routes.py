"""Routes: weights, sticky keys, and rolling back exactly once."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openautoglm.serve.faults import BadRequest, NotFound
from openautoglm.serve.registry.choose import Snapshot, draw
from openautoglm.serve.registry.names import Reference
from openautoglm.serve.registry.records import Model, Route, Share, Version
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.registry.routes import parse_weights


def version(number: int, stage: str = "none") -> Version:
    return Version(number, "reports", number, True, "x", "f", 1, stage, "", 0.0, "")


def model(*stages: str, aliases: dict[str, int] | None = None, route: Route | None = None) -> Snapshot:
    versions = {number: version(number, stage) for number, stage in enumerate(stages, start=1)}
    return Snapshot(1, {"reports": Model("reports", "", 0.0, versions, aliases or {}, route)})


def test_a_route_is_set_read_and_dropped(filled: Registry) -> None:
    route = filled.routes.set("reports", {1: 90, 3: 10}, by="ann")
    assert route.shares == (Share(1, 90, True), Share(3, 10, False))
    assert route.baseline == Share(1, 90, True)
    assert route.candidates == (Share(3, 10),)
    assert filled.routes.get("reports") == route == filled.snapshot().models["reports"].route
    second = filled.routes.set("reports", {1: 50, 2: 50}, baseline=2, by="ann")
    assert second.baseline == Share(2, 50, True)
    assert second.revision == route.revision + 1
    filled.routes.drop("reports", by="ann")
    assert filled.routes.get("reports") is None
    with pytest.raises(NotFound, match="has no route"):
        filled.routes.drop("reports", by="ann")


@pytest.mark.parametrize(("weights", "baseline"), [
    ({}, None), ({1: 0}, None), ({1: -1, 2: 5}, None), ({1: 10_001}, None), ({1: 1}, 2),
    (dict.fromkeys(range(1, 18), 1), None)], ids=["none", "zero", "negative", "heavy", "baseline", "many"])
def test_bad_routes_change_nothing(filled: Registry, weights: dict[int, int], baseline: int | None) -> None:
    before = filled.routes.set("reports", {1: 1}, by="ann")
    with pytest.raises(BadRequest):
        filled.routes.set("reports", weights, baseline=baseline, by="ann")
    with pytest.raises(NotFound):
        filled.routes.set("reports", {1: 1, 9: 1}, by="ann")
    assert filled.routes.get("reports") == before


def test_rolling_back_happens_once(filled: Registry) -> None:
    route = filled.routes.set("reports", {1: 80, 2: 10, 3: 10}, by="ann")

    def roll_back(_: int) -> bool:
        return filled.routes.roll_back("reports", 3, revision=route.revision, reason="9 of 10 failed", by="canary")

    with ThreadPoolExecutor(5) as pool:
        assert sorted(pool.map(roll_back, range(5))) == [False] * 4 + [True]
    after = filled.routes.get("reports")
    assert after is not None
    assert after.shares == (Share(1, 80, True), Share(2, 10), Share(3, 0, False, "9 of 10 failed"))
    assert after.live == after.shares[:2]
    assert not filled.routes.roll_back("reports", 1, revision=after.revision, reason="", by="canary")
    changed = filled.routes.set("reports", {1: 1, 2: 1}, by="ann")
    assert not filled.routes.roll_back("reports", 2, revision=after.revision, reason="", by="canary")
    assert filled.routes.get("reports") == changed


def test_weights_are_read() -> None:
    assert parse_weights(["3=90", "4=10"]) == {3: 90, 4: 10}
    for bad in (["3"], ["3:90"], ["=90"], ["3="], ["-3=4"], ["3=1.5"], ["3=4", "3=5"], ["3=" + "9" * 30]):
        with pytest.raises(BadRequest):
            parse_weights(bad)


def test_what_a_plain_name_means() -> None:
    dice = random.Random(1)

    def chosen(snapshot: Snapshot, text: str = "reports") -> int:
        from openautoglm.serve.registry.names import parse

        return snapshot.choose(parse(text), None, dice).number

    assert chosen(model("none", "none", "archived")) == 2
    assert chosen(model("production", "none")) == 1
    assert chosen(model("production", "none", "none", aliases={"champion": 2})) == 2
    route = Route((Share(3, 1, True), Share(1, 0, False, "slow")), 1, 0.0)
    routed = model("production", "none", "none", aliases={"champion": 2}, route=route)
    assert chosen(routed) == 3
    assert [chosen(routed, f"reports{tail}") for tail in ("/1", "@champion", "@latest")] == [1, 2, 3]
    with pytest.raises(NotFound, match="no version in use"):
        chosen(model("archived"))
    with pytest.raises(NotFound, match="did you mean 'reports'"):
        chosen(routed, "report")


def test_weights_hold_with_and_without_keys() -> None:
    shares, dice, count = (Share(3, 90, True), Share(4, 10)), random.Random(7), 20_000
    for keys in ([None] * count, [f"user-{number}" for number in range(count)]):
        drawn = Counter(draw("reports", shares, key, dice).number for key in keys)
        assert 0.09 < drawn[4] / count < 0.11


def test_a_key_stays_and_few_move_when_weights_change() -> None:
    dice, keys = random.Random(7), [f"user-{number}" for number in range(5000)]
    before = {key: draw("reports", (Share(3, 90), Share(4, 10)), key, dice).number for key in keys}
    after = {key: draw("reports", (Share(3, 80), Share(4, 20)), key, dice).number for key in keys}
    again = {key: draw("reports", (Share(3, 90), Share(4, 10)), key, dice).number for key in keys}
    assert again == before
    assert all(after[key] == 4 for key in keys if before[key] == 4)  # who is on trial stays on trial
    assert 0.08 < sum(after[key] != before[key] for key in keys) / len(keys) < 0.12
    other = {key: draw("invoices", (Share(3, 90), Share(4, 10)), key, dice).number for key in keys}
    assert other != before


@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8), st.text(max_size=20))
def test_any_key_gets_one_of_the_versions(weights: list[int], key: str) -> None:
    shares = [Share(number, weight) for number, weight in enumerate(weights, start=1)]
    first = draw("reports", shares, key, random.Random(1))
    assert first in shares
    assert draw("reports", shares[::-1], key, random.Random(2)) == first
    rest = [share for share in shares if share is not first]
    if rest:  # a key moves only when its own version goes
        gone = draw("reports", rest, key, random.Random(3))
        assert draw("reports", [first, gone], key, random.Random(4)) == first


def test_references_by_value() -> None:
    assert model("none").find(Reference("reports", 1)).uri == "models:/reports/1"
    assert Route((Share(1, 0),), 1, 0.0).baseline is None
    assert Route((Share(1, 5),), 1, 0.0).candidates == ()
