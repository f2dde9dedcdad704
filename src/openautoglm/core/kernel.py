"""What the kernel says of itself and of this process: swap, huge pages, clock speeds, priority, limits, other load.

Every fact comes from a file under one root, so that tests have machines of paper; what is not there is None. Paths and
meanings follow the kernel's documents (admin-guide/sysctl/vm, admin-guide/mm/transhuge, admin-guide/pm/cpufreq) and
proc(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from openautoglm.core import limits

_SYS_NICE = 1 << 23
UNLIMITED = (1 << 64) - 1
"""A limit of the process that says "unlimited"."""


@dataclass(frozen=True, slots=True)
class Node:
    """A node of memory with its processors (NUMA); `free_bytes` as the kernel counts pages of nobody."""

    number: int
    cpus: tuple[int, ...]
    free_bytes: int | None


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit of this process: what holds now, and how far it may be raised without rights."""

    soft: int
    hard: int


@dataclass(frozen=True, slots=True)
class Kernel:
    """Facts of the kernel; None, or empty, where they cannot be read.

    Attributes:
        memory_bytes: of the machine; swap_bytes, swap_free_bytes: of its swap.
        reserved_bytes: memory in huge pages that were reserved and that nobody uses: lost for everybody else.
        commit_limit_bytes, committed_bytes: what may be promised to processes, and what is; they bind in mode 2 alone.
        swappiness, overcommit: ``vm.swappiness``, ``vm.overcommit_memory``.
        huge_pages: ``always``, ``madvise`` or ``never``.
        governors: of the processors' clocks, each once; driver: which sets them.
        allowed_cpus, online_cpus: processors that this process may use, and that there are.
        quota: processors that the control group allows; throttled: how often it has stopped this group so far.
        group_high_bytes: above it the control group slows its processes down; group_swap_bytes: swap it may use.
        nodes: of memory.
        nice: of this process; may_raise: whether it may set one below that.
        load: processes that ran or waited for a processor, on average of a minute.
        pressure: share of the last ten seconds in which some process waited for memory, 0 to 1.
        open_files, locked: limits of this process; locked in bytes.
    """

    memory_bytes: int | None = None
    swap_bytes: int | None = None
    swap_free_bytes: int | None = None
    reserved_bytes: int | None = None
    commit_limit_bytes: int | None = None
    committed_bytes: int | None = None
    swappiness: int | None = None
    overcommit: int | None = None
    huge_pages: str | None = None
    governors: tuple[str, ...] = ()
    driver: str | None = None
    allowed_cpus: tuple[int, ...] = ()
    online_cpus: tuple[int, ...] = ()
    quota: float | None = None
    throttled: int | None = None
    group_high_bytes: int | None = None
    group_swap_bytes: int | None = None
    nodes: tuple[Node, ...] = ()
    nice: int | None = None
    may_raise: bool | None = None
    load: float | None = None
    pressure: float | None = None
    open_files: Limit | None = None
    locked: Limit | None = None


def look(root: Path = Path("/")) -> Kernel:
    """Read all facts; takes milliseconds, and no rights.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    memory, proc = _memory(root), root / "proc"
    status = _fields(limits.text(proc / "self/status"))
    bounds = _limits(limits.text(proc / "self/limits"))
    clocks = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"))
    load = limits.text(proc / "loadavg").split()
    some = re.search(r"some avg10=([\d.]+)", limits.text(proc / "pressure/memory"))
    return Kernel(
        memory_bytes=memory.get("MemTotal"), swap_bytes=memory.get("SwapTotal"),
        swap_free_bytes=memory.get("SwapFree"), reserved_bytes=memory.get("reserved"),
        commit_limit_bytes=memory.get("CommitLimit"), committed_bytes=memory.get("Committed_AS"),
        swappiness=limits.number(proc / "sys/vm/swappiness"),
        overcommit=limits.number(proc / "sys/vm/overcommit_memory"),
        huge_pages=_chosen(limits.text(root / "sys/kernel/mm/transparent_hugepage/enabled")),
        governors=tuple(dict.fromkeys(name for name in (limits.text(path).strip() for path in clocks) if name)),
        driver=limits.text(clocks[0].parent / "scaling_driver").strip() or None if clocks else None,
        allowed_cpus=numbers(status.get("Cpus_allowed_list", "")),
        online_cpus=numbers(limits.text(root / "sys/devices/system/cpu/online")),
        quota=limits.cpu_limit(root), throttled=limits.throttled(root),
        group_high_bytes=limits.memory_high_bytes(root), group_swap_bytes=limits.swap_limit_bytes(root),
        nodes=_nodes(root), nice=_nice(limits.text(proc / "self/stat")),
        may_raise=_may_raise(status.get("CapEff"), bounds.get("nice priority")),
        load=float(load[0]) if load and re.fullmatch(r"[\d.]+", load[0]) else None,
        pressure=float(some[1]) / 100 if some else None,
        open_files=bounds.get("open files"), locked=bounds.get("locked memory"))


def numbers(text: str) -> tuple[int, ...]:
    """The numbers of a list as the kernel writes it: ``0-2,5`` is 0, 1, 2, 5; empty where it is none."""
    found = list[int]()
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            return ()
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


def _fields(text: str) -> dict[str, str]:
    """Lines ``key: value``."""
    parts = (line.partition(":") for line in text.splitlines())
    return {key.strip(): value.strip() for key, _, value in parts}


def _memory(root: Path) -> dict[str, int]:
    """Bytes by the names of ``meminfo``, and what huge pages without a user take."""
    found = {}
    for key, value in _fields(limits.text(root / "proc/meminfo")).items():
        words = value.split()
        if words and words[0].isdigit():
            found[key] = int(words[0]) << (10 if words[1:] == ["kB"] else 0)
    if "HugePages_Free" in found and "Hugepagesize" in found:
        found["reserved"] = found["HugePages_Free"] * found["Hugepagesize"]
    return found


def _limits(text: str) -> dict[str, Limit]:
    """Limits by their names without "Max"."""
    found = {}
    for line in text.splitlines():
        row = re.match(r"Max (.+?)\s{2,}(\S+)\s+(\S+)", line)
        if row:
            soft, hard = (UNLIMITED if word == "unlimited" else int(word) if word.isdigit() else None
                          for word in row.group(2, 3))
            if soft is not None and hard is not None:
                found[row[1]] = Limit(soft, hard)
    return found


def _chosen(text: str) -> str | None:
    """The word in brackets."""
    found = re.search(r"\[(\w+)\]", text)
    return found[1] if found else None


def _nice(stat: str) -> int | None:
    """The 19th field; the second, the program's name, may hold spaces and brackets."""
    fields = stat.rpartition(")")[2].split()
    return int(fields[16]) if len(fields) > 16 and fields[16].removeprefix("-").isdigit() else None


def _may_raise(capabilities: str | None, bound: Limit | None) -> bool | None:
    if capabilities is None or not re.fullmatch("[0-9a-f]+", capabilities):
        return None
    return bool(int(capabilities, 16) & _SYS_NICE) or (bound is not None and bound.soft > 20)


def _nodes(root: Path) -> tuple[Node, ...]:
    found = []
    for folder in root.glob("sys/devices/system/node/node[0-9]*"):
        free = re.search(r"MemFree:\s+(\d+) kB", limits.text(folder / "meminfo"))
        found.append(Node(int(folder.name.removeprefix("node")), numbers(limits.text(folder / "cpulist")),
                          int(free[1]) << 10 if free else None))
    return tuple(sorted(found, key=lambda node: node.number))
