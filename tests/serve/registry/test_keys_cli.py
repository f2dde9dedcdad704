"""``autoglm keys``: a key is shown once, opens what it says, and can be revoked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from openautoglm.cli import keys, main
from openautoglm.serve.faults import Unauthorised
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.settings import GuardSettings
from openautoglm.serve.registry.registry import open_registry

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, url: str) -> Run:
    """Runs the verb; returns code, output and errors."""
    monkeypatch.setenv("OPENAUTOGLM_REGISTRY", url)
    monkeypatch.setenv("COLUMNS", "160")

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            main.main(["keys", *arguments])
        said = capsys.readouterr()
        return int(str(caught.value.code)), said.out, said.err

    return call


def opens(url: str, token: str, tmp_path: Path) -> set[str]:
    with open_registry(url, tmp_path / "store") as use:
        guard = Guard(use.keys, GuardSettings(cached_s=0))
        return set(asyncio.run(guard.authenticate(f"Bearer {token}", "127.0.0.1")).scopes)


def test_a_key_is_created_used_listed_and_revoked(run: Run, url: str, tmp_path: Path) -> None:
    assert run("list")[1].startswith("no keys; create one")
    code, out, err = run("create", "--scope", "infer", "--scope", "metrics", "--name", "website", "--expires", "90d",
                         "--requests-per-min", "60")
    assert code == 0
    token = out.strip()
    assert "\n" not in token
    assert "shown this once" in err
    assert opens(url, token, tmp_path) == {"infer", "metrics"}

    code, out, _ = run("list", "--format", "json")
    listed = json.loads(out)[0]
    assert token not in out
    assert "argon2" not in out
    assert (listed["name"], listed["scopes"], listed["state"]) == ("website", ["infer", "metrics"], "in use")
    assert listed["key_id"] in token
    assert (listed["requests_per_min"], listed["tokens_per_min"]) == (60, None)
    assert listed["used"] is not None
    assert "60 / -" in run("list")[1]

    assert run("revoke", "website")[1] == f"key {listed['key_id']} (website) is revoked\n"
    with pytest.raises(Unauthorised):
        opens(url, token, tmp_path)
    assert json.loads(run("list", "--format", "json")[1])[0]["state"] == "revoked"
    code, _, err = run("revoke", "website")
    assert code == 2
    assert "no key 'website' is in use" in err


def test_the_database_holds_no_key(run: Run, url: str, tmp_path: Path) -> None:
    token = run("create", "--scope", "admin", "--name", "ops")[1].strip()
    if url.startswith("sqlite"):
        stored = b"".join(path.read_bytes() for path in tmp_path.glob("registry.db*"))
        assert b"$argon2id$" in stored
        assert token.encode() not in stored
        assert token.rpartition("_")[2].encode() not in stored


@pytest.mark.parametrize(("arguments", "told"), [
    (["create", "--name", "x"], "--scope"),
    (["create", "--scope", "root", "--name", "x"], "infer, admin, metrics"),
    (["create", "--scope", "infer", "--name", "a\nb"], "--name"),
    (["create", "--scope", "infer", "--name", ""], "--name"),
    (["create", "--scope", "infer", "--name", "x", "--expires", "soon"], "neither a time from now nor a date"),
    (["create", "--scope", "infer", "--name", "x", "--expires", "2020-01-01"], "is past"),
    (["create", "--scope", "infer", "--name", "x", "--requests-per-min", "0"], "--requests-per-min"),
    (["revoke", "nobody"], "no key 'nobody' is in use")],
    ids=["no-scope", "scope", "newline", "empty", "words", "past", "zero", "unknown"])
def test_wrong_words_make_no_key(run: Run, arguments: list[str], told: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert told in " ".join(err.split())
    assert json.loads(run("list", "--format", "json")[1]) == []


def test_a_name_in_use_is_refused(run: Run) -> None:
    assert run("create", "--scope", "infer", "--name", "website")[0] == 0
    code, out, err = run("create", "--scope", "infer", "--name", "website")
    assert (code, out) == (2, "")
    assert "is in use" in err


def test_ends() -> None:
    now_s = time.time()
    assert keys._ends(None) is None
    for text, seconds in (("30m", 1800), ("12h", 43200), ("90d", 7776000)):
        assert keys._ends(text) == pytest.approx(now_s + seconds, abs=60)
    assert keys._ends("2100-01-01") == 4_102_444_800
    assert keys._ends("2100-01-01T01:00+01:00") == 4_102_444_800
