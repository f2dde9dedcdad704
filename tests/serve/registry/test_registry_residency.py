"""What leaves memory: the least recently used, never what is pinned or busy, and never in vain."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from openautoglm.serve.registry.residency import Plan, Resident, plan

A, B, C = (Resident(name, 10, used_s) for name, used_s in (("a", 1.0), ("b", 2.0), ("c", 3.0)))


def test_what_fits_unloads_nothing() -> None:
    assert plan(10, [A, B], 30) == Plan()
    assert plan(30, [], 30) == Plan()


def test_the_least_recently_used_leaves_first() -> None:
    assert plan(10, [C, A, B], 30) == Plan(("a",))
    assert plan(15, [C, A, B], 30) == Plan(("a", "b"))
    assert plan(30, [C, A, B], 30) == Plan(("a", "b", "c"))


def test_pinned_ones_stay_and_nothing_leaves_in_vain() -> None:
    pinned = Resident("p", 20, 0.0, pinned=True)
    assert plan(10, [pinned, A], 30) == Plan(("a",))
    assert plan(20, [pinned, A], 30) == Plan(fits=False, short_bytes=10)
    assert plan(40, [A], 30) == Plan(fits=False, short_bytes=10)


def test_busy_ones_leave_later() -> None:
    busy = Resident("w", 10, 0.0, busy=True)
    assert plan(10, [busy, A, B], 30) == Plan(("a",))
    assert plan(30, [busy, A, B], 30) == Plan(fits=False, later=True, short_bytes=10)


def test_small_ones_are_spared_when_a_large_one_must_go() -> None:
    large = Resident("l", 25, 5.0)
    assert plan(20, [A, large], 40) == Plan(("l",))


def test_a_smaller_budget_unloads() -> None:
    assert plan(0, [A, B, C], 20) == Plan(("a",))
    pinned = Resident("p", 30, 9.0, pinned=True)
    assert plan(0, [A, pinned], 20) == Plan(("a",), fits=False, short_bytes=10)


RESIDENTS = st.lists(st.builds(Resident, key=st.uuids().map(str), size_bytes=st.integers(0, 50),
                               used_s=st.floats(0, 100), pinned=st.booleans(), busy=st.booleans()), max_size=8)


@given(st.integers(0, 100), RESIDENTS, st.integers(0, 150))
def test_rules_hold_for_any_memory(size_bytes: int, residents: list[Resident], budget_bytes: int) -> None:
    made = plan(size_bytes, residents, budget_bytes)
    by_key = {one.key: one for one in residents}
    leaving = [by_key[key] for key in made.unload]
    assert not any(one.pinned or one.busy for one in leaving)
    assert [one.used_s for one in leaving] == sorted(one.used_s for one in leaving)
    over = sum(one.size_bytes for one in residents) + size_bytes - budget_bytes
    after = over - sum(one.size_bytes for one in leaving)
    assert made.fits == (after <= 0)
    if made.fits:  # every one of them is needed
        assert all(after + one.size_bytes > 0 for one in leaving)
        assert made.short_bytes == 0
    else:
        movable = sum(one.size_bytes for one in residents if not one.pinned and not one.busy)
        busy = sum(one.size_bytes for one in residents if not one.pinned and one.busy)
        assert over - movable == made.short_bytes > 0
        assert made.later == (over - movable - busy <= 0)
        assert size_bytes == 0 or not leaving
