"""Machines of paper: folders that look like the kernel's ``proc`` and ``sys``."""

from __future__ import annotations

from pathlib import Path

GIB_KB = 1 << 20
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max open files            {soft}                 {hard}               files
Max locked memory         8388608              unlimited            bytes
Max nice priority         {nice}                    {nice}
"""


def meminfo(total_gib: int = 16, free_gib: float = 12, swap_gib: int = 0, swap_free_gib: int = 0, huge: int = 0) -> str:
    """A ``meminfo``; huge: pages of 2 MiB that are reserved and free."""
    return (f"MemTotal: {total_gib * GIB_KB} kB\nMemAvailable: {int(free_gib * GIB_KB)} kB\n"
            f"SwapTotal: {swap_gib * GIB_KB} kB\nSwapFree: {swap_free_gib * GIB_KB} kB\n"
            f"CommitLimit: {8 * GIB_KB} kB\nCommitted_AS: {5 * GIB_KB} kB\n"
            f"HugePages_Free: {huge}\nHugepagesize: 2048 kB\n")


def limits(soft: str = "65536", hard: str = "65536", nice: int = 0) -> str:
    """``/proc/self/limits``."""
    return LIMITS.format(soft=soft, hard=hard, nice=nice)


def stat(nice: int = 0) -> str:
    """``/proc/self/stat`` of a program with a difficult name."""
    return "7 (a b) c) S 1 7 7 0 -1 4194304 " + "0 " * 8 + f"20 {nice} 1 0 100\n"


WELL = {
    "proc/meminfo": meminfo(), "proc/sys/vm/swappiness": "60\n", "proc/sys/vm/overcommit_memory": "0\n",
    "proc/loadavg": "0.25 0.10 0.05 1/200 77\n", "proc/pressure/memory": "some avg10=1.50 avg60=0 avg300=0 total=9\n",
    "proc/self/limits": limits(), "proc/self/stat": stat(),
    "proc/self/status": "Name:\tx\nCapEff:\t0000000000000000\nCpus_allowed_list:\t0-3\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/devices/system/cpu/online": "0-3\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "powersave\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_driver": "intel_pstate\n",
    "sys/devices/system/node/node0/cpulist": "0-3\n",
    "sys/devices/system/node/node0/meminfo": f"Node 0 MemTotal: {16 * GIB_KB} kB\nNode 0 MemFree: {6 * GIB_KB} kB\n",
}
"""Four processors, 16 GiB, 12 of them free, no swap, nothing that needs care."""


def paper(root: Path, **changes: str | None) -> Path:
    """Write `WELL` with some files changed, or left out where they are None."""
    for name, text in {**WELL, **changes}.items():
        if text is not None:
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    return root
