"""Classes of published advisories that no test of a single part holds; docs/security.md has the table of all."""

from __future__ import annotations

import ast
import os
import pickle
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from rest_tools import MODEL, Running

import openautoglm
from openautoglm.serve.worker.frames import ProtocolError
from openautoglm.serve.worker.messages import FROM_ENGINE, TO_ENGINE, decode

PACKAGE = Path(openautoglm.__file__).parent
SERVING = ("serve", "engine", "runtime", "graph", "text")
OBJECTS = {"pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "jsonpickle",
           "multiprocessing"}
"""Modules that make objects, or run code, of bytes; `multiprocessing` sends pickles."""


def trees(*rooms: str) -> Iterator[tuple[Path, ast.AST]]:
    for room in rooms:
        for path in sorted((PACKAGE / room).rglob("*.py")):
            yield path, ast.parse(path.read_text(encoding="utf-8"))


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_on_the_engine_s_socket_runs_nothing(tmp_path: Path, protocol: int) -> None:
    body = pickle.dumps(Trap(tmp_path / "made"), protocol)
    for known in (TO_ENGINE, FROM_ENGINE):
        with pytest.raises(ProtocolError):
            decode(body, known)
    assert not (tmp_path / "made").exists()
    pickle.loads(body)  # noqa: S301 - the trap is one
    assert (tmp_path / "made").exists()


def test_nothing_that_serves_can_read_pickles() -> None:
    found = []
    for path, tree in trees(*SERVING):
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [f"{path}: {name}" for name in names if name.partition(".")[0] in OBJECTS]
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                found.append(f"{path}: {ast.unparse(node.func)}")
    assert found == []


def test_no_code_that_comes_with_a_model_is_trusted() -> None:
    rooms = [item.name for item in PACKAGE.iterdir() if item.is_dir()]
    given = [(path.name, ast.unparse(word.value)) for path, tree in trees(*rooms) for node in ast.walk(tree)
             if isinstance(node, ast.Call) for word in node.keywords if word.arg == "trust_remote_code"]
    assert given
    assert {value for _, value in given} == {"False"}


@pytest.fixture
def lure() -> Iterator[tuple[str, socket.socket]]:
    """An address where somebody listens whom nobody shall call."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        yield f"http://127.0.0.1:{door.getsockname()[1]}/x", door


def post(server: Running, path: str, **fields: Any) -> httpx.Response:
    return httpx.post(f"{server.url}{path}", json={"model": MODEL, **fields}, timeout=60)


def test_no_address_in_a_request_is_ever_called(server: Running, lure: tuple[str, socket.socket]) -> None:
    url, door = lure
    parts = [[{"type": kind, kind: {"url": url}}] for kind in ("image_url", "input_audio", "video_url", "file")]
    asks: list[tuple[str, dict[str, Any], int]] = [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": part}]}, 400) for part in parts]
    asks += [("/v1/completions", {"prompt": "x", field: url}, 400)
             for field in ("image_url", "file", "callback", "webhook", "lora_path", "chat_template")]
    remote = {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": url}}}
    asks += [("/v1/completions", {"prompt": "x", "max_tokens": 2, "response_format": remote}, 400),
             ("/v1/completions", {"prompt": url, "max_tokens": 2}, 200),
             ("/v1/chat/completions", {"messages": [{"role": "user", "content": url}], "max_tokens": 2}, 200),
             ("/v1/completions", {"model": url, "prompt": "x"}, 404), ("/tokenize", {"prompt": url}, 200)]
    told = [(path, fields, post(server, path, **fields)) for path, fields, _ in asks]
    wrong = [(path, fields, reply.status_code, reply.text[:200]) for (path, fields, reply), (*_, status)
             in zip(told, asks, strict=True) if reply.status_code != status]
    assert wrong == []
    with selectors.DefaultSelector() as callers:
        callers.register(door, selectors.EVENT_READ)
        assert callers.select(0.2) == []


@pytest.mark.parametrize("text", ["{{ 7 * 7 }}", "{% for a in range(9999999) %}{{ a }}{% endfor %}",
                                  "{{ ''.__class__.__mro__ }}", "${7*7} #{7*7} %(x)s {0.__class__}"],
                         ids=["sum", "bomb", "classes", "others"])
def test_texts_of_clients_are_no_templates(server: Running, text: str) -> None:
    ids = post(server, "/tokenize", prompt=text, add_special_tokens=False).raise_for_status().json()["tokens"]
    assert post(server, "/detokenize", tokens=ids).json()["prompt"].endswith(text)
    record = post(server, "/tokenize", prompt={"name": text, "price": "1"}).raise_for_status().json()["tokens"]
    assert text in post(server, "/detokenize", tokens=record).json()["prompt"]


@pytest.mark.parametrize("field", ["chat_template", "chat_template_kwargs", "template", "prompt_embeds", "images",
                                   "tensors", "trust_remote_code", "revision", "lora_request", "cache_slot",
                                   "state_file", "logits_processors", "mm_processor_kwargs"])
def test_what_reaches_loaders_templates_and_tensors_elsewhere_is_refused(server: Running, field: str) -> None:
    for path, fields in (("/v1/completions", {"prompt": "x"}), ("/v1/embeddings", {"input": "x"}),
                         ("/tokenize", {"prompt": "x"}), ("/detokenize", {"tokens": [1]}),
                         ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})):
        reply = post(server, path, **fields, **{field: "x"})
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, field), path


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "file:///etc/passwd", "..", "models:/../x",
                                  "a\\..\\b", "\u0000", "x" * 200])
def test_a_model_s_name_opens_no_file(server: Running, name: str) -> None:
    reply = post(server, "/v1/completions", model=name, prompt="x")
    assert reply.status_code in (400, 404)
    assert "root:" not in reply.text
    reply = httpx.get(httpx.URL(server.url).join("/v1/models/" + name.replace("/", "%2F").replace("\u0000", "%00")))
    assert reply.status_code in (400, 404)


GUARDS = """
import asyncio, sys
from openautoglm.core.errors import TaskError
from openautoglm.serve.faults import BadRequest, Forbidden, Unauthorised
from openautoglm.serve.guard.guard import Guard
from openautoglm.serve.guard.hosts import refuse_open
from openautoglm.serve.rest.access import check_host, check_origin
from openautoglm.serve.wire.asks import CompletionAsk
from openautoglm.serve.wire.limits import Limits
from openautoglm.serve.wire.validate import read_ask
from openautoglm.serve.worker.frames import ProtocolError
from openautoglm.serve.worker.messages import TO_ENGINE, decode

class Nobody:
    def get(self, key_id): return None
    def touch(self, key_id): pass

def refused(kind, work):
    try:
        work()
    except kind:
        return True
    return False

print(sys.flags.optimize, [
    refused(BadRequest, lambda: read_ask(CompletionAsk, {"prompt": "x", "n": 9999}, Limits())),
    refused(TaskError, lambda: refuse_open("0.0.0.0")),
    refused(Forbidden, lambda: check_host("evil.example", {"127.0.0.1"})),
    refused(Forbidden, lambda: check_origin("http://evil.example", "127.0.0.1:8080")),
    refused(ProtocolError, lambda: decode(b"noise", TO_ENGINE)),
    *(refused(Unauthorised, lambda: asyncio.run(Guard(Nobody()).authenticate(header, "a")))
      for header in ("Bearer autoglm_aaaaaaaaaaaa_" + "b" * 43, None))])
"""


def test_guards_stand_without_asserts() -> None:
    """``python -O`` leaves out every assert: a guard written as one would be gone."""
    done = subprocess.run([sys.executable, "-O", "-c", GUARDS], capture_output=True, text=True, check=False, timeout=60,
                          env={**os.environ, "PYTHONPATH": str(PACKAGE.parent)})
    assert done.stdout.strip() == f"1 {[True] * 7}", done.stderr
