"""Thousands of hostile requests to a real server, counted by kind of reply; then: does it live, and is it as before?

    python benchmarks/hostile.py [--examples 200] [--share 0.2] [--http 3000] [--only schema texts] [--out hostile.json]

The sources: ``schema``, what schemathesis makes up from the OpenAPI document, right and wrong; ``texts``, the Big
List of Naughty Strings through every field of text, paths, queries and headers; ``json``, JSONTestSuite's files as
bodies and within bodies; ``http``, requests with broken bytes. A further interface is one more function in `SOURCES`.

Violations, which make the exit status 1: a 5xx, a reply that the document does not know, one that does not come, JSON
read or refused wrongly, another engine than before, another answer than before, memory that grows, a fault in the log.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from hostile_cases import Tally, by_broken_http, by_fields, by_json
from hostile_schema import by_schema
from served import MODEL, ROOT, Served, write_small

MIB = 1 << 20
DATA = Path(os.environ.get("OPENAUTOGLM_DATA", ROOT.parent / "shared" / "data")) / "hostile"
PROBE = {"model": MODEL, "prompt": "The Punter is", "max_tokens": 32, "temperature": 0, "ignore_eos": True}
Source = Callable[[Served, Tally, argparse.Namespace], None]


def schema(served: Served, tally: Tally, options: argparse.Namespace) -> None:
    """See `by_schema`."""
    by_schema(served.url, MODEL, tally, options.examples, options.seed)


def texts(served: Served, tally: Tally, options: argparse.Namespace) -> None:
    """See `by_fields`."""
    found = json.loads((DATA / "blns.json").read_text(encoding="utf-8"))
    by_fields(served.url, MODEL, tally, found, options.share, options.seed)


def bodies(served: Served, tally: Tally, options: argparse.Namespace) -> None:
    """See `by_json`."""
    by_json(served.url, MODEL, tally, DATA / "json-testsuite" / "test_parsing")


def broken_http(served: Served, tally: Tally, options: argparse.Namespace) -> None:
    """See `by_broken_http`."""
    by_broken_http(served.url, MODEL, tally, options.http, options.seed)


SOURCES: dict[str, Source] = {"schema": schema, "texts": texts, "json": bodies, "http": broken_http}


def answer(served: Served) -> str:
    """What the model says to a question that is always the same."""
    return str(httpx.post(f"{served.url}/v1/completions", json=PROBE, timeout=60).json()["choices"][0]["text"])


def attack(served: Served, options: argparse.Namespace) -> dict[str, Any]:
    """Send everything; what came of it."""
    tally, seconds = Tally(), {}
    warm(served, options)
    said, engine, before = answer(served), served.engine, served.memory_bytes
    for name in options.only:
        began = time.monotonic()
        SOURCES[name](served, tally, options)
        seconds[name] = round(time.monotonic() - began, 1)
        print(f"{name}: {tally.cases} cases so far, {seconds[name]} s, {tally.found} violations", file=sys.stderr)
    if not served.ready():
        tally.violate("the server is not ready afterwards")
    elif answer(served) != said:
        tally.violate("the same question has another answer than before")
    if served.engine != engine:
        tally.violate(f"the engine is another process than before: {engine} became {served.engine}")
    after = served.memory_bytes
    for name, old, new in zip(("server", "engine"), before, after, strict=True):
        if new - old > options.growth_mib * MIB:
            tally.violate(f"the {name}'s memory grew from {old / MIB:.0f} to {new / MIB:.0f} MiB")
    for line in served.failures:
        tally.violate(f"in the log: {line}")
    return {"cases": tally.cases, "violations": tally.found, "first_violations": tally.violations,
            "replies": {f"{source}: {kind}": count for (source, kind), count in sorted(tally.counts.items())},
            "seconds": seconds, "slowest_reply_s": round(tally.slowest_s, 3),
            "memory_mib_before": [round(size / MIB, 1) for size in before],
            "memory_mib_after": [round(size / MIB, 1) for size in after]}


def warm(served: Served, options: argparse.Namespace) -> None:
    """Go through every part of the server once, so that what is loaded on first use counts as its own."""
    if (DATA / "blns.json").is_file():
        few = json.loads((DATA / "blns.json").read_text(encoding="utf-8"))
        by_fields(served.url, MODEL, Tally(), few, 1 / len(few), options.seed + 1)
    by_broken_http(served.url, MODEL, Tally(), 50, options.seed + 1)


def main(arguments: list[str] | None = None) -> int:
    """Attack and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--examples", type=int, default=200, help="of schemathesis, for each operation")
    parser.add_argument("--share", type=float, default=0.2, help="of all pairs of a field and a text")
    parser.add_argument("--http", type=int, default=3000, help="requests with broken bytes")
    parser.add_argument("--only", nargs="+", choices=SOURCES, default=list(SOURCES))
    parser.add_argument("--growth-mib", type=float, default=96.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args(arguments)
    if not DATA.is_dir() and {"texts", "json"} & set(options.only):
        print(f"{DATA} is absent: texts and json are left out; set OPENAUTOGLM_DATA", file=sys.stderr)
        options.only = [name for name in options.only if name not in ("texts", "json")]
    with tempfile.TemporaryDirectory() as folder, Served(write_small(Path(folder))) as served:
        report = attack(served, options)
    print("| source: reply | cases |\n|---|---|")
    for name, count in report["replies"].items():
        print(f"| {name} | {count} |")
    for name in ("cases", "violations", "seconds", "slowest_reply_s", "memory_mib_before", "memory_mib_after"):
        print(f"{name}: {report[name]}")
    for sentence in report["first_violations"]:
        print(f"VIOLATION: {sentence}")
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return int(report["violations"] > 0)


if __name__ == "__main__":
    sys.exit(main())
