"""Requests made up from the OpenAPI document, right and wrong ones: every reply is one that the document knows.

More cases: ``HOSTILE_CASES=500 pytest tests/serve/test_rest_hostile.py``.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from rest_tools import MODEL, Running
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks

CASES = int(os.environ.get("HOSTILE_CASES", "10"))
OPERATIONS = ("POST /v1/completions", "POST /v1/chat/completions", "POST /v1/embeddings", "POST /tokenize",
              "POST /detokenize", "GET /v1/models", "GET /v1/models/{model}", "GET /healthz", "GET /ready",
              "GET /metrics", "GET /version")
DELIBERATE = {200, 400, 401, 403, 404, 405, 408, 413, 415, 429}
ANYTHING = {"temperature", "top_p", "n", "stop", "seed", "prompt", "messages", "input", "tools", "response_format"}


def document(server: Running) -> dict[str, Any]:
    """The server's own, but for the name of the model, so that most requests reach it, and the length of answers."""
    made: dict[str, Any] = copy.deepcopy(httpx.get(f"{server.url}/openapi.json").json())
    for form in made["components"]["schemas"].values():
        fields = form.get("properties", {})
        if "model" in fields and ANYTHING & fields.keys():
            fields["model"] = {"const": MODEL, "type": "string"}
        if "max_tokens" in fields:
            fields["max_tokens"] = {"type": "integer", "minimum": 1, "maximum": 3}
            form.setdefault("required", []).append("max_tokens")
    return made


def replies_to(server: Running, operation: str, mode: GenerationMode, cases: int) -> list[int]:
    """Send requests made up for an operation; the status of each reply, whose form is checked."""
    load_all_checks()
    method, path = operation.split()
    schema = schemathesis.openapi.from_dict(document(server))
    found: list[int] = []
    unmeant = [check for check in schemathesis.checks.CHECKS.get_all()
               if check.__name__ in ("positive_data_acceptance", "unsupported_method", "missing_required_header")]

    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=cases, database=None, derandomize=True, deadline=None,
              suppress_health_check=list(HealthCheck))
    def send(case: Any) -> None:
        reply = case.call(base_url=server.url, timeout=30)
        found.append(reply.status_code)
        assert reply.status_code in DELIBERATE, reply.text
        case.validate_response(reply, excluded_checks=unmeant)

    send()
    return found


@pytest.mark.slow
@pytest.mark.parametrize("operation", OPERATIONS)
def test_requests_that_fit_the_document(server: Running, operation: str) -> None:
    found = replies_to(server, operation, GenerationMode.POSITIVE, CASES)
    assert found
    assert httpx.get(f"{server.url}/ready").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name.startswith("POST")])
def test_requests_that_do_not_fit_it(server: Running, operation: str) -> None:
    found = replies_to(server, operation, GenerationMode.NEGATIVE, CASES)
    assert 200 not in found
    assert httpx.get(f"{server.url}/ready").status_code == 200


def test_the_document_names_all_of_them(server: Running) -> None:
    known = {f"{method.upper()} {path}" for path, methods in document(server)["paths"].items() for method in methods}
    assert known == set(OPERATIONS)


@pytest.mark.slow
@pytest.mark.data
def test_hostile_texts_go_through_every_field_of_text(server: Running, shared_data: Path) -> None:
    texts = json.loads((shared_data / "hostile" / "blns.json").read_text(encoding="utf-8"))
    assert len(texts) > 400
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for number, text in enumerate(texts):
            one = {"model": MODEL, "max_tokens": 1}
            fields: list[tuple[str, dict[str, Any]]] = [
                ("/v1/completions", {**one, "prompt": text}), ("/v1/completions", {**one, "prompt": {text: text}}),
                ("/v1/completions", {**one, "prompt": {"name": text, "price": text}}),
                ("/v1/completions", {**one, "prompt": "x", "stop": text, "user": text}),
                ("/v1/chat/completions", {**one, "messages": [{"role": "user", "content": text, "name": text}]}),
                ("/v1/chat/completions", {**one, "messages": [{"role": text, "content": "x"}]}),
                ("/v1/completions", {**one, "model": text, "prompt": "x"}), ("/tokenize", {"prompt": text}),
                ("/v1/completions", {**one, "prompt": "x", "structured_outputs": {"choice": [text]}}),
                ("/v1/completions", {**one, "prompt": "x", text: 1})]
            for path, body in fields[number % 2::2]:
                reply = client.post(path, content=json.dumps(body), headers={"content-type": "application/json"})
                assert reply.status_code in DELIBERATE, (path, text, reply.text)
        assert client.get("/ready").status_code == 200


@pytest.mark.slow
@pytest.mark.data
def test_what_is_no_json_is_refused_and_what_is_json_is_read(server: Running, shared_data: Path) -> None:
    files = sorted((shared_data / "hostile" / "json-testsuite" / "test_parsing").glob("*.json"))
    assert len(files) > 300
    ours = {"y_object_duplicated_key.json", "y_object_duplicated_key_and_value.json"}  # read by others, refused here
    with httpx.Client(base_url=server.url, timeout=30) as client:
        for path in files:
            raw = path.read_bytes()
            for body in (raw, b'{"prompt": {"name": ' + raw + b', "price": "x"}}'):
                reply = client.post("/tokenize", content=body, headers={"content-type": "application/json"})
                assert reply.status_code in (200, 400), path.name
                if path.name.startswith("n_"):
                    assert reply.json()["error"]["param"] == "body", path.name
            if path.name.startswith("y_"):  # the one where it was a value
                read = reply.status_code == 200 or reply.json()["error"]["param"] != "body"
                assert read == (path.name not in ours), (path.name, reply.text)
        assert client.get("/ready").status_code == 200
