"""Requests made up for the routes of a registry: every reply is one that the document knows, and none a fault of ours.

More cases: ``HOSTILE_CASES=500 pytest tests/serve/hosting/test_rest_registry_hostile.py``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from house_server import HouseRunning, house_server
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks

from openautoglm.serve.registry.registry import Registry, open_registry
from openautoglm.serve.service.language import Language

CASES = int(os.environ.get("HOSTILE_CASES", "10"))
OPERATIONS = ("GET /v1/models/{model}/versions", "GET /v1/models/{model}/{number}", "GET /v1/models/{model}/audit",
              "PUT /v1/models/{model}/aliases/{alias}", "DELETE /v1/models/{model}/aliases/{alias}",
              "PUT /v1/models/{model}/{number}/stage", "GET /v1/models/{model}/route", "PUT /v1/models/{model}/route",
              "DELETE /v1/models/{model}/route", "POST /v1/models/{model}/load", "POST /v1/models/{model}/unload",
              "POST /v2/repository/index", "POST /v2/repository/models/{model}/load",
              "POST /v2/repository/models/{model}/unload", "GET /v1/conversations", "DELETE /v1/conversations",
              "GET /v1/conversations/{name}", "DELETE /v1/conversations/{name}")
DELIBERATE = {200, 400, 403, 404, 405, 409, 415}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, bundle_path: Path, language: Language) -> Iterator[HouseRunning]:
    """A server that tests may change; a model in two versions."""
    folder = tmp_path_factory.mktemp("hostile")
    with open_registry(folder / "registry.db", folder / "store") as registry:
        registry.versions.register(bundle_path, "reports", by="test", copy=False)
        registry.versions.register(bundle_path, "other", by="test", copy=False)
        with house_server(registry, language, keyed=False) as running:
            yield running


def document(served: HouseRunning, operation: str) -> dict[str, Any]:
    """The server's own; half of the operations get the name of a model that there is."""
    made: dict[str, Any] = copy.deepcopy(httpx.get(f"{served.url}/openapi.json").json())
    method, path = operation.split()
    for parameter in made["paths"][path][method.lower()].get("parameters", ()):
        if parameter["name"] == "model":
            parameter["schema"] = {"anyOf": [{"const": "reports", "type": "string"}, {"type": "string"}]}
    return made


MAY_BE_WRONG = [operation for operation in OPERATIONS if operation.startswith(("POST", "PUT"))
                or operation.endswith(("/audit", "GET /v1/conversations", "{number}"))]
"""The others take nothing but names, and any text is one in form."""


@pytest.mark.slow
@pytest.mark.parametrize(("operation", "mode"), [
    *((operation, GenerationMode.POSITIVE) for operation in OPERATIONS),
    *((operation, GenerationMode.NEGATIVE) for operation in MAY_BE_WRONG)],
    ids=[*(f"fitting-{operation}" for operation in OPERATIONS), *(f"wrong-{operation}" for operation in MAY_BE_WRONG)])
def test_no_request_breaks_the_server(served: HouseRunning, operation: str, mode: GenerationMode) -> None:
    load_all_checks()
    method, path = operation.split()
    schema = schemathesis.openapi.from_dict(document(served, operation))
    unmeant = [check for check in schemathesis.checks.CHECKS.get_all()
               if check.__name__ in ("positive_data_acceptance", "negative_data_rejection", "unsupported_method",
                                     "missing_required_header", "ensure_resource_availability", "use_after_free")]
    found: list[int] = []

    @given(case=schema[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=CASES, database=None, derandomize=True, deadline=None,
              suppress_health_check=list(HealthCheck))
    def send(case: Any) -> None:
        reply = case.call(base_url=served.url, timeout=30)
        found.append(reply.status_code)
        if reply.status_code == 503:  # a version that another case has taken out of service
            assert "taken out" in reply.text or "archived" in reply.text
            return
        assert reply.status_code in DELIBERATE, reply.text
        case.validate_response(reply, excluded_checks=unmeant)

    send()
    assert found
    assert httpx.get(f"{served.url}/ready").status_code == 200


def test_the_document_has_all_of_them(served: HouseRunning, registry: Registry) -> None:
    paths = httpx.get(f"{served.url}/openapi.json").json()["paths"]
    known = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert set(OPERATIONS) <= known
    assert known - set(OPERATIONS) == {
        "POST /v1/completions", "POST /v1/chat/completions", "POST /v1/embeddings", "POST /tokenize",
        "POST /detokenize", "GET /v1/models", "GET /v1/models/{model}", "GET /healthz", "GET /ready", "GET /metrics",
        "GET /version"}
