"""Processors, and the threads of a model: quota, affinity, nodes, clocks, priority, other load, connections.

The threads of the engine wait for each other after every operator, so the slowest of them sets the pace: one thread
more than there are free processors costs more than one thread less.
"""

from __future__ import annotations

import shlex

from openautoglm.core.care_memory import served, size
from openautoglm.core.hardware import Machine
from openautoglm.core.kernel import UNLIMITED, Kernel, Node
from openautoglm.core.needs import Demand, Finding

SPARE_FILES = 256
"""Descriptors of a server besides one for each connection: its files, its engine, its log, its registry."""
_STEADY = ("performance", "schedutil", "ondemand")
_BUSY_SHARE = 0.25


def cores(machine: Machine, kernel: Kernel) -> int:
    """Processors that this process can keep busy: those that it may use, within the quota, at least one."""
    allowed = len(kernel.allowed_cpus) or machine.cores
    return max(1, min(allowed, int(kernel.quota))) if kernel.quota is not None else allowed


def quota(demand: Demand, machine: Machine, kernel: Kernel) -> Finding:
    """A quota lets all threads run and then stops them all, so threads beyond it make pauses, not speed."""
    most = cores(machine, kernel)
    threads = demand.threads or most
    settings = {"program.threads": min(threads, most)}
    if kernel.quota is None:
        return Finding("CPU quota", "ok", "none", settings=settings)
    found = f"{kernel.quota:g} processors"
    if kernel.throttled:
        found += f"; it has stopped this group {kernel.throttled:,} times"
    if threads > kernel.quota:
        return Finding("CPU quota", "warning", f"{found}; {threads} threads would run into it",
                       f"serve with {most} thread{'s' if most > 1 else ''}, or raise the quota (docker --cpus, "
                       "Kubernetes limits.cpu, systemd CPUQuota)", settings=settings)
    return Finding("CPU quota", "ok", found, settings=settings)


def affinity(demand: Demand, machine: Machine, kernel: Kernel) -> Finding:
    """The processors that this process may use, against the threads that shall compute."""
    if not kernel.allowed_cpus:
        return Finding("CPU affinity", "unknown", f"the system does not say; {machine.cores} processors")
    allowed = len(kernel.allowed_cpus)
    found = f"{allowed} of {len(kernel.online_cpus)} processors" if kernel.online_cpus else f"{allowed} processors"
    if demand.threads is not None and demand.threads > allowed:
        return Finding("CPU affinity", "warning", f"{found} for {demand.threads} threads, which wait for each other",
                       f"serve with {allowed}, or allow more processors", commands=(
                           "taskset -pc 0-$(($(nproc --all) - 1)) $$",), settings={"program.threads": allowed})
    return Finding("CPU affinity", "ok", found)


def nodes(demand: Demand, kernel: Kernel) -> Finding:
    """On several nodes of memory a model is fastest on one of them, with the processors there, if it fits."""
    if not kernel.nodes:
        return Finding("NUMA", "unknown", "the system does not say")
    if len(kernel.nodes) == 1:
        return Finding("NUMA", "ok", "one node")
    allowed = set(kernel.allowed_cpus)
    usable = [node for node in kernel.nodes if allowed & set(node.cpus)]
    if len(usable) == 1:
        return Finding("NUMA", "ok", f"{len(kernel.nodes)} nodes; this process runs on node {usable[0].number} alone")
    room = ", ".join(f"{node.number}: {len(node.cpus)} processors, "
                     f"{'?' if node.free_bytes is None else size(node.free_bytes)} free" for node in kernel.nodes)
    best = _fitting(demand, usable)
    if best is None:
        return Finding("NUMA", "warning", f"{len(kernel.nodes)} nodes ({room}); the model fits into none",
                       "spread its pages over all of them", commands=(f"numactl --interleave=all {served(demand)}",))
    here = sorted(allowed & set(best.cpus))
    threads = min(demand.threads or len(here), len(here), max(1, int(kernel.quota or len(here))))
    return Finding("NUMA", "warning", f"{len(kernel.nodes)} nodes ({room})", f"stay on node {best.number}, or start "
                   f"a replica for each (--replicas {len(usable)})",
                   commands=(f"numactl --cpunodebind={best.number} --membind={best.number} {served(demand)}",),
                   settings={"process.cpus": here, "program.threads": threads})


def _fitting(demand: Demand, usable: list[Node]) -> Node | None:
    """The node with the most free memory, if that is enough."""
    best = max(usable, key=lambda node: (node.free_bytes or 0, -node.number), default=None)
    return best if best is not None and (best.free_bytes or 0) >= demand.process_bytes else None


def clocks(kernel: Kernel) -> Finding:
    """Whether the processors may run at full speed at once."""
    if not kernel.governors:
        return Finding("CPU clock", "unknown", "the system does not say; in a container or a virtual machine the host "
                       "sets it")
    found = ", ".join(kernel.governors) + (f" ({kernel.driver})" if kernel.driver else "")
    own = (kernel.driver or "").startswith(("intel_pstate", "amd-pstate", "amd_pstate"))
    if all(name in _STEADY or (own and name == "powersave") for name in kernel.governors):
        return Finding("CPU clock", "ok", found)
    return Finding("CPU clock", "warning", f"{found}: processors are kept slow", "let them run at full speed", (), (
        "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",))


def priority(demand: Demand, kernel: Kernel) -> Finding:
    """The priority of this process, which what it starts has too; only root raises it."""
    have, want = kernel.nice, demand.nice
    if have is None:
        return Finding("priority", "unknown", "the system does not say",
                       settings={} if want is None else {"process.nice": want})
    settings = {} if want is None else {"process.nice": want}
    if want is not None and want < have and not kernel.may_raise:
        lines = (f"sudo nice -n {want} setpriv --reuid=$(id -u) --regid=$(id -g) --init-groups {served(demand)}",
                 f"sudo renice -n {want} -p $(pgrep -d ' ' -f {shlex.quote(served(demand))})")
        return Finding("priority", "warning", f"nice {have}; {want} was asked for",
                       "raising a priority needs root or CAP_SYS_NICE (docker --cap-add SYS_NICE)", commands=lines)
    if want is None and have > 0:
        return Finding("priority", "warning", f"nice {have}: every other program goes first",
                       "start it from a shell of the usual priority", commands=("sudo renice -n 0 -p $$",))
    found = f"nice {have}" if want is None or want == have else f"nice {have}; {want} was asked for"
    return Finding("priority", "ok", found, settings=settings)


def load(demand: Demand, machine: Machine, kernel: Kernel) -> Finding:
    """What else keeps the processors busy."""
    if kernel.load is None:
        return Finding("other load", "unknown", "the system does not say")
    there = len(kernel.online_cpus) or machine.cores
    found = f"{kernel.load:.1f} of {there} processors busy on average of the last minute"
    if kernel.load <= _BUSY_SHARE * there:
        return Finding("other load", "ok", found)
    free = max(1, round(min(there - kernel.load, cores(machine, kernel))))
    return Finding("other load", "warning", f"{found}; threads that wait for each other go at the pace of the slowest",
                   f"end it, give it a lower priority, or serve with --threads {free}",
                   commands=("ps aux --sort=-%cpu | head", "renice -n 10 -p PID"))


def open_files(demand: Demand, kernel: Kernel) -> Finding:
    """A descriptor for each connection, and some for the server itself."""
    limit, needed = kernel.open_files, demand.connections + SPARE_FILES
    if limit is None:
        return Finding("open files", "unknown", "the system does not say")
    found = "no limit" if limit.soft == UNLIMITED else f"{limit.soft:,}"
    if limit.soft >= needed:
        return Finding("open files", "ok", found)
    found = f"{found}, {needed:,} are needed for {demand.connections:,} connections"
    if limit.hard >= needed:
        return Finding("open files", "warning", found, "raise it", commands=(f"ulimit -n {needed}",),
                       settings={"process.open_files": needed})
    settings = {"process.open_files": limit.hard} if limit.hard > limit.soft else {}
    return Finding("open files", "warning", f"{found}; {limit.hard:,} is the most that it may be set to",
                   "raise it for the container or the service (docker --ulimit nofile, systemd LimitNOFILE)",
                   commands=(f"echo \"$USER hard nofile {needed}\" | sudo tee /etc/security/limits.d/90-autoglm.conf",
                             f"sudo prlimit --pid $$ --nofile={needed}:{needed}"), settings=settings)
