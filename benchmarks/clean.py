"""Cleaning speed, memory and findings on E2E NLG: rows/s and peak memory at 1x and 10x rows, planted faults.

    python benchmarks/clean.py [--repeat 3] [--times 1 10] [--workers 2] [--json results.json]

The data is read from ``OPENAUTOGLM_DATA``, or ``../shared/data`` beside the checkout. The larger set repeats
the rows under other indices, so that no copy is a duplicate of another. Every measurement is a process of its
own; its memory is the peak of resident memory of the process and of its largest helper, added up.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

E2E = Path("e2e-nlg")
EXPECTED = {"exact duplicate rows": 1193, "references with double spaces": 5796,
            "texts shared by train and test": 15}


def data_folder() -> Path:
    """Where the real data lies."""
    return Path(os.environ.get("OPENAUTOGLM_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def enlarged(train: Path, times: int, path: Path) -> Path:
    """Write the rows `times` times; copy number k (from 1 on) carries an index in source and target."""
    with train.open(encoding="utf-8", newline="") as source:
        rows = list(csv.reader(source))
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(rows[0])
        for copy in range(times):
            for number, (record, text) in enumerate(rows[1:]):
                mark = f" no {copy * len(rows) + number}" if copy else ""
                writer.writerow([f"{record}, index[{copy}]" if copy else record, text + mark])
    return path


def measure(train: str, base: str, out: str, workers: int) -> dict[str, Any]:
    """Clean once, in this process."""
    from openautoglm.data.clean import clean
    from openautoglm.data.clean_settings import CleanSettings
    from openautoglm.data.settings import DataSettings

    data = DataSettings(train=(train,), source="mr", target="ref")
    started, cpu = time.perf_counter(), os.times()
    report = clean(data, CleanSettings(workers=workers), out, base=base)
    took, spent = time.perf_counter() - started, os.times()
    rows = sum(report.rows_read.values())
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return {"rows": rows, "seconds": took, "rows_per_s": rows / took,
            "peak_mb": sum(resource.getrusage(one).ru_maxrss for one in who) / 1024,
            "cpu_s": sum(spent[:4]) - sum(cpu[:4]), "rows_out": sum(report.rows_out.values()),
            "dropped": dict(report.dropped)}


def findings(base: Path, out: str) -> dict[str, int]:
    """Clean the three given splits and return what was found."""
    from openautoglm.data.clean import clean
    from openautoglm.data.clean_settings import CleanSettings
    from openautoglm.data.settings import DataSettings

    data = DataSettings(train=("trainset.csv",), valid=("devset.csv",), test=("testset_w_refs.csv",),
                        source="mr", target="ref")
    report = clean(data, CleanSettings(), out, base=base)
    doubled = {fault.side: fault.rows for fault in report.faults if fault.fault == "double spaces"}
    shared = [leak.texts for leak in report.leaks
              if (leak.kind, leak.between) == ("target", ("train", "test"))]
    return {"exact duplicate rows": report.duplicates_as_read["train"],
            "references with double spaces": doubled["target"]["train"],
            "texts shared by train and test": sum(shared)}


def in_own_process(*arguments: str) -> dict[str, Any]:
    """Run one measurement in a fresh process."""
    command = [sys.executable, __file__, "--measure", *arguments]
    result: dict[str, Any] = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)
    return result


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description="Cleaning speed, memory and findings on E2E NLG")
    options.add_argument("--repeat", type=int, default=3)
    options.add_argument("--times", type=int, nargs="+", default=[1, 10])
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--json", type=Path)
    options.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.measure:
        train, base, out, workers = given.measure
        print(json.dumps(measure(train, base, out, int(workers))))
        return
    base = data_folder() / E2E
    if not base.is_dir():
        sys.exit(f"no data at {base}; set OPENAUTOGLM_DATA to the folder that holds {E2E}")
    runs: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        print(f"{'rows':>9} {'runs':>4} {'rows/s best':>12} {'median':>9} {'CPU s':>7} {'peak MB':>8}  rows left")
        for times in given.times:
            train = enlarged(base / "trainset.csv", times, Path(folder) / f"train-{times}.csv")
            found = [in_own_process(train.name, folder, f"{folder}/out", str(given.workers))
                     for _ in range(given.repeat)]
            found.sort(key=lambda run: -run["rows_per_s"])
            best, median = found[0], found[len(found) // 2]
            peak = max(run["peak_mb"] for run in found)
            print(f"{best['rows']:>9,} {len(found):>4} {best['rows_per_s']:>12,.0f} "
                  f"{median['rows_per_s']:>9,.0f} {best['cpu_s']:>7.2f} {peak:>8.1f}  {best['rows_out']:,}  "
                  f"{best['dropped']}")
            runs.append({"times": times, "workers": given.workers, "runs": found})
        planted = findings(base, f"{folder}/given")
    for name, count in planted.items():
        print(f"{name}: {count:,} found, {EXPECTED[name]:,} there")
    if given.json:
        facts = {"cores": len(os.sched_getaffinity(0)), "load": os.getloadavg(), "runs": runs,
                 "planted": planted}
        given.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
