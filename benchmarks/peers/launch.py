"""One run of a runner: a process in its environment, whose lines of JSON become records."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peers.catalogue import Variant
from peers.environments import python_of, search_path, source_of
from peers.runner import Job


@dataclass(frozen=True)
class Record:
    """One measured value, or one failure.

    Attributes:
        round: 0 for the trial.
        others: cores that other processes kept busy meanwhile.
        failed: why there is no value.
    """

    shape: str
    variant: str
    round: int
    measure: str
    value: float | None
    others: float = 0.0
    failed: str = ""


@dataclass
class Launcher:
    """Starts runners, keeps what they say, and after each shows it to `keep`, so that a run cut short is not lost."""

    work: Path
    threads: int
    keep: Callable[[list[Record]], object] = len
    records: list[Record] = field(default_factory=list)

    def run(self, variant: Variant, shape: str, number: int, measures: list[str], limit_s: float) -> None:
        """Run the measures in a new process; what fails is recorded as failed."""
        folder = self.work / "models" / shape
        job = Job(shape=shape, model=str(folder / variant.model), threads=self.threads, settings=variant.settings,
                  measures=measures, reference=str(folder / "reference.npz"), started=time.time())
        begin = time.perf_counter()
        lines, code, problem = self._communicate(variant.engine, json.dumps(asdict(job)), limit_s)
        answered = set()
        for line in lines:
            self._take(variant, shape, number, line)
            answered.add(line.get("name", ""))
        for measure in [] if code == 0 else [name for name in measures if name not in answered]:
            self.records.append(Record(shape, variant.key, number, measure, None, failed=problem))
        found = ", ".join(_words(line) for line in lines)
        print(f"[{shape} {number}] {variant.key}, {time.perf_counter() - begin:.0f} s: {found}"
              f"{'' if code == 0 else ' FAILED: ' + problem}", flush=True)
        self.keep(self.records)

    def _communicate(self, engine: str, job: str, limit_s: float) -> tuple[list[dict[str, Any]], int, str]:
        """Lines of JSON, exit code, and the last words of a process that failed."""
        path = search_path(self.work)
        environment = {**os.environ, "OMP_NUM_THREADS": str(self.threads), "TOKENIZERS_PARALLELISM": "false",
                       "PYTHONPATH": source_of(engine)}
        command = [str(python_of(self.work, engine)), "-m", f"peers.run_{engine}", job]
        with subprocess.Popen(command, env=environment, cwd=path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              text=True, errors="replace", start_new_session=True) as process:
            try:
                out, words = process.communicate(timeout=limit_s)
                problem = "; ".join(words.strip().splitlines()[-1:]) or f"exit code {process.returncode}"
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                out, _ = process.communicate()
                problem = f"took longer than {limit_s:.0f} s"
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")], process.returncode, problem

    def _take(self, variant: Variant, shape: str, number: int, line: dict[str, Any]) -> None:
        others = float(line.get("others", 0.0))
        if "failed" in line:
            self.records.append(Record(shape, variant.key, number, line["name"], None, others, line["failed"]))
        for name, value in line["values"].items():
            self.records.append(Record(shape, variant.key, number, name, value, others))


def _words(line: dict[str, Any]) -> str:
    if "failed" in line:
        return f"{line['name']} failed: {line['failed']}"
    return ", ".join(f"{name} {value:.4g}" for name, value in line["values"].items())
