"""Bundles become versions: copied or referenced, checked, found again, removed; nothing is lost on the way."""

from __future__ import annotations

import datetime
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openautoglm.core.errors import BundleError
from openautoglm.core.files import sha256_file
from openautoglm.models.bundle import export, open_bundle
from openautoglm.models.card import CARD_NAME, note_file
from openautoglm.serve.faults import BadRequest, Conflict, DiskFull, NotFound, StoreLost, Unavailable
from openautoglm.serve.registry import bundles
from openautoglm.serve.registry.names import Reference
from openautoglm.serve.registry.registry import Registry

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "src")}
Make = Callable[[int], Path]


def left(registry: Registry) -> list[str]:
    """What lies in the store."""
    return sorted(path.name for path in registry.store.root.iterdir()) if registry.store.root.exists() else []


def test_a_copied_bundle_stands_alone(registry: Registry, make_bundle: Make, clock: Any) -> None:
    path = make_bundle(1)
    version = registry.versions.register(path, "reports", by="ann", note="first")
    shutil.rmtree(path)
    assert (version.model, version.number, version.uri) == ("reports", 1, "models:/reports/1")
    assert (version.copied, version.stage, version.note, version.created_by) == (True, "none", "first", "ann")
    assert version.created_s == clock()
    assert version.facts["scores"] == {"BLEU": 31.5}
    assert version.facts["parameters"] > 1000
    bundle = registry.bundle(registry.versions.get("reports/1"))
    assert bundle.path.parent == registry.store.root
    assert sum(file.stat().st_size for file in bundle.path.iterdir()) == version.size_bytes
    assert registry.store.health(version) == "whole"


def test_a_referenced_bundle_stays_where_it_is(registry: Registry, make_bundle: Make) -> None:
    path = make_bundle(1)
    version = registry.versions.register(path, "reports", by="ann", copy=False)
    assert registry.bundle(version).path == path
    assert left(registry) == []
    registry.versions.remove("reports/1", by="ann")
    assert open_bundle(path).card.recipe == {"seed": 1}


@pytest.mark.parametrize("copy", [True, False], ids=["copied", "referenced"])
@pytest.mark.parametrize("kind", [".zip", ".pkl"])
def test_an_archive_is_registered_too(registry: Registry, make_bundle: Make, tmp_path: Path, kind: str,
                                      copy: bool) -> None:
    path = export(open_bundle(make_bundle(1)), tmp_path / f"b{kind}")
    version = registry.versions.register(path, "reports", by="ann", copy=copy)
    assert registry.bundle(version).card.recipe == {"seed": 1}
    if copy:
        path.unlink()
        assert registry.bundle(version).path == registry.store.path(version)
    else:
        shutil.copy(export(open_bundle(make_bundle(2)), tmp_path / f"other{kind}"), path)
        with pytest.raises(Unavailable) as caught:
            registry.bundle(version)
        assert "not the bundle that was registered" in str(caught.value.__cause__)


def test_numbers_go_on_and_are_never_given_twice(filled: Registry, make_bundle: Make) -> None:
    filled.versions.remove("reports/3", by="ann")
    assert filled.versions.register(make_bundle(4), "reports", by="ann", copy=False).number == 4
    assert filled.versions.register(make_bundle(5), "invoices", by="ann", copy=False).number == 1


def test_the_same_bundle_is_registered_once(filled: Registry, make_bundle: Make, tmp_path: Path) -> None:
    before = filled.revision()
    again = filled.versions.register(tmp_path / "made-2", "reports", by="ann")
    assert again.number == 2
    assert filled.revision() == before
    assert left(filled) == []
    assert filled.versions.register(tmp_path / "made-2", "elsewhere", by="ann").number == 1


def test_what_is_no_bundle_is_refused(registry: Registry, make_bundle: Make, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BundleError, match="is not a bundle"):
        registry.versions.register(tmp_path / "empty", "reports", by="ann")
    damaged = make_bundle(1)
    with (damaged / "model.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(BundleError, match="is damaged"):
        registry.versions.register(damaged, "reports", by="ann")
    with pytest.raises(BadRequest):
        registry.versions.register(make_bundle(2), "../reports", by="ann")
    assert registry.snapshot().models == {}
    assert left(registry) == []


def test_lookups_by_number_alias_and_name(filled: Registry) -> None:
    filled.labels.set_alias("reports", "champion", 2, by="ann")
    assert filled.versions.get("models:/reports/1").number == 1
    assert filled.versions.get("reports@champion").number == 2
    assert filled.versions.get("reports").number == 3
    filled.labels.set_stage(Reference("reports", 3), "archived", by="ann")
    assert filled.versions.get("reports@latest").number == 2
    for text, told in (("repots/1", "did you mean 'reports'"), ("reports/9", "it has 1, 2, 3"),
                       ("reports@champoin", "did you mean 'champion'")):
        with pytest.raises(NotFound, match=told):
            filled.versions.get(text)


def test_damage_and_loss_are_told_and_nothing_is_lost(registry: Registry, make_bundle: Make) -> None:
    version = registry.versions.register(make_bundle(1), "reports", by="ann")
    path = registry.store.path(version)
    weights = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(weights[:-1])
    with pytest.raises(Unavailable) as caught:
        registry.bundle(version)
    assert "model.safetensors is damaged" in str(caught.value.__cause__)
    assert str(path) not in caught.value.public
    (path / "model.safetensors").write_bytes(weights)
    assert registry.bundle(version).card.recipe == {"seed": 1}

    card = (path / CARD_NAME).read_text(encoding="utf-8")
    (path / CARD_NAME).write_text(card.replace("31.5", "99.5"), encoding="utf-8")
    assert registry.store.health(version) == "changed"
    with pytest.raises(Unavailable) as caught:
        registry.bundle(version)
    assert "its card is another" in str(caught.value.__cause__)

    path.rename(path.with_name("away"))
    assert registry.store.health(version) == "missing"
    with pytest.raises(Unavailable, match="models:/reports/1 cannot be opened"):
        registry.bundle(version)
    assert registry.versions.get("reports/1") == version
    path.with_name("away").rename(path)
    (path / CARD_NAME).write_text(card, encoding="utf-8")
    assert registry.bundle(version).card.scores == {"BLEU": 31.5}


def test_packed_weights_come_and_go(registry: Registry, make_bundle: Make) -> None:
    path, name = make_bundle(1), "packed-native-int8.safetensors"
    (path / name).write_bytes(b"one")
    note_file(path, name)
    whole = registry.versions.register(path, "reports", by="ann")
    stored = registry.store.path(whole)
    assert (stored / name).read_bytes() == b"one"
    (stored / name).write_bytes(b"another")
    assert registry.bundle(whole).path == stored
    with pytest.raises(Unavailable) as caught:
        registry.store.open(whole, packed=True)
    assert f"{name} is damaged" in str(caught.value.__cause__)
    note_file(stored, name)  # what the runtime does after it has written one
    assert registry.store.health(whole) == "whole"
    assert registry.store.open(whole, packed=True).path == stored
    (stored / name).unlink()
    assert registry.store.open(whole, packed=True).path == stored

    (path / name).write_bytes(b"not what the card says")
    other = registry.versions.register(path, "invoices", by="ann")
    assert other.fingerprint == whole.fingerprint
    assert not (registry.store.path(other) / name).exists()
    assert registry.bundle(other).card.recipe == {"seed": 1}


def test_a_row_that_points_outside_the_store_opens_nothing(registry: Registry, make_bundle: Make) -> None:
    version = registry.versions.register(make_bundle(1), "reports", by="ann")
    from dataclasses import replace

    for location in ("../made-1", "/etc", ".hidden", "a/b"):
        forged = replace(version, location=location)
        with pytest.raises(Unavailable):
            registry.bundle(forged)
        registry.store.discard(forged)
    assert registry.bundle(version).card.recipe == {"seed": 1}


def test_what_is_in_use_is_not_removed(filled: Registry) -> None:
    filled.labels.set_alias("reports", "champion", 1, by="ann")
    filled.routes.set("reports", {2: 9, 3: 1}, by="ann")
    with pytest.raises(Conflict, match="the alias 'champion' points at reports/1"):
        filled.versions.remove("reports/1", by="ann")
    with pytest.raises(Conflict, match="sends traffic to version 3"):
        filled.versions.remove("reports/3", by="ann")
    with pytest.raises(Conflict, match="by its number"):
        filled.versions.remove("reports@champion", by="ann")
    assert sorted(filled.snapshot().models["reports"].versions) == [1, 2, 3]


def test_removing_takes_the_copied_files_along(registry: Registry, make_bundle: Make) -> None:
    registry.versions.register(make_bundle(1), "reports", by="ann")
    registry.versions.register(make_bundle(2), "reports", by="ann")
    registry.versions.remove("reports/1", by="ann")
    assert len(left(registry)) == 1
    registry.labels.set_alias("reports", "champion", 2, by="ann")
    assert [version.number for version in registry.versions.remove_model("reports", by="ann")] == [2]
    assert left(registry) == []
    assert registry.snapshot().models == {}
    with pytest.raises(NotFound):
        registry.versions.remove_model("reports", by="ann")


def test_many_register_at_once(registry: Registry, make_bundle: Make) -> None:
    paths = [make_bundle(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        done = list(pool.map(lambda path: registry.versions.register(path, "reports", by="ann"), paths + paths[:2]))
    assert sorted({version.number for version in done}) == [1, 2, 3, 4, 5, 6]
    assert len(left(registry)) == 6
    assert left(registry) == sorted(registry.versions.locations())


def test_a_full_disk_leaves_nothing_behind(registry: Registry, make_bundle: Make,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    path, copied = make_bundle(1), bundles._copy

    def full(source: Path, target: Path, bar: Any) -> str:
        if source.name == "model.safetensors":
            target.write_bytes(b"some")
            raise OSError(28, "No space left on device")
        return copied(source, target, bar)

    monkeypatch.setattr(bundles, "_copy", full)
    with pytest.raises(DiskFull) as caught:
        registry.versions.register(path, "reports", by="ann")
    assert "--reference" in str(caught.value)
    assert left(registry) == []
    assert registry.snapshot().models == {}
    assert registry.versions.register(path, "reports", by="ann", copy=False).number == 1


def test_a_file_that_changes_while_it_is_copied(registry: Registry, make_bundle: Make,
                                                monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "_copy", lambda source, target, _: sha256_file(shutil.copy(source, target))[::-1])
    with pytest.raises(BundleError, match="changed while it was copied"):
        registry.versions.register(make_bundle(1), "reports", by="ann")
    assert left(registry) == []


def test_a_database_lost_after_the_copy_leaves_no_folder(registry: Registry, make_bundle: Make,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_bundle(1)

    def lost(*_: Any) -> Any:
        raise StoreLost("gone")

    with monkeypatch.context() as patch:
        patch.setattr(registry.database, "write", lost)
        with pytest.raises(StoreLost):
            registry.versions.register(path, "reports", by="ann")
    assert left(registry) == []
    assert registry.versions.register(path, "reports", by="ann").number == 1


def test_a_commit_whose_answer_was_lost_keeps_its_folder(registry: Registry, make_bundle: Make,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    path, write = make_bundle(1), registry.database.write

    def answerless(work: Any) -> Any:
        write(work)
        raise StoreLost("the connection broke while it stored")

    with monkeypatch.context() as patch:
        patch.setattr(registry.database, "write", answerless)
        with pytest.raises(StoreLost):
            registry.versions.register(path, "reports", by="ann")
    assert registry.bundle(registry.versions.get("reports/1")).card.recipe == {"seed": 1}


def test_the_sweep_takes_old_rests_of_ours_only(registry: Registry, make_bundle: Make) -> None:
    kept = registry.versions.register(make_bundle(1), "reports", by="ann").location
    old, root = time.time() - 48 * 3600, registry.store.root
    ours = ("reports-0123456789ab", ".reports-0123456789ab.x1_y.part")
    for name in (*ours, "reports-ba9876543210", "photos", "photos-2026"):
        (root / name).mkdir()
        (root / name / "file").write_text("x")
    for path in root.iterdir():
        if path.name != "reports-ba9876543210":  # still being written
            os.utime(path, (old, old))
    assert registry.store.sweep(registry.versions.locations()) == sorted(ours)
    assert left(registry) == sorted([kept, "reports-ba9876543210", "photos", "photos-2026"])


KILLED = """
import sys
from openautoglm.serve.registry.registry import open_registry
with open_registry(sys.argv[1], sys.argv[2]) as registry:
    print("ready", flush=True)
    for number, path in enumerate(sys.argv[3:]):
        version = registry.versions.register(path, "reports", by="ann")
        registry.labels.set_alias("reports", "champion", version.number, by="ann")
        print(version.number, flush=True)
"""


@pytest.mark.slow
def test_a_process_that_is_killed_leaves_whole_versions(registry: Registry, url: str, make_bundle: Make) -> None:
    paths = [make_bundle(seed) for seed in range(40)]
    done = 0
    for pause_s in (0.0, 0.011, 0.023):
        with subprocess.Popen([sys.executable, "-c", KILLED, url, registry.store.root, *paths[done:]],
                              stdout=subprocess.PIPE, env=ENVIRONMENT, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            told = [int(process.stdout.readline()) for _ in range(3)]
            time.sleep(pause_s)
            process.kill()
        model = registry.snapshot().models["reports"]
        assert set(told) <= set(model.versions)  # what was told is stored
        assert model.aliases["champion"] in (max(model.versions), max(model.versions) - 1)
        done = max(model.versions)
        assert [registry.bundle(version).card.recipe for version in model.versions.values()] == [
            {"seed": seed} for seed in range(done)]
    rests = set(left(registry)) - registry.versions.locations()
    for name in rests:
        os.utime(registry.store.root / name, (0, 0))
    assert set(registry.store.sweep(registry.versions.locations())) == rests


def test_a_bundle_that_is_registered_the_moment_it_was_made_is_the_same_later(
        first_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = open_bundle(first_bundle).card
    later = bundles.fingerprint(card)

    class Then:
        """A clock that stands at the time when the bundle was made."""

        @staticmethod
        def now(zone: Any) -> datetime.datetime:
            return datetime.datetime.fromisoformat(card.created)

    monkeypatch.setattr("openautoglm.models.card.datetime", SimpleNamespace(datetime=Then, UTC=datetime.UTC))
    assert bundles.fingerprint(card) == later
