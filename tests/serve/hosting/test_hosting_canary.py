"""Routes: traffic is split by weight, requests stay with their version, and a version that fails is taken back."""

from __future__ import annotations

from collections import Counter

import pytest
from hosting_tools import house, until
from serve_tools import run

from openautoglm.serve.faults import BadRequest, ClientGone, EngineLost, Fault, Overloaded, TimedOut, Unavailable
from openautoglm.serve.hosting.judge import Judge
from openautoglm.serve.registry.catalog import Catalog
from openautoglm.serve.registry.outcomes import ERROR, UNTIMED
from openautoglm.serve.registry.registry import Registry
from openautoglm.serve.service.language import Language
from openautoglm.serve.service.values import Caller, Report


def test_traffic_is_split_and_counted(registry: Registry, language: Language) -> None:
    async def work() -> None:
        registry.routes.set("reports", {1: 90, 2: 10}, by="ann")
        async with house(registry, language) as made:
            answers = Counter([await made.text("reports") for _ in range(300)])
            assert 12 <= answers["I am reports/2."] <= 55  # 30 are expected; 12 and 55 are beyond 3.4 deviations
            assert sum(answers.values()) == 300
            await made.catalog.flush()
            ids = {number: registry.versions.get(f"reports/{number}").id for number in (1, 2)}
            totals = registry.outcomes.totals(ids.values(), since_s=0)
            for number in (1, 2):
                assert totals[ids[number]].requests == answers[f"I am reports/{number}."]
                assert totals[ids[number]].timed == totals[ids[number]].requests
                assert not totals[ids[number]].errors

    run(work())


def test_requests_of_one_key_stay_with_one_version(registry: Registry, language: Language) -> None:
    async def work() -> None:
        registry.routes.set("reports", {1: 50, 2: 50}, by="ann")
        async with house(registry, language) as made:
            for user in range(6):
                assert len({await made.text("reports", key=f"user-{user}") for _ in range(5)}) == 1
            assert set(made.loader.backends) == {"reports/1", "reports/2"}

    run(work())


@pytest.mark.parametrize("how", ["its engine dies", "it cannot be loaded"])
def test_a_version_on_trial_that_fails_is_taken_back(registry: Registry, language: Language, how: str) -> None:
    async def work() -> None:
        registry.routes.set("reports", {1: 90, 2: 10}, by="ann")
        async with house(registry, language, canary={"min_requests": 10}) as made:
            if how == "it cannot be loaded":
                made.loader.broken.add("reports/2")
            else:
                made.loader.faults["reports/2"] = EngineLost("killed")
            await made.catalog.start()
            failed = 0
            for _ in range(400):
                try:
                    await made.text("reports")
                except (EngineLost, Unavailable):
                    failed += 1
            await until(lambda: {made.catalog.choose("reports").number for _ in range(50)} == {1})
            assert failed >= 10
            assert [await made.text("reports") for _ in range(50)] == ["I am reports/1."] * 50
            assert [line.action for line in registry.audit.list()].count("route.rollback") == 1

    run(work())


@pytest.mark.parametrize(("fault", "shown", "kept"), [
    (None, 0.25, "timed"), (None, None, UNTIMED), (EngineLost, 0.1, ERROR), (Unavailable, None, ERROR),
    (TimedOut, None, "timed"), (BadRequest, None, UNTIMED), (ClientGone, 0.1, None), (Overloaded, None, None)],
    ids=["well", "untimed", "lost", "unavailable", "late", "wrong", "gone", "full"])
def test_what_counts_for_and_against_a_version(registry: Registry, fault: type[Fault] | None, shown: float | None,
                                               kept: int | str | None) -> None:
    version = registry.versions.get("reports/1")
    catalog = Catalog(registry)
    report = Report("reports/1", "chat", Caller(), 100.0, 0.0, first=None if shown is None else 100.0 + shown)
    report.ended, report.fault = 103.0, None if fault is None else fault.kind
    Judge(catalog, version).ended(report)
    run(catalog.flush())
    counts = registry.outcomes.totals([version.id], since_s=0)[version.id]
    assert counts.requests == (kept is not None)
    if kept == "timed":
        bound_s = 0.25 if shown is not None else 3.0
        assert bound_s <= (counts.quantile_s(1) or 0) <= 1.3 * bound_s
    elif kept is not None:
        assert counts.counts == {kept: 1}
