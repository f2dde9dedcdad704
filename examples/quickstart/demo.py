"""The demo: make dirty data, run the task, and say what was found, learnt and written.

    python examples/quickstart/demo.py [--folder runs]

Under five minutes on two cores. Given again, it skips what is finished.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from make_data import make
from planted import score

HERE = Path(__file__).resolve().parent
SHOWN = 3


def main(folder: Path) -> int:
    """Run the demo in `folder`; return the exit code of the run."""
    started = time.monotonic()
    data, run = folder / "quickstart-data", folder / "quickstart"
    if not (data / "planted.json").exists():
        print(f"making data with planted faults in {data}")
        make(data)
    places = {"QUICKSTART_DATA": str(data.resolve()), "QUICKSTART_RUN": str(run.resolve())}
    command = [sys.executable, "-m", "openautoglm", "run", str(HERE / "task.yaml")]
    # A model of 1 M parameters trains fastest on one thread: two were measured at a quarter of the speed.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
    code = subprocess.run(command, env={**os.environ, **places, **threads}, check=False).returncode
    if code:
        return code
    print_faults(data, run / "data")
    print_samples(run / "evaluate" / "predictions.jsonl")
    print(f"\nbundle: {run / 'bundle'}\nreport: {run / 'report.html'}")
    print(f"the demo took {time.monotonic() - started:.0f} s")
    return 0


def print_faults(data: Path, cleaned: Path) -> None:
    """Print the planted faults and how many of them cleaning found."""
    print(f"\n{'planted fault':<16}{'planted':>8}{'found':>8}{'precision':>11}{'recall':>8}")
    for row in score(data, cleaned):
        print(f"{row.fault:<16}{row.planted:>8}{row.found:>8}{row.precision:>11.3f}{row.recall:>8.3f}")


def print_samples(predictions: Path) -> None:
    """Print some test records, what the model wrote and one of the reports that people would write."""
    with predictions.open(encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["split"] == "test"]
    for row in rows[:SHOWN]:
        print(f"\nrecord:    {row['source']}")
        print(f"model:     {row['prediction']}\nreference: {row['references'][0]}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=HERE.parents[1] / "runs")
    sys.exit(main(parser.parse_args().folder))
