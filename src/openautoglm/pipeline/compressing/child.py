"""What serving a bundle takes, measured in a process of its own: a job as JSON on standard input, a line of JSON out.

    echo '{"folder": ..., "program": {}, "prompts": [[1, 2]], "tokens": 64, "repeats": 3}' | \\
        python -m openautoglm.pipeline.compressing.child
"""

from __future__ import annotations

import json
import logging
import os
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from openautoglm.core import log
from openautoglm.core.errors import AutoGLMError
from openautoglm.engine.open import ProgramSettings, open_engine
from openautoglm.engine.request import Decoding
from openautoglm.engine.settings import EngineSettings

BATCHES = (1, 8)
"""How many sequences decode together."""


def peak_bytes() -> int:
    """The most that this process has held; the kernel's own figure for this image, where it gives one."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most << 10


def weigh(job: dict[str, Any]) -> dict[str, Any]:
    """Load, generate for 1 and for 8 prompts, and tell what it took; rates are medians of some repetitions."""
    before = peak_bytes()
    began = time.monotonic()
    engine = open_engine(job["folder"], ProgramSettings.model_validate(job["program"]),
                         EngineSettings(prefix_cache=False))
    loaded = time.monotonic() - began
    decoding = Decoding(max_new_tokens=job["tokens"], ignore_stop=True)
    found: dict[str, Any] = {"load_s": loaded}
    for batch in BATCHES:
        prompts = [job["prompts"][number % len(job["prompts"])] for number in range(batch)]
        engine.generate(prompts, Decoding(max_new_tokens=4, ignore_stop=True))
        rates = []
        for _ in range(job["repeats"]):
            before_s, before_n = engine.stats.step_seconds, engine.stats.generated_tokens
            engine.generate(prompts, decoding)
            after = engine.stats
            rates.append((after.generated_tokens - before_n) / max(after.step_seconds - before_s, 1e-9))
        found[f"tokens_per_s_{batch}"] = statistics.median(rates)
    facts = engine.program.facts
    return found | {"peak_bytes": peak_bytes(), "python_bytes": before, "weight_bytes": facts.weight_bytes,
                    "cache_bytes": facts.cache_bytes, "target": engine.program.plan.target}


def main() -> None:
    """Do the job; a fault is told as a line with ``error``."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not get between the lines
    log.get().setLevel(logging.WARNING)
    try:
        print(json.dumps(weigh(json.loads(sys.stdin.read()))), file=out, flush=True)
    except AutoGLMError as error:
        print(json.dumps({"error": error.message, "remedy": error.remedy or ""}), file=out, flush=True)
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
