"""Figures: counted over restarts, in registries of their own, in buckets that dashboards know."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from serve_tools import STATS, FakeBackend

from openautoglm.serve.backend import Backend
from openautoglm.serve.faults import Unavailable
from openautoglm.serve.metrics.buckets import ITL_S, REQUEST_S, TTFT_S, token_buckets
from openautoglm.serve.metrics.prometheus import Metrics
from openautoglm.serve.service.values import Caller, Report, Usage


def sample(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def report(**more: Any) -> Report:
    given = {"usage": Usage(10, 4), "begun": 100.5, "first": 101.0, "last": 103.0, "ended": 103.5,
             "finishes": ["stop"], "max_tokens": 8, **more}
    return Report("m", "chat", Caller("key", "id"), 100.0, 1e9, **given)


def test_a_request_is_counted_in_all_its_parts() -> None:
    metrics = Metrics(dict)
    metrics.ended(report())
    for name, total in (("e2e_request_latency", 3.5), ("request_queue_time", 0.5), ("request_prefill_time", 0.5),
                        ("request_decode_time", 2.0), ("request_inference_time", 2.5)):
        assert sample(metrics, f"vllm:{name}_seconds_sum", model_name="m") == total
    assert sample(metrics, "vllm:request_prompt_tokens_sum", model_name="m") == 10
    assert sample(metrics, "vllm:request_generation_tokens_sum", model_name="m") == 4
    assert sample(metrics, "vllm:request_params_max_tokens_sum", model_name="m") == 8
    assert sample(metrics, "vllm:request_success_total", model_name="m", finished_reason="stop") == 1
    metrics.ended(report(finishes=["tool_calls"]))
    assert sample(metrics, "vllm:request_success_total", model_name="m", finished_reason="stop") == 2


@pytest.mark.parametrize(("fault", "reason"), [("client_gone", "abort"), ("engine_lost", "error"),
                                               ("overloaded", "error")], ids=str)
def test_faults_are_counted_by_kind_and_not_as_latencies(fault: str, reason: str) -> None:
    metrics = Metrics(dict)
    metrics.ended(report(fault=fault, finishes=[], first=None, last=None, begun=None,
                         usage=Usage(10, 0, 2, 300)))
    assert sample(metrics, "vllm:request_success_total", model_name="m", finished_reason=reason) == 1
    assert sample(metrics, "autoglm:request_faults_total", model_name="m", kind=fault) == 1
    assert sample(metrics, "autoglm:dropped_tokens_total", model_name="m") == 300
    assert sample(metrics, "vllm:e2e_request_latency_seconds_count", model_name="m") is None


def test_tokens_are_timed() -> None:
    metrics = Metrics(dict)
    metrics.first_token("m", 0.05)
    for _ in range(3):
        metrics.next_token("m", 0.02)
    assert sample(metrics, "vllm:time_to_first_token_seconds_bucket", model_name="m", le="0.06") == 1
    assert sample(metrics, "vllm:time_to_first_token_seconds_bucket", model_name="m", le="0.04") == 0
    assert sample(metrics, "vllm:inter_token_latency_seconds_count", model_name="m") == 3


def test_engines_are_asked_when_prometheus_asks() -> None:
    backend: Any = FakeBackend(lambda order: ([], None))
    backends: dict[str, Backend] = {}
    metrics = Metrics(lambda: backends, lambda: {"m": (3, 40)})
    assert sample(metrics, "vllm:num_requests_waiting", model_name="m") is None
    backends["m"] = backend
    backend.stats = replace(STATS, waiting=2, filling=1, decoding=3, pages=64, pages_held=16, generated_tokens=100,
                            prefix_asked=50, prefix_hit=20)
    assert sample(metrics, "vllm:num_requests_waiting", model_name="m") == 2
    assert sample(metrics, "vllm:num_requests_running", model_name="m") == 4
    assert sample(metrics, "vllm:kv_cache_usage_perc", model_name="m") == 0.25
    assert sample(metrics, "vllm:prefix_cache_hits_total", model_name="m") == 20
    assert sample(metrics, "autoglm:queue_tokens", model_name="m") == 40
    assert sample(metrics, "vllm:generation_tokens_total", model_name="m") == 100
    backend.stats = replace(STATS, generated_tokens=30)  # the engine was started again
    assert sample(metrics, "vllm:generation_tokens_total", model_name="m") == 130
    backend.stats = replace(STATS, generated_tokens=35)
    assert sample(metrics, "vllm:generation_tokens_total", model_name="m") == 135


def test_an_engine_that_has_not_started_is_left_out() -> None:
    class Starting(FakeBackend):
        @property
        def stats(self) -> Any:
            raise Unavailable("not yet")

        @stats.setter
        def stats(self, value: Any) -> None:
            del value

    backend: Any = Starting(lambda order: ([], None))
    backend.ready = False
    metrics = Metrics(lambda: {"m": backend})
    assert sample(metrics, "vllm:num_requests_waiting", model_name="m") is None
    assert sample(metrics, "autoglm:engine_ready", model_name="m") == 0


def test_servers_share_nothing() -> None:
    first, second = Metrics(dict), Metrics(dict)
    first.http("/v1/models", "GET", 200, 0.01)
    labels = {"handler": "/v1/models", "method": "GET", "status": "200"}
    assert first.registry.get_sample_value("http_requests_total", labels) == 1
    assert second.registry.get_sample_value("http_requests_total", labels) is None
    assert REGISTRY.get_sample_value("http_requests_total", labels) is None


def test_the_page_is_in_prometheus_form() -> None:
    metrics = Metrics(dict)
    metrics.ended(report())
    families = {family.name: family for family in text_string_to_metric_families(metrics.page().decode())}
    assert all(family.documentation for name, family in families.items())
    assert families["vllm:time_to_first_token_seconds"].type == "histogram"
    assert families["vllm:request_success"].type == "counter"


def test_buckets() -> None:
    assert (TTFT_S[0], TTFT_S[-1]) == (0.001, 2560.0)
    for bounds in (TTFT_S, ITL_S, REQUEST_S):
        assert list(bounds) == sorted(set(bounds))
    assert token_buckets(40) == (1, 2, 5, 10, 20)
    assert token_buckets(100)[-1] == 100
    assert token_buckets(1) == (1,)
