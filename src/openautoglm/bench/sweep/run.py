"""Runs a sweep: each point in a child process, finished runs kept, the rest made when it is called again."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from openautoglm.bench.result import plain
from openautoglm.bench.sweep.choose import Run
from openautoglm.bench.sweep.points import Point, SweepSettings, run_key
from openautoglm.bench.sweep.store import Store
from openautoglm.core import log
from openautoglm.core.errors import LoadError
from openautoglm.core.files import fingerprint, read_json
from openautoglm.core.hardware import probe
from openautoglm.core.progress import progress
from openautoglm.models.card import CARD_NAME

CHILD = (sys.executable, "-m", "openautoglm.bench.sweep.child")
_SLACK_S = 300.0
_ERROR_CHARS = 500
_log = log.get(__name__)


def run_sweep(folder: Path, settings: SweepSettings, output: Path, *, fresh: bool = False,
              command: Sequence[str] = CHILD) -> list[Run]:
    """Make every run that is not there yet, and return all, the failed ones left out.

    Args:
        folder: a bundle or the folder of a checkpoint.
        output: where ``runs.jsonl`` is kept.
        command: what makes the runs of a point; see `openautoglm.bench.sweep.child`.

    Raises:
        LoadError: there are no points, or `output` holds another sweep.
        KeyboardInterrupt: the user's; what has finished is kept.
    """
    wanted = list(settings.runs())
    if not wanted:
        raise LoadError("no combination of the settings fits together", where="--max-batch",
                        remedy="let --max-batch-tokens be at least --max-batch")
    store = Store(output / "runs.jsonl", plain(_facts(folder, settings)), fresh=fresh)
    unit = settings.loads.unit
    done = sum(store.finished(run_key(point, amount, unit)) for point, amount in wanted)
    with progress(len(wanted), "sweep", "runs", done=done) as bar:
        for point in settings.axes.points():
            amounts = [amount for amount in settings.loads.amounts()
                       if not store.finished(run_key(point, amount, unit))]
            for some in _jobs(amounts, settings):
                bar.update(now=point.differs(settings.axes))
                for amount, found in _made(folder, point, some, settings, command):
                    store.add(run_key(point, amount, unit), found)
                    bar.advance(1)
    return [Run(point, amount, store.runs[key]) for point, amount in wanted
            if store.finished(key := run_key(point, amount, unit))]


def failures(output: Path) -> list[dict[str, Any]]:
    """Runs that failed, as they were kept: ``point``, ``amount``, ``error``; later successes count."""
    last: dict[str, dict[str, Any]] = {}
    for line in (output / "runs.jsonl").read_text(encoding="utf-8").splitlines()[1:]:
        value = json.loads(line)
        last[value["key"]] = value
    return [value for value in last.values() if value.get("error")]


def _jobs(amounts: list[float], settings: SweepSettings) -> list[list[float]]:
    """Loads that one process may make one after the other; prompts of a data set would be in its cache then."""
    if settings.load.prompts.dataset:
        return [[amount] for amount in amounts]
    return [amounts] if amounts else []


def _made(folder: Path, point: Point, amounts: list[float], settings: SweepSettings, command: Sequence[str]
          ) -> Iterator[tuple[float, dict[str, Any]]]:
    """Runs of one point, each as soon as it is made; one with ``error`` for all that are left where the child fails."""
    loads = [settings.loads.apply(settings.load, amount) for amount in amounts]
    job = {"folder": str(folder), "point": point.model_dump(mode="json"), "target": settings.target,
           "loads": [{"amount": amount, "settings": load.model_dump(mode="json")}
                     for amount, load in zip(amounts, loads, strict=True)]}
    patience_s = (settings.load.arrivals.duration_s or 0) + settings.load.judge.timeout_s + _SLACK_S
    facts = {"point": point.model_dump(mode="json")}
    left = list(amounts)
    error = ""
    with tempfile.TemporaryFile() as said:
        for line in _lines(command, json.dumps(job), said.fileno(), patience_s):
            found = json.loads(line)
            if "error" in found:
                error = found["error"]
                break
            left.remove(found["amount"])
            yield found["amount"], {**facts, **found}
        if left and not error:
            said.seek(0)
            tail = said.read().decode("utf-8", "replace").strip()[-_ERROR_CHARS:]
            error = f"its process ended before it was done; its last words: {tail or 'none'}"
    for amount in left:
        _log.warning("%s at %g %s failed: %s", point.differs(settings.axes), amount, settings.loads.unit, error)
        yield amount, {**facts, "amount": amount, "error": error}


def _lines(command: Sequence[str], job: str, stderr: int, patience_s: float) -> Iterator[bytes]:
    """Lines of a child's output; it is killed when it says nothing for too long, or the caller goes away.

    The child has a session of its own: Ctrl-C reaches the caller alone, who then ends the child.
    """
    child = subprocess.Popen(  # nosec B603  # our own command, no shell
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"})
    assert child.stdin is not None
    assert child.stdout is not None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            child.stdin.write(job.encode())
            child.stdin.close()
            rest, until = b"", time.monotonic() + patience_s
            while selector.select(until - time.monotonic()):
                data = os.read(child.stdout.fileno(), 1 << 16)
                if not data:
                    break
                *lines, rest = (rest + data).split(b"\n")
                yield from lines
                until = time.monotonic() + patience_s if lines else until
    except BrokenPipeError:
        _log.debug("the child of a sweep ended before it was given its job")
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def _facts(folder: Path, settings: SweepSettings) -> dict[str, Any]:
    """What all runs of a file must have in common."""
    card = folder / CARD_NAME
    model = read_json(card).get("files", {}) if card.is_file() else {
        item.name: [item.stat().st_size, int(item.stat().st_mtime)] for item in
        ([folder] if folder.is_file() else sorted(folder.glob("*.*")))}
    machine = probe()
    return {"model": fingerprint(model), "cores": machine.cores, "isa": list(machine.isa), **settings.common}
