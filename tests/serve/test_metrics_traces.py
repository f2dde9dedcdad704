"""Traces: one span for a request, with its queue, prefill and decode inside; no texts."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from openautoglm.serve.metrics.traces import Traces
from openautoglm.serve.service.values import Caller, Report, Usage

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def report(**more: Any) -> Report:
    given = {"usage": Usage(10, 4), "begun": 100.5, "first": 101.0, "last": 103.0, "ended": 103.5,
             "finishes": ["stop"], "max_tokens": 8, **more}
    return Report("m", "chat", given.pop("caller", Caller("key", "id-7")), 100.0, 1_700_000_000.0, **given)


def spans_of(*reports: Report) -> dict[str, Any]:
    exporter = InMemorySpanExporter()
    traces = Traces(exporter)
    for one in reports:
        traces.first_token("m", 1.0)
        traces.next_token("m", 1.0)
        traces.ended(one)
    traces.close()
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_has_its_parts_with_their_times() -> None:
    found = spans_of(report(caller=Caller("key", "id-7", trace=PARENT)))
    assert set(found) == {"llm chat", "queue", "prefill", "decode"}
    whole = found["llm chat"]
    assert (whole.end_time - whole.start_time) / 1e9 == pytest.approx(3.5, abs=1e-3)
    assert whole.start_time == 1_700_000_000 * 10**9
    for name, seconds in (("queue", 0.5), ("prefill", 0.5), ("decode", 2.0)):
        assert found[name].parent.span_id == whole.context.span_id
        assert (found[name].end_time - found[name].start_time) / 1e9 == pytest.approx(seconds, abs=1e-3)
    assert f"{whole.context.trace_id:032x}" == "0af7651916cd43dd8448eb211c80319c"
    assert f"{whole.parent.span_id:016x}" == "b7ad6b7169203331"
    assert whole.attributes["gen_ai.usage.output_tokens"] == 4
    assert whole.attributes["gen_ai.request.id"] == "id-7"
    assert whole.status.is_ok


def test_a_request_that_never_began_has_no_parts() -> None:
    found = spans_of(report(begun=None, first=None, last=None, finishes=[], fault="overloaded"))
    assert set(found) == {"llm chat"}
    assert found["llm chat"].status.description == "overloaded"
    assert found["llm chat"].parent is None


def test_what_comes_as_a_parent_and_is_none_does_no_harm() -> None:
    for odd in ("", "x", "00-" + "g" * 32 + "-1-01", "00-" + "0" * 32 + "-" + "0" * 16 + "-01"):
        assert spans_of(report(caller=Caller(trace=odd)))["llm chat"].parent is None


def test_nothing_is_set_for_the_whole_process() -> None:
    spans_of(report())
    assert not hasattr(trace.get_tracer_provider(), "add_span_processor")


def test_spans_are_sent_over_http() -> None:
    bodies: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        traces = Traces.to(f"http://127.0.0.1:{server.server_port}/v1/traces")
        traces.ended(report())
        traces.close()
        server.shutdown()
        thread.join(10)
    assert b"llm chat" in bodies[0]
    assert b"prefill" in bodies[0]
    assert json.dumps("id-7")[1:-1].encode() in bodies[0]
