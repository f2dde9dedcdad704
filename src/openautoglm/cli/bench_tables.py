"""What ``autoglm bench`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from openautoglm.bench.compare import changes, differing
from openautoglm.bench.page import figure_names, latency_rows
from openautoglm.pipeline.units import bytes_text

_WIDTH = 44
_LINES = (("completed", "Successful requests"), ("failed", "Failed requests"), ("duration", "Duration (s)"),
          ("total_input_tokens", "Total input tokens"), ("total_output_tokens", "Total generated tokens"),
          ("request_throughput", "Request throughput (req/s)"), ("request_goodput", "Request goodput (req/s)"),
          ("output_throughput", "Output token throughput (tok/s)"),
          ("total_token_throughput", "Total token throughput (tok/s)"),
          ("steady_output_throughput", "Steady output token throughput (tok/s)"),
          ("max_concurrent_requests", "Peak concurrent requests"))
_SERVER = (("cpu_cores", "Busy cores"), ("rss_bytes_max", "Most resident memory"),
           ("running_mean", "Sequences together, mean"), ("waiting_mean", "Waiting requests, mean"),
           ("kv_use_max", "Most of the KV cache in use"), ("prefix_hit_rate", "Prefix cache hits"),
           ("tokens_per_step", "Tokens a step"), ("preemptions", "Preemptions"))
_SHARES = ("kv_use_max", "prefix_hit_rate")


def print_result(result: Mapping[str, Any]) -> None:
    """Figures with their intervals, then what a reader must know."""
    _title("Load result")
    for name, words in _LINES:
        _line(words, result[name], result["intervals"].get(name))
    for latency, words, end in latency_rows(result):
        _title(words.capitalize())
        short = latency.upper() if len(latency) < 5 else latency.replace("_", " ")
        for name in figure_names(result, latency):
            _line(f"{name.removesuffix(end).capitalize()} {short} (ms)", result[name], result["intervals"].get(name))
    if result["server"]:
        _title("Server")
        for name, words in _SERVER:
            value = result["server"].get(name)
            shown = bytes_text(value) if name == "rss_bytes_max" and value is not None else value
            _line(words, f"{value:.1%}" if name in _SHARES and value is not None else shown)
    typer.echo("=" * (_WIDTH + 16))
    for warning in result["warnings"]:
        typer.echo(f"note: {warning}")
    for kind, text in result["error_examples"].items():
        typer.echo(f"  {kind}: {text}")


def _title(words: str) -> None:
    typer.echo(f" {words} ".center(_WIDTH + 16, "-"))


def _line(words: str, value: Any, span: Any = None) -> None:
    if value is None:
        return
    shown = value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
    typer.echo(f"{words + ':':<{_WIDTH}}{shown:>12}" + (f"  [{span[0]:,.2f}, {span[1]:,.2f}]" if span else ""))


def print_comparison(before: Mapping[str, Any], after: Mapping[str, Any], names: tuple[str, str]) -> None:
    """Figures side by side."""
    typer.echo(f"{'figure':<32}{names[0][-18:]:>20}{names[1][-18:]:>20}{'change':>10}  verdict")
    for change in changes(before, after):
        percent = "" if change.percent is None else f"{change.percent:+.1f}%"
        typer.echo(f"{change.name:<32}{change.before:>20,.2f}{change.after:>20,.2f}{percent:>10}  {change.verdict}")
    other = differing(before, after)
    if other:
        typer.echo(f"note: the loads differ in: {', '.join(other)}")
    for label, result in zip(names, (before, after), strict=True):
        for warning in result["warnings"]:
            typer.echo(f"note: {label}: {warning}")
