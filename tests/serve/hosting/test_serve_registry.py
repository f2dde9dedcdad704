"""``autoglm serve --registry``, as its users start it: real bundles, keys, the official client; and what it refuses."""

from __future__ import annotations

import contextlib
import re
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest

from command_line import start
from openautoglm.cli import main
from openautoglm.serve.guard import secret
from openautoglm.serve.registry.keys import KeyRecord
from openautoglm.serve.registry.registry import Registry, open_registry

Run = Callable[..., tuple[int, str]]


def key(registry: Registry, *scopes: str) -> str:
    """A key with these scopes."""
    key_id, token, hashed = secret.mint()
    registry.keys.add(KeyRecord(key_id, "-".join(scopes), hashed, frozenset(scopes)), by="test")
    return token


@contextlib.contextmanager
def serving(*arguments: str | Path) -> Iterator[tuple[str, list[str], subprocess.Popen[bytes]]]:
    """``autoglm serve`` in a process of its own: where it listens, and its log."""
    process, log, up = start("serve", *arguments, "--port", "0", "--threads", "1"), list[str](), threading.Event()
    assert process.stderr is not None
    stream = process.stderr

    def read() -> None:
        for line in stream:
            log.append(line.decode())
            if b"serving http" in line:
                up.set()
        up.set()

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        assert up.wait(120)
        found = re.search(r"serving (http\S+)", "".join(log))
        assert found, log
        yield found[1], log, process
    finally:
        process.kill()
        process.wait()
        reader.join(10)
        stream.close()
        print("".join(log))  # shown where a test fails


@pytest.mark.slow
def test_a_registry_is_served_with_keys(registry: Registry) -> None:
    registry.routes.set("reports", {1: 90, 2: 10}, by="ann")
    user, admin = key(registry, "infer"), key(registry, "admin", "metrics")
    where = str(registry.place.file)
    with serving("--registry", where, "--memory-budget", "4GiB", "--cache-tokens", "2048") as (url, log, process):
        assert httpx.get(f"{url}/ready", timeout=60).status_code == 200
        assert httpx.get(f"{url}/v1/models").status_code == 401
        with openai.OpenAI(base_url=f"{url}/v1", api_key=user, timeout=120, max_retries=0) as client:
            assert {model.id for model in client.models.list()} == {"reports", "reports/1", "reports/2", "reports/3"}
            first = client.completions.create(model="reports/3", prompt="The Punter", max_tokens=4, temperature=0)
            assert first.usage is not None
            assert first.usage.completion_tokens <= 4
            for number in range(200):  # by chance: a share of none comes once in 10^9
                client.completions.create(model="reports", prompt="The", max_tokens=1, user=f"user-{number}")
            streamed = client.completions.create(model="models:/reports/1", prompt="The", max_tokens=3, stream=True)
            assert [chunk.choices[0].finish_reason for chunk in streamed][-1] in ("length", "stop")
            with pytest.raises(openai.NotFoundError) as caught:
                client.completions.create(model="repots", prompt="x")
            assert caught.value.code == "model_not_found"
            with pytest.raises(openai.PermissionDeniedError):
                client.post("/models/reports/load", body={}, cast_to=object)
        counted = figures(url, admin)
        assert counted["reports/1"] + counted["reports/2"] == 201
        assert 1 <= counted["reports/2"] <= 50
        assert counted["reports/3"] == 1
        process.terminate()
        assert process.wait(60) == 0
    assert "loading reports/3" in "".join(log)
    totals = registry.outcomes.totals([registry.versions.get("reports/2").id], since_s=0)
    assert sum(outcome.requests for outcome in totals.values()) == counted["reports/2"]  # sent when it ended


def figures(url: str, token: str) -> Counter[str]:
    """Requests that ended well, by version, as Prometheus reads them."""
    page = httpx.get(f"{url}/metrics", headers={"authorization": f"Bearer {token}"}).text
    found = Counter[str]()
    for name, count in re.findall(r'^vllm:request_success_total\{.*model_name="([^"]+)".*\} ([0-9.]+)$', page, re.M):
        found[name] += int(float(count))
    return found


@pytest.mark.slow
def test_keys_for_a_single_bundle_and_none_where_they_are_off(registry: Registry, bundle_path: Path) -> None:
    user = key(registry, "infer")
    where = str(registry.place.file)
    with serving(bundle_path, "--keys", where, "--name", "tiny", "--in-process", "--host", "0.0.0.0") as (url, _, _):
        url = url.replace("0.0.0.0", "127.0.0.1")
        ask = {"model": "tiny", "prompt": "The", "max_tokens": 1}
        assert httpx.post(f"{url}/v1/completions", json=ask).status_code == 401
        reply = httpx.post(f"{url}/v1/completions", json=ask, headers={"authorization": f"Bearer {user}"}, timeout=60)
        assert reply.status_code == 200
    with serving("--registry", where, "--no-keys", "--in-process", "--preload", "reports/2") as (url, log, _):
        assert "loaded reports/2" in "".join(log)
        listed = {model["id"]: model["max_model_len"] for model in httpx.get(f"{url}/v1/models").json()["data"]}
        assert listed["reports/2"] is not None
        assert listed["reports/1"] is None
        assert httpx.get(f"{url}/v1/models", headers={"host": "evil.example"}).status_code == 403


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the verb, which is expected to fail; returns code and errors."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as caught:
            main.main(["serve", *arguments, "--port", "0"])
        return int(str(caught.value.code)), capsys.readouterr().err

    return call


@pytest.mark.parametrize(("arguments", "words"), [
    ((), ("nothing to serve", "give a bundle")),
    (("b", "--registry"), ("do not go together", "autoglm models register")),
    (("b", "--registry", "r.db"), ("do not go together",)),
    (("--registry", "r.db", "--name", "x"), ("--name", "leave it out")),
    (("b", "--memory-budget", "1GiB"), ("--memory-budget", "--registry")),
    (("b", "--store", "s"), ("--store", "--registry")),
    (("b", "--preload", "x"), ("--preload",)),
    (("b", "--response-cache"), ("--response-cache",)),
    (("b", "--keys", "--no-keys"), ("--keys and --no-keys",)),
    (("--registry", "--memory-budget", "many"), ("--memory-budget", "8GiB")),
], ids=["neither", "both", "both-named", "name", "budget", "store", "preload", "cache", "keys", "size"])
def test_options_that_do_not_go_together(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                         arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    monkeypatch.setenv("OPENAUTOGLM_REGISTRY", str(tmp_path / "usual.db"))
    code, said = run(*arguments)
    assert code == 2
    assert all(word in said for word in words), said
    assert not (tmp_path / "usual.db").exists()


def test_an_empty_registry_and_an_unknown_model_are_told(run: Run, tmp_path: Path, registry: Registry,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAUTOGLM_REGISTRY", str(tmp_path / "usual.db"))
    code, said = run("--registry", "--no-keys")
    assert code
    assert "usual.db" in said
    assert "holds no models" in said
    assert "autoglm models register" in said
    with open_registry(tmp_path / "usual.db") as usual:
        assert usual.snapshot().models == {}
    code, said = run("--registry", str(registry.place.file), "--preload", "repots")
    assert code
    assert "did you mean 'reports'" in said
    assert "no key opens anything yet" in said
    code, said = run("--registry", str(registry.place.file), "--no-keys", "--host", "0.0.0.0")
    assert code
    assert "without keys" in said
    code, said = run("--registry", "ftp://nowhere/x")
    assert code
    assert "--registry" in said


def test_without_a_word_it_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main.main(["serve"])
    assert caught.value.code == 2
    assert "there is nothing to serve" in capsys.readouterr().err
