"""Stands for the child of a sweep: ``scripted_child.py JOBS [HOW BATCH AMOUNT]``.

It writes the loads of its job into JOBS and gives each a throughput of batch times amount. For that batch, from that
amount on, it does HOW: ``error``, ``die``, ``deaf`` (ends without a word) or ``sleep`` (its number goes into JOBS.pid).
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path


def figures(qps: float) -> dict[str, object]:
    """What a run gives."""
    return {"completed": 9, "failed": 0, "request_throughput": qps, "output_throughput": qps, "mean_e2el_ms": 10.0,
            "p99_e2el_ms": 20.0, "server": {}, "generator": {"saturated": False}, "stalls": [], "warnings": []}


def misbehave(how: str, jobs: Path) -> None:
    """Do as told."""
    if how == "error":
        print(json.dumps({"error": "the model cannot be loaded so"}), flush=True)
        sys.exit(1)
    if how == "die":
        sys.exit("out of luck")
    if how == "sleep":
        jobs.with_name(f"{jobs.name}.pid").write_text(str(os.getpid()))
        time.sleep(600)
    sys.exit(0)


def main() -> None:
    """Do the job."""
    jobs = Path(sys.argv[1])
    how, batch, amount = sys.argv[2:] if len(sys.argv) > 2 else ("", "0", "0")
    job = json.loads(sys.stdin.read())
    with jobs.open("a") as file:
        file.write(json.dumps([load["amount"] for load in job["loads"]]) + "\n")
    for load in job["loads"]:
        if job["point"]["max_batch"] == int(batch) and load["amount"] >= int(amount):
            misbehave(how, jobs)
        print(json.dumps({"amount": load["amount"], **figures(job["point"]["max_batch"] * load["amount"])}), flush=True)


if __name__ == "__main__":
    main()
