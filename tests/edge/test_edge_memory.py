"""A limit on memory is weighed before anything is loaded, and held by the system afterwards."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from edge_models import PROMPTS, Model, records

Run = Callable[..., subprocess.CompletedProcess[str]]


def account(model: Model, run: Run, *options: str) -> dict[str, Any]:
    done = run(model.folder, [], "--info", *options)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def long(make: Callable[..., Model]) -> Model:
    """A model with many positions and wide keys, whose cache is most of what it takes."""
    return make(max_positions=65536, layers=3, kv_heads=4, head_dim=32, ffn_size=128)  # type: ignore[no-any-return]


def test_the_parts_are_those_of_the_model(long: Model, run: Run) -> None:
    parts = account(long, run, "--context", "4096", "--threads", "1")
    assert parts["weights"] - (long.folder / "weights.safetensors").stat().st_size in range(4096)
    assert parts["cache"] == 2 * 3 * 4096 * 4 * 32 * 4  # keys and values, layers, tokens, heads, dims, fp32
    assert parts["total"] == sum(parts[name] for name in ("process", "weights", "tables", "cache", "activations",
                                                          "work"))
    double = account(long, run, "--context", "8192", "--threads", "1")
    assert double["cache"] == 2 * parts["cache"]


def test_the_context_is_cut_to_the_limit_and_all_of_it_can_be_used(long: Model, run: Run) -> None:
    whole = account(long, run)
    limit = whole["total"] - whole["cache"] // 2
    cut = account(long, run, "--memory-limit", str(limit))
    assert 64 <= cut["context"] < whole["context"]
    assert cut["total"] <= limit
    words = "ab" * cut["context"]
    done = run(long.folder, [words[:3 * cut["context"] // 2], *PROMPTS], "--memory-limit", str(limit), "--json",
               "--max-tokens", "64", "--stats", "--verbose")
    assert f"the context has {cut['context']} tokens in place of 4096" in done.stderr
    assert [record.get("error") for record in records(done.stdout)] == [None] * 11
    peaks = [json.loads(line)["peak_resident"] for line in done.stderr.splitlines() if line.startswith('{"line"')]
    assert max(peaks) <= limit


def test_a_limit_that_is_too_small_is_refused_with_what_would_do(long: Model, run: Run) -> None:
    done = run(long.folder, ["x"], "--memory-limit", "2MB")
    assert done.returncode == 2
    found = re.search(r"the limit of 2000000 bytes is too small: \d+ are needed \(program .*\); (\d+) is the least",
                      done.stderr)
    assert found, done.stderr
    least = int(found[1])
    assert account(long, run, "--memory-limit", str(least + (64 << 10)))["context"] >= 64
    assert run(long.folder, [], "--memory-limit", str(least - 4096)).returncode == 2
    asked = run(long.folder, [], "--memory-limit", str(least + (1 << 20)), "--context", "4096")
    assert "a context of" in asked.stderr
    assert "fits" in asked.stderr


def test_the_system_holds_the_limit(model: Model, run: Run) -> None:
    """A process that is full answers that a line has no memory, and goes on."""
    total = account(model, run, "--context", "64")["total"]
    limit = total + (64 << 10)
    many = "[" * 6 + "1" + "]" * 6
    hostile = '{"prompt": "x", "list": [' + ",".join([many] * 250) + "]}"
    assert len(hostile) < 2 * 4096
    done = run(model.folder, [hostile, "fine"] * 3, "--json", "--context", "64", "--max-tokens", "4", "--memory-limit",
               str(limit))
    found = records(done.stdout)
    assert all("text" in record for record in found[1::2])
    assert {record.get("error", "no memory is left for this line") for record in found} == {
        "no memory is left for this line"}
