"""Two results side by side, and what is said of files that are none."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from openautoglm.bench.compare import changes, differing, read_result, render_comparison
from openautoglm.core.errors import LoadError
from openautoglm.core.files import write_json

RESULT: dict[str, Any] = {
    "format": 1, "backend": "openai", "model_id": "m", "loop": "open", "request_rate": 5.0, "burstiness": 1.0,
    "max_concurrency": None, "settings": {"seed": 0}, "machine": {"cores": 2}, "warnings": [],
    "request_throughput": 5.0, "output_throughput": 100.0, "total_token_throughput": 300.0, "request_goodput": None,
    "mean_ttft_ms": 50.0, "median_ttft_ms": 45.0, "p50_ttft_ms": 45.0, "p99_ttft_ms": 90.0, "mean_itl_ms": None,
    "intervals": {"mean_ttft_ms": [48.0, 52.0], "p99_ttft_ms": [80.0, 99.0], "output_throughput": [95.0, 105.0]},
    "server": {"rss_bytes_max": 1000}, "quantiles": {"ttft": [float(value) for value in range(101)]}}


def other(**changed: Any) -> dict[str, Any]:
    result = deepcopy(RESULT)
    intervals = changed.pop("intervals", {})
    result.update(changed)
    result["intervals"].update(intervals)
    return result


def test_verdicts_come_from_intervals() -> None:
    after = other(mean_ttft_ms=40.0, p99_ttft_ms=95.0, output_throughput=80.0, request_throughput=4.0,
                  intervals={"mean_ttft_ms": [38, 42], "p99_ttft_ms": [85, 105], "output_throughput": [75, 85]},
                  server={"rss_bytes_max": 1500})
    found = {change.name: change for change in changes(RESULT, after)}
    assert found["mean_ttft_ms"].verdict == "better"
    assert found["mean_ttft_ms"].percent == pytest.approx(-20)
    assert found["p99_ttft_ms"].verdict == "same"
    assert found["output_throughput"].verdict == "worse"
    assert found["request_throughput"].verdict == ""
    assert found["rss_bytes_max"].percent == pytest.approx(50)
    assert "mean_itl_ms" not in found
    assert "p50_ttft_ms" not in found  # the median says it


def test_loads_that_differ_are_named() -> None:
    assert differing(RESULT, other()) == []
    assert differing(RESULT, other(request_rate=6.0, machine={"cores": 4})) == ["request_rate", "machine"]
    html = render_comparison(RESULT, other(request_rate=6.0, warnings=["<script>"]), ("a", "b"))
    assert "the loads differ in: request_rate" in html
    assert "<script" not in html
    assert "&lt;script&gt;" in html


def test_files_that_are_no_results_are_refused(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", RESULT)
    assert read_result(tmp_path / "a.json") == RESULT
    for name, text in (("none.json", None), ("b.json", "{"), ("c.json", "[]"), ("d.json", '{"format": 9}')):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(LoadError, match=name):
            read_result(tmp_path / name)
