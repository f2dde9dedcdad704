"""Hostile requests over REST: every reply is one that the OpenAPI document knows, and none is the server's own fault.

The cases are those of `benchmarks/hostile.py`, fewer of them. More: ``HOSTILE_CASES=500 pytest
tests/serve/test_rest_hostile.py``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from rest_tools import MODEL, Running, engine_backend

from openautoglm.serve.service.language import Language

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from hostile_cases import (
    Fields,
    Tally,
    by_broken_http,
    by_fields,
    by_json,
    document_of,
    routes_with_bodies,
)
from hostile_schema import by_schema

CASES = int(os.environ.get("HOSTILE_CASES", "10"))
OPERATIONS = ("POST /v1/completions", "POST /v1/chat/completions", "POST /v1/embeddings", "POST /tokenize",
              "POST /detokenize", "GET /v1/models", "GET /v1/models/{model}", "GET /healthz", "GET /ready",
              "GET /metrics", "GET /version")
COUNT_OF_TEXTS = 400


@contextmanager
def unharmed(server: Running, cases: int) -> Iterator[Tally]:
    """Count replies; at the end there are so many, none of them wrong, and the engine goes on."""
    tally = Tally()
    yield tally
    assert tally.violations == []
    assert tally.cases >= cases
    assert httpx.get(f"{server.url}/ready", timeout=60).status_code == 200
    end = time.monotonic() + 60
    while server.backend.stats.pages_held:
        assert time.monotonic() < end, "pages are held that nobody asked for"
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_requests_made_up_from_the_document(server: Running, operation: str) -> None:
    with unharmed(server, 2) as tally:
        phases = by_schema(server.url, MODEL, tally, CASES, operations=[operation])
        assert phases["coverage"] > 0
        assert phases["fuzzing"] > 0
        if operation.startswith("POST"):
            assert tally.counts["schema", "200"] > 0 or operation.endswith("embeddings")  # the fake model has none
            assert tally.counts["schema", "400"] > 10


def test_the_document_names_all_of_them(server: Running) -> None:
    paths = document_of(server.url, MODEL)["paths"]
    known = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert known == set(OPERATIONS)


def test_every_field_of_text_is_found(server: Running) -> None:
    document = document_of(server.url, MODEL)
    routes, fields = routes_with_bodies(document), Fields(document, MODEL)
    found = {path: {name for name, _ in fields.places(schema)} for path, schema in routes.items()}
    assert {".prompt", ".prompt[]", ".prompt.<key and value>", ".stop[]", ".user", ".logit_bias.<key>",
            ".response_format.json_schema.schema.<key and value>", ".structured_outputs.regex",
            } <= found["/v1/completions"]
    assert {".messages[].content", ".messages[].content[].text", ".messages[].role", ".tools[].function.description",
            ".messages[].tool_calls[].function.arguments"} <= found["/v1/chat/completions"]
    for path, schema in routes.items():
        for name, place in fields.places(schema):
            assert "naughty" in json.dumps(place("naughty")), (path, name)


@pytest.mark.slow
@pytest.mark.data
def test_hostile_texts_go_through_every_field_of_text(server: Running, shared_data: Path) -> None:
    texts = json.loads((shared_data / "hostile" / "blns.json").read_text(encoding="utf-8"))
    assert len(texts) > COUNT_OF_TEXTS
    with unharmed(server, 500) as tally:
        by_fields(server.url, MODEL, tally, texts, CASES / 1000)


@pytest.mark.slow
@pytest.mark.data
def test_what_is_no_json_is_refused_and_what_is_json_is_read(server: Running, shared_data: Path) -> None:
    folder = shared_data / "hostile" / "json-testsuite" / "test_parsing"
    with unharmed(server, 600) as tally:
        by_json(server.url, MODEL, tally, folder, ["/tokenize"] if CASES < 100 else ())
    assert tally.counts["JSON y_", "200"] > 10


def test_broken_http_is_refused_or_answered(server: Running) -> None:
    with unharmed(server, 20 * CASES) as tally:
        by_broken_http(server.url, MODEL, tally, 20 * CASES)
    assert tally.counts["broken HTTP", "400"] > 0


@pytest.mark.parametrize("source", ["texts", "json", "broken"])
def test_a_server_that_fails_is_found_out(language: Language, source: str, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("on purpose")

    (tmp_path / "n_nothing.json").write_bytes(b"{}")
    tally = Tally()
    with Running(language, lambda: engine_backend(language)) as server:
        monkeypatch.setattr(server.service, "tokenize", fail)
        monkeypatch.setattr(server.service, "open", fail)
        if source == "texts":
            by_fields(server.url, MODEL, tally, ["x"])
        elif source == "json":
            by_json(server.url, MODEL, tally, tmp_path, ["/tokenize"])
        else:
            by_broken_http(server.url, MODEL, tally, 60)
    assert tally.found > 0
