"""Results on disk: the JSON, the page beside it, and on demand every request by the names of ``vllm bench serve``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openautoglm.bench.client import Mark
from openautoglm.bench.page import render
from openautoglm.core.files import atomic_write, write_json


def details(marks: Sequence[Mark], repetition: int) -> dict[str, list[Any]]:
    """One entry a request and list, times in seconds: ``start_times`` are intended times, from the first one on."""
    first = min((mark.intended_s for mark in marks), default=0.0)
    return {
        "repetition": [repetition] * len(marks),
        "start_times": [mark.intended_s - first for mark in marks],
        "input_lens": [mark.prompt_tokens for mark in marks], "output_lens": [mark.output_tokens for mark in marks],
        "ttfts": [mark.token_s[0] - mark.intended_s if mark.token_s else None for mark in marks],
        "itls": [np.diff(mark.token_s).tolist() for mark in marks],
        "latencies": [mark.end_s - mark.intended_s if mark.ok else None for mark in marks],
        "queue_times": [mark.sent_s - mark.intended_s if mark.sent_s == mark.sent_s else None for mark in marks],
        "errors": [f"{mark.error}: {mark.detail}" if mark.error else "" for mark in marks]}


def save(result: Mapping[str, Any], folder: Path, name: str | None) -> tuple[Path, Path]:
    """Write JSON and page; return both paths. The name follows from the load where none is given."""
    path = folder / (name or file_name(result))
    if path.suffix != ".json":
        path = path.with_name(path.name + ".json")
    write_json(path, result)
    with atomic_write(path.with_suffix(".html")) as file:
        file.write(render(result))
    return path, path.with_suffix(".html")


def file_name(result: Mapping[str, Any]) -> str:
    """``LABEL-RATEqps-concurrencyN-MODEL-DATE.json``."""
    clients = f"-concurrency{result['max_concurrency']}" if result["max_concurrency"] else ""
    model = str(result["model_id"]).rpartition("/")[2]
    return f"{result['label'] or result['backend']}-{result['request_rate']}qps{clients}-{model}-{result['date']}.json"
