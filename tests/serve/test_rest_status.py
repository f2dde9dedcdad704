"""Probes, figures, the version, the list of models, tokens, and the document."""

from __future__ import annotations

import threading
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from rest_tools import MODEL, Running, engine_backend
from serve_tools import FACTS, FakeBackend

import openautoglm
from openautoglm.serve.faults import TimedOut
from openautoglm.serve.service.language import Language

ASK = {"model": MODEL, "prompt": "x", "max_tokens": 4}


def figures(server: Running) -> dict[str, dict[tuple[str, ...], float]]:
    """The samples of the figures by name and the values of their labels."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(httpx.get(f"{server.url}/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def test_alive_ready_and_version(server: Running) -> None:
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{server.url}/ready").json() == {"status": "ready"}
    assert httpx.get(f"{server.url}/version").json() == {"version": openautoglm.__version__}
    assert httpx.head(f"{server.url}/healthz").status_code == 405


def test_alive_is_not_ready(language: Language) -> None:
    fault = TimedOut("no token")
    backend = FakeBackend(lambda order: ([], fault), FACTS.__class__(**{**vars(FACTS), "vocab_size": 400}))
    with Running(language, lambda: backend) as server:
        reply = httpx.get(f"{server.url}/ready")
        assert reply.status_code == 503
        assert "no token" in reply.json()["reason"]
        assert httpx.get(f"{server.url}/healthz").status_code == 200


def test_some_figures_alone(server: Running) -> None:
    names = ("vllm:num_requests_running", "vllm:request_queue_time_seconds_count", "x")
    page = httpx.get(f"{server.url}/metrics", params=[("name[]", name) for name in names]).text
    names = {line.partition("{")[0].partition(" ")[0] for line in page.splitlines() if not line.startswith("#")}
    assert names <= {"vllm:num_requests_running", "vllm:request_queue_time_seconds_count"}
    assert "vllm:num_requests_running" in names
    assert httpx.get(f"{server.url}/metrics", params=[("name[]", "x")] * 300).status_code == 400


def test_figures_have_their_usual_names(language: Language) -> None:
    with Running(language, lambda: engine_backend(language)) as server:
        for _ in range(3):
            assert httpx.post(f"{server.url}/v1/completions", json=ASK).status_code == 200
        httpx.post(f"{server.url}/v1/completions", json={**ASK, "n": 0})
        httpx.get(f"{server.url}/made/up")
        httpx.post(f"{server.url}/v1/completions", json={**ASK, "prompt": [399]})
        found = figures(server)
        key = (MODEL,)
        for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc",
                     "prefix_cache_queries_total", "prefix_cache_hits_total", "num_preemptions_total",
                     "prompt_tokens_total", "generation_tokens_total"):
            assert key in found[f"vllm:{name}"]
        for name in ("time_to_first_token_seconds", "e2e_request_latency_seconds", "request_queue_time_seconds",
                     "request_prefill_time_seconds", "request_decode_time_seconds", "request_prompt_tokens",
                     "request_generation_tokens"):
            assert found[f"vllm:{name}_count"][key] == 3
        assert found["vllm:request_success_total"]["length", MODEL] == 3
        assert found["vllm:inter_token_latency_seconds_count"][key] == 9
        assert found["vllm:generation_tokens_total"][key] == 12
        assert found["vllm:prefix_cache_hits_total"][key] <= found["vllm:prefix_cache_queries_total"][key]
        assert found["autoglm:request_faults_total"]["bad_request", MODEL] == 1
        assert found["http_requests_total"]["/v1/completions", "POST", "200"] == 3
        assert found["http_requests_total"]["/v1/completions", "POST", "400"] == 2
        assert found["http_requests_total"]["other", "GET", "404"] == 1
        assert found["autoglm:engine_ready"][key] == 1


def test_the_models_are_listed(server: Running) -> None:
    found = httpx.get(f"{server.url}/v1/models").json()["data"]
    assert found == [httpx.get(f"{server.url}/v1/models/{MODEL}").json()]
    missing = httpx.get(f"{server.url}/v1/models/other")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")


def test_texts_become_ids_and_ids_texts(server: Running, language: Language) -> None:
    text = "The Punter 关关"
    found = httpx.post(f"{server.url}/tokenize", json={"prompt": text, "add_special_tokens": False,
                                                       "return_token_strs": True}).json()
    assert found["tokens"] == language.tokenizer.encode(text)
    assert found["count"] == len(found["tokens"]) == len(found["token_strs"])
    assert found["max_model_len"] == 512
    assert httpx.post(f"{server.url}/detokenize", json={"tokens": found["tokens"]}).json() == {"prompt": text}
    chat = httpx.post(f"{server.url}/tokenize", json={"model": MODEL, "messages": [{"role": "user", "content": "x"}]})
    marks = httpx.post(f"{server.url}/detokenize", json={"tokens": chat.json()["tokens"]}).json()["prompt"]
    assert marks == "<sop>x<|assistant|>"
    record = httpx.post(f"{server.url}/tokenize", json={"prompt": {"name": "a", "price": 1}}).json()
    assert record["tokens"] == list(language.template.prompt("a | 1", (), language.tokenizer))
    for wrong in ({"tokens": [9999]}, {"tokens": ["a"]}, {}):
        assert httpx.post(f"{server.url}/detokenize", json=wrong).status_code == 400


def test_the_document_is_whole(server: Running) -> None:
    made: dict[str, Any] = httpx.get(f"{server.url}/openapi.json").json()
    assert set(made["paths"]) == {"/v1/completions", "/v1/chat/completions", "/v1/embeddings", "/v1/models",
                                  "/v1/models/{model}", "/tokenize", "/detokenize", "/healthz", "/ready", "/metrics",
                                  "/version"}
    schemas = made["components"]["schemas"]

    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [item for part in value.values() for item in references(part)]
        return [item for part in value for item in references(part)] if isinstance(value, list) else []

    assert {name.rpartition("/")[2] for name in references(made)} <= set(schemas)
    for path, methods in made["paths"].items():
        for route in methods.values():
            assert route["operationId"]
            assert route["summary"]
            if "requestBody" in route:
                content = route["requestBody"]["content"]["application/json"]
                assert content["examples"], path
                for example in content["examples"].values():
                    reply = httpx.post(server.url + path, json={**example["value"], "model": MODEL}, timeout=30)
                    assert reply.status_code in (200, 400), reply.text


def test_a_probe_answers_while_requests_run(language: Language) -> None:
    gate = threading.Semaphore(0)
    with Running(language, lambda: engine_backend(language, before=lambda step: gate.acquire() and None)) as server:
        asked = threading.Thread(target=httpx.post, args=(f"{server.url}/v1/completions",), kwargs={"json": ASK})
        asked.start()
        assert httpx.get(f"{server.url}/healthz").status_code == 200
        assert httpx.get(f"{server.url}/metrics").status_code == 200
        gate.release(100_000)
        asked.join(20)
        assert httpx.get(f"{server.url}/ready").status_code == 200


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/docs/oauth2-redirect"], ids=str)
def test_no_page_draws_on_other_sites(server: Running, path: str) -> None:
    assert httpx.get(server.url + path).status_code == 404
