"""Traces of requests through queue, prefill and decode, sent by OTLP over HTTP; off unless an endpoint is named."""

from __future__ import annotations

from typing import Any, Protocol

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from openautoglm.core.version import __version__
from openautoglm.serve.metrics.prometheus import Ended

_NANO = 1_000_000_000


class Asker(Protocol):
    """Who asked: the id of the request, and the ``traceparent`` that came with it."""

    @property
    def request_id(self) -> str: ...
    @property
    def trace(self) -> str: ...


class Traced(Ended, Protocol):
    """What became of a request, with its caller and the time of its arrival in seconds since 1970."""

    @property
    def caller(self) -> Asker: ...
    @property
    def arrived_at(self) -> float: ...


class Traces:
    """Makes the spans of each request when it has ended: itself, queue, prefill and decode. No texts are in them.

    Args:
        exporter: takes the spans.
        service: name of the service in the traces.
    """

    def __init__(self, exporter: SpanExporter, service: str = "autoglm") -> None:
        resource = Resource.create({"service.name": service, "service.version": __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("openautoglm.serve", __version__)
        self._context = TraceContextTextMapPropagator()

    @classmethod
    def to(cls, endpoint: str, service: str = "autoglm") -> Traces:
        """Send spans to an OTLP collector, e.g. ``http://127.0.0.1:4318/v1/traces``."""
        return cls(OTLPSpanExporter(endpoint=endpoint), service)

    def first_token(self, model: str, seconds: float) -> None:
        """Of no interest here."""

    def next_token(self, model: str, seconds: float) -> None:
        """Of no interest here."""

    def ended(self, report: Traced) -> None:
        """Make the spans of a request."""
        def at(moment: float) -> int:
            return int((report.arrived_at + moment - report.arrived) * _NANO)

        parent = self._context.extract({"traceparent": report.caller.trace}) if report.caller.trace else None
        span = self._tracer.start_span(f"llm {report.kind}", parent, SpanKind.SERVER, _attributes(report),
                                       start_time=at(report.arrived))
        inside = set_span_in_context(span)
        parts = {"queue": (report.arrived, report.begun), "prefill": (report.begun, report.first),
                 "decode": (report.first, report.last)}
        for name, (start, end) in parts.items():
            if start is not None and end is not None:
                self._tracer.start_span(name, inside, start_time=at(start)).end(at(max(start, end)))
        if report.fault is not None:
            span.set_status(Status(StatusCode.ERROR, report.fault))
        span.end(at(report.ended))

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _attributes(report: Traced) -> dict[str, Any]:
    """Names of OpenTelemetry's conventions for generative models."""
    given: dict[str, Any] = {
        "gen_ai.operation.name": {"chat": "chat", "embedding": "embeddings"}.get(report.kind, "text_completion"),
        "gen_ai.request.model": report.model, "gen_ai.request.id": report.caller.request_id,
        "gen_ai.request.choice.count": report.n, "gen_ai.usage.input_tokens": report.usage.prompt_tokens,
        "gen_ai.usage.output_tokens": report.usage.completion_tokens}
    if report.max_tokens:
        given["gen_ai.request.max_tokens"] = report.max_tokens
    if report.finishes:
        given["gen_ai.response.finish_reasons"] = list(report.finishes)
    if report.first is not None:
        given["gen_ai.latency.time_to_first_token"] = report.first - report.arrived
    return given
