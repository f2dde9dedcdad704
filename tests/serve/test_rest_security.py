"""The outermost layer: who may call, from where, with how much; and what every reply carries."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from rest_tools import MODEL, Running, engine_backend

from openautoglm.core.errors import BundleError, TaskError
from openautoglm.serve.guard import secret
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.settings import GuardSettings
from openautoglm.serve.registry.keys import KeyRecord
from openautoglm.serve.rest.access import OPEN, PAGES, host_name, scope_of
from openautoglm.serve.rest.app import make_routes
from openautoglm.serve.rest.document import document
from openautoglm.serve.rest.settings import RestSettings
from openautoglm.serve.service.language import Language
from openautoglm.serve.start import ServeSettings, serve_bundle

ASK = {"model": MODEL, "prompt": "x", "max_tokens": 2}
BODIES = ("/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/tokenize", "/detokenize")


class Keys:
    """Two keys in memory: of a user, and of who watches."""

    def __init__(self, **rates: int) -> None:
        self.headers: dict[str, dict[str, str]] = {}
        self._records: dict[str, KeyRecord] = {}
        for name, scope in (("user", "infer"), ("watch", "metrics")):
            key_id, token, hashed = secret.mint()
            self.headers[name] = {"authorization": f"Bearer {token}"}
            self._records[key_id] = KeyRecord(key_id, name, hashed, frozenset({scope}), **rates)

    def get(self, key_id: str) -> KeyRecord | None:
        return self._records.get(key_id)

    def touch(self, key_id: str) -> None:
        self._records[key_id] = replace(self._records[key_id], used_s=1e12)


def exchange(server: Running, *parts: bytes, pause_s: float = 0) -> bytes:
    """Send bytes as they are, and read all that comes until the server closes."""
    url = urlsplit(server.url)
    with socket.create_connection((url.hostname, url.port), timeout=20) as line:
        for part in parts:
            line.sendall(part.replace(b"HOST", url.netloc.encode()))
            time.sleep(pause_s)
        found = b""
        while more := line.recv(65536):
            found += more
        return found


def test_every_reply_has_the_headers(server: Running) -> None:
    for path, status in (("/healthz", 200), ("/v1/models", 200), ("/nothing", 404), ("/v1/completions", 405)):
        reply = httpx.get(server.url + path)
        assert reply.status_code == status
        for name, value in (("x-content-type-options", "nosniff"), ("cache-control", "no-store"),
                            ("x-frame-options", "DENY"), ("referrer-policy", "no-referrer")):
            assert reply.headers[name] == value
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert len(reply.headers["x-request-id"]) == 32
        assert "server" not in reply.headers
        assert not [name for name in reply.headers if name.startswith("access-control")]


def test_a_requests_id_is_the_clients_where_it_is_a_plain_one(server: Running) -> None:
    given = httpx.get(f"{server.url}/healthz", headers={"x-request-id": "abc-1.2_3"})
    assert given.headers["x-request-id"] == "abc-1.2_3"
    for odd in ("a b", "x" * 65, "a\tb", "<script>"):
        assert httpx.get(f"{server.url}/healthz", headers={"x-request-id": odd}).headers["x-request-id"] != odd


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil.example:80", "[::2]"],
                         ids=["name", "dotted", "empty", "port", "six"])
def test_other_names_lead_nowhere(server: Running, host: str) -> None:
    reply = httpx.get(f"{server.url}/v1/models", headers={"host": host})
    assert reply.status_code == 403
    assert reply.json()["error"]["type"] == "permission_error"


def test_our_own_names_do(server: Running) -> None:
    port = urlsplit(server.url).port
    for host in (f"localhost:{port}", "LOCALHOST", f"[::1]:{port}", "127.0.0.1"):
        assert httpx.get(f"{server.url}/v1/models", headers={"host": host}).status_code == 200
    assert [host_name(name) for name in ("A:1", "a", "[::1]:8", "::1")] == ["a", "a", "::1", "::1"]
    twice = exchange(server, b"GET /healthz HTTP/1.1\r\nHost: HOST\r\nHost: evil\r\nConnection: close\r\n\r\n")
    assert b" 400 " in twice or b" 403 " in twice.splitlines()[0]


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1:1"], ids=str)
def test_pages_of_other_sites_may_not_call(server: Running, origin: str) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        reply = httpx.request(method, f"{server.url}/v1/completions", headers={"origin": origin})
        assert reply.status_code == 403
    own = httpx.post(f"{server.url}/v1/completions", headers={"origin": server.url}, json=ASK)
    assert own.status_code == 200


def test_bodies_must_be_json_and_say_so(server: Running) -> None:
    for path in BODIES:
        for kind in ("text/plain", "application/x-www-form-urlencoded", "", "application/jsonx"):
            reply = httpx.post(server.url + path, content=json.dumps(ASK), headers={"content-type": kind})
            assert (reply.status_code, reply.json()["error"]["param"]) == (415, "Content-Type")
        for body in (b"", b"[]", b"{", b'{"a":1,"a":2}', b"\xff", b"[" * 100_000):
            reply = httpx.post(server.url + path, content=body, headers={"content-type": "application/json"})
            assert (reply.status_code, reply.json()["error"]["param"]) == (400, "body")
    reply = httpx.post(f"{server.url}/tokenize", content=b'{"prompt": "x"}',
                       headers={"content-type": "application/json; charset=utf-8"})
    assert reply.status_code == 200


def test_bodies_are_bounded_before_they_are_read(language: Language) -> None:
    with Running(language, lambda: engine_backend(language),
                 options={"limits": {"body_bytes": 2000, "body_s": 0.3}}) as server:
        head = b"POST /v1/completions HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\n"
        said = exchange(server, head + b"Content-Length: 2001\r\n\r\n")
        assert b" 413 " in said.splitlines()[0]
        assert b"request_too_large" in said
        chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
        chunked = exchange(server, head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + chunk)
        assert b" 413 " in chunked.splitlines()[0]
        slow = exchange(server, head + b'Connection: close\r\nContent-Length: 20\r\n\r\n{"a"')
        assert b" 408 " in slow.splitlines()[0]
        for wrong in (b"-1", b"1x", b"+5", b"99999999999999999999999"):
            reply = exchange(server, head + b"Connection: close\r\nContent-Length: " + wrong + b"\r\n\r\n")
            assert reply.split(b" ")[1] in (b"400", b"413")
        assert httpx.post(f"{server.url}/v1/completions", json=ASK).status_code == 200


def test_a_head_must_come_in_time(language: Language) -> None:
    with Running(language, lambda: engine_backend(language), rest={"header_s": 0.3}) as server:
        began = time.monotonic()
        assert exchange(server, b"GET /healthz HTTP/1.1\r\nHost: HOST\r\n") == b""
        assert exchange(server) == b""
        assert time.monotonic() - began < 10
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_every_path_needs_a_key_but_the_open_ones(language: Language) -> None:
    keys = Keys()
    guard = Guard(keys, GuardSettings(failures_per_min=10_000))
    with Running(language, lambda: engine_backend(language), guard=guard) as server:
        routes = {(path.replace("{model}", MODEL), method.upper())
                  for path, methods in document(make_routes(server.serving))["paths"].items() for method in methods}
        assert {path for path, _ in routes} >= OPEN | set(BODIES) | {"/metrics", "/v1/models"}
        made_up = {("/openapi.json", "GET"), ("/nothing", "GET"), ("/v1/models", "POST"), ("//v1/models", "GET"),
                   ("/v1/models/", "GET"),
                   ("/healthz/../v1/models", "GET"), ("/V1/MODELS", "GET"), ("/healthz/", "GET"), ("/", "POST"),
                   ("//", "GET"), ("/console/", "GET"), ("/console/main.js", "PUT"), ("/console/other.js", "GET")}
        assert {path for path, _ in routes}.isdisjoint(PAGES)  # what the console shows is no part of the interface
        for path, method in routes | made_up:
            for key in (None, "Bearer wrong", "user", "Basic dXNlcg==", f"Bearer autoglm_{'a' * 12}_{'b' * 42}"):
                headers = {} if key is None else {"authorization": key}
                reply = httpx.request(method, server.url + path, headers=headers)
                assert (reply.status_code == 401) == (path not in OPEN), (path, method, key)
                if path not in OPEN:
                    assert reply.headers["www-authenticate"] == "Bearer"
        user, watch = keys.headers["user"], keys.headers["watch"]
        assert httpx.get(f"{server.url}/v1/models", headers=user).status_code == 200
        assert httpx.post(f"{server.url}/v1/completions", headers=user, json=ASK).status_code == 200
        assert httpx.get(f"{server.url}/metrics", headers=user).status_code == 403
        assert httpx.get(f"{server.url}/metrics", headers=watch).status_code == 200
        assert httpx.post(f"{server.url}/v1/completions", headers=watch, json=ASK).status_code == 403
        assert httpx.post(f"{server.url}/v1/models/x/load", headers=user).status_code == 403
        assert httpx.get(f"{server.url}/v1/models", headers={**user, "host": "anything"}).status_code == 200


def test_what_changes_models_is_the_administrators() -> None:
    assert scope_of("/v1/models", "GET") == scope_of("/v1/models/x", "HEAD") == "infer"
    assert scope_of("/v1/models/x", "DELETE") == scope_of("/v1/models", "POST") == "admin"
    assert scope_of("/v2/repository/models/x/load", "POST") == scope_of("/v2/repository/index", "GET") == "admin"
    assert scope_of("/anything", "GET") == "infer"
    assert scope_of("/metrics", "GET") == "metrics"
    assert scope_of("/healthz", "GET") is None
    assert {scope_of(path, "GET") for path in PAGES} == {None}
    assert {scope_of(path, "POST") for path in PAGES} == {"infer"}


def test_a_key_has_so_many_requests_and_tokens_a_minute(language: Language) -> None:
    keys = Keys(requests_per_min=3, tokens_per_min=60)
    with Running(language, lambda: engine_backend(language), guard=Guard(keys)) as server:
        user = keys.headers["user"]

        def ask(**fields: Any) -> httpx.Response:
            return httpx.post(f"{server.url}/v1/completions", headers=user, json={**ASK, **fields})

        large = ask(max_tokens=100)
        assert (large.status_code, large.json()["error"]["param"]) == (413, "max_tokens")
        assert [ask().status_code for _ in range(2)] == [200, 200]
        many = ask(max_tokens=50)
        assert many.status_code == 429
        assert "tokens a minute" in many.json()["error"]["message"]
        assert int(many.headers["retry-after"]) >= 1
        assert httpx.post(f"{server.url}/tokenize", headers=user, json={"prompt": "x"}).status_code == 200
        assert "requests a minute" in ask().json()["error"]["message"]


def test_nobody_elses_machine_without_keys(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "::", "192.168.1.4", "example.org"):
        with pytest.raises(TaskError, match="autoglm keys create"):
            asyncio.run(serve_bundle(tmp_path / "none", ServeSettings(rest=RestSettings(host=host))))
    for host in ("127.0.0.1", "::1", "localhost"):
        with pytest.raises(BundleError, match="none"):
            asyncio.run(serve_bundle(tmp_path / "none", ServeSettings(rest=RestSettings(host=host))))


@pytest.mark.parametrize("shown", [False, True], ids=["hidden", "shown"])
def test_prompts_are_in_the_log_only_where_asked_for(language: Language, caplog: pytest.LogCaptureFixture,
                                                     shown: bool) -> None:
    with caplog.at_level(logging.DEBUG), Running(language, lambda: engine_backend(language),
                                                 rest={"log_prompts": shown}) as server:
        fields: Any = {**ASK, "prompt": "a secret text"}
        reply = httpx.post(f"{server.url}/v1/completions", json=fields, headers={"x-request-id": "mine"})
        httpx.post(f"{server.url}/v1/completions", json={**fields, "n": 0})
        httpx.post(f"{server.url}/v1/completions", json={**fields, "prompt": {"name": "a secret text"}})
        assert reply.status_code == 200
    ours = [record for record in caplog.records if record.name.startswith("openautoglm")]
    assert any("secret" in record.getMessage() for record in ours) == shown
    line = next(record for record in ours if record.getMessage() == "POST /v1/completions"
                and record.request_id == "mine")  # type: ignore[attr-defined]
    assert line.status == 200  # type: ignore[attr-defined]
