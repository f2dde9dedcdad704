"""The database gone and back, swapped, locked, full, damaged: told clearly, nothing lost, work goes on."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from registry_tools import QUICK, Postgres, start_postgres
from sqlalchemy import event, insert, text
from sqlalchemy.exc import IntegrityError, OperationalError

from openautoglm.serve.faults import DiskFull, StoreLost
from openautoglm.serve.registry.registry import Registry, open_registry
from openautoglm.serve.registry.tables import MARKS

Make = Callable[[int], Path]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "registry.db"


@pytest.fixture
def lite(file: Path, tmp_path: Path, make_bundle: Make) -> Iterator[Registry]:
    """A registry on SQLite with one version."""
    with open_registry(file, tmp_path / "store", QUICK) as opened:
        opened.versions.register(make_bundle(1), "reports", by="ann", copy=False)
        yield opened


def test_a_file_that_vanishes_and_comes_back(lite: Registry, file: Path) -> None:
    file.rename(file.with_suffix(".away"))
    for use in (lite.snapshot, lambda: lite.labels.set_alias("reports", "champion", 1, by="ann")):
        with pytest.raises(StoreLost, match="does not answer") as caught:
            use()
    assert not file.exists()  # nothing was made in its place
    assert caught.value.row.status == 503
    assert str(file) not in caught.value.public
    assert str(file) in str(caught.value)
    file.with_suffix(".away").rename(file)
    lite.labels.set_alias("reports", "champion", 1, by="ann")
    assert lite.snapshot().models["reports"].aliases == {"champion": 1}


def test_a_file_that_is_swapped_is_opened_anew(lite: Registry, file: Path, tmp_path: Path, make_bundle: Make) -> None:
    assert list(lite.snapshot().models) == ["reports"]
    with open_registry(tmp_path / "other.db", tmp_path / "store", QUICK) as other:
        other.versions.register(make_bundle(2), "invoices", by="ann", copy=False)
    (tmp_path / "other.db").rename(file)  # what a restore from a backup does
    for rest in tmp_path.glob("registry.db-*"):
        rest.unlink()
    assert list(lite.snapshot().models) == ["invoices"]


def test_work_is_tried_again_while_the_file_is_away(lite: Registry, file: Path) -> None:
    away = file.with_suffix(".away")
    file.rename(away)
    lite.database.settings = QUICK.model_copy(update={"retry_s": 20})
    threading.Timer(0.3, lambda: away.rename(file)).start()
    assert list(lite.snapshot().models) == ["reports"]


def test_while_it_is_lost_nobody_waits_for_another_try(lite: Registry, file: Path) -> None:
    pauses: list[float] = []
    lite.database._sleep = pauses.append
    lite.database.settings = QUICK.model_copy(update={"retry_s": 0.06})
    file.rename(file.with_suffix(".away"))
    for pause_after in (True, False, False):
        before = len(pauses)
        with pytest.raises(StoreLost):
            lite.snapshot()
        assert (len(pauses) > before) == pause_after
    file.with_suffix(".away").rename(file)
    assert list(lite.snapshot().models) == ["reports"]
    file.rename(file.with_suffix(".away"))
    before = len(pauses)
    with pytest.raises(StoreLost):
        lite.snapshot()
    assert len(pauses) > before


def test_a_full_disk_stores_nothing_and_reading_goes_on(lite: Registry) -> None:
    def confine(connection: Any, _record: Any) -> None:
        used = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count={used + 4}")

    event.listen(lite.database.engine, "connect", confine)
    lite.database.engine.dispose()
    before = lite.conversations.append("ann", "talk", [{"n": 1}], model="m")
    with pytest.raises(DiskFull, match="disk is full") as caught:
        lite.conversations.append("ann", "talk", [{"text": "x" * 500_000}], model="m")
    assert "free some space" in str(caught.value)
    assert lite.conversations.read("ann", "talk").turns == before.turns == 1
    event.remove(lite.database.engine, "connect", confine)
    lite.database.engine.dispose()
    assert lite.conversations.append("ann", "talk", [{"text": "x" * 500_000}], model="m").turns == 2


def test_a_lock_is_waited_for_and_then_told(lite: Registry, file: Path) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        lite.database.engine.dispose()
        impatient = open_registry(file, None, QUICK.model_copy(update={"lock_wait_s": 0.05}))
        with impatient, pytest.raises(StoreLost, match="does not answer"):
            impatient.labels.set_alias("reports", "champion", 1, by="ann")
        assert list(lite.snapshot().models) == ["reports"]  # readers do not wait
        other.execute("ROLLBACK")
    lite.labels.set_alias("reports", "champion", 1, by="ann")


def test_a_damaged_file_is_told_as_damaged(lite: Registry, file: Path, tmp_path: Path) -> None:
    lite.close()
    with closing(sqlite3.connect(file)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    file.write_bytes(b"not a database at all, " * 500)
    with pytest.raises(StoreLost, match="is damaged") as caught:
        open_registry(file, tmp_path / "store", QUICK)
    assert "restore it from a backup" in str(caught.value)


def test_our_own_faults_are_not_taken_for_the_database_s(lite: Registry) -> None:
    runs = 0

    def twice(connection: Any) -> None:
        nonlocal runs
        runs += 1
        for _ in range(2):
            connection.execute(insert(MARKS).values(name="x", value=1))

    with pytest.raises(IntegrityError):
        lite.database.write(twice)
    with pytest.raises(OperationalError, match="no such table"):
        lite.database.read(lambda connection: connection.execute(text("SELECT * FROM nowhere")))
    assert runs == 1
    assert lite.database.read(lambda connection: connection.execute(
        text("SELECT count(*) FROM autoglm_marks WHERE name = 'x'")).scalar()) == 0


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A PostgreSQL server that this module may stop."""
    made, folder = start_postgres()
    yield made
    made.stop()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_a_server_that_stops_and_starts_again(server: Postgres, tmp_path: Path, make_bundle: Make) -> None:
    with open_registry(server.database(), tmp_path / "store", QUICK) as registry:
        registry.versions.register(make_bundle(1), "reports", by="ann", copy=False)
        server.stop()
        for use in (registry.snapshot, lambda: registry.labels.set_alias("reports", "champion", 1, by="ann")):
            with pytest.raises(StoreLost, match="does not answer") as caught:
                use()
            assert "autoglm@" not in caught.value.public
        server.start()
        registry.labels.set_alias("reports", "champion", 1, by="ann")
        assert registry.snapshot().models["reports"].aliases == {"champion": 1}


@pytest.mark.slow
def test_a_connection_that_is_cut_in_the_middle(server: Postgres, tmp_path: Path, make_bundle: Make) -> None:
    with open_registry(server.database(), tmp_path / "store", QUICK) as registry:
        registry.versions.register(make_bundle(1), "reports", by="ann", copy=False)
        runs = 0

        def cut(connection: Any) -> int:
            nonlocal runs
            runs += 1
            connection.execute(insert(MARKS).values(name="x", value=runs))
            if runs == 1:
                key = connection.execute(text("SELECT pg_backend_pid()")).scalar()
                with registry.database.engine.connect() as other:
                    other.execute(text("SELECT pg_terminate_backend(:key)"), {"key": key})
                time.sleep(0.05)
            return int(connection.execute(text("SELECT 1")).scalar() or 0)

        assert registry.database.write(cut) == 1
        assert runs == 2  # the first one was undone by the server, so it was safe to run again
        assert registry.database.read(lambda connection: connection.execute(
            text("SELECT value FROM autoglm_marks WHERE name = 'x'")).scalar()) == 2


@pytest.mark.slow
def test_a_server_that_is_not_there_at_all(tmp_path: Path) -> None:
    with pytest.raises(StoreLost, match="does not answer") as caught:
        open_registry(f"postgresql://me:secret@/x?host={tmp_path}", tmp_path / "store", QUICK)
    assert "secret" not in str(caught.value)


def test_a_commit_that_breaks_is_not_repeated(lite: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    from sqlalchemy.engine.default import DefaultDialect

    runs, broken = 0, sqlite3.OperationalError("disk I/O error")
    broken.sqlite_errorname = "SQLITE_IOERR_FSYNC"

    def work(connection: Any) -> None:
        nonlocal runs
        runs += 1
        connection.execute(insert(MARKS).values(name="y", value=1))

    def commit(*_: Any) -> None:
        raise broken

    with monkeypatch.context() as patch:
        patch.setattr(DefaultDialect, "do_commit", commit)
        with pytest.raises(StoreLost, match="does not answer") as caught:
            lite.database.write(work)
    assert runs == 1
    assert "look whether the change was stored" in str(caught.value)
