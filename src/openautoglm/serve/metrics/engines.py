"""How the engines stand, asked when Prometheus asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from openautoglm.engine.stats import Stats
from openautoglm.serve.backend import Backend
from openautoglm.serve.faults import Unavailable

_GAUGES: dict[str, tuple[str, Callable[[Stats], float]]] = {
    "vllm:num_requests_running": ("Sequences that compute their prompt or generate.",
                                  lambda stats: stats.filling + stats.decoding),
    "vllm:num_requests_waiting": ("Requests that wait in the engine's queue.", lambda stats: stats.waiting),
    "vllm:kv_cache_usage_perc": ("Share of the cache that sequences hold, 1 is all.",
                                 lambda stats: stats.pages_held / stats.pages if stats.pages else 0.0),
    "autoglm:cache_pages_kept": ("Pages of the cache that are kept for later requests.",
                                 lambda stats: stats.pages_idle),
}
_COUNTERS: dict[str, tuple[str, Callable[[Stats], float]]] = {
    "vllm:prompt_tokens": ("Tokens of prompts that were computed.", lambda stats: stats.prompt_tokens),
    "vllm:generation_tokens": ("Tokens that were generated.", lambda stats: stats.generated_tokens),
    "vllm:num_preemptions": ("Sequences whose pages were taken back.", lambda stats: stats.preemptions),
    "vllm:prefix_cache_queries": ("Tokens that were looked for in the cache.", lambda stats: stats.prefix_asked),
    "vllm:prefix_cache_hits": ("Tokens that were found in the cache.", lambda stats: stats.prefix_hit),
    "autoglm:engine_steps": ("Steps of the engine.", lambda stats: stats.steps),
    "autoglm:engine_step_seconds": ("Time that steps took in seconds.", lambda stats: stats.step_seconds),
    "autoglm:engine_failed_steps": ("Steps that failed.", lambda stats: stats.failed_steps),
    "autoglm:cache_evictions": ("Pages of the cache that were given to others.", lambda stats: stats.evictions),
    "autoglm:speculation_drafted": ("Tokens that were guessed ahead.", lambda stats: stats.drafted),
    "autoglm:speculation_accepted": ("Guessed tokens that came true.", lambda stats: stats.accepted),
}


class _Growing:
    """A count that goes on over an engine's restart, after which the engine begins at nought."""

    def __init__(self) -> None:
        self._last = self._total = 0.0

    def total(self, now: float) -> float:
        self._total += now - self._last if now >= self._last else now
        self._last = now
        return self._total


class Engines(Collector):
    """The figures of all engines, by model; see `Metrics` for the arguments."""

    def __init__(self, backends: Callable[[], Mapping[str, Backend]],
                 waiting: Callable[[], Mapping[str, tuple[int, int]]]) -> None:
        self._backends, self._waiting = backends, waiting
        self._grown: dict[tuple[str, str], _Growing] = {}

    def describe(self) -> Iterator[Metric]:
        """Names alone: nothing is asked of an engine when this is registered."""
        yield from (GaugeMetricFamily(name, text) for name, (text, _) in _GAUGES.items())
        yield from (CounterMetricFamily(name, text) for name, (text, _) in _COUNTERS.items())

    def collect(self) -> Iterator[Metric]:
        """Ask every engine how it stands."""
        backends = dict(self._backends())
        stats = {name: found for name, backend in backends.items() if (found := _stats(backend)) is not None}
        for name, (text, read) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, text, labels=("model_name",))
            for model, stand in stats.items():
                gauge.add_metric((model,), read(stand))
            yield gauge
        for name, (text, read) in _COUNTERS.items():
            counter = CounterMetricFamily(name, text, labels=("model_name",))
            for model, stand in stats.items():
                grown = self._grown.setdefault((name, model), _Growing())
                counter.add_metric((model,), grown.total(read(stand)))
            yield counter
        yield from self._ours(backends)

    def _ours(self, backends: Mapping[str, Backend]) -> Iterator[Metric]:
        ready = GaugeMetricFamily("autoglm:engine_ready", "Whether the engine takes requests.", labels=("model_name",))
        restarts = CounterMetricFamily("autoglm:engine_restarts", "Engines that were started again.",
                                       labels=("model_name",))
        for model, backend in backends.items():
            ready.add_metric((model,), float(backend.ready))
            restarts.add_metric((model,), float(getattr(backend, "restarts", 0)))
        yield from (ready, restarts)
        prompts = GaugeMetricFamily("autoglm:queue_prompts", "Prompts that wait for their first token.",
                                    labels=("model_name",))
        tokens = GaugeMetricFamily("autoglm:queue_tokens", "Tokens of prompts that wait, and that they ask for.",
                                   labels=("model_name",))
        for model, (waiting, held) in self._waiting().items():
            prompts.add_metric((model,), waiting)
            tokens.add_metric((model,), held)
        yield from (prompts, tokens)


def _stats(backend: Backend) -> Stats | None:
    try:
        return backend.stats
    except Unavailable:  # it has not started yet
        return None
