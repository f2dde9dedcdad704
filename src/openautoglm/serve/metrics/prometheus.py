"""What Prometheus reads: what requests met, in vLLM's names (prefix ``vllm:``), and ours (prefix ``autoglm:``)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from openautoglm.serve.backend import Backend
from openautoglm.serve.metrics.buckets import HTTP_S, ITL_S, REQUEST_S, TTFT_S, token_buckets
from openautoglm.serve.metrics.engines import Engines

CONTENT_TYPE = CONTENT_TYPE_LATEST
_LONGEST = 1 << 20
_MODEL = ("model_name",)


class Tokens(Protocol):
    """Tokens of a request."""

    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def dropped_tokens(self) -> int: ...


class Ended(Protocol):
    """What became of a request; times in seconds of one clock."""

    @property
    def model(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def usage(self) -> Tokens: ...
    @property
    def arrived(self) -> float: ...
    @property
    def begun(self) -> float | None: ...
    @property
    def first(self) -> float | None: ...
    @property
    def last(self) -> float | None: ...
    @property
    def ended(self) -> float: ...
    @property
    def finishes(self) -> Sequence[str]: ...
    @property
    def fault(self) -> str | None: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def n(self) -> int: ...


class Metrics:
    """All figures of one server, in a registry of their own.

    Args:
        backends: the models that are loaded now, by name.
        waiting: prompts and tokens that wait before the engine, by name of the model.
    """

    def __init__(self, backends: Callable[[], Mapping[str, Backend]],
                 waiting: Callable[[], Mapping[str, tuple[int, int]]] = dict) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(Engines(backends, waiting))
        ProcessCollector(registry=self.registry)
        self._times(self.registry)
        self._counts(self.registry)
        self._first: dict[str, Histogram] = {}
        self._next: dict[str, Histogram] = {}

    def _times(self, registry: CollectorRegistry) -> None:
        def times(name: str, text: str, buckets: Iterable[float] = REQUEST_S) -> Histogram:
            return Histogram(f"vllm:{name}", text, _MODEL, registry=registry, buckets=tuple(buckets))

        self._ttft = times("time_to_first_token_seconds", "Time to first token in seconds.", TTFT_S)
        self._itl = times("inter_token_latency_seconds", "Time between two tokens of an answer in seconds.", ITL_S)
        self._e2e = times("e2e_request_latency_seconds", "Time of whole requests in seconds.")
        self._queue = times("request_queue_time_seconds", "Time in the queue in seconds.")
        self._prefill = times("request_prefill_time_seconds", "Time from the queue to the first token in seconds.")
        self._decode = times("request_decode_time_seconds", "Time from the first to the last token in seconds.")
        self._inference = times("request_inference_time_seconds", "Time from the queue to the last token in seconds.")
        bounds = token_buckets(_LONGEST)
        self._prompt = times("request_prompt_tokens", "Tokens of prompts.", bounds)
        self._generated = times("request_generation_tokens", "Tokens of answers.", bounds)
        self._max_tokens = times("request_params_max_tokens", "The max_tokens that requests ask for.", bounds)
        self._n = times("request_params_n", "The n that requests ask for.", (1, 2, 5, 10, 20))

    def _counts(self, registry: CollectorRegistry) -> None:
        self._success = Counter("vllm:request_success", "Answers by why they ended.", (*_MODEL, "finished_reason"),
                                registry=registry)
        self._faults = Counter("autoglm:request_faults", "Requests that ended in a fault, by its kind.",
                               (*_MODEL, "kind"), registry=registry)
        self._dropped = Counter("autoglm:dropped_tokens", "Tokens left out of prompts that were too long.", _MODEL,
                                registry=registry)
        self._cached = Counter("autoglm:response_cache", "Answers looked for in the cache of responses, by result.",
                               (*_MODEL, "result"), registry=registry)
        self._http = Counter("http_requests", "HTTP requests by route, method and status.",
                             ("handler", "method", "status"), registry=registry)
        self._http_time = Histogram("http_request_duration_seconds", "Time of HTTP requests by route in seconds.",
                                    ("handler", "method"), registry=registry, buckets=HTTP_S)
        self._rpc = Counter("grpc_server_handled", "gRPC calls by service, method and status code.",
                            ("grpc_service", "grpc_method", "grpc_code"), registry=registry)
        self._rpc_time = Histogram("grpc_server_handling_seconds", "Time of gRPC calls in seconds.",
                                   ("grpc_service", "grpc_method"), registry=registry, buckets=HTTP_S)

    def first_token(self, model: str, seconds: float) -> None:
        """A request's first token came so long after the request."""
        child = self._first.get(model)
        if child is None:
            child = self._first[model] = self._ttft.labels(model)
        child.observe(seconds)

    def next_token(self, model: str, seconds: float) -> None:
        """A further token came so long after the one before it."""
        child = self._next.get(model)
        if child is None:
            child = self._next[model] = self._itl.labels(model)
        child.observe(seconds)

    def ended(self, report: Ended) -> None:
        """A request has ended, well or not."""
        model = report.model
        for finish in report.finishes:
            self._success.labels(model, "stop" if finish == "tool_calls" else finish).inc()
        if report.usage.dropped_tokens:
            self._dropped.labels(model).inc(report.usage.dropped_tokens)
        if report.fault is not None:
            self._success.labels(model, "abort" if report.fault == "client_gone" else "error").inc()
            self._faults.labels(model, report.fault).inc()
            return
        self._e2e.labels(model).observe(report.ended - report.arrived)
        self._prompt.labels(model).observe(report.usage.prompt_tokens)
        if report.first is None or report.last is None:
            return
        self._generated.labels(model).observe(report.usage.completion_tokens)
        self._n.labels(model).observe(report.n)
        if report.max_tokens:
            self._max_tokens.labels(model).observe(report.max_tokens)
        self._decode.labels(model).observe(report.last - report.first)
        if report.begun is not None:
            self._queue.labels(model).observe(max(0.0, report.begun - report.arrived))
            self._prefill.labels(model).observe(max(0.0, report.first - report.begun))
            self._inference.labels(model).observe(max(0.0, report.last - report.begun))

    def cached(self, model: str, found: bool) -> None:
        """An answer was looked for in the response cache."""
        self._cached.labels(model, "hit" if found else "miss").inc()

    def http(self, handler: str, method: str, status: int, seconds: float) -> None:
        """An HTTP request was answered; `handler` is a route and no path that a client made up."""
        self._http.labels(handler, method, str(status)).inc()
        self._http_time.labels(handler, method).observe(seconds)

    def rpc(self, service: str, method: str, code: str, seconds: float) -> None:
        """A gRPC call was answered; service and method are known names and nothing that a client made up."""
        self._rpc.labels(service, method, code).inc()
        self._rpc_time.labels(service, method).observe(seconds)

    def page(self, names: Collection[str] = ()) -> bytes:
        """Figures in Prometheus's text form: all, or the samples of some names, which takes less time."""
        return generate_latest(self.registry.restricted_registry(names) if names else self.registry)
