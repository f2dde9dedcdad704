"""``autoglm models``: from registering to removing, as a user types it; both databases."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from openautoglm.cli import main, registry
from openautoglm.serve.registry.registry import open_registry

Make = Callable[[int], Path]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str, tmp_path: Path) -> Run:
    """Runs the verb; returns code, output and errors."""
    monkeypatch.setenv("OPENAUTOGLM_REGISTRY", url)
    monkeypatch.setenv("OPENAUTOGLM_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main.main(["models", *map(str, arguments)])
        said = capsys.readouterr()
        return int(str(caught.value.code)), said.out, said.err

    return call


@pytest.fixture
def three(run: Run, make_bundle: Make) -> Run:
    """With three versions of `reports`, not copied."""
    for seed in (1, 2, 3):
        assert run("register", make_bundle(seed), "--name", "reports", "--reference")[0] == 0
    return run


def words(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_a_life_of_a_model(run: Run, make_bundle: Make, tmp_path: Path) -> None:
    assert run("list") == (0, "no models; register one: autoglm models register BUNDLE --name NAME\n", "")
    first = make_bundle(1)
    code, out, _ = run("register", first, "--name", "reports", "--alias", "champion", "--stage", "production",
                       "--note", "the first")
    assert (code, out) == (0, "models:/reports/1\n")
    assert run("register", first, "--name", "reports")[1] == (
        "models:/reports/1  (this bundle was registered before)\n")
    shutil.rmtree(first)
    assert run("register", make_bundle(2), "--name", "reports")[1] == "models:/reports/2\n"

    code, out, _ = run("list")
    assert words(out)[0] == ["version", "stage", "aliases", "traffic", "bundle", "size", "parameters", "registered"]
    assert words(out)[1][:5] == ["reports/1", "production", "champion", "-", "whole"]
    assert words(out)[2][:5] == ["reports/2", "none", "-", "-", "whole"]

    code, out, _ = run("show", "reports", "--format", "json")
    facts = json.loads(out)
    assert (facts["uri"], facts["note"], facts["scores"]) == ("models:/reports/1", "the first", {"BLEU": 31.5})
    assert Path(facts["path"]).parent == tmp_path / "store"
    assert "models:/reports/2" in run("show", "models:/reports/2")[1]

    assert run("alias", "reports/2", "champion")[1] == (
        "reports@champion -> models:/reports/2, before at version 1\n")
    assert run("stage", "reports/1", "archived")[1] == "models:/reports/1: archived\n"
    code, _, err = run("remove", "reports/2")
    assert code == 2
    assert "the alias 'champion' points at reports/2" in err
    assert "autoglm models alias reports champion --drop" in err
    assert run("alias", "reports", "champion", "--drop")[0] == 0
    assert run("remove", "reports/2")[1] == "models:/reports/2 removed\n"
    assert run("remove", "reports", "--all")[1] == "models:/reports/1 removed\n"
    assert list((tmp_path / "store").iterdir()) == []

    code, out, _ = run("audit", "--format", "json")
    assert [line["action"] for line in json.loads(out)][:3] == ["model.remove", "version.remove", "alias.drop"]
    assert all(line["by"] == registry.actor() for line in json.loads(out))
    assert "version.register" in run("audit", "reports")[1]


def test_routes_are_set_shown_and_dropped(three: Run, url: str, tmp_path: Path) -> None:
    assert three("route", "reports")[1] == "reports has no route\n"
    code, out, _ = three("route", "reports", "1=90", "3=10")
    assert code == 0
    assert words(out)[1:] == [["reports/1", "90.0%", "baseline", "0", "0", "-"],
                              ["reports/3", "10.0%", "on", "trial", "0", "0", "-"]]
    with open_registry(url, tmp_path / "store") as use:
        ids = {number: one.id for number, one in use.snapshot().models["reports"].versions.items()}
        minute = int(use.database.now() // 60)
        use.outcomes.add({(ids[3], minute, -1): 4, (ids[3], minute, 20): 8})
        use.routes.roll_back("reports", 3, revision=1, reason="4 of 12 requests failed", by="canary")
    out = three("route", "reports")[1]
    assert words(out)[1][:3] == ["reports/1", "100.0%", "baseline"]
    assert words(out)[2] == ["reports/3", "0.0%", "withdrawn:", "4", "of", "12", "requests", "failed", "12", "4",
                             "0.1", "s"]
    assert words(three("list")[1])[3][3] == "withdrawn"
    assert three("route", "reports", "1=1", "2=1", "--baseline", "2")[0] == 0
    assert three("route", "reports", "--drop") == (0, "reports has no route any more\n", "")
    assert three("route", "reports", "1=1", "--drop")[0] == 2
    assert three("route", "reports", "1:90")[0] == 2


def test_wishes(three: Run, url: str, tmp_path: Path) -> None:
    assert three("load", "reports/2", "--pin")[1] == "models:/reports/2: servers will load it and keep it\n"
    assert three("unload", "reports/1")[0] == 0
    with open_registry(url, tmp_path / "store") as use:
        assert [(wish.version.number, wish.loaded, wish.pinned) for wish in use.wishes.list()] == [
            (1, False, False), (2, True, True)]
        three("unload", "reports/1", "--lazy")
        assert len(use.wishes.list()) == 1


def test_damage_is_found(three: Run, tmp_path: Path) -> None:
    code, out, _ = three("check")
    assert code == 0
    assert [line[1] for line in words(out)[1:]] == ["whole"] * 3
    with (tmp_path / "made-2" / "model.safetensors").open("ab") as file:
        file.write(b"x")
    shutil.rmtree(tmp_path / "made-3")
    code, out, _ = three("check", "reports", "--sweep")
    assert code == 1
    assert "model.safetensors is damaged" in out
    assert [line[1] for line in words(out) if line[0].startswith("models:")] == ["whole", "damaged", "damaged"]
    assert [line[4] for line in words(three("list")[1])[1:]] == ["whole", "whole", "missing"]


@pytest.mark.parametrize(("arguments", "told"), [
    (["show", "repots"], "did you mean 'reports'?"),
    (["show", "reports/7"], "it has 1, 2, 3"),
    (["show", "../../etc/passwd"], "a version is a positive number"),
    (["stage", "reports/1", "prodction"], "did you mean 'production'?"),
    (["alias", "reports", "nothing", "--drop"], "no alias 'nothing'"),
    (["alias", "reports/1", "latest"], "cannot be set"),
    (["remove", "reports"], "write reports/3, or reports --all"),
    (["remove", "reports/1", "--all"], "write reports/3, or reports --all"),
    (["check", "repots"], "did you mean 'reports'?"),
    (["list", "--format", "xml"], "neither table nor json"),
    (["route", "reports", "9=1"], "it has 1, 2, 3"),
    (["register", "nowhere", "--name", "a/b"], "not a model's name"),
    (["register", "nowhere", "--name", "reports", "--stage", "x"], "use one of none"),
    (["lst"], "Did you mean 'list'?")], ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else "")
def test_wrong_words_end_with_2_and_a_remedy(three: Run, arguments: list[str], told: str) -> None:
    code, _, err = three(*arguments)
    assert code == 2
    assert told in " ".join(err.split())
    assert "Traceback" not in err


def test_what_is_no_bundle_ends_with_1(run: Run, tmp_path: Path) -> None:
    code, _, err = run("register", tmp_path / "nowhere", "--name", "reports")
    assert code == 1
    assert "does not exist" in err


def test_a_registry_that_cannot_be_had(run: Run, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("this is no database, it is a letter " * 100)
    code, _, err = run("list", "--registry", tmp_path / "text.db")
    assert code == 1
    assert "is damaged" in err
    code, _, err = run("list", "--registry", "mysql://me:secret@host/x")
    assert code == 2
    assert "secret" not in err


def test_the_option_names_another_registry(three: Run, tmp_path: Path) -> None:
    other = tmp_path / "elsewhere" / "r.db"
    assert three("list", "--registry", other)[1].startswith("no models")
    assert other.is_file()


def test_tables_cells_for_people() -> None:
    assert [registry.size(count) for count in (0, 1023, 1024, 3 * 2**20, 5 * 2**30, 5 * 2**40)] == [
        "0 B", "1023 B", "1.0 KiB", "3.0 MiB", "5.0 GiB", "5120.0 GiB"]
    assert registry.when(None) == "-"
    assert registry.when(1_800_000_000) == "2027-01-15 08:00"
    assert registry.plain({"a": 1, "b": None, "c": ["x"]}) == 'a=1 c=["x"]'
    assert [registry.plain(value) for value in (None, "", [], {}, ["a", "b"], 0)] == ["-", "-", "-", "-", "a, b", "0"]
