"""Faults under load, each on a real ``autoglm serve``: how long until service is back, and what became of the requests.

    python benchmarks/faults.py [--clients 16] [--only killed leave] [--out faults.json]

``killed``: the engine gets SIGKILL; ``memory``: it runs out of memory; ``hung``: it gets SIGSTOP, which is noticed when
no step came for a minute; ``leave``: 1,000 clients leave in the midst of their answers; ``slow``: clients that do not
read are given up after half a minute; ``ending``: SIGTERM; ``hurry``: a second one.

Violations, which make the exit status 1: a request that was taken and is lost without an error, an outcome that the
fault does not explain, pages that stay held, memory that grows, another exit status than documented.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import psutil
from fault_load import Load, hang_up, raw, visit_and_leave
from served import MODEL, Served, until, write_small

MIB = 1 << 20
GROWTH_MIB = 128
BODY: dict[str, Any] = {"model": MODEL, "prompt": "The Punter", "stream": True, "ignore_eos": True, "temperature": 1.0}
MIXED = [{**BODY, "max_tokens": 300}, {**BODY, "max_tokens": 100, "stream": False},
         {**BODY, "max_tokens": 200, "n": 2}]
ENGINE_FAULTS = {"finished", "error engine_lost", "503 engine_lost", "503 unavailable"}
Report = dict[str, Any]


def told(load: Load, violations: list[str], allowed: Collection[str], since: float) -> Report:
    """The outcomes of a load, and what must not be among them."""
    lost = load.lost(before=since)
    if lost:
        violations.append(f"{len(lost)} requests were lost without an error, e.g. {lost[0]}")
    strange = set(load.counts()) - set(allowed)
    if strange:
        violations.append(f"outcomes that nothing explains: {sorted(strange)}")
    return {"outcomes": dict(sorted(load.counts().items())), "violations": violations}


async def with_engine_fault(bundle: Path, clients: int, strike: Callable[[psutil.Process], None],
                            bodies: Sequence[dict[str, Any]] = MIXED) -> Report:
    """Let something happen to the engine under load; the load goes on until it is served again."""
    violations: list[str] = []
    with Served(bundle) as served:
        async with Load(served.url, clients, bodies) as load:
            await _until(lambda: load.counts()["finished"] > 2 * clients)
            engine, since = served.engine, time.monotonic()
            assert engine is not None
            strike(engine)
            noticed = await _until(lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)
            since_lost = time.monotonic()
            ready = await _until(served.ready)
            await _until(lambda: load.recovered_s(since) is not None and load.recovered_s(since_lost) is not None)
            after = len(load.outcomes)
            await _until(lambda: len(load.outcomes) > after + 2 * clients)
        report = told(load, violations, ENGINE_FAULTS, float("inf"))
        if served.engine is None or served.engine == engine:
            violations.append("there is no other engine than before")
        return {**report, "fault_to_end_of_engine_s": round(noticed, 3), "end_of_engine_to_ready_s": round(ready, 3),
                "end_of_engine_to_first_answer_s": round(load.recovered_s(since_lost) or 0.0, 3)}


async def killed(bundle: Path, clients: int) -> Report:
    """SIGKILL."""
    return await with_engine_fault(bundle, clients, lambda engine: engine.send_signal(signal.SIGKILL))


async def hung(bundle: Path, clients: int) -> Report:
    """SIGSTOP."""
    return await with_engine_fault(bundle, clients, lambda engine: engine.send_signal(signal.SIGSTOP))


async def memory(bundle: Path, clients: int) -> Report:
    """No more memory than it has."""
    def strike(engine: psutil.Process) -> None:
        room = engine.memory_info().vms
        resource.prlimit(engine.pid, resource.RLIMIT_AS, (room, room))

    return await with_engine_fault(bundle, clients, strike, [
        {**BODY, "prompt": f"{number} " * 1200, "max_tokens": 60, "logprobs": 20} for number in range(64)])


async def leave(bundle: Path, clients: int) -> Report:
    """1,000 clients that leave, two hundred at a time."""
    violations: list[str] = []
    with Served(bundle, "--max-batch", "32") as served:
        engine, before = served.engine, served.memory_bytes
        found: Counter[str] = Counter()
        for _ in range(5):
            found += await asyncio.to_thread(visit_and_leave, served.url, [
                {**BODY, "prompt": f"Pub {number}", "max_tokens": 6000} for number in range(200)])
        freed = await _until(lambda: idle(served))
        return {**aftermath(served, engine, before, violations), "outcomes": dict(found), "violations": violations,
                "last_to_left_all_freed_s": round(freed, 3)}


async def slow(bundle: Path, clients: int) -> Report:
    """Clients that do not read, and others which do."""
    violations: list[str] = []
    with Served(bundle, "--max-batch", "64") as served:
        engine, before = served.engine, served.memory_bytes
        lines = [raw(served.url, {**BODY, "prompt": f"Pub {number}", "max_tokens": 6000, "logprobs": 20},
                     receive_bytes=2048) for number in range(2 * clients)]
        since = time.monotonic()
        async with Load(served.url, clients, MIXED) as load:
            await _until(lambda: load.counts()["finished"] > 4 * clients)
        freed = await _until(lambda: idle(served), 300)
        for line in lines:
            hang_up(line, rudely=True)
        return {**told(load, violations, {"finished"}, since), **aftermath(served, engine, before, violations),
                "until_all_were_given_up_s": round(freed, 3)}


async def ending(bundle: Path, clients: int) -> Report:
    """SIGTERM."""
    violations: list[str] = []
    with Served(bundle, "--max-batch", "4", "--shutdown-timeout", "120") as served:
        async with Load(served.url, clients, MIXED) as load:
            await _until(lambda: load.counts()["finished"] > 2 * clients)
            since = time.monotonic()
            served.tell()
            took = await _until(lambda: served.process.poll() is not None)
        if served.process.returncode != 0:
            violations.append(f"the exit status is {served.process.returncode}, not 0")
        allowed = {"finished", "503 unavailable", "cut"}
        return {**told(load, violations, allowed, since), "ended_after_s": round(took, 3)}


async def hurry(bundle: Path, clients: int) -> Report:
    """A second SIGTERM."""
    violations: list[str] = []
    with Served(bundle, "--max-batch", "4", "--shutdown-timeout", "600") as served:
        bodies = [{**body, "max_tokens": 8000} for body in MIXED]
        async with Load(served.url, clients, bodies, again=False) as load:
            await _until(lambda: served.figure("vllm:num_requests_running") > 0 and load.under_way == clients)
            served.tell()
            await _until(lambda: not served.ready())
            since = time.monotonic()
            served.tell()
            took = await _until(lambda: served.process.poll() is not None)
        if served.process.returncode != 1:
            violations.append(f"the exit status is {served.process.returncode}, not 1")
        return {**told(load, violations, ENGINE_FAULTS | {"error unavailable"}, since), "ended_after_s": round(took, 3)}


def idle(served: Served) -> bool:
    """Whether nothing runs or waits, and no page is held."""
    return not any(map(served.figure, ("vllm:num_requests_running", "vllm:num_requests_waiting",
                                       "vllm:kv_cache_usage_perc")))


def aftermath(served: Served, engine: psutil.Process | None, before: tuple[int, int], violations: list[str]) -> Report:
    """Whether the same engine goes on with the memory that it had."""
    if served.engine != engine or not served.ready():
        violations.append("the engine is another one than before, or not ready")
    after = served.memory_bytes
    if max(new - old for old, new in zip(before, after, strict=True)) > GROWTH_MIB * MIB:
        violations.append("the memory of the server or its engine grew")
    return {"memory_mib_before": [round(size / MIB, 1) for size in before],
            "memory_mib_after": [round(size / MIB, 1) for size in after]}


async def _until(condition: Callable[[], bool], timeout_s: float = 240.0) -> float:
    return await asyncio.to_thread(until, condition, timeout_s)


FAULTS: dict[str, Callable[[Path, int], Awaitable[Report]]] = {
    "killed": killed, "memory": memory, "hung": hung, "leave": leave, "slow": slow, "ending": ending, "hurry": hurry}


def main(arguments: list[str] | None = None) -> int:
    """Strike and report."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args(arguments)
    reports: dict[str, Report] = {}
    print("| fault | requests by outcome | seconds |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_small(Path(folder))
        for name in options.only:
            found = reports[name] = asyncio.run(FAULTS[name](bundle, options.clients))
            outcomes = ", ".join(f"{count} {kind}" for kind, count in found["outcomes"].items())
            seconds = ", ".join(f"{key[:-2].replace('_', ' ')} {value}" for key, value in found.items()
                                if key.endswith("_s"))
            print(f"| {name} | {outcomes} | {seconds} |", flush=True)
    violations = [f"{name}: {sentence}" for name, found in reports.items() for sentence in found["violations"]]
    for sentence in violations:
        print(f"VIOLATION: {sentence}")
    if options.out is not None:
        machine = {"cores": os.cpu_count(), "clients": options.clients}
        options.out.write_text(json.dumps({"machine": machine, "faults": reports}, indent=2) + "\n", encoding="utf-8")
    return int(bool(violations))


if __name__ == "__main__":
    sys.exit(main())
