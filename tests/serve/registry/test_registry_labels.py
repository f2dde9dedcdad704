"""Aliases, stages, wishes, and the log of all that was changed."""

from __future__ import annotations

from typing import Any

import pytest

from openautoglm.serve.faults import BadRequest, Conflict, NotFound
from openautoglm.serve.registry.names import Reference
from openautoglm.serve.registry.registry import Registry


def test_an_alias_moves_and_goes(filled: Registry) -> None:
    assert filled.labels.set_alias("reports", "champion", 1, by="ann") is None
    assert filled.labels.set_alias("reports", "champion", 2, by="ann") == 1
    filled.labels.set_alias("reports", "backup", 2, by="ann")
    model = filled.snapshot().models["reports"]
    assert model.aliases == {"backup": 2, "champion": 2}
    assert model.named(2) == ("backup", "champion")
    filled.labels.drop_alias("reports", "champion", by="ann")
    assert filled.snapshot().models["reports"].aliases == {"backup": 2}
    with pytest.raises(NotFound, match="did you mean 'backup'"):
        filled.labels.drop_alias("reports", "bakup", by="ann")


@pytest.mark.parametrize("alias", ["latest", "Champion", "", "a/b", "x" * 33, "3"])
def test_bad_aliases(filled: Registry, alias: str) -> None:
    with pytest.raises(BadRequest):
        filled.labels.set_alias("reports", alias, 1, by="ann")


def test_stages(filled: Registry) -> None:
    assert filled.labels.set_stage(Reference("reports", 2), "production", by="ann").stage == "production"
    with pytest.raises(BadRequest, match="did you mean 'staging'"):
        filled.labels.set_stage(Reference("reports", 2), "stagin", by="ann")
    with pytest.raises(NotFound):
        filled.labels.set_stage(Reference("reports", 7), "staging", by="ann")


def test_archived_versions_are_out_of_use(filled: Registry) -> None:
    filled.labels.set_alias("reports", "champion", 1, by="ann")
    filled.routes.set("reports", {2: 1}, by="ann")
    with pytest.raises(Conflict, match="the alias 'champion' points at it"):
        filled.labels.set_stage(Reference("reports", 1), "archived", by="ann")
    with pytest.raises(Conflict, match="a route sends it traffic"):
        filled.labels.set_stage(Reference("reports", 2), "archived", by="ann")
    filled.labels.set_stage(Reference("reports", 3), "archived", by="ann")
    for refused in (lambda: filled.labels.set_alias("reports", "next", 3, by="ann"),
                    lambda: filled.routes.set("reports", {3: 1}, by="ann"),
                    lambda: filled.wishes.set(Reference("reports", 3), loaded=True, by="ann")):
        with pytest.raises(Conflict, match="reports/3 is archived"):
            refused()
    with pytest.raises(NotFound, match="archived"):
        filled.snapshot().find(Reference("reports", 3))


def test_wishes(filled: Registry, clock: Any) -> None:
    filled.wishes.set(Reference("reports", 2), loaded=True, pinned=True, by="ann")
    filled.wishes.set(Reference("reports", 1), loaded=True, by="ann")
    filled.wishes.set(Reference("reports", 1), loaded=False, by="bob")
    first, second = filled.wishes.list()
    assert (first.version.number, first.loaded, first.pinned, first.by, first.at_s) == (1, False, False, "bob", clock())
    assert (second.version.number, second.loaded, second.pinned) == (2, True, True)
    filled.wishes.forget(Reference("reports", 2), by="ann")
    filled.versions.remove("reports/1", by="ann")
    assert filled.wishes.list() == []
    with pytest.raises(Conflict, match="only a loaded version"):
        filled.wishes.set(Reference("reports", 2), loaded=False, pinned=True, by="ann")


def test_every_change_is_in_the_log_and_moves_the_revision(filled: Registry, clock: Any) -> None:
    changes = [
        ("alias.set", lambda: filled.labels.set_alias("reports", "champion", 1, by="ann")),
        ("stage.set", lambda: filled.labels.set_stage(Reference("reports", 1), "staging", by="ann")),
        ("route.set", lambda: filled.routes.set("reports", {1: 1, 2: 1}, by="ann")),
        ("route.rollback", lambda: filled.routes.roll_back("reports", 2, revision=1, reason="slow", by="ann")),
        ("route.drop", lambda: filled.routes.drop("reports", by="ann")),
        ("alias.drop", lambda: filled.labels.drop_alias("reports", "champion", by="ann")),
        ("version.load", lambda: filled.wishes.set(Reference("reports", 1), loaded=True, by="ann")),
        ("version.unload", lambda: filled.wishes.set(Reference("reports", 1), loaded=False, by="ann")),
        ("version.lazy", lambda: filled.wishes.forget(Reference("reports", 1), by="ann")),
        ("version.remove", lambda: filled.versions.remove("reports/1", by="ann")),
        ("model.remove", lambda: filled.versions.remove_model("reports", by="ann"))]
    for action, change in changes:
        before = filled.revision()
        clock.at_s += 1
        change()
        assert filled.revision() == before + 1, action
        newest = filled.audit.list(limit=1)[0]
        assert (newest.action, newest.by, newest.at_s) == (action, "ann", clock())
    assert [entry.action for entry in filled.audit.list()][-3:] == ["version.register"] * 3


def test_a_change_that_fails_leaves_no_line(filled: Registry) -> None:
    lines = len(filled.audit.list())
    with pytest.raises(NotFound):
        filled.labels.set_alias("reports", "champion", 9, by="ann")
    assert len(filled.audit.list()) == lines


def test_the_log_is_read_by_subject_and_in_pieces_and_ends(filled: Registry, clock: Any) -> None:
    filled.labels.set_alias("reports", "champion", 1, by="x" * 200)
    assert filled.audit.list(limit=1)[0].by == "x" * 96
    assert filled.audit.list(limit=1)[0].detail == {"alias": "champion", "before": None}
    assert len(filled.audit.list(subject="reports")) == 4
    assert len(filled.audit.list(subject="reports/1")) == 2
    assert filled.audit.list(subject="report") == []
    assert filled.audit.list(subject="%") == []
    first = filled.audit.list(limit=2)
    assert [entry.id for entry in filled.audit.list(before=first[-1].id)] == [first[-1].id - 1, first[-1].id - 2]
    clock.at_s += 366 * 24 * 3600
    assert filled.tidy()["audit"] == 4
    assert filled.audit.list() == []
