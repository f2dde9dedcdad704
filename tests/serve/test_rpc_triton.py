"""Triton's public Python client, unmodified: it reads metadata and infers; what it cannot do here is told."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest
from rest_tools import MODEL
from rpc_tools import RunningRpc, embedding_backend

from openautoglm.serve.service.language import Language

pytestmark = pytest.mark.skipif(find_spec("tritonclient") is None, reason="tritonclient is not installed (extra `dev`)")


@pytest.fixture(scope="module")
def running(language: Language) -> Iterator[RunningRpc]:
    with RunningRpc(language, lambda: embedding_backend(language)) as running:
        yield running


@pytest.fixture(scope="module")
def found(running: RunningRpc) -> dict[str, Any]:
    done = subprocess.run([sys.executable, str(Path(__file__).with_name("triton_client.py")), running.address, MODEL],
                          capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    made: dict[str, Any] = json.loads(done.stdout)
    return made


def test_it_reads_metadata(found: dict[str, Any]) -> None:
    assert (found["live"], found["ready"], found["model_ready"], found["server"]) == (True, True, True, "autoglm")
    assert found["inputs"] == ["text_input", "record", "messages"]
    assert found["index"] == [[MODEL, "READY"]]


def test_it_infers(running: RunningRpc, found: dict[str, Any]) -> None:
    asks = {"model": MODEL, "max_tokens": 6, "seed": 1, "temperature": 0.5, "ignore_eos": True}
    rest = httpx.post(f"{running.url}/v1/completions", json={**asks, "prompt": ["The Punter", "Café"]}).json()
    assert found["texts"] == found["async"] == [choice["text"] for choice in rest["choices"]]
    assert found["counts"] == [[rest["usage"]["prompt_tokens"]], [12]]
    assert found["id"] == "r1"
    record = httpx.post(f"{running.url}/v1/completions", json={
        **asks, "prompt": {"name": "Alimentum", "price": "cheap"}}).json()
    assert found["record"] == record["choices"][0]["text"]
    vectors = httpx.post(f"{running.url}/v1/embeddings", json={"model": MODEL, "input": "a b"}).json()
    assert found["embedding"] == [vectors["data"][0]["embedding"]]


def test_what_it_cannot_do_is_told(found: dict[str, Any]) -> None:
    code = "StatusCode."
    assert found["refused"] == {
        "config": code + "UNIMPLEMENTED", "statistics": code + "UNIMPLEMENTED", "load": code + "UNIMPLEMENTED",
        "unload": code + "UNIMPLEMENTED", "unknown": code + "NOT_FOUND", "timeout": code + "INVALID_ARGUMENT",
        "shared_memory": code + "UNIMPLEMENTED"}
