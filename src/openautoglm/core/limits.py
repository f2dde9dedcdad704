"""What a control group (container, systemd slice, batch job) allows this process: memory and CPU, v1 and v2.

Every level between the process's own group and the root may set a limit, so the smallest counts. Paths follow
the kernel's documents admin-guide/cgroup-v1 and cgroup-v2.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

UNLIMITED_FROM_BYTES = 1 << 60  # version 1 writes a number near 2**63 for "no limit"


def memory_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return the smallest memory limit on this process, or None."""
    limits = []
    for folder in _folders(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            value = number(folder / name)
            if value is not None and value < UNLIMITED_FROM_BYTES:
                limits.append(value)
    return min(limits, default=None)


def memory_used_bytes(root: Path = Path("/")) -> int | None:
    """Return what the limited group uses now, less the file cache that the kernel can take back; or None."""
    for folder in _folders(root, "memory"):
        limit = number(folder / "memory.max") or number(folder / "memory.limit_in_bytes")
        used = number(folder / "memory.current") or number(folder / "memory.usage_in_bytes")
        if used is not None and limit is not None and limit < UNLIMITED_FROM_BYTES:
            return max(used - _inactive_file_bytes(folder / "memory.stat"), 0)
    return None


def memory_high_bytes(root: Path = Path("/")) -> int | None:
    """Return from where on the kernel slows this process down to take memory back, or None."""
    return min(_values(root, "memory", "memory.high"), default=None)


def swap_limit_bytes(root: Path = Path("/")) -> int | None:
    """Return how much swap this process may use, or None where no group bounds it; version 2 alone."""
    return min(_values(root, "memory", "memory.swap.max"), default=None)


def throttled(root: Path = Path("/")) -> int | None:
    """Return how often the group of this process was stopped because its CPU quota was used up, or None."""
    for folder in _folders(root, "cpu"):
        found = dict(line.split(None, 1) for line in text(folder / "cpu.stat").splitlines() if " " in line)
        if found.get("nr_throttled", "").isdigit():
            return int(found["nr_throttled"])
    return None


def cpu_limit(root: Path = Path("/")) -> float | None:
    """Return the smallest CPU quota on this process, in cores, or None."""
    limits = []
    for folder in _folders(root, "cpu"):
        quota, period = _quota(folder)
        if quota is not None and quota > 0 and period:
            limits.append(quota / period)
    return min(limits, default=None)


def _values(root: Path, controller: str, name: str) -> list[int]:
    """The numbers in a file of all levels; ``max`` and absent ones are left out."""
    found = (number(folder / name) for folder in _folders(root, controller))
    return [value for value in found if value is not None and value < UNLIMITED_FROM_BYTES]


def _quota(folder: Path) -> tuple[int | None, int | None]:
    modern = text(folder / "cpu.max").split()
    if len(modern) == 2:
        return (int(modern[0]) if modern[0].isdigit() else None), int(modern[1])
    return number(folder / "cpu.cfs_quota_us"), number(folder / "cpu.cfs_period_us")


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """The folders of our group and of its ancestors, for version 1 and version 2, own group first."""
    mounted = root / "sys/fs/cgroup"
    for line in text(root / "proc/self/cgroup").splitlines():
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            tops = [mounted, mounted / "unified"]
        elif controller in controllers.split(","):
            tops = [mounted / controllers, mounted / controller]
        else:
            continue
        for top in dict.fromkeys(tops):
            own = top / group.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(top))


def _inactive_file_bytes(path: Path) -> int:
    facts = dict(line.split(None, 1) for line in text(path).splitlines() if " " in line)
    value = facts.get("total_inactive_file", facts.get("inactive_file", "0"))
    return int(value) if value.isdigit() else 0


def number(path: Path) -> int | None:
    """The whole number in a kernel file; None where there is none."""
    found = text(path).strip()
    return int(found) if found.removeprefix("-").isdigit() else None


def text(path: Path) -> str:
    """The text of a kernel file; empty where it is absent or may not be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
