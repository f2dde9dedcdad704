"""One point of a sweep in a process of its own: a job as JSON on standard input, a JSON line for each load out.

    echo '{"folder": ..., "point": {...}, "target": "auto", "loads": [{"amount": 4, "settings": {...}}]}' | \\
        python -m openautoglm.bench.sweep.child
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openautoglm.bench.run import run_load
from openautoglm.bench.settings import LoadSettings
from openautoglm.bench.sweep.points import Point
from openautoglm.bench.targets import EngineTarget
from openautoglm.core import log
from openautoglm.core.errors import AutoGLMError

KEPT = ("completed", "failed", "duration", "request_throughput", "output_throughput", "total_token_throughput",
        "request_goodput", "steady_request_throughput", "steady_output_throughput", "max_concurrent_requests",
        "errors_by_kind", "warnings", "intervals")
LATENCIES = ("ttft", "tpot", "itl", "e2el", "queue_time")


def figures(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a sweep keeps of a result."""
    kept = {name: result[name] for name in KEPT}
    kept |= {name: value for name, value in result.items() if name.endswith(tuple(f"_{one}_ms" for one in LATENCIES))}
    return kept | {"server": result["server"], "generator": result["generator"], "stalls": result["stalls"]}


def main() -> None:
    """Do the job; a fault is told as a last line with ``error``."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not get between the lines
    log.get().setLevel(logging.WARNING)
    job = json.loads(sys.stdin.read())
    try:
        point = Point.model_validate(job["point"])
        target: EngineTarget | None = None
        for load in job["loads"]:
            settings = LoadSettings.model_validate(load["settings"])
            target = target or EngineTarget(Path(job["folder"]), settings.prompts, point.program(job["target"]),
                                            point.engine())
            result = run_load(settings, target)
            print(json.dumps({"amount": load["amount"], **figures(result)}), file=out, flush=True)
    except AutoGLMError as error:
        print(json.dumps({"error": str(error)}), file=out, flush=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
