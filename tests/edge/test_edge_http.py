"""The edge program as a server: answers, health, and what hostile clients get."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
from edge_models import Model

from openautoglm.core.errors import ResourceError
from openautoglm.edge.compile import FEATURES, _units, compile_program


@pytest.fixture(scope="module")
def port(model: Model) -> Iterator[int]:
    """The port of a running server, which lives to the end of the module whatever it was sent."""
    with subprocess.Popen([model.folder / "autoglm-edge", "--http", "0", "--memory-limit", "32MB", "--context", "256"],
                          stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stderr.readline())
        assert found
        yield int(found[1])
        assert process.poll() is None
        process.kill()


def ask(port: int, order: Any, *, method: str = "POST", path: str = "/v1/completions", **headers: str) -> Any:
    """Status and answer."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    body = order if isinstance(order, bytes | None) else json.dumps(order).encode()
    connection.request(method, path, body, {"Content-Type": "application/json"} | headers)
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def test_an_answer_is_the_engines(model: Model, port: int) -> None:
    status, answer = ask(port, {"prompt": "床前明月光", "max_tokens": 20, "temperature": 0, "model": "any",
                                "user": None})
    assert status == 200
    choice = answer["choices"][0]
    assert choice["text"] == model.engine(["床前明月光"], max_new_tokens=20)[0]
    assert choice["finish_reason"] in ("stop", "length")
    prompt = model.bundle.template.prompt("床前明月光", (), model.bundle.tokenizer)
    assert answer["usage"]["prompt_tokens"] == len(prompt)
    assert answer["model"] == "tiny"
    sampled = {"prompt": "x", "max_tokens": 30, "temperature": 1.2, "seed": 9}
    assert ask(port, sampled)[1]["choices"] == ask(port, sampled)[1]["choices"]
    assert ask(port, {"prompt": ""})[0] == 200


def test_health(port: int) -> None:
    assert ask(port, None, method="GET", path="/healthz") == (200, {"status": "ok", "model": "tiny"})


@pytest.mark.parametrize(("order", "status", "words"), [
    pytest.param(b"", 400, "not JSON", id="nothing"),
    pytest.param(b"{", 400, "not JSON at byte 1", id="half"),
    pytest.param(b"[" * 500 + b"]" * 500, 400, "nested too deeply", id="deep"),
    pytest.param(b"\xff\xfe", 400, "not UTF-8", id="bytes"),
    pytest.param([1], 400, "must be an object", id="list"),
    pytest.param({}, 400, "prompt must be a text", id="no prompt"),
    pytest.param({"prompt": ["a"]}, 400, "prompt must be a text", id="prompts"),
    pytest.param({"prompt": "a", "max_tokens": 0}, 400, "max_tokens must be a whole number", id="none"),
    pytest.param({"prompt": "a", "max_tokens": 1.5}, 400, "max_tokens must be a whole number", id="half a token"),
    pytest.param({"prompt": "a", "max_tokens": 1e300}, 400, "max_tokens must be a whole number", id="too many"),
    pytest.param({"prompt": "a", "temperature": -1}, 400, "temperature lies", id="cold"),
    pytest.param({"prompt": "a", "temperature": "hot"}, 400, "temperature must be a number", id="a word"),
    pytest.param({"prompt": "a", "top_p": 0}, 400, "top_p lies", id="top_p"),
    pytest.param({"prompt": "a", "stream": True}, 400, "stream can only be false", id="stream"),
    pytest.param({"prompt": "a", "n": 4}, 400, "n can only be 1", id="n"),
    pytest.param({"prompt": "a", "logit_bias": {}}, 400, "is not known here", id="unknown"),
    pytest.param({"prompt": "ab" * 1500}, 400, "shorten it", id="long"),
    pytest.param({"prompt": "x" * 4097}, 400, "at most 4096 are taken", id="longer"),
    pytest.param({"prompt": "x" * 20000}, 413, "a body has at most", id="longest"),
])
def test_hostile_orders_are_refused(port: int, order: Any, status: int, words: str) -> None:
    found, answer = ask(port, order)
    assert (found, words in answer["error"]["message"]) == (status, True), answer


@pytest.mark.parametrize(("method", "path", "headers", "status"), [
    pytest.param("GET", "/v1/completions", {}, 405, id="get"),
    pytest.param("DELETE", "/healthz", {}, 405, id="delete"),
    pytest.param("POST", "/v1/chat/completions", {}, 404, id="elsewhere"),
    pytest.param("POST", "/v1/completions", {"Content-Type": "text/plain"}, 415, id="type"),
    pytest.param("POST", "/v1/completions", {"Host": "evil.example"}, 403, id="host"),
    pytest.param("POST", "/v1/completions", {"Expect": "100-continue"}, 417, id="expect"),
    pytest.param("POST", "/v1/completions", {"X": "y" * 9000}, 431, id="head"),
])
def test_other_requests_are_refused(port: int, method: str, path: str, headers: dict[str, str], status: int) -> None:
    order = {"prompt": "x", "max_tokens": 1} if method == "POST" else None
    assert ask(port, order, method=method, path=path, **headers)[0] == status


@pytest.mark.parametrize(("raw", "status"), [
    pytest.param(b"nonsense\r\n\r\n", 400, id="nonsense"),
    pytest.param(b"GET  HTTP/1.1\r\n\r\n", 400, id="no path"),
    pytest.param(b"GET /healthz HTTP/2.0\r\nHost: localhost\r\n\r\n", 400, id="version"),
    pytest.param(b"GET /healthz HTTP/1.1\r\n\r\n", 400, id="no host"),
    pytest.param(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400, id="two hosts"),
    pytest.param(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n\r\n", 411, id="no length"),
    pytest.param(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n", 400, id="minus"),
    pytest.param(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                 400, id="two lengths"),
    pytest.param(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
                 413, id="length"),
    pytest.param(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                 411, id="chunks"),
    pytest.param(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nbad name: x\r\n\r\n", 400, id="name"),
    pytest.param(b"\x00\xff" * 300 + b"\r\n\r\n", 400, id="bytes"),
    pytest.param(b"GET /" + b"a" * 20000, 431, id="endless"),
    pytest.param(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:80\r\n\r\n", 200, id="good"),
])
def test_raw_bytes_are_answered(port: int, raw: bytes, status: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(raw)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while piece := client.recv(4096):
            answer += piece
    assert answer.startswith(f"HTTP/1.1 {status} ".encode()), answer


def test_clients_that_leave_do_not_harm(port: int) -> None:
    for raw in (b"", b"POST /v1/comp", b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50\r\n"
                b"Content-Type: application/json\r\n\r\n{\"prompt\""):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
            client.sendall(raw)
    for _ in range(200):  # what is left of them is looked at first
        if ask(port, None, method="GET", path="/healthz")[0] == 200:
            break
        time.sleep(0.05)
    assert ask(port, {"prompt": "x", "max_tokens": 2})[0] == 200


def test_a_taken_port_is_told(model: Model, port: int) -> None:
    done = subprocess.run([model.folder / "autoglm-edge", "--http", str(port)], capture_output=True, text=True,
                          check=False, timeout=60)
    assert done.returncode == 2
    assert "cannot be had: Address already in use" in done.stderr


def test_features_are_left_out_with_their_sources(tmp_path: Path) -> None:
    every, fewer = (_units(without, x86=True) for without in ((), FEATURES))
    assert {unit.source.name for unit in every} - {unit.source.name for unit in fewer} == {"http.cpp",
                                                                                         "http_request.cpp"}
    assert not any(unit.source.name.startswith("avx") for unit in _units((), x86=False))
    with pytest.raises(ResourceError, match="sound cannot be left out"):
        compile_program(tmp_path / "x", without=["sound"])


def test_without_a_compiler_the_remedy_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ResourceError, match=r"there is no C\+\+ compiler") as error:
        compile_program(tmp_path / "x")
    assert "install g++" in str(error.value)
    with pytest.raises(ResourceError, match="there is no C\\+\\+ compiler 'quickc'"):
        compile_program(tmp_path / "x", compiler="quickc")


def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    script = tmp_path / "broken"
    script.write_text('#!/bin/sh\ncase "$1" in -dumpmachine) echo x86_64;; *) echo "error: out of ideas" >&2; exit 1;; '
                      "esac\n", encoding="utf-8")
    script.chmod(0o755)
    with pytest.raises(ResourceError, match="out of ideas"):
        compile_program(tmp_path / "x", compiler=str(script))
    assert not (tmp_path / "x").exists()
    assert not list(tmp_path.glob(".autoglm-edge-*"))
