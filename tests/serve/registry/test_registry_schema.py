"""The schema: what the steps make is what the tables say, on both databases; opened at once, newer, half done."""

from __future__ import annotations

import multiprocessing
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import inspect, text

from openautoglm.serve.faults import Conflict
from openautoglm.serve.registry.registry import Registry, open_registry
from openautoglm.serve.registry.schema import steps
from openautoglm.serve.registry.tables import METADATA, SCHEMA_TABLE


def tables(registry: Registry) -> set[str]:
    return set(inspect(registry.database.engine).get_table_names())


def test_the_steps_make_what_the_tables_say(registry: Registry) -> None:
    assert tables(registry) == {*METADATA.tables, SCHEMA_TABLE}
    with registry.database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={
            "version_table": SCHEMA_TABLE, "compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, METADATA) == []


def test_opening_again_changes_nothing(registry: Registry, url: str, tmp_path: Path) -> None:
    registry.versions.locations()
    with open_registry(url, tmp_path / "store") as again:
        assert again.revision() == registry.revision() == 0


def test_a_newer_schema_is_refused(registry: Registry, url: str, tmp_path: Path) -> None:
    registry.database.write(lambda connection: connection.execute(
        text(f"UPDATE {SCHEMA_TABLE} SET version_num = '9999'")))
    with pytest.raises(Conflict, match="a newer openautoglm has written this registry") as caught:
        open_registry(url, tmp_path / "store")
    assert "install" in str(caught.value)


def test_tables_without_a_mark_are_refused(registry: Registry, url: str, tmp_path: Path) -> None:
    registry.database.write(lambda connection: connection.execute(text(f"DROP TABLE {SCHEMA_TABLE}")))
    with pytest.raises(Conflict, match="no mark of its schema"):
        open_registry(url, tmp_path / "store")


def test_a_step_that_fails_leaves_nothing(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("power cut")

    with monkeypatch.context() as patch:
        patch.setattr(Operations, "create_index", fail)
        with pytest.raises(RuntimeError, match="power cut"):
            open_registry(url, tmp_path / "store")
    with open_registry(url, tmp_path / "store") as opened:
        assert tables(opened) == {*METADATA.tables, SCHEMA_TABLE}


def test_threads_that_open_at_once(url: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: open_registry(url, tmp_path / "store"), range(6)))
    assert [tables(one) for one in opened] == [{*METADATA.tables, SCHEMA_TABLE}] * 6
    for one in opened:
        one.close()


def _open(url: str, store: str) -> int:
    with open_registry(url, store) as opened:
        return len(tables(opened))


@pytest.mark.slow
def test_processes_that_open_at_once(url: str, tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.starmap(_open, [(url, str(tmp_path / "store"))] * 3) == [len(METADATA.tables) + 1] * 3


def test_there_is_one_newest_step_and_all_have_a_way_to_it() -> None:
    known = steps()
    assert known.get_heads() == [known.get_current_head()]
    assert [step.revision for step in known.walk_revisions()][-1] == "0001"


def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    with open_registry(tmp_path / "deep" / "r.db") as opened:
        assert opened.place.file is not None
        assert stat.S_IMODE(opened.place.file.stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "deep").stat().st_mode) == 0o700
